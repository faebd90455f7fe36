"""One file out of a multipart body, straight from the socket to where it waits, hashed on the way.

FastAPI's UploadFile parses the whole body before the endpoint runs: too late for limits, and before the token is
looked at. Here nothing is read before the caller wants it, and of the body no more than a few chunks are in memory.
"""

import asyncio
import errno
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO

import structlog
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from slipway_kit.capacity import Capacity
from slipway_kit.problems import Problem, unavailable
from starlette.requests import Request

from slipway_image.bodies import Bodies, Body
from slipway_image.metrics import ImageMetrics

FIELD = "file"
# What stands around the file: boundaries and headers.
OVERHEAD_BYTES = 16 * 1024

log = structlog.get_logger()


@dataclass(frozen=True)
class ReceivedFile:
    file: IO[bytes]
    size: int
    sha256: str


class Receiver:
    """How many uploads may arrive at the same time, and how large and slow each may be."""

    def __init__(
        self, gate: Capacity, bodies: Bodies, metrics: ImageMetrics, *, max_bytes: int, seconds: float
    ) -> None:
        self._gate = gate
        self._bodies = bodies
        self._metrics = metrics
        self._max_bytes = max_bytes
        self._seconds = seconds

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[ReceivedFile]:
        """The slot is held until the file is gone: it stands for space in the temporary directory."""
        async with self._gate.slot():
            with self._bodies.body() as body:
                with self._metrics.stage("receive"):
                    received = await self._receive(request, body)
                yield received

    async def _receive(self, request: Request, body: Body) -> ReceivedFile:
        parts = _FilePart(_boundary(request), self._max_bytes)
        try:
            async with asyncio.timeout(self._seconds):
                async for chunk in request.stream():
                    parts.feed(chunk)
                    await body.add(parts.take())
            parts.finish()
            sha256 = await body.finish()
        except TimeoutError:
            raise Problem(
                408,
                "upload-too-slow",
                f"The body did not arrive within {self._seconds:g} seconds.",
                headers={"Connection": "close"},
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            log.error("no space for uploads", directory=tempfile.gettempdir())
            raise unavailable("no-space", "Uploads cannot be taken at the moment.", retry_after=5) from error
        return ReceivedFile(body.file, parts.size, sha256)


def _boundary(request: Request) -> bytes:
    content_type, options = parse_options_header(request.headers.get("content-type"))
    if content_type != b"multipart/form-data":
        raise Problem(415, "not-multipart", f"Wanted multipart/form-data with the image in the field '{FIELD}'.")
    boundary = options.get(b"boundary", b"")
    # RFC 2046: 1 to 70 characters.
    if not 1 <= len(boundary) <= 70:
        raise _malformed("the boundary is missing or too long")
    return boundary


def _malformed(reason: str) -> Problem:
    return Problem(400, "malformed-multipart", f"The multipart body is not well-formed: {reason}.")


class _FilePart:
    """Takes the one part `file`; refuses every other one, and anything above the limit as soon as it is seen."""

    def __init__(self, boundary: bytes, max_bytes: int) -> None:
        self.size = 0
        # What nobody has taken yet. Pieces of the chunks as they came: a copy would cost as much as the hash.
        self._pieces: list[memoryview] = []
        self._max_bytes = max_bytes
        self._found = False
        self._ended = False
        self._header = b""
        self._value = b""
        self._disposition = b""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_end": self._on_end,
            },
        )

    def feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise _malformed("a part does not have the required form") from None

    def finish(self) -> None:
        if not self._ended:
            raise _malformed("it ends before its last boundary")
        if not self._found:
            raise Problem(422, "file-missing", f"The field '{FIELD}' with the image is missing.")
        if self.size == 0:
            raise Problem(422, "file-empty", "The image has no bytes.")

    def take(self) -> list[memoryview]:
        pieces, self._pieces = self._pieces, []
        return pieces

    def _on_part_begin(self) -> None:
        if self._found:
            raise Problem(422, "too-many-parts", f"Only one part is expected, the field '{FIELD}'.")
        self._disposition = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition.decode("latin-1"))
        if options.get(b"name") != FIELD.encode():
            raise Problem(422, "unexpected-part", f"Only one part is expected, the field '{FIELD}'.")
        self._found = True

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.size += end - start
        if self.size > self._max_bytes:
            raise Problem(413, "image-too-large", f"The image is larger than {self._max_bytes} bytes.")
        self._pieces.append(memoryview(data)[start:end])

    def _on_end(self) -> None:
        self._ended = True
