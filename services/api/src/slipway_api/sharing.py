"""One read for all who ask at the same moment."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class SharedReads(Generic[K, T]):
    """Everybody who asks for the same in one turn of the event loop gets the answer to one question.

    Nobody gets what was read before he asked: a read is shared until it begins, and not after. So nothing can be older
    than with a read for each, and there is nothing to invalidate. Under load a turn has many requests in it; without
    load it has one, and costs what it costs.
    """

    def __init__(self, read: Callable[[K], Awaitable[T]]) -> None:
        self._read = read
        self._waiting: dict[K, asyncio.Task[T]] = {}

    async def get(self, key: K) -> T:
        """What `read(key)` returns or raises."""
        task = self._waiting.get(key)
        if task is None:
            # It begins in the next turn of the loop.
            task = self._waiting[key] = asyncio.create_task(self._begin(key))
        # Whoever is cancelled leaves the others their answer.
        return await asyncio.shield(task)

    async def _begin(self, key: K) -> T:
        del self._waiting[key]
        return await self._read(key)
