"""Conditions and ranges of RFC 9110: the pure part against a model of it, then the whole thing over HTTP."""

import socket
import time
from typing import Any

import httpx2
import pytest
import slipway_image.downloads
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slipway_image.downloads import Span, UnsatisfiableError, is_known, parse_range
from slipway_testing.checks import assert_problem
from slipway_testing.image_client import image_client, metric, stored
from slipway_testing.images import jpeg
from slipway_testing.outages import wire_to
from slipway_testing.platform import Platform, User

SIZE = 5000


def model(header: str, size: int) -> str | tuple[int, int]:
    """RFC 9110, 14.1.2, written down slowly: `whole`, `unsatisfiable`, or the first and the last byte."""
    unit, equals, spec = header.partition("=")
    first, dash, last = spec.strip().partition("-")
    if unit.strip().lower() != "bytes" or not equals or not dash:
        return "whole"
    if any(part and not (part.isascii() and part.isdigit()) for part in (first, last)) or not (first or last):
        return "whole"
    if not first:
        wanted = min(int(last), size)
        return (size - wanted, size - 1) if wanted else "unsatisfiable"
    if last and int(last) < int(first):
        return "whole"
    if int(first) >= size:
        return "unsatisfiable"
    return int(first), min(int(last), size - 1) if last else size - 1


def asked(header: str, size: int) -> str | tuple[int, int]:
    try:
        span = parse_range(header, size)
    except UnsatisfiableError:
        return "unsatisfiable"
    return "whole" if span is None else (span.first, span.first + span.length - 1)


NUMBER = st.integers(0, 10**17).map(str) | st.integers(0, 2 * SIZE).map(str) | st.just("")
RANGES = st.builds("{}={}-{}".format, st.sampled_from(["bytes", "BYTES", "Bytes", "items", ""]), NUMBER, NUMBER)


@given(header=RANGES, size=st.integers(1, 2 * SIZE))
def test_ranges_are_as_the_rfc_says(header: str, size: int) -> None:
    assert asked(header, size) == model(header, size)


@given(header=st.text(max_size=60) | st.text(alphabet="bytes=-0123456789, ", max_size=40))
def test_no_header_does_any_harm(header: str) -> None:
    seen = asked(header, SIZE)
    if isinstance(seen, tuple):
        assert 0 <= seen[0] <= seen[1] < SIZE


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", Span(0, 1)),
        ("bytes=0-", Span(0, SIZE)),
        ("bytes=-1", Span(SIZE - 1, 1)),
        (f"bytes=-{SIZE + 5}", Span(0, SIZE)),
        (f"bytes={SIZE - 1}-{SIZE + 100}", Span(SIZE - 1, 1)),
        ("bytes = 5-6 ", Span(5, 2)),
        ("bytes=0-1,3-4", None),
        ("bytes=5-4", None),
        ("bytes=-", None),
        ("bytes=²-³", None),
        ("bytes=" + "9" * 5000 + "-", None),
        ("lines=1-2", None),
    ],
)
def test_ranges(header: str, expected: Span | None) -> None:
    assert parse_range(header, SIZE) == expected


@pytest.mark.parametrize("header", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 5}", "bytes=-0"])
def test_ranges_behind_the_end(header: str) -> None:
    with pytest.raises(UnsatisfiableError):
        parse_range(header, SIZE)


@pytest.mark.parametrize(
    ("header", "known"),
    [
        ('"a"', True),
        ('W/"a"', True),
        ('"b", "a"', True),
        ("*", True),
        ('"b"', False),
        ("a", False),
        ("", False),
        ('"b", *', False),
    ],
)
def test_conditions(header: str, known: bool) -> None:
    assert is_known(header, '"a"') is known


@pytest.fixture(scope="module")
def owner(platform: Platform) -> User:
    return platform.new_user()


@pytest.fixture(scope="module")
def picture() -> bytes:
    return jpeg(SIZE)


@pytest.fixture(scope="module")
def own(platform: Platform, owner: User, picture: bytes) -> dict[str, Any]:
    headers = platform.service_headers("api", "image")
    with httpx2.Client(base_url=platform.url("image"), headers=headers) as client:
        return stored(client, owner, picture)


