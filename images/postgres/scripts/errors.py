"""What can go wrong, as far as the caller has to tell it apart. Messages are one line."""

from __future__ import annotations

from pathlib import Path


class DeclarationError(Exception):
    """What was asked for cannot be done."""


class NotYetError(Exception):
    """Time will help: the passwords are older than the declaration, or this member is not the primary yet."""


def require_declared(file: Path, found: str, wanted: str) -> None:
    """The kubelet brings what was declared into the file some time later; `found` and `wanted` say what is in it."""
    if found != wanted:
        raise NotYetError(f"{file}: found {found[:12]}, wanted {wanted[:12]}, the kubelet is about to bring it")
