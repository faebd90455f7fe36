"""Large, slow and broken bodies: nothing is held as a whole, and nobody holds a connection for ever."""

import asyncio
import hashlib
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from slipway_testing.checks import assert_problem
from slipway_testing.gateways import gateway
from slipway_testing.platform import Platform, User
from slipway_testing.servers import live_asgi
from slipway_testing.upstreams import slow
from starlette.types import Receive, Scope, Send

pytestmark = pytest.mark.slow

LARGE = 100 * 1024 * 1024
PIECE = bytes(range(256)) * 256
IMAGE = f"/api/v1/images/{'0' * 32}.jpg"
# What buffers on the way may take; the body itself is ten times as large.
GROWTH = 10 * 1024 * 1024


async def swallowing(scope: Scope, receive: Receive, send: Send) -> None:
    """Tells the SHA-256 of what it was sent."""
    digest, more = hashlib.sha256(), True
    while more:
        message = await receive()
        digest.update(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": digest.hexdigest().encode()})


async def giving(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % LARGE)]})
    for _ in range(LARGE // len(PIECE)):
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def stopping(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends a little and then nothing, but does not hang up."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
    await send({"type": "http.response.body", "body": b"x" * 10, "more_body": True})
    await asyncio.sleep(30)


def peak(pid: int) -> int:
    """The most memory that the process ever had, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def test_a_hundred_megabytes_in(platform: Platform, user: User, tmp_path: Path) -> None:
    pieces = LARGE // len(PIECE)
    with live_asgi(swallowing) as upstream, gateway(platform, tmp_path, image_url=upstream.url) as (url, pid):
        for headers in ({"Content-Length": str(LARGE)}, {}):
            # The first ones warm up what grows once.
            small = httpx2.post(f"{url}/api/v1/images", content=PIECE * 32, headers=user.headers)
            assert small.status_code == 200
            before = peak(pid)
            answer = httpx2.post(
                f"{url}/api/v1/images",
                content=(PIECE for _ in range(pieces)),
                headers=user.headers | headers,
                timeout=60,
            )
            assert answer.text == hashlib.sha256(PIECE * pieces).hexdigest()
            assert peak(pid) - before < GROWTH


@pytest.mark.parametrize("pause", [0, 1], ids=["at once", "to a slow reader"])
def test_a_hundred_megabytes_out(platform: Platform, user: User, tmp_path: Path, pause: float) -> None:
    with live_asgi(giving) as upstream, gateway(platform, tmp_path, image_url=upstream.url) as (url, pid):
        httpx2.get(f"{url}/api/v1/images", headers=user.headers).close()
        before = peak(pid)
        with httpx2.stream("GET", url + IMAGE, headers=user.headers, timeout=60) as answer:
            received = 0
            # What a slow reader does not take must wait at the upstream, not in the gateway.
            time.sleep(pause)
            for piece in answer.iter_raw():
                received += len(piece)
        assert received == LARGE
        assert peak(pid) - before < GROWTH + 2 * 1024 * 1024


def outcome(url: str, name: str, upstream: str = "image") -> float:
    wanted = f'upstream_requests_total{{outcome="{name}",upstream="{upstream}"}} '
    found = [line for line in httpx2.get(f"{url}/metrics").text.splitlines() if line.startswith(wanted)]
    return float(found[0].removeprefix(wanted)) if found else 0


def wait_for_outcome(url: str, name: str, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not outcome(url, name):
        assert time.monotonic() < deadline, httpx2.get(f"{url}/metrics").text
        time.sleep(0.05)


def test_an_upstream_that_stops_in_the_middle(platform: Platform, user: User) -> None:
    with (
        live_asgi(stopping) as upstream,
        platform.api(image_url=upstream.url, relay_read_timeout=0.3) as server,
    ):
        started = time.monotonic()
        with pytest.raises(httpx2.RemoteProtocolError):
            httpx2.get(server.url + IMAGE, headers=user.headers)
        # And not when the upstream ends.
        assert time.monotonic() - started < 10
        assert outcome(server.url, "broken") == 1


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def test_a_client_that_reads_nothing_is_let_go(platform: Platform, user: User) -> None:
    """Or a few of them would hold all connections to an upstream."""
    with live_asgi(giving) as upstream, platform.api(image_url=upstream.url, relay_stall_timeout=0.5) as server:
        with connect(server.url) as connection:
            head = f"GET {IMAGE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {user.token}\r\n\r\n"
            connection.sendall(head.encode())
            wait_for_outcome(server.url, "client")
            assert 'capacity_used{name="relay-image"} 0.0' in httpx2.get(f"{server.url}/metrics").text
            received = 0
            while piece := connection.recv(1 << 20):
                received += len(piece)
        assert received < LARGE


def test_a_client_that_sends_too_slowly(platform: Platform, user: User) -> None:
    with (
        live_asgi(swallowing) as upstream,
        platform.api(image_url=upstream.url, relay_upload_timeout=0.5) as server,
        connect(server.url) as connection,
    ):
        head = f"POST /api/v1/images HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {user.token}\r\n"
        connection.sendall(head.encode() + b"Content-Length: 1000\r\n\r\nx")
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"urn:slipway:problem:request-timeout" in answer
        assert outcome(server.url, "client") == 1


def test_slots_are_bounded_and_given_back(platform: Platform, user: User) -> None:
    """Uploads may have three of four connections; a fourth waits and is told 503, while what is quick goes on."""
    settings: dict[str, Any] = {"relay_connections": 4, "relay_connect_timeout": 0.3}

    async def half(scope: Scope, receive: Receive, send: Send) -> None:
        """Uploads hang, the rest is answered."""
        await (slow if scope["method"] == "POST" else swallowing)(scope, receive, send)

    with (
        live_asgi(half) as upstream,
        platform.api(image_url=upstream.url, relay_upload_timeout=1.5, **settings) as server,
        httpx2.Client(base_url=server.url, headers=user.headers, timeout=20) as client,
    ):

        def upload() -> None:
            httpx2.post(f"{server.url}/api/v1/images", content=b"x", headers=user.headers, timeout=20)

        threads = [threading.Thread(target=upload) for _ in range(3)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 5
        while 'capacity_used{name="relay-image-uploads"} 3.0' not in client.get("/metrics").text:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        answer = client.post("/api/v1/images", content=b"x")
        assert_problem(answer, 503, "busy")
        assert answer.headers["retry-after"] == "1"
        assert client.get(IMAGE).status_code == 200
        assert outcome(server.url, "busy") == 1
        for thread in threads:
            thread.join(20)
        assert outcome(server.url, "timeout") == 3
        metrics = client.get("/metrics").text
        assert 'capacity_used{name="relay-image"} 0.0' in metrics
        assert 'capacity_used{name="relay-image-uploads"} 0.0' in metrics
