"""Requests passed on to the services behind: as streams in both directions, never parsed, never without a deadline."""

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass

import aiohttp
import structlog
from fastapi import Request
from slipway_kit.addresses import Network, client_address
from slipway_kit.capacity import Capacity
from slipway_kit.http_client import probe
from slipway_kit.problems import Problem, unavailable
from slipway_kit.service_tokens import ServiceTokens
from starlette.responses import Response
from yarl import URL

from slipway_api.bodies import RelayedResponse, RequestBody
from slipway_api.breaker import Breaker
from slipway_api.headers import forwarded
from slipway_api.relay_metrics import Outcome, RelayMetrics
from slipway_api.retries import RetryBudget

# Only these are repeated: nothing happens by them, however often they arrive.
_SAFE = ("GET", "HEAD")
# Of a proxy that found nobody, or of a service that could not right now.
_WORTH_A_RETRY = (502, 503)
# Long enough for a pod to be replaced in the list of addresses; spread, so that retries do not come together.
_PAUSE_SECONDS = (0.02, 0.1)
_NO_ANSWER = (aiohttp.ClientError, TimeoutError, ConnectionError)

log = structlog.get_logger()


@dataclass(frozen=True)
class RelayTimeouts:
    """In seconds. `head` and `upload` run from the start of a request to the head of its answer, with the retry; the
    body of the answer may take as long as the client takes to read it, but not more than `stall` for any one piece.
    `read` is for any single wait for the upstream, except after an upload: the image service may let that wait for
    its turn.
    """

    connect: float
    read: float
    head: float
    upload: float
    stall: float

    def deadline(self, upload: bool) -> float:
        return self.upload if upload else self.head

    def of_client(self, upload: bool) -> aiohttp.ClientTimeout:
        read = self.upload if upload else self.read
        return aiohttp.ClientTimeout(total=None, connect=self.connect, sock_connect=self.connect, sock_read=read)


@dataclass(frozen=True)
class Slots:
    """How many may be under way at a time. Uploads have a limit below the whole: slow ones must not stop the reads."""

    all: Capacity
    uploads: Capacity


class _EndedError(Exception):
    """There is no answer to pass on: how that is counted, and what the client is told."""

    def __init__(self, outcome: Outcome, told: Exception) -> None:
        super().__init__(outcome)
        self.outcome = outcome
        self.told = told


@contextmanager
def _counted_as(outcome: Outcome) -> Iterator[None]:
    try:
        yield
    except Problem as problem:
        raise _EndedError(outcome, problem) from problem


@dataclass(frozen=True)
class _Call:
    """A request in the form in which it is sent, once or twice."""

    method: str
    url: URL
    headers: list[tuple[str, str]]
    body: RequestBody
    upload: bool
    # Of the event loop's clock.
    deadline: float


