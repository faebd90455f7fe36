"""A bounded number of expensive things at a time, a bounded queue before it, and an honest 503 for the rest."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from prometheus_client import CollectorRegistry, Counter, Gauge

from slipway_kit.problems import Problem, unavailable

T = TypeVar("T")


class CapacityMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.used = Gauge("capacity_used", "Slots in use.", ["name"], registry=registry)
        self.waiting = Gauge("capacity_waiting", "Requests that wait for a slot.", ["name"], registry=registry)
        self.refused = Counter(
            "capacity_refused_total", "Requests refused for want of a slot.", ["name"], registry=registry
        )


class Capacity:
    """AnyIO's default limiter has 40 threads and an endless queue: too many for work that costs much memory or CPU."""

    def __init__(self, name: str, size: int, queue: int, wait_seconds: float, metrics: CapacityMetrics) -> None:
        self.name = name
        self.queue = queue
        self.wait_seconds = wait_seconds
        self._slots = asyncio.Semaphore(size)
        self._threads = anyio.CapacityLimiter(size)
        self._queued = 0
        self._used = metrics.used.labels(name)
        self._waiting = metrics.waiting.labels(name)
        self._refused = metrics.refused.labels(name)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        await self._acquire()
        self._used.inc()
        try:
            yield
        finally:
            self._used.dec()
            self._slots.release()

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """In a thread, holding a slot. A client that leaves does not free the slot before the thread has ended."""
        async with self.slot():
            return await self.thread(function, *arguments)

    async def thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """In a thread, for a caller that holds a slot."""
        return await anyio.to_thread.run_sync(function, *arguments, limiter=self._threads)

    async def _acquire(self) -> None:
        if not self._slots.locked():
            await self._slots.acquire()
            return
        if self._queued >= self.queue:
            raise self._busy()
        self._queued += 1
        self._waiting.set(self._queued)
        try:
            async with asyncio.timeout(self.wait_seconds):
                await self._slots.acquire()
        except TimeoutError:
            raise self._busy() from None
        finally:
            self._queued -= 1
            self._waiting.set(self._queued)

    def _busy(self) -> Problem:
        self._refused.inc()
        return unavailable("busy", "Too many requests of this kind at the moment.", retry_after=1)
