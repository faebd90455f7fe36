"""Pagination cursors as input: whatever somebody makes of one, it is a position, or it is refused."""

import base64
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slipway_kit.pagination import Cursor
from slipway_testing.checks import assert_problem
from slipway_testing.platform import Platform, User

POSTS = "/api/v1/posts"
# Each example is a request; the fixtures hold nothing that examples change.
OVER_HTTP = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
POSITIONS = st.builds(
    lambda micros, id_: Cursor(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros), id_),
    st.integers(min_value=-62_135_596_800_000_000, max_value=253_402_300_799_999_999),
    st.uuids(),
)


@pytest.fixture(scope="module")
def author(platform: Platform) -> User:
    """Somebody with twelve posts, of which some are of the same moment."""
    author = platform.new_user("pages")
    sql = """
        INSERT INTO posts (author_id, author_name, title, content, created_at)
        SELECT $1, $2, 'post ' || n, 'x', timestamptz '2021-03-04 05:06:07.89+00' + (n / 3) * interval '1 microsecond'
        FROM generate_series(1, 12) AS n
    """
    platform.postgres.query("api_db", sql, uuid.UUID(author.id), author.username)
    return author


@pytest.fixture(scope="module")
def client(platform: Platform, author: User) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=platform.url("api"), headers=author.headers) as client:
        yield client


def mine(client: httpx2.Client, **parameters: object) -> dict[str, Any]:
    answer = client.get(f"{POSTS}/my", params={name: str(value) for name, value in parameters.items()})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


@given(limits=st.lists(st.integers(1, 5), min_size=12, max_size=12))
@OVER_HTTP
def test_pages_of_any_sizes_make_the_whole_list(client: httpx2.Client, limits: list[int]) -> None:
    whole = mine(client, limit=100)["items"]
    assert len(whole) == 12
    seen: list[dict[str, str]] = []
    cursor: object = ""
    for limit in limits:
        page = mine(client, limit=limit, cursor=cursor)
        assert len(page["items"]) <= limit
        seen += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == whole[: len(seen)]
    assert (cursor is None) == (len(seen) == 12)


@given(position=POSITIONS)
@OVER_HTTP
def test_any_position_shows_what_is_behind_it(client: httpx2.Client, position: Cursor) -> None:
    """Nobody has to have been given it: it tells no secret and opens no door, so it is not signed."""
    page = mine(client, limit=100, cursor=position.encode())

    def key(item: dict[str, str]) -> tuple[datetime, int]:
        return datetime.fromisoformat(item["created_at"]), uuid.UUID(item["id"]).int

    whole = mine(client, limit=100)["items"]
    assert page["items"] == [item for item in whole if key(item) < (position.created_at, position.id.int)]


@given(position=POSITIONS, flip=st.integers(0, 34 * 8 - 1))
@OVER_HTTP
def test_a_tampered_cursor_is_a_position_or_refused(client: httpx2.Client, position: Cursor, flip: int) -> None:
    text = bytearray(position.encode().encode())
    text[flip // 8 % len(text)] ^= 1 << flip % 8
    answer = client.get(f"{POSTS}/my", params={"cursor": bytes(text).decode("latin-1")})
    if answer.status_code == 200:
        # Then it is exactly the text of another position.
        assert Cursor.decode(bytes(text).decode()).encode().encode() == bytes(text)
    else:
        assert_problem(answer, 422, "invalid-cursor")


@given(text=st.text(min_size=1, max_size=120))
@OVER_HTTP
def test_any_text_is_a_position_or_refused(client: httpx2.Client, text: str) -> None:
    for path in (POSTS, f"{POSTS}/my"):
        answer = client.get(path, params={"cursor": text})
        assert answer.status_code in (200, 422), answer.text
        if answer.status_code == 422:
            assert answer.json()["type"] in (
                "urn:slipway:problem:invalid-cursor",
                "urn:slipway:problem:invalid-request",
            )


@given(raw=st.binary(min_size=25, max_size=25))
@OVER_HTTP
def test_any_bytes_are_a_position_or_refused(client: httpx2.Client, raw: bytes) -> None:
    """Of the right length and spelling: times that no calendar has are among them."""
    for version in (raw[:1], b"\x01"):
        cursor = base64.urlsafe_b64encode(version + raw[1:]).rstrip(b"=").decode()
        for path in (POSTS, f"{POSTS}/my"):
            answer = client.get(path, params={"cursor": cursor})
            assert answer.status_code in (200, 422), answer.text


def test_the_ends_of_time(client: httpx2.Client) -> None:
    for moment in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        for id_ in (uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)):
            for path in (POSTS, f"{POSTS}/my"):
                assert client.get(path, params={"cursor": Cursor(moment, id_).encode()}).status_code == 200


def test_a_cursor_of_another_list_is_only_a_position(platform: Platform, client: httpx2.Client, author: User) -> None:
    """Of another user's list or of the public one: it never shows whose posts they are not."""
    other = platform.new_user("foreign")
    with httpx2.Client(base_url=platform.url("api")) as public:
        for number in range(3):
            body = {"title": f"foreign {number}", "content": "x"}
            assert public.post(POSTS, json=body, headers=other.headers).status_code == 201
        foreign = public.get(f"{POSTS}/my", params={"limit": 1}, headers=other.headers).json()["next_cursor"]
        of_all = public.get(POSTS, params={"limit": 1}).json()["next_cursor"]
        own = mine(client, limit=5)["next_cursor"]
        for cursor in (foreign, of_all):
            assert {item["author"]["id"] for item in mine(client, cursor=cursor)["items"]} == {author.id}
        seen = public.get(f"{POSTS}/my", params={"cursor": own}, headers=other.headers).json()["items"]
        assert seen == []
        assert public.get(POSTS, params={"cursor": own}).status_code == 200
