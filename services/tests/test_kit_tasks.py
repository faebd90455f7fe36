"""Loops beside the requests: they survive their failures and end with the application."""

import asyncio

import pytest
from slipway_kit import tasks
from slipway_kit.tasks import background


async def test_a_loop_is_cancelled_at_the_end() -> None:
    seen: list[str] = []

    async def loop() -> None:
        seen.append("started")
        try:
            await asyncio.sleep(60)
        finally:
            seen.append("ended")

    async with background("loop", loop):
        await asyncio.sleep(0.01)
        assert seen == ["started"]
    assert seen == ["started", "ended"]
    assert len(asyncio.all_tasks()) == 1


async def test_a_loop_starts_again_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "FIRST_PAUSE", 0.001)
    runs = 0
    fourth = asyncio.Event()

    async def loop() -> None:
        nonlocal runs
        runs += 1
        if runs < 4:
            raise RuntimeError("again")
        fourth.set()
        await asyncio.sleep(60)

    async with background("loop", loop), asyncio.timeout(5):
        await fourth.wait()
    assert runs == 4


async def test_pauses_grow_to_a_bound_and_shrink_after_a_good_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    now = 0.0
    runs = 0

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)

    async def loop() -> None:
        nonlocal now, runs
        runs += 1
        if runs == 9:
            # This time it ran well for two minutes.
            now += 120
        if runs == 11:
            return
        raise RuntimeError("again")

    await tasks._keep_running("loop", loop)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 1, 2]


async def test_an_error_of_the_body_also_ends_the_loop() -> None:
    async def loop() -> None:
        await asyncio.sleep(60)

    with pytest.raises(KeyError):
        async with background("loop", loop):
            raise KeyError
    assert len(asyncio.all_tasks()) == 1