@given(header=RANGES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ranges_over_http(image: httpx2.Client, owner: User, picture: bytes, own: dict[str, Any], header: str) -> None:
    answer = image.get(f"/images/{own['filename']}", headers=owner.headers | {"Range": header})
    expected = model(header, SIZE)
    if expected == "unsatisfiable":
        assert_problem(answer, 416, "range-not-satisfiable")
        assert answer.headers["content-range"] == f"bytes */{SIZE}"
    elif expected == "whole":
        assert (answer.status_code, answer.content) == (200, picture)
    else:
        first, last = int(expected[0]), int(expected[1])
        assert (answer.status_code, answer.content) == (206, picture[first : last + 1])
        assert answer.headers["content-range"] == f"bytes {first}-{last}/{SIZE}"
        assert answer.headers["content-length"] == str(last - first + 1)
        assert answer.headers["etag"] == f'"{own["sha256"]}"'
        assert answer.headers["vary"] == "Authorization"


def test_ranges_of_variants(image: httpx2.Client, owner: User, other_user: User, own: dict[str, Any]) -> None:
    for path in (f"/images/{own['filename']}", f"/images/{own['filename']}/160"):
        whole = image.get(path, headers=other_user.headers)
        assert whole.headers["accept-ranges"] == "bytes"
        part = image.get(path, headers=other_user.headers | {"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, whole.content[10:20])
        assert part.headers["content-type"] == "image/jpeg"


def test_if_range(image: httpx2.Client, owner: User, own: dict[str, Any], picture: bytes) -> None:
    etag = f'"{own["sha256"]}"'
    for condition, status in (
        (etag, 206),
        (f"W/{etag}", 200),
        ('"other"', 200),
        ("Sat, 21 Nov 2026 10:00:00 GMT", 200),
    ):
        headers = owner.headers | {"Range": "bytes=0-9", "If-Range": condition}
        answer = image.get(f"/images/{own['filename']}", headers=headers)
        assert (answer.status_code, answer.content) == (status, picture[:10] if status == 206 else picture)


def test_what_the_client_knows_is_not_sent_again(
    image: httpx2.Client, owner: User, other_user: User, own: dict[str, Any]
) -> None:
    path, etag = f"/images/{own['filename']}", f'"{own["sha256"]}"'
    for known in (etag, f'"other", W/{etag}', "*"):
        # Before any range.
        headers = owner.headers | {"If-None-Match": known, "Range": "bytes=0-9"}
        answer = image.get(path, headers=headers)
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
        assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert image.get(path, headers=owner.headers | {"If-None-Match": '"other"'}).status_code == 200
    # What the owner knows is not what others get.
    assert image.get(path, headers=other_user.headers | {"If-None-Match": etag}).status_code == 200


def test_head_is_get_without_a_body(image: httpx2.Client, owner: User, other_user: User, own: dict[str, Any]) -> None:
    for path in (f"/images/{own['filename']}", f"/images/{own['filename']}/480"):
        for user in (owner, other_user):
            full = image.get(path, headers=user.headers)
            head = image.head(path, headers=user.headers | {"Range": "bytes=0-1"})
            assert (head.status_code, head.content) == (200, b"")
            for name in ("content-length", "content-type", "etag", "cache-control", "vary", "accept-ranges"):
                assert head.headers[name] == full.headers[name]
            head = image.head(path, headers=user.headers | {"If-None-Match": full.headers["etag"]})
            assert head.status_code == 304
    assert image.head(f"/images/{'0' * 32}.jpg", headers=owner.headers).status_code == 404


def test_the_store_breaks_off_in_the_middle(platform: Platform, owner: User) -> None:
    """The head is out: only a body that stays short can tell."""
    line = wire_to(platform.store.url)
    try:
        with image_client(platform, s3_endpoint=line.url, s3_read_timeout=1) as client:
            path = f"/images/{stored(client, owner, jpeg(9_000_000))['filename']}"
            with (
                pytest.raises(httpx2.RemoteProtocolError),
                client.stream("GET", path, headers=owner.headers) as answer,
            ):
                assert answer.status_code == 200
                for count, _ in enumerate(answer.iter_raw()):
                    if count == 0:
                        line.set("refusing")
            line.set("open")
            assert len(client.get(path, headers=owner.headers).content) == 9_000_000
    finally:
        line.close()


def test_who_does_not_read_gives_the_connection_back(
    platform: Platform, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slipway_image.downloads, "STALL_SECONDS", 0.3)
    with image_client(platform) as client:
        name = stored(client, owner, jpeg(9_000_000))["filename"]
        address = (client.base_url.host, client.base_url.port or 0)
        headers = owner.headers | platform.service_headers("api", "image")
        lines = [f"GET /images/{name} HTTP/1.1", "Host: x", *(f"{key}: {value}" for key, value in headers.items())]
        with socket.socket() as lazy:
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lazy.connect(address)
            lazy.sendall("\r\n".join([*lines, "", ""]).encode())
            deadline = time.monotonic() + 10
            while metric(client, 'http_requests_total{method="GET",route="/images/{filename}",status="499"}') < 1:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert metric(client, 'capacity_used{name="s3_download"}') == 0
