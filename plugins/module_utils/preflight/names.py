"""Names that are nearly right."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable


def closest(name: str, known: Iterable[str], cutoff: float = 0.8) -> str | None:
    found = difflib.get_close_matches(name, sorted(known), n=1, cutoff=cutoff)
    return found[0] if found else None


def is_ours(name: str, known: Collection[str]) -> bool:
    """Does an unknown variable look like one of ours? Users may have variables of their own; those stay unnoticed."""
    prefixes = {entry.split("_", 1)[0] for entry in known if "_" in entry}
    return name.split("_", 1)[0] in prefixes if "_" in name else False
