"""What can go wrong, as far as the caller has to tell it apart. Messages are one line."""

from __future__ import annotations


class DeclarationError(Exception):
    """What was asked for cannot be done."""


class NotYetError(Exception):
    """Time will help: the passwords are older than the declaration, or this member is not the primary yet."""
