"""Requests passed on to the services behind: as streams in both directions, never parsed, never without a deadline."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

import aiohttp
import structlog
from fastapi import Request
from prometheus_client import CollectorRegistry, Counter, Histogram
from slipway_kit.http_client import probe
from slipway_kit.metrics import BUCKETS
from slipway_kit.middleware import REQUEST_ID_HEADER
from slipway_kit.problems import Problem, unavailable
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from yarl import URL

# RFC 9110, 7.6.1: these belong to one connection; whatever `Connection` names joins them.
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# Set anew by the client, or by the server that answers our own client.
_NOT_FORWARDED = HOP_BY_HOP | {"host", "expect", REQUEST_ID_HEADER}
_NOT_RETURNED = HOP_BY_HOP | {"date", "server", REQUEST_ID_HEADER, "x-content-type-options"}
# Who somebody is, is said by the token alone. A service that trusted such a header must never get the client's.
IDENTITY_PREFIX = "x-user-"
CHUNK = 64 * 1024

log = structlog.get_logger()


class RelayMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.duration = Histogram(
            "upstream_request_duration_seconds",
            "Time until the head of an upstream's answer.",
            ["upstream"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.failures = Counter(
            "upstream_failures_total", "Calls without an answer.", ["upstream", "reason"], registry=registry
        )


@dataclass(frozen=True)
class RelayTimeouts:
    """`head` and `upload` run from the start of a request to the head of its answer; the body of the answer may take
    as long as the client takes to read it. `read` is for any single wait in between, except after an upload: the
    image service may let that wait for its turn.
    """

    connect: float
    read: float
    head: float
    upload: float

    def deadline(self, upload: bool) -> float:
        return self.upload if upload else self.head

    def of_client(self, upload: bool) -> aiohttp.ClientTimeout:
        read = self.upload if upload else self.read
        return aiohttp.ClientTimeout(total=None, connect=self.connect, sock_connect=self.connect, sock_read=read)


class Relay:
    """One upstream."""

    def __init__(
        self, name: str, base: str, session: aiohttp.ClientSession, timeouts: RelayTimeouts, metrics: RelayMetrics
    ) -> None:
        self.name = name
        self.base = base.rstrip("/")
        self.session = session
        self._timeouts = timeouts
        self._duration = metrics.duration.labels(name)
        self._failures = metrics.failures

    async def forward(self, request: Request, path: str, *, upload: bool = False) -> Response:
        """`path` is made from checked parts by the caller, never the raw path of the request."""
        query = request.url.query
        body = _RequestBody(request)
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeouts.deadline(upload)):
                answer = await self.session.request(
                    request.method,
                    URL(f"{self.base}{path}{'?' + query if query else ''}", encoded=True),
                    headers=forwarded_headers(request),
                    data=body.stream() if body.expected else None,
                    allow_redirects=False,
                    timeout=self._timeouts.of_client(upload),
                )
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            if body.disconnected:
                # Nobody is left to hear an answer.
                raise ClientDisconnect from None
            raise self._problem(error) from error
        finally:
            self._duration.observe(time.perf_counter() - started)
        return _RelayedResponse(answer, self.name)

    async def probe(self) -> None:
        await probe(self.session, f"{self.base}/health/live")

    def _problem(self, error: Exception) -> Problem:
        reason, problem = _classify(error, self.name)
        self._failures.labels(self.name, reason).inc()
        log.warning("upstream failed", upstream=self.name, reason=reason, error=f"{type(error).__name__}: {error}")
        return problem


def _classify(error: Exception, upstream: str) -> tuple[str, Problem]:
    if isinstance(error, aiohttp.ConnectionTimeoutError | aiohttp.ClientConnectorError):
        # Also when all connections are in use: nothing was sent, so trying again is safe.
        return "unreachable", unavailable("upstream-unavailable", f"The {upstream} service cannot be reached.")
    if isinstance(error, TimeoutError):
        return "timeout", Problem(504, "upstream-timeout", f"The {upstream} service did not answer in time.")
    return "broken", Problem(502, "upstream-failed", f"The {upstream} service broke off its answer.")


class _RequestBody:
    def __init__(self, request: Request) -> None:
        self._request = request
        self.disconnected = False
        self.expected = "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"

    async def stream(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._request.stream():
                if chunk:
                    yield chunk
        except ClientDisconnect:
            self.disconnected = True
            raise ConnectionError("the client went away") from None


def forwarded_headers(request: Request) -> list[tuple[str, str]]:
    headers = [
        (name, value)
        for name, value in _end_to_end(request.headers.items(), _NOT_FORWARDED)
        if not name.startswith(IDENTITY_PREFIX)
    ]
    headers.append((REQUEST_ID_HEADER, request.scope["request_id"]))
    return headers


def _end_to_end(headers: Iterable[tuple[str, str]], dropped: frozenset[str]) -> list[tuple[str, str]]:
    pairs = [(name.lower(), value) for name, value in headers]
    named = {word.strip().lower() for name, value in pairs if name == "connection" for word in value.split(",")}
    return [(name, value) for name, value in pairs if name not in dropped and name not in named]


class _RelayedResponse(Response):
    """Passes the body on as it comes. Starlette's StreamingResponse adds a task group per response for no use here."""

    def __init__(self, answer: aiohttp.ClientResponse, upstream: str) -> None:
        self._answer = answer
        self._upstream = upstream
        self.status_code = answer.status
        self.background = None
        self.body = b""
        self.raw_headers = [
            (name.encode("latin-1"), value.encode("latin-1", "replace"))
            for name, value in _end_to_end(answer.headers.items(), _NOT_RETURNED)
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for chunk in self._answer.content.iter_chunked(CHUNK):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (aiohttp.ClientError, TimeoutError) as error:
            # The head is out: returning with the body incomplete makes the server close the connection, which is the
            # only honest answer left.
            log.warning("upstream broke off", upstream=self._upstream, error=f"{type(error).__name__}: {error}")
        finally:
            # Back to the pool when it was read to its end, closed otherwise.
            self._answer.close()
