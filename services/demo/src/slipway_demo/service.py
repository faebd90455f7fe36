"""What demo does, without HTTP."""

import asyncio
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Histogram
from slipway_kit.capacity import Capacity, CapacityMetrics
from slipway_kit.problems import Problem

from slipway_demo.schemas import Data, Flaky, Item, Slow

# A tenth of a second to ten seconds: what users notice, and what time limits are about.
DELAY_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class DemoService:
    """`chance` gives numbers from 0 to below 1; `slow_max` bounds how many requests dawdle at a time."""

    def __init__(self, registry: CollectorRegistry, chance: Callable[[], float], slow_max: int) -> None:
        self._chance = chance
        # No queue: whoever comes too late is told at once, or the delay would not be the one that was asked for.
        self._gate = Capacity("slow", slow_max, queue=0, wait_seconds=0, metrics=CapacityMetrics(registry))
        self._flaky = Counter("demo_flaky_total", "Answers of /api/flaky by outcome.", ["outcome"], registry=registry)
        # From the start, so that a rate over the first failure is not lost.
        self._succeeded = self._flaky.labels("success")
        self._failed = self._flaky.labels("failure")
        self._items = Counter("demo_items_served_total", "Items that /api/data gave out.", registry=registry)
        self._delays = Histogram(
            "demo_delay_seconds",
            "Delays that /api/slow was asked for.",
            buckets=DELAY_BUCKETS,
            registry=registry,
        )
        self.started_at = datetime.now(UTC)
        self._started = time.monotonic()
        self.failures = 0
        self.dawdling = 0

    @property
    def uptime_seconds(self) -> float:
        return time.monotonic() - self._started

    def data(self, count: int) -> Data:
        """`count` items; the same ones each time, so that answers of replicas and releases can be compared."""
        self._items.inc(count)
        items = [Item(id=id_, name=f"item-{id_}", value=round(math.sin(id_), 6)) for id_ in range(1, count + 1)]
        return Data(items=items, count=count)

    def flaky(self, failure_rate: float) -> Flaky:
        """Fails (Problem 500) in the given share of all cases: 0 never, 1 always."""
        if self._chance() < failure_rate:
            self.failures += 1
            self._failed.inc()
            raise Problem(500, "flaky-failure", "It was asked to fail, and it did.", extra={"on_purpose": True})
        self._succeeded.inc()
        return Flaky(failure_rate=failure_rate)

    async def slow(self, delay_ms: int) -> Slow:
        """Answers after `delay_ms`. Problem 503 when as many as allowed are waiting already."""
        started = time.perf_counter()
        async with self._gate.slot():
            self._delays.observe(delay_ms / 1000)
            self.dawdling += 1
            try:
                await asyncio.sleep(delay_ms / 1000)
            finally:
                self.dawdling -= 1
        return Slow(delay_ms=delay_ms, waited_ms=round((time.perf_counter() - started) * 1000, 2))
