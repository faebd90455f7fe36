"""A local copy of the sessions that were ended, so that a request asks nobody whether its token still counts.

auth writes them to a sorted set in Redis; every service that verifies tokens reads the new ones once a second. What is
known is kept for as long as a token can live, so it also outlives Redis. While Redis is away new revocations do not
arrive: an access token of such a session then counts until it expires, after 15 minutes at most. Refreshing, changing
a password and introspection ask Postgres and are not affected.
"""

import asyncio
import time
from typing import Any

import redis.asyncio
import structlog
from prometheus_client import CollectorRegistry, Gauge

from slipway_kit.redis import Redis

# Sorted set: member = session id, score = unix time of the revocation. Only auth writes it.
REVOKED_SESSIONS = "auth:revoked-sessions"
# Clocks of replicas differ a little, and a revocation is written a moment after the time that it carries.
OVERLAP_SECONDS = 60.0
# auth writes again what Redis has lost, with old times: now and then the whole set is read.
WHOLE_SECONDS = 15.0

log = structlog.get_logger()


class Revocations:
    """`keep_seconds` is the lifetime of access tokens: older revocations have nothing left to revoke."""

    def __init__(
        self, redis: Redis, registry: CollectorRegistry, *, keep_seconds: float, interval: float = 1.0
    ) -> None:
        self._redis = redis
        self._keep = keep_seconds + OVERLAP_SECONDS
        self._interval = interval
        self._sessions: dict[str, float] = {}
        self._started_at = time.monotonic()
        self._looked_at: float | None = None
        self._whole_at = float("-inf")
        self._whole = False
        Gauge("revocations_known", "Sessions whose tokens are refused.", registry=registry).set_function(
            lambda: len(self._sessions)
        )
        Gauge(
            "revocations_age_seconds", "Time since revocations were read, or since the start.", registry=registry
        ).set_function(self.age)

    def revoked(self, session_id: str) -> bool:
        """Whether this session is known to have been ended."""
        return session_id in self._sessions

    def age(self) -> float:
        """Seconds since the last successful look, or since the start when there was none."""
        return time.monotonic() - (self._looked_at if self._looked_at is not None else self._started_at)

    async def run(self) -> None:
        """Looks every interval, for ever: for `tasks.background`."""
        while True:
            await self.look()
            await asyncio.sleep(self._interval)

    async def look(self) -> None:
        """Learn what is new, forget what is old."""
        now = time.time()
        # After a failure too: what auth wrote in the meantime, and what it wrote again.
        whole = not self._whole or time.monotonic() - self._whole_at >= WHOLE_SECONDS
        since = now - (self._keep if whole else min(self._keep, OVERLAP_SECONDS))

        async def read(client: redis.asyncio.Redis) -> list[Any]:
            return await client.zrangebyscore(REVOKED_SESSIONS, since, "+inf", withscores=True)

        found = await self._redis.attempt("revocations", read, None)
        self._whole = found is not None
        if found is not None:
            self._looked_at = time.monotonic()
            if whole:
                self._whole_at = self._looked_at
            self._sessions.update((member.decode(), score) for member, score in found)
        oldest = now - self._keep
        for session_id in [session_id for session_id, at in self._sessions.items() if at < oldest]:
            del self._sessions[session_id]
