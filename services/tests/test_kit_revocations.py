"""The local copy of ended sessions: what it learns and when, what it forgets, and what it does without Redis."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from slipway_kit import redis as kit_redis
from slipway_kit import revocations as kit_revocations
from slipway_kit.redis import Redis
from slipway_kit.revocations import REVOKED_SESSIONS, Revocations
from slipway_kit.settings import RedisSettings
from slipway_kit.tasks import background
from slipway_testing.redis import RedisServer
from slipway_testing.settings import settings_of

KEEP = 900


@pytest.fixture(autouse=True)
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kit_redis, "PAUSE_SECONDS", 0.01)


@asynccontextmanager
async def copy_of(server: RedisServer, **options: Any) -> AsyncIterator[tuple[Revocations, CollectorRegistry]]:
    registry = CollectorRegistry()
    redis = Redis(settings_of(RedisSettings, **server.settings("api")), registry, "probe")
    try:
        yield Revocations(redis, registry, **({"keep_seconds": KEEP} | options)), registry
    finally:
        await redis.close()


def revoke(server: RedisServer, session_id: str, ago: float = 0) -> None:
    with server.admin() as admin:
        admin.zadd(REVOKED_SESSIONS, {session_id: time.time() - ago})


async def test_what_was_revoked_before_the_start_and_after_it(own_redis: RedisServer) -> None:
    revoke(own_redis, "before", ago=600)
    revoke(own_redis, "long-ago", ago=KEEP + kit_revocations.OVERLAP_SECONDS + 5)
    async with copy_of(own_redis) as (copy, registry):
        assert not copy.revoked("before")
        await copy.look()
        assert copy.revoked("before")
        # No token of that session is left.
        assert not copy.revoked("long-ago")
        revoke(own_redis, "after")
        assert not copy.revoked("after")
        await copy.look()
        assert copy.revoked("after")
        assert registry.get_sample_value("revocations_known") == 2


async def test_a_clock_that_is_behind_costs_no_revocation(own_redis: RedisServer) -> None:
    async with copy_of(own_redis) as (copy, _):
        await copy.look()
        revoke(own_redis, "written-late", ago=kit_revocations.OVERLAP_SECONDS - 2)
        await copy.look()
        assert copy.revoked("written-late")


async def test_old_entries_are_forgotten(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    revoke(own_redis, "old")
    async with copy_of(own_redis) as (copy, registry):
        await copy.look()
        assert copy.revoked("old")
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + KEEP + kit_revocations.OVERLAP_SECONDS + 1)
        await copy.look()
        assert not copy.revoked("old")
        assert registry.get_sample_value("revocations_known") == 0


async def test_what_is_known_outlives_redis(own_redis: RedisServer) -> None:
    revoke(own_redis, "known")
    async with copy_of(own_redis) as (copy, registry):
        await copy.look()
        own_redis.stop()
        await copy.look()
        assert copy.revoked("known")
        await asyncio.sleep(0.05)
        age = registry.get_sample_value("revocations_age_seconds")
        assert age is not None
        assert age >= 0.05
        assert registry.get_sample_value("redis_unavailable_total", {"operation": "revocations"}) == 1
        # It comes back empty; auth writes everything again, with the old times.
        own_redis.start()
        revoke(own_redis, "written-again", ago=800)
        await asyncio.sleep(0.05)
        looking = time.monotonic()
        await copy.look()
        assert copy.revoked("known")
        assert copy.revoked("written-again")
        assert copy.age() <= time.monotonic() - looking


async def test_old_times_are_found_without_a_failure_too(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """auth may be the one that could not reach Redis."""
    async with copy_of(own_redis) as (copy, _):
        await copy.look()
        revoke(own_redis, "late", ago=500)
        await copy.look()
        assert not copy.revoked("late")
        monkeypatch.setattr(kit_revocations, "WHOLE_SECONDS", 0)
        await copy.look()
        assert copy.revoked("late")


async def test_a_service_starts_without_redis(own_redis: RedisServer) -> None:
    own_redis.stop()
    async with copy_of(own_redis) as (copy, registry):
        await copy.look()
        assert not copy.revoked("anything")
        assert registry.get_sample_value("revocations_known") == 0


async def test_the_loop_looks_every_interval(own_redis: RedisServer) -> None:
    async with copy_of(own_redis, interval=0.02) as (copy, _), background("revocations", copy.run):
        revoke(own_redis, "session")
        async with asyncio.timeout(5):
            while not copy.revoked("session"):  # noqa: ASYNC110 - the point is that nobody tells it
                await asyncio.sleep(0.01)
