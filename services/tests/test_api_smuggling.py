"""Request smuggling: where one request ends and the next begins is seen alike by the gateway and those behind it.

Each attempt hides a request to a path that the gateway has no route for. Whatever the gateway makes of the bytes in
front of it, no upstream may ever see that path, nor more requests than the gateway itself has counted as its own.
"""

import re
import socket
from collections.abc import Iterator

import httpx2
import pytest
from slipway_testing import upstreams
from slipway_testing.platform import Platform, User
from slipway_testing.servers import LiveServer, live_asgi
from starlette.types import Receive, Scope, Send

pytestmark = pytest.mark.slow

HIDDEN = b"GET /service-tokens HTTP/1.1\r\nHost: x\r\n\r\n"
LOGIN = b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\n"
CHUNKED_NOTHING = b"0\r\n\r\n"


class Recorder:
    """An upstream that remembers what it was asked, and how it was framed."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, bytes, bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await upstreams.read_body(receive)
        self.requests.append((scope["method"], scope["raw_path"], body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(scope="module")
def gateway(platform: Platform) -> Iterator[tuple[LiveServer, Recorder]]:
    recorder = Recorder()
    with live_asgi(recorder) as upstream, platform.api(auth_url=upstream.url, image_url=upstream.url) as server:
        yield server, recorder


def send(url: str, raw: bytes) -> list[int]:
    """The status of each answer until the connection is closed or nothing more comes."""
    host, port = url.removeprefix("http://").split(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(raw)
        connection.settimeout(0.5)
        try:
            while piece := connection.recv(65536):
                received += piece
        except (TimeoutError, ConnectionResetError):
            pass
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def length(size: int) -> bytes:
    return b"Content-Length: %d\r\n" % size


AMBIGUOUS = {
    "length and chunked": LOGIN + length(len(CHUNKED_NOTHING + HIDDEN)) + b"Transfer-Encoding: chunked\r\n\r\n",
    "chunked and length": LOGIN + b"Transfer-Encoding: chunked\r\n" + length(5) + b"\r\n",
    "two lengths": LOGIN + length(0) + length(len(HIDDEN)) + b"\r\n",
    "two equal lengths": LOGIN + length(5) + length(5) + b"\r\n",
    "a list of lengths": LOGIN + b"Content-Length: 0, 5\r\n\r\n",
    "a length with a sign": LOGIN + b"Content-Length: +5\r\n\r\n",
    "a negative length": LOGIN + b"Content-Length: -1\r\n\r\n",
    "a hexadecimal length": LOGIN + b"Content-Length: 0x5\r\n\r\n",
    "a length that overflows": LOGIN + b"Content-Length: 18446744073709551616\r\n\r\n",
    "chunked twice": LOGIN + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
    "chunked is not last": LOGIN + b"Transfer-Encoding: chunked, identity\r\n\r\n",
    "an unknown coding": LOGIN + b"Transfer-Encoding: xchunked\r\n\r\n",
    "a space before the colon": LOGIN + b"Transfer-Encoding : chunked\r\n\r\n",
    "a folded header": LOGIN + b"Transfer-Encoding:\r\n chunked\r\n" + length(5) + b"\r\n",
    "a header without a colon": LOGIN + b"Transfer-Encoding chunked\r\n" + length(5) + b"\r\n",
    "a bare carriage return": LOGIN + b"X: a\rTransfer-Encoding: chunked\r\n" + length(5) + b"\r\n",
    "a NUL in a value": LOGIN + b"X: a\x00b\r\n" + length(5) + b"\r\n",
    "a chunk size with rubbish": LOGIN + b"Transfer-Encoding: chunked\r\n\r\n5;\nx\r\n",
    "a chunk size that overflows": LOGIN + b"Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n",
    "a negative chunk size": LOGIN + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    "a chunk longer than it says": LOGIN + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n",
}


@pytest.mark.parametrize("attempt", AMBIGUOUS)
def test_what_has_two_readings_is_refused(gateway: tuple[LiveServer, Recorder], attempt: str) -> None:
    server, recorder = gateway
    recorder.requests.clear()
    statuses = send(server.url, AMBIGUOUS[attempt] + CHUNKED_NOTHING + HIDDEN)
    # One refusal, and the connection is closed: what follows is not read as a request.
    assert statuses == [400]
    # A wrong chunk shows only when the head has been passed on; that request is then broken off.
    assert [path for _, path, _ in recorder.requests] in ([], [b"/login"])
    assert HIDDEN not in b"".join(body for _, _, body in recorder.requests)


def test_what_has_one_reading_is_passed_on_as_it_is(gateway: tuple[LiveServer, Recorder]) -> None:
    """A request in the body of another is a body."""
    server, recorder = gateway
    chunked = b"%x\r\n%s\r\n" % (len(HIDDEN), HIDDEN) + CHUNKED_NOTHING
    for raw in (
        LOGIN + length(len(HIDDEN)) + b"\r\n" + HIDDEN,
        LOGIN + b"Transfer-Encoding: chunked\r\n\r\n" + chunked,
        LOGIN + b"transfer-encoding:\tCHUNKED\r\n\r\n" + chunked,
        # The framing of the client's connection is not that of ours, whatever it wants to have dropped.
        LOGIN + b"Connection: content-length\r\n" + length(len(HIDDEN)) + b"\r\n" + HIDDEN,
    ):
        recorder.requests.clear()
        assert send(server.url, raw) == [200]
        assert recorder.requests == [("POST", b"/login", HIDDEN)]


def test_a_request_behind_another_is_one_of_its_own(gateway: tuple[LiveServer, Recorder]) -> None:
    """Pipelining: it goes the same way as any other, and there is no route for it."""
    server, recorder = gateway
    recorder.requests.clear()
    assert send(server.url, LOGIN + length(2) + b"\r\n{}" + HIDDEN) == [200, 404]
    assert recorder.requests == [("POST", b"/login", b"{}")]


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
def test_an_upgrade_is_not_passed_on(gateway: tuple[LiveServer, Recorder], protocol: bytes) -> None:
    server, recorder = gateway
    recorder.requests.clear()
    head = b"GET /api/v1/auth/.well-known/jwks.json HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    statuses = send(server.url, head + b"Upgrade: " + protocol + b"\r\nHTTP2-Settings: AAMAAABk\r\n\r\n" + HIDDEN)
    # Answered as if nothing had been said, and what follows is not read.
    assert statuses == [200]
    assert [path for _, path, _ in recorder.requests] == [b"/.well-known/jwks.json"]


PATHS = [
    "/api/v1/images/../../service-tokens",
    "/api/v1/images/..%2fservice-tokens",
    "/api/v1/images/%2e%2e%2fservice-tokens",
    "/api/v1/images/..;/service-tokens",
    "/api/v1/images//service-tokens",
    "/api/v1/auth/service-tokens",
    "/api/v1/auth/../auth/service-tokens",
    "/api/v1/auth//login",
    "/api/v1/auth/login/../service-tokens",
    "/api/v1/auth/login%00",
    "/api/v1/auth/login%0d%0aX-Service-Token:%20x",
    "/api/v1/auth/login;a=b",
    f"/api/v1/images/{'0' * 32}.jpg%0d%0aHost:%20x",
    f"/api/v1/images/{'0' * 32}.jpg%3f/x",
    f"/api/v1/images/{'0' * 32}.jpg/480%2f..%2f..%2fstats",
    f"/api/v1/images/{'0' * 32}.jpg/481",
    f"/api/v1/images/{'0' * 32}.jpg/metadata/x",
    "http://other.example/service-tokens",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_paths_that_lead_elsewhere_lead_nowhere(
    gateway: tuple[LiveServer, Recorder], user: User, path: str, method: str
) -> None:
    server, recorder = gateway
    recorder.requests.clear()
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {user.token}\r\nContent-Length: 0\r\n\r\n"
    (status,) = send(server.url, head.encode())
    assert status in (400, 404, 405, 422)
    assert recorder.requests == []


@pytest.mark.parametrize("query", ["a=1#b", "a=%0d%0aX-Service-Token: x", "a=\u00e4", "a=b?c=/../../service-tokens"])
def test_a_query_stays_a_query(gateway: tuple[LiveServer, Recorder], query: str) -> None:
    server, recorder = gateway
    recorder.requests.clear()
    url = f"{server.url}/api/v1/auth/.well-known/jwks.json"
    answer = httpx2.get(url, params=httpx2.QueryParams(query))
    assert answer.status_code == 200
    assert [path for _, path, _ in recorder.requests] == [b"/.well-known/jwks.json"]


def test_raw_bytes_in_a_query(gateway: tuple[LiveServer, Recorder]) -> None:
    """A server may take them; then they must not become anything else on the way."""
    server, recorder = gateway
    for query in (b"\xff\xfe", b"a=\x01", b"a=<>\"'", b"a=b c"):
        recorder.requests.clear()
        head = b"GET /api/v1/auth/.well-known/jwks.json?" + query + b" HTTP/1.1\r\nHost: x\r\n\r\n"
        assert send(server.url, head) in ([200], [400]), query
        assert [path for _, path, _ in recorder.requests] in ([], [b"/.well-known/jwks.json"])


def test_an_upstream_that_answers_twice_answers_once(platform: Platform) -> None:
    """Response smuggling: what an upstream sends behind its answer is nobody's answer."""
    answer = upstreams.plain(200, b"good").replace(b"Connection: close\r\n", b"")
    poisoned = answer + upstreams.plain(200, b"poison").replace(b"Connection: close\r\n", b"")
    with (
        upstreams.scripted(poisoned, answer) as upstream,
        platform.api(auth_url=upstream.url) as server,
        httpx2.Client(base_url=server.url) as client,
    ):
        seen = [client.get("/api/v1/auth/.well-known/jwks.json") for _ in range(3)]
    assert all(answer.content != b"poison" for answer in seen)
    assert seen[-1].content == b"good"


@pytest.mark.parametrize(
    "headers",
    [
        [b"Content-Length: 4", b"Content-Length: 5"],
        [b"Transfer-Encoding: chunked", b"Content-Length: 4"],
        [b"X: a\x00b"],
    ],
)
def test_an_upstream_with_two_readings_is_not_believed(platform: Platform, headers: list[bytes]) -> None:
    raw = b"HTTP/1.1 200 OK\r\n" + b"\r\n".join(headers) + b"\r\n\r\ngood"
    with upstreams.scripted(raw) as upstream, platform.api(auth_url=upstream.url) as server:
        try:
            answer = httpx2.get(f"{server.url}/api/v1/auth/.well-known/jwks.json")
        except httpx2.RemoteProtocolError:
            return
        assert answer.status_code == 502
