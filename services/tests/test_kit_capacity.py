"""Slots, the queue before them, and what the rest is told."""

import asyncio
import threading

import pytest
from prometheus_client import CollectorRegistry
from slipway_kit.capacity import Capacity, CapacityMetrics
from slipway_kit.problems import Problem


def capacity(size: int, queue: int, wait: float = 5) -> tuple[Capacity, CollectorRegistry]:
    registry = CollectorRegistry()
    return Capacity("test", size, queue, wait, CapacityMetrics(registry)), registry


def value(registry: CollectorRegistry, name: str) -> float | None:
    return registry.get_sample_value(name, {"name": "test"})


async def test_never_more_than_size_at_a_time() -> None:
    gate, registry = capacity(3, 100)
    running, most = 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.02)
        with lock:
            running -= 1

    await asyncio.gather(*(gate.run(work) for _ in range(12)))
    assert most == 3
    assert value(registry, "capacity_used") == 0
    assert value(registry, "capacity_waiting") == 0
    assert value(registry, "capacity_refused_total") == 0


async def test_a_full_queue_refuses_at_once() -> None:
    gate, registry = capacity(1, 1)
    async with gate.slot():
        waiting = asyncio.create_task(hold(gate))
        await asyncio.sleep(0)
        with pytest.raises(Problem) as error:
            await hold(gate)
    assert (error.value.status_code, error.value.headers) == (503, {"Retry-After": "1"})
    await waiting
    assert value(registry, "capacity_refused_total") == 1


async def test_nobody_waits_longer_than_told() -> None:
    gate, registry = capacity(1, 10, wait=0.05)
    async with gate.slot():
        with pytest.raises(Problem):
            await hold(gate)
    assert value(registry, "capacity_waiting") == 0
    await hold(gate)


async def test_who_gives_up_frees_the_place_in_the_queue() -> None:
    gate, registry = capacity(1, 1)
    async with gate.slot():
        waiting = asyncio.create_task(hold(gate))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert value(registry, "capacity_waiting") == 0
    await hold(gate)


async def test_a_failing_job_gives_its_slot_back() -> None:
    gate, registry = capacity(1, 0)

    def fail() -> None:
        raise ValueError("no")

    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            await gate.run(fail)
    assert value(registry, "capacity_used") == 0


async def hold(gate: Capacity) -> None:
    async with gate.slot():
        pass
