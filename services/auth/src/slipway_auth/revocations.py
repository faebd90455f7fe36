"""Telling Redis which sessions have ended: at once, and again when Redis has lost it.

Postgres decides; Redis only spreads the word, to verifiers that keep a copy of it (slipway_kit.revocations). While it
is away a revocation is not heard of: access tokens of that session then count until they expire, 15 minutes at most.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta

import redis.asyncio
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge
from slipway_kit.problems import Problem
from slipway_kit.redis import Redis
from slipway_kit.revocations import OVERLAP_SECONDS, REVOKED_SESSIONS

from slipway_auth.repository import RevokedSession, SessionRepository

# One command of this size takes Redis less than a millisecond, in which others wait.
BATCH = 500

log = structlog.get_logger()


class RevocationPublisher:
    def __init__(
        self,
        redis: Redis,
        sessions: SessionRepository,
        registry: CollectorRegistry,
        *,
        token_lifetime: float,
        interval: float,
    ) -> None:
        self._redis = redis
        self._sessions = sessions
        self._interval = interval
        # As long as verifiers look back. After it no access token of the session is left.
        self._keep = timedelta(seconds=token_lifetime + OVERLAP_SECONDS)
        self._published = Counter(
            "auth_revocations_published_total", "Revocations written to Redis.", ["occasion"], registry=registry
        )
        self._unpublished = Gauge(
            "auth_revocations_unpublished",
            "Revocations that Redis could not be told at the last look.",
            registry=registry,
        )
        for occasion in ("revoked", "restored"):
            self._published.labels(occasion)

    async def publish(self, revoked: Sequence[RevokedSession]) -> None:
        """Right after the commit. What fails here is made good by `restore`."""
        for some in _batched(revoked):
            if await self._write(some):
                self._published.labels("revoked").inc(len(some))

    async def restore(self) -> None:
        """Write what Redis does not know (any more), drop what is too old to matter."""
        revoked = await self._sessions.revoked_within(self._keep)
        missing = [session for some in _batched(revoked) for session in await self._unknown(some)]
        unpublished = len(missing)
        for some in _batched(missing):
            if await self._write(some):
                unpublished -= len(some)
                self._published.labels("restored").inc(len(some))
                log.info("revocations restored", count=len(some))
        self._unpublished.set(unpublished)
        await self._redis.attempt("revocations.forget", self._forget, None)

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                await self.restore()
            except Problem:
                # The database is away, and has said so itself.
                log.debug("revocations not compared")
            await asyncio.sleep(self._interval)

    async def _write(self, revoked: Sequence[RevokedSession]) -> bool:
        scores = {str(session.id): session.revoked_at.timestamp() for session in revoked}

        async def write(client: redis.asyncio.Redis) -> bool:
            await client.zadd(REVOKED_SESSIONS, scores)
            return True

        return await self._redis.attempt("revocations.write", write, False)

    async def _unknown(self, revoked: Sequence[RevokedSession]) -> list[RevokedSession]:
        members = [str(session.id) for session in revoked]

        async def read(client: redis.asyncio.Redis) -> list[float | None]:
            scores: list[float | None] = await client.zmscore(REVOKED_SESSIONS, members)
            return scores

        scores = await self._redis.attempt("revocations.compare", read, [None] * len(members))
        return [session for session, score in zip(revoked, scores, strict=True) if score is None]

    async def _forget(self, client: redis.asyncio.Redis) -> None:
        await client.zremrangebyscore(REVOKED_SESSIONS, "-inf", time.time() - self._keep.total_seconds())


def _batched(sessions: Sequence[RevokedSession]) -> Iterator[Sequence[RevokedSession]]:
    return (sessions[start : start + BATCH] for start in range(0, len(sessions), BATCH))
