"""Filter `kube_pending`: which of the objects that a role waits for do not run yet, by what applying them answered.

On a run that changes nothing the API server's answers say already that everything runs, and nobody has to ask again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

from kube_reason import state


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"kube_pending": kube_pending}


def kube_pending(waits: Iterable[Mapping[str, Any]], applied: Any) -> list[Mapping[str, Any]]:
    """`applied` is what a task of kubernetes.core.k8s registered; an object that is not in it counts as pending."""
    found = {_identity(document): document for document in _documents(applied)}
    pending = []
    for wait in waits:
        document = found.get((wait["kind"], wait["namespace"], wait["name"]))
        if document is None or not state(wait["kind"], document).ready:
            pending.append(wait)
    return pending


def _documents(applied: Any) -> Iterator[Mapping[str, Any]]:
    """One document is registered as it is, several as a list of results."""
    result = applied.get("result") if isinstance(applied, Mapping) else None
    results = [entry.get("result") for entry in result["results"]] if result and "results" in result else [result]
    for document in results:
        if document and "metadata" in document:
            yield document


def _identity(document: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    return document.get("kind"), document["metadata"].get("namespace"), document["metadata"].get("name")
