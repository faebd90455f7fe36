"""Pure ASGI middleware. Starlette's BaseHTTPMiddleware would cost more than everything else in a request together."""

import re
import secrets
import time
from collections.abc import Sequence
from http import HTTPStatus

import structlog
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from slipway_kit.addresses import Network, client_address
from slipway_kit.lifecycle import Lifecycle
from slipway_kit.metrics import HttpMetrics, route_template
from slipway_kit.problems import TYPE_PREFIX, Problem, problem_response
from slipway_kit.tracing import Tracing

REQUEST_ID_HEADER = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
# Probes and scrapes come every few seconds and would bury the requests of users.
_QUIET = ("/health", "/metrics")
_REQUEST_ID_NAME = REQUEST_ID_HEADER.encode()
_READ_HEADERS = frozenset({_REQUEST_ID_NAME, b"traceparent", b"tracestate"})
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
# As nginx calls an answer that nobody waited for.
CLIENT_CLOSED_REQUEST = 499

log = structlog.get_logger()


class RequestMiddleware:
    """Around every request: its id, its span, its metrics, its one access line, and the answer when nothing else gave
    one.

    Works on raw headers: this code runs for each request, and the classes for headers cost more than all the rest.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: HttpMetrics,
        lifecycle: Lifecycle,
        tracing: Tracing | None = None,
        trusted: Sequence[Network] = (),
    ) -> None:
        self.app = app
        self.metrics = metrics
        self.lifecycle = lifecycle
        self.tracing = tracing
        self.trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        found = {name: value.decode("latin-1") for name, value in scope["headers"] if name in _READ_HEADERS}
        request_id = found.get(_REQUEST_ID_NAME, "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = secrets.token_hex(16)
        scope["request_id"] = request_id
        identity = {"request_id": request_id}
        traceparent = found.get(b"traceparent", "")
        span = None
        if self.tracing is not None and not path.startswith(_QUIET):
            span = self.tracing.server_span(method, path, traceparent, found.get(b"tracestate", ""))
            identity["trace_id"] = span.trace_id
        elif traceparent and (trace := _TRACEPARENT.fullmatch(traceparent)):
            identity["trace_id"] = trace[1]
        status = 0
        complete = False

        async def send_wrapper(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message["headers"], (_REQUEST_ID_NAME, request_id.encode()), _NO_SNIFFING]
                if self.lifecycle.draining:
                    # Proxies and clients keep connections: this makes them move to another replica before we stop.
                    headers = [header for header in headers if header[0] != b"connection"]
                    headers.append((b"connection", b"close"))
                message["headers"] = headers
            elif message["type"] == "http.response.body":
                complete = not message.get("more_body", False)
            await send(message)

        started = time.perf_counter()
        self.metrics.in_progress.inc()
        with structlog.contextvars.bound_contextvars(**identity):
            try:
                await self.app(scope, receive, send_wrapper)
            except ClientDisconnect:
                # Nobody is left to answer to. The access line says 499, as nginx does.
                pass
            except Exception:
                log.exception("unhandled error", method=method, path=path)
                if status:
                    # The head is gone already: only a broken connection still tells the client.
                    raise
                # Generic on purpose: what went wrong inside is nothing for the outside.
                response = problem_response(Request(scope), HTTPStatus.INTERNAL_SERVER_ERROR)
                await response(scope, receive, send_wrapper)
            finally:
                seconds = time.perf_counter() - started
                self.metrics.in_progress.dec()
                # The answer is not complete: the client went away, or an upstream broke off.
                shown = status if complete else CLIENT_CLOSED_REQUEST
                route = route_template(scope)
                self.metrics.observe(method, route, shown, seconds)
                self._access(scope, route, shown, seconds)
                if span is not None:
                    span.end(method, route, shown)

    def _access(self, scope: Scope, route: str, status: int, seconds: float) -> None:
        path = scope["path"]
        write = log.debug if path.startswith(_QUIET) and status < 500 else log.info
        # The query string stays out: it is the users' and may carry anything.
        write(
            "request",
            method=scope["method"],
            path=path,
            route=route,
            status=status,
            duration_ms=round(seconds * 1000, 2),
            client=client_address(scope, self.trusted),
        )


class BodyLimitMiddleware:
    """Refuse bodies above a limit before anything reads them. FastAPI's own limit answers in plain text.

    `exceptions` are (path prefix, limit) pairs; a limit of None leaves it to whoever handles that path.
    """

    def __init__(self, app: ASGIApp, limit: int, exceptions: Sequence[tuple[str, int | None]] = ()) -> None:
        self.app = app
        self.limit = limit
        self.exceptions = tuple(exceptions)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = self._limit(scope)
        if limit is None:
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        announced = headers.get("content-length", "0")
        if announced == "0" and "transfer-encoding" not in headers:
            await self.app(scope, receive, send)
            return
        if not announced.isdecimal() or int(announced) > limit:
            error = _too_large(limit)
            response = problem_response(
                Request(scope), 413, type_=TYPE_PREFIX + error.code, title=error.title, detail=error.detail
            )
            await response(scope, receive, send)
            return
        received = 0

        async def counting_receive() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > limit:
                    raise _too_large(limit)
            return message

        await self.app(scope, counting_receive, send)

    def _limit(self, scope: Scope) -> int | None:
        if scope["type"] != "http":
            return None
        for prefix, limit in self.exceptions:
            if scope["path"].startswith(prefix):
                return limit
        return self.limit


def _too_large(limit: int) -> Problem:
    return Problem(413, "body-too-large", f"The body is larger than {limit} bytes.")
