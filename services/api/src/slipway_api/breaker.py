"""A circuit breaker: after some calls in a row without an answer nobody waits for the next one in vain.

closed --failures in a row--> open --time--> half open: one call goes through as the trial --answer--> closed
                               ^------------------no answer-----------------'

Only a call that got no answer counts as failed. An answer, be it a 503, shows that the service lives and knows what it
says; and clients must not be able to open the breaker for others by what they send.
"""

import math
import time
from collections.abc import Callable
from enum import StrEnum

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge
from slipway_kit.problems import unavailable

log = structlog.get_logger()


class BreakerState(StrEnum):
    CLOSED = "closed"
    HALF_OPEN = "half-open"
    OPEN = "open"


class BreakerMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.state = Gauge(
            "upstream_breaker_state",
            "1 for the state that the breaker is in.",
            ["upstream", "state"],
            registry=registry,
        )
        self.opened = Counter("upstream_breaker_opened_total", "Times it opened.", ["upstream"], registry=registry)


class Breaker:
    """Each call: `admit`, then exactly one of `succeeded`, `failed`, `abandoned` with the number that admit gave."""

    def __init__(
        self,
        upstream: str,
        failures: int,
        open_seconds: float,
        metrics: BreakerMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstream = upstream
        self._limit = failures
        self._open_seconds = open_seconds
        self._metrics = metrics
        self._clock = clock
        self._failures = 0
        # Nobody gets through before, unless it is closed.
        self._blocked_until = 0.0
        # Changes with the state: what a call from before it tells, says nothing about now.
        self._number = 0
        self._state = BreakerState.CLOSED
        self._enter(BreakerState.CLOSED)

    @property
    def state(self) -> BreakerState:
        return self._state

    @property
    def refuses(self) -> bool:
        """Whether a call would be refused now."""
        return self._state is not BreakerState.CLOSED and self._clock() < self._blocked_until

    def check(self) -> None:
        """Problem 503 when a call would be refused now."""
        if self.refuses:
            raise unavailable(
                "upstream-unavailable",
                f"The {self._upstream} service did not answer lately.",
                retry_after=max(1, math.ceil(self._blocked_until - self._clock())),
            )

    def admit(self) -> int:
        """A number for this call; Problem 503 when it must not be tried."""
        if self._state is BreakerState.CLOSED:
            return self._number
        self.check()
        # This call is the trial. Others wait for its outcome, but not for longer than the breaker was open: it may be
        # an upload from somewhere slow.
        self._blocked_until = self._clock() + self._open_seconds
        self._enter(BreakerState.HALF_OPEN)
        return self._number

    def succeeded(self, number: int) -> None:
        if number != self._number:
            return
        self._failures = 0
        if self._state is BreakerState.HALF_OPEN:
            self._enter(BreakerState.CLOSED)

    def failed(self, number: int) -> None:
        if number != self._number:
            return
        self._failures += 1
        if self._state is BreakerState.HALF_OPEN or self._failures >= self._limit:
            self._failures = 0
            self._blocked_until = self._clock() + self._open_seconds
            self._metrics.opened.labels(self._upstream).inc()
            self._enter(BreakerState.OPEN)

    def abandoned(self, number: int) -> None:
        """It ended without telling anything: the client left."""
        if number == self._number and self._state is BreakerState.HALF_OPEN:
            # The next one is the trial.
            self._blocked_until = self._clock()

    def _enter(self, state: BreakerState) -> None:
        if state is not self._state:
            log.warning("breaker", upstream=self._upstream, before=self._state, state=state)
        self._state = state
        self._number += 1
        for other in BreakerState:
            self._metrics.state.labels(self._upstream, other).set(other is state)
