"""Keyset pagination over (created_at, id), newest first. The cursor is opaque to clients and checked like any input."""

import base64
import binascii
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import UUID

from slipway_kit.problems import Problem

DEFAULT_LIMIT = 20
MAX_LIMIT = 100

# Version, microseconds since the epoch, id. Microseconds are what Postgres keeps: nothing is rounded.
_LAYOUT = struct.Struct(">Bq16s")
_VERSION = 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

T = TypeVar("T")


@dataclass(frozen=True)
class Cursor:
    """Points behind the last item that a client has seen."""

    created_at: datetime
    id: UUID

    def encode(self) -> str:
        raw = _LAYOUT.pack(_VERSION, (self.created_at - _EPOCH) // _MICROSECOND, self.id.bytes)
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    @classmethod
    def read(cls, text: str | None) -> "Cursor":
        """Without a cursor: a position before everything, so that the first page needs no query of its own."""
        return cls.decode(text) if text else cls(datetime.max.replace(tzinfo=UTC), UUID(int=2**128 - 1))

    @classmethod
    def decode(cls, text: str) -> "Cursor":
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            version, micros, id_ = _LAYOUT.unpack(raw)
            cursor = cls(_EPOCH + timedelta(microseconds=micros), UUID(bytes=id_))
        except (binascii.Error, struct.error, ValueError, OverflowError):
            raise invalid_cursor() from None
        # One text for one cursor: nothing else is accepted, neither another version nor stray padding bits.
        if version != _VERSION or cursor.encode() != text:
            raise invalid_cursor()
        return cursor


def invalid_cursor() -> Problem:
    return Problem(422, "invalid-cursor", "The cursor is not one that this service gave out.")


def page(rows: Sequence[T], limit: int, position: Callable[[T], Cursor]) -> tuple[Sequence[T], str | None]:
    """Rows were asked for with limit + 1: the extra one only tells that there is more."""
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], position(rows[limit - 1]).encode()
