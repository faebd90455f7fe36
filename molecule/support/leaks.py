"""Finds secrets where none may be, and tells their names and never their values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

SHORTEST = 12  # what is shorter may stand in a text by chance


def named(tree: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield name and value of every secret of a tree of them."""
    if isinstance(tree, dict):
        for key, inner in tree.items():
            yield from named(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, str(tree).strip()


def leaked(tree: Any, text: str) -> list[str]:
    """Return the names of the secrets of a tree that a text holds, whole or in one line of several."""
    found = []
    for name, value in named(tree):
        if name.endswith(("certificate", "minio_root_user", "access_key")):  # what everybody may know
            continue
        lines = [line for line in value.splitlines() if not line.startswith("-----") and len(line) >= SHORTEST]
        if any(line in text for line in lines):
            found.append(name)
    return found
