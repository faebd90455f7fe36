"""Rows that nobody will ask for again."""

import asyncio
from datetime import timedelta

import structlog
from prometheus_client import CollectorRegistry, Counter
from slipway_kit.problems import Problem

from slipway_auth.repository import SessionRepository

# Longer than any access token lives: until then the revocation of its session has to be known.
KEEP_ENDED = timedelta(days=1)
# Few enough to be done well within the command timeout.
BATCH = 1000

log = structlog.get_logger()


class Cleanup:
    """In the service and not in a job of its own: it is a few statements an hour, and every replica may do them."""

    def __init__(self, sessions: SessionRepository, registry: CollectorRegistry, interval: float) -> None:
        self._sessions = sessions
        self._interval = interval
        self._removed = Counter("auth_sessions_removed_total", "Ended sessions removed.", registry=registry)

    async def once(self) -> int:
        """Remove the sessions that ended more than a day ago, with their refresh tokens; how many."""
        total = 0
        while True:
            removed = await self._sessions.remove_ended(KEEP_ENDED, BATCH)
            total += removed
            self._removed.inc(removed)
            if removed < BATCH:
                return total

    async def run(self) -> None:
        """For ever; the first time an interval after the start, which a crashing process never reaches."""
        while True:
            await asyncio.sleep(self._interval)
            try:
                log.info("ended sessions removed", count=await self.once())
            except Problem:
                # The database is away, and has said so itself.
                log.debug("ended sessions not removed")
