"""One read for all who ask at the same moment, and never one that began before somebody asked."""

import asyncio

import pytest
from slipway_api.sharing import SharedReads


class Source:
    """Something that changes, and takes its time to say so."""

    def __init__(self) -> None:
        self.value = 0
        self.reads = 0
        self.began = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.shared = SharedReads(self.read)

    async def read(self, key: str) -> str:
        self.reads += 1
        self.began.set()
        seen = f"{key}{self.value}"
        await self.goes_on.wait()
        if key == "bad":
            raise LookupError(seen)
        return seen


async def test_those_of_one_turn_share_a_read() -> None:
    source = Source()
    assert await asyncio.gather(*(source.shared.get("a") for _ in range(20))) == ["a0"] * 20
    assert source.reads == 1
    assert await source.shared.get("a") == "a0"
    assert source.reads == 2


async def test_nobody_gets_what_was_read_before_he_asked() -> None:
    """As after a write of his own: the read that is under way may not have seen it."""
    source = Source()
    source.goes_on.clear()
    first = asyncio.create_task(source.shared.get("a"))
    await source.began.wait()
    source.value = 1
    second = asyncio.create_task(source.shared.get("a"))
    await asyncio.sleep(0)
    source.goes_on.set()
    assert (await first, await second) == ("a0", "a1")


async def test_keys_are_told_apart() -> None:
    source = Source()
    assert await asyncio.gather(*map(source.shared.get, "ab")) == ["a0", "b0"]
    assert source.reads == 2


async def test_a_failure_is_that_of_all_and_not_of_the_next() -> None:
    source = Source()
    results = await asyncio.gather(*(source.shared.get("bad") for _ in range(3)), return_exceptions=True)
    assert [str(result) for result in results] == ["bad0"] * 3
    assert all(isinstance(result, LookupError) for result in results)
    source.value = 1
    with pytest.raises(LookupError, match="bad1"):
        await source.shared.get("bad")


async def test_whoever_leaves_takes_nobody_along() -> None:
    source = Source()
    source.goes_on.clear()
    leaving, staying = (asyncio.create_task(source.shared.get("a")) for _ in range(2))
    await source.began.wait()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    source.goes_on.set()
    assert await staying == "a0"
