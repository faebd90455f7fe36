"""Loops that live as long as the application: started with it, started again after a failure, cancelled with it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import structlog

# From the first failure on, doubled up to the last: a broken loop neither stops for good nor fills the log.
FIRST_PAUSE = 1.0
LAST_PAUSE = 60.0

log = structlog.get_logger()


@asynccontextmanager
async def background(name: str, loop: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run `loop()` beside the body. An exception is logged and the loop started again; returning ends it for good."""
    task = asyncio.create_task(_keep_running(name, loop), name=name)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _keep_running(name: str, loop: Callable[[], Awaitable[None]]) -> None:
    clock = asyncio.get_running_loop().time
    pause = FIRST_PAUSE
    while True:
        started = clock()
        try:
            await loop()
            return
        except Exception:
            # What ran for long was well: its failure is a first one.
            if clock() - started > LAST_PAUSE:
                pause = FIRST_PAUSE
            log.exception("background task failed", task=name, again_in_seconds=pause)
        await asyncio.sleep(pause)
        pause = min(pause * 2, LAST_PAUSE)
