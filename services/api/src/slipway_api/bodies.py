"""The two bodies of a relayed request: neither is ever held as a whole, and both ends have to keep moving."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp
import structlog
from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from slipway_api.headers import returned
from slipway_api.relay_metrics import Outcome, RelayMetrics

CHUNK = 64 * 1024

log = structlog.get_logger()


class RequestBody:
    """What the client sends. Remembers whose fault it is when that ends badly: aiohttp wraps whatever we raise."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self.expected = "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"
        # The client went away, or sent more than it may.
        self.error: Exception | None = None
        # The next piece has to come from the client.
        self.waiting = False
        # When its last piece was passed on (time.perf_counter).
        self.finished_at: float | None = None

    async def stream(self) -> AsyncIterator[bytes]:
        pieces = self._request.stream()
        try:
            while True:
                self.waiting = True
                piece = await anext(pieces, None)
                self.waiting = False
                if piece is None:
                    break
                if piece:
                    yield piece
        except ClientDisconnect as error:
            self.error = error
            raise ConnectionError("the client went away") from None
        except Exception as error:
            self.error = error
            raise
        self.finished_at = time.perf_counter()


class RelayedResponse(Response):
    """Passes the answer on as it comes. Starlette's StreamingResponse would add a task group for no use here."""

    def __init__(
        self,
        answer: aiohttp.ClientResponse,
        upstream: str,
        *,
        cookies: bool,
        stall_seconds: float,
        metrics: RelayMetrics,
        held: AsyncExitStack,
    ) -> None:
        """`stall_seconds`: how long a client may take for a single piece. `held` is given back with the last one."""
        self._answer = answer
        self._upstream = upstream
        self._stall = stall_seconds
        self._metrics = metrics
        self._held = held
        self.status_code = answer.status
        self.background = None
        self.body = b""
        self.raw_headers = returned(answer.raw_headers, cookies=cookies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        outcome: Outcome = "client"
        try:
            async with self._held:
                try:
                    outcome = await self._pass_on(send)
                finally:
                    # Back to the pool when it was read to its end, closed otherwise.
                    self._answer.close()
        finally:
            self._metrics.count(self._upstream, outcome)

    async def _pass_on(self, send: Send) -> Outcome:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        pieces = self._answer.content.iter_chunked(CHUNK)
        while True:
            try:
                piece = await anext(pieces, b"")
            except (aiohttp.ClientError, TimeoutError) as error:
                # The head is out: returning with the body incomplete makes the server close the connection, which is
                # the only honest answer left.
                log.warning("upstream broke off", upstream=self._upstream, error=f"{type(error).__name__}: {error}")
                return "broken"
            try:
                async with asyncio.timeout(self._stall):
                    await send({"type": "http.response.body", "body": piece, "more_body": bool(piece)})
            except TimeoutError:
                # Or a few that read nothing would hold all connections to the upstream.
                log.info("client reads too slowly", upstream=self._upstream)
                return "client"
            if not piece:
                return "error" if self.status_code >= 500 else "ok"
