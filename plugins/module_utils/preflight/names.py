"""Names that are nearly right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(name: str, known: Iterable[str], cutoff: float = 0.8) -> str | None:
    found = difflib.get_close_matches(name, sorted(known), n=1, cutoff=cutoff)
    return found[0] if found else None


def prefix_of(name: str, prefixes: Iterable[str]) -> str | None:
    """The prefix that makes an unknown variable look like one of ours; users' other variables stay unnoticed."""
    return next((prefix for prefix in sorted(prefixes) if name.startswith(f"{prefix}_")), None)
