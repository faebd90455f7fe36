"""Answers with bytes of the object store: conditions, ranges (RFC 9110), and never all of it in memory."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import structlog
from slipway_kit.problems import Problem
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

# One range. Several in one request are answered with the whole, as RFC 9110 (14.2) lets a server do.
_RANGE = re.compile(r"bytes\s*=\s*(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))\s*", re.IGNORECASE | re.ASCII)
# For a client to take a piece of 256 KiB: one that does not holds a connection to the store.
STALL_SECONDS = 30.0

log = structlog.get_logger()

Read = Callable[[int, int], AbstractAsyncContextManager[AsyncIterator[bytes]]]


@dataclass(frozen=True)
class Span:
    """Bytes from `first` on."""

    first: int
    length: int


class UnsatisfiableError(Exception):
    """The range lies behind the end."""


def parse_range(header: str, size: int) -> Span | None:
    """The part of `size` bytes that a Range header asks for; None for the whole, also when it is not understood.

    UnsatisfiableError where the answer has to be 416.
    """
    match = _RANGE.fullmatch(header)
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        length = min(int(suffix), size)
        if length == 0:
            raise UnsatisfiableError
        return Span(size - length, length)
    begin, end = int(first), int(last) if last else size - 1
    if last and end < begin:
        # Not a range at all, and so as if it were not there.
        return None
    if begin >= size:
        raise UnsatisfiableError
    return Span(begin, min(end, size - 1) - begin + 1)


def is_known(if_none_match: str, etag: str) -> bool:
    """Whether the client has it already. Weak comparison, as for GET and HEAD."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return tags == ["*"] or etag in tags


def answer(request: Request, *, sha256: str, size: int, content_type: str, filename: str, read: Read) -> Response:
    """200, 206 or 304, without a body for HEAD; Problem 416. `read(offset, length)` gives the bytes."""
    etag = f'"{sha256}"'
    headers = {
        "ETag": etag,
        # The bytes behind a name never change; private, because a shared cache does not know who may see them.
        "Cache-Control": "private, max-age=31536000, immutable",
        # The owner gets other bytes than everybody else.
        "Vary": "Authorization",
        "Accept-Ranges": "bytes",
        "Content-Disposition": f'inline; filename="{filename}"',
        # Should a browser ever take it for a document: no scripts, no plugins, nothing loaded.
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    if is_known(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=headers)
    headers["Content-Length"] = str(size)
    if request.method == "HEAD":
        return Response(status_code=200, headers=headers, media_type=content_type)
    span = None
    # If-Range: the range only of these very bytes. A date never fits: there is no Last-Modified.
    if "range" in request.headers and request.headers.get("if-range", etag) == etag:
        try:
            span = parse_range(request.headers["range"], size)
        except UnsatisfiableError:
            raise Problem(
                416,
                "range-not-satisfiable",
                f"There are {size} bytes.",
                headers={"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"},
            ) from None
    if span is None:
        return _Stream(200, headers, content_type, read(0, size))
    headers["Content-Length"] = str(span.length)
    headers["Content-Range"] = f"bytes {span.first}-{span.first + span.length - 1}/{size}"
    return _Stream(206, headers, content_type, read(span.first, span.length))


class _Stream(Response):
    """Piece by piece from the object store to the client; errors before the first piece are still proper answers."""

    def __init__(
        self,
        status: int,
        headers: dict[str, str],
        content_type: str,
        source: AbstractAsyncContextManager[AsyncIterator[bytes]],
    ) -> None:
        self.status_code = status
        self.background = None
        self.body = b""
        self.media_type = content_type
        self.init_headers(headers)
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False
        try:
            async with self._source as chunks:
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                started = True
                async for chunk in chunks:
                    async with asyncio.timeout(STALL_SECONDS):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (Problem, TimeoutError) as error:
            # Once the head is out, only a body that stays incomplete tells the client.
            if not started:
                raise
            log.warning("download broken off", path=scope["path"], reason=str(error) or "the client does not read")
