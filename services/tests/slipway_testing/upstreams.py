"""Applications that stand in for a service behind the gateway: one that shows what arrived, others that misbehave."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Scope, Send

from slipway_testing.servers import listen, url_of


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def read_body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return bytes(body)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Tells as JSON what it was asked."""
    body = await read_body(receive)
    seen: dict[str, Any] = {
        "method": scope["method"],
        "path": scope["raw_path"].decode(),
        "query": scope["query_string"].decode(),
        "headers": [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]],
        "body": body.decode("latin-1"),
    }
    headers = [
        (b"content-type", b"application/json"),
        (b"x-upstream", b"kept"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"connection", b"x-private"),
        (b"x-private", b"dropped"),
        (b"keep-alive", b"timeout=5"),
    ]
    await _answer(send, 207, headers, json.dumps(seen).encode())


async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(30)


async def breaks_in_body(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
    await send({"type": "http.response.body", "body": b"x" * 10, "more_body": True})


async def refuses_early(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers before it has read the body, as a service does that sees a too large Content-Length."""
    await _answer(send, 413, [(b"content-type", b"application/problem+json")], b'{"status": 413}')


@contextmanager
def hanging_up() -> Iterator[str]:
    """Accepts connections, reads a little and closes them without a word."""

    def run(sock: socket.socket) -> None:
        while True:
            try:
                connection, _ = sock.accept()
            except OSError:
                return
            with connection:
                connection.recv(1024)

    with listen() as sock:
        sock.listen()
        thread = threading.Thread(target=run, args=(sock,), daemon=True)
        thread.start()
        yield url_of(sock)
        # Wakes the accept up.
        sock.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@dataclass
class Scripted:
    """What was asked: the head of each request."""

    url: str
    heads: list[bytes] = field(default_factory=list)


@contextmanager
def scripted(*answers: bytes) -> Iterator[Scripted]:
    """Gives these bytes, one for each request and the last one ever after; b"" hangs up without a word.

    Connections stay open unless the answer says `close`. Requests are known by their heads: bodies are not read.

    A raw socket: no server would write what a gateway has to be prepared for.
    """

    def serve(connection: socket.socket, seen: Scripted) -> None:
        head = b""
        while piece := connection.recv(65536):
            head += piece
            if b"\r\n\r\n" in head:
                seen.heads.append(head)
                head = b""
                answer = answers[min(len(seen.heads), len(answers)) - 1]
                connection.sendall(answer)
                if not answer or b"Connection: close" in answer:
                    return

    def run(sock: socket.socket, seen: Scripted) -> None:
        while True:
            try:
                connection, _ = sock.accept()
            except OSError:
                return
            # It may have gone by itself.
            with connection, suppress(OSError):
                serve(connection, seen)

    with listen() as sock:
        sock.listen()
        seen = Scripted(url_of(sock))
        thread = threading.Thread(target=run, args=(sock, seen), daemon=True)
        thread.start()
        yield seen
        sock.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def plain(status: int, body: bytes = b"", *headers: bytes) -> bytes:
    """An answer for `scripted`."""
    lines = [b"HTTP/1.1 %d Whatever" % status, b"Content-Length: %d" % len(body), b"Connection: close", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
