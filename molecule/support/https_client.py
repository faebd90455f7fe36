"""A browser, as far as tests need one: HTTPS to a node under a name that no DNS has to know."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What a site answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as an object."""
        return json.loads(self.body)


@contextlib.contextmanager
def secure(address: str, name: str, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    """Shake hands with a node."""
    with (
        socket.create_connection((address, 443), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=name) as wrapped,
    ):
        yield wrapped


def ask(
    address: str,
    name: str,
    path: str,
    context: ssl.SSLContext,
    *,
    token: str = "",
    content: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Ask a node for a path of a site; with content by POST, with a token as its owner."""
    body = b"" if content is None else json.dumps(content).encode()
    lines = [f"{'GET' if content is None else 'POST'} {path} HTTP/1.1", f"Host: {name}", "Connection: close"]
    lines += [f"Authorization: Bearer {token}"] if token else []
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"] if content is not None else []
    lines += [f"{key}: {value}" for key, value in (headers or {}).items()]
    with secure(address, name, context) as connection:
        # Who refuses a body may answer before it has come, and listen no longer.
        with contextlib.suppress(ssl.SSLEOFError, ConnectionError):
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return Answer(response.status, dict(response.getheaders()), response.read())