class Relay:
    """One upstream."""

    def __init__(
        self,
        name: str,
        base: str,
        session: aiohttp.ClientSession,
        *,
        tokens: ServiceTokens,
        trusted: tuple[Network, ...],
        timeouts: RelayTimeouts,
        slots: Slots,
        breaker: Breaker,
        metrics: RelayMetrics,
        cookies: bool = False,
    ) -> None:
        """`trusted` are the networks of our own proxies; `cookies`: whether it may see and set those of the client."""
        self.name = name
        self.base = base.rstrip("/")
        self.session = session
        self.breaker = breaker
        self._tokens = tokens
        self._trusted = trusted
        self._timeouts = timeouts
        self._slots = slots
        self._budget = RetryBudget()
        self._metrics = metrics
        self._duration = metrics.duration.labels(name)
        self._cookies = cookies

    async def forward(self, request: Request, path: str, *, upload: bool = False) -> Response:
        """The answer of the upstream, or a problem.

        `path` is made from checked parts by the caller, never the raw path of the request. `upload`: the request may
        be large and slow, and its answer may take long.
        """
        try:
            async with AsyncExitStack() as held:
                with _counted_as("refused"):
                    self.breaker.check()
                with _counted_as("busy"):
                    if upload:
                        await held.enter_async_context(self._slots.uploads.slot())
                    await held.enter_async_context(self._slots.all.slot())
                with _counted_as("unidentified"):
                    token = await self._tokens.get(self.name)
                answer = await self._answer(self._call(request, path, token, upload))
                return RelayedResponse(
                    answer,
                    self.name,
                    cookies=self._cookies,
                    stall_seconds=self._timeouts.stall,
                    metrics=self._metrics,
                    held=held.pop_all(),
                )
        except _EndedError as ended:
            self._metrics.count(self.name, ended.outcome)
            raise ended.told from ended.__cause__

    async def probe(self) -> None:
        """For /health: raises when the upstream is not live, or when calls are not even tried."""
        if self.breaker.refuses:
            raise ConnectionError("the breaker is open")
        await probe(self.session, f"{self.base}/health/live")

    def _call(self, request: Request, path: str, token: str, upload: bool) -> _Call:
        query = request.url.query
        headers = forwarded(
            request.scope["headers"],
            request_id=request.scope["request_id"],
            client=client_address(request.scope, self._trusted),
            service_token=token,
            cookies=self._cookies,
        )
        return _Call(
            request.method,
            URL(f"{self.base}{path}{'?' + query if query else ''}", encoded=True),
            headers,
            RequestBody(request),
            upload,
            asyncio.get_running_loop().time() + self._timeouts.deadline(upload),
        )

    async def _answer(self, call: _Call) -> aiohttp.ClientResponse:
        """The head is there, the body is still to come. Nothing was sent to the client yet: this may be repeated."""
        self._budget.called()
        try:
            answer = await self._attempt(call)
        except _EndedError as ended:
            if ended.outcome not in ("unreachable", "broken") or not self._may_repeat(call):
                raise
        else:
            if answer.status not in _WORTH_A_RETRY or not self._may_repeat(call):
                return answer
            answer.close()
        self._metrics.retries.labels(self.name).inc()
        await asyncio.sleep(random.uniform(*_PAUSE_SECONDS))  # noqa: S311 - nothing secret
        return await self._attempt(call)

    def _may_repeat(self, call: _Call) -> bool:
        return call.method in _SAFE and not call.body.expected and self._budget.take()

    async def _attempt(self, call: _Call) -> aiohttp.ClientResponse:
        with _counted_as("refused"):
            number = self.breaker.admit()
        settle = self.breaker.abandoned
        started = time.perf_counter()
        try:
            async with asyncio.timeout_at(call.deadline):
                answer = await self.session.request(
                    call.method,
                    call.url,
                    headers=call.headers,
                    data=call.body.stream() if call.body.expected else None,
                    allow_redirects=False,
                    timeout=self._timeouts.of_client(call.upload),
                )
        except _NO_ANSWER as error:
            ended = self._explain(call.body, error)
            if ended.outcome != "client":
                settle = self.breaker.failed
                reason = f"{type(error).__name__}: {error}"
                log.warning("upstream failed", upstream=self.name, outcome=ended.outcome, error=reason)
            raise ended from error
        else:
            settle = self.breaker.succeeded
            self._duration.observe(time.perf_counter() - (call.body.finished_at or started))
            return answer
        finally:
            settle(number)

    def _explain(self, body: RequestBody, error: Exception) -> _EndedError:
        if body.error is not None:
            return _EndedError("client", body.error)
        if isinstance(error, aiohttp.ConnectionTimeoutError | aiohttp.ClientConnectorError):
            # Nothing was sent, so trying again is safe.
            problem = unavailable("upstream-unavailable", f"The {self.name} service cannot be reached.")
            return _EndedError("unreachable", problem)
        if isinstance(error, TimeoutError):
            if body.waiting:
                return _EndedError("client", Problem(408, "request-timeout", "The request did not arrive in time."))
            problem = Problem(504, "upstream-timeout", f"The {self.name} service did not answer in time.")
            return _EndedError("timeout", problem)
        return _EndedError("broken", Problem(502, "upstream-failed", f"The {self.name} service broke off its answer."))
