"""The cursor: every position survives the round trip, nothing else is accepted."""

import base64
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slipway_kit.pagination import Cursor, page
from slipway_kit.problems import Problem

moments = st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC))
cursors = st.builds(Cursor, moments, st.uuids())


@given(cursors)
def test_round_trip(cursor: Cursor) -> None:
    text = cursor.encode()
    assert Cursor.decode(text) == cursor
    assert text.isascii()
    assert len(text) == 34
    assert not set(text) & set("+/=")


@given(cursors, cursors)
def test_different_positions_have_different_cursors(one: Cursor, other: Cursor) -> None:
    assert (one == other) == (one.encode() == other.encode())


@given(st.text(max_size=60))
def test_any_text_is_a_cursor_or_a_422(text: str) -> None:
    assert_cursor_or_422(text)


def assert_cursor_or_422(text: str) -> None:
    try:
        cursor = Cursor.decode(text)
    except Problem as error:
        assert (error.status_code, error.code) == (422, "invalid-cursor")
    else:
        assert cursor.encode() == text


@given(st.binary(min_size=25, max_size=25))
def test_any_bytes_of_the_right_length_too(raw: bytes) -> None:
    assert_cursor_or_422(base64.urlsafe_b64encode(raw).rstrip(b"=").decode())


@given(cursors, st.integers(0, 33), st.characters(codec="ascii"))
def test_a_changed_cursor_is_another_one_or_none(cursor: Cursor, position: int, character: str) -> None:
    text = cursor.encode()
    changed = text[:position] + character + text[position + 1 :]
    try:
        assert (Cursor.decode(changed) == cursor) == (changed == text)
    except Problem:
        assert changed != text


def test_without_a_cursor_reading_starts_before_everything() -> None:
    start = Cursor.read(None)
    assert start.created_at > datetime.now(UTC)
    assert start.id == UUID(int=2**128 - 1)


@pytest.mark.parametrize(("rows", "shown", "more"), [(0, 0, False), (2, 2, False), (3, 3, False), (4, 3, True)])
def test_page(rows: int, shown: int, more: bool) -> None:
    items = [Cursor(datetime(2026, 1, 1, tzinfo=UTC), UUID(int=number)) for number in range(rows)]
    kept, following = page(items, 3, lambda item: item)
    assert len(kept) == shown
    assert following == (kept[-1].encode() if more else None)
