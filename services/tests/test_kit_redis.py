"""Redis comes and goes; nobody waits for it, and nobody fails without it."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from prometheus_client import CollectorRegistry
from redis.exceptions import DataError, NoPermissionError
from slipway_kit import redis as kit_redis
from slipway_kit.redis import Redis
from slipway_kit.settings import RedisSettings
from slipway_testing.certificates import Authority
from slipway_testing.redis import RedisServer, running_redis
from slipway_testing.settings import settings_of


@asynccontextmanager
async def opened(values: dict[str, Any], **changes: Any) -> AsyncIterator[tuple[Redis, CollectorRegistry]]:
    registry = CollectorRegistry()
    client = Redis(settings_of(RedisSettings, **(values | changes)), registry, "probe")
    await client.open()
    try:
        yield client, registry
    finally:
        await client.close()


@contextmanager
def silent() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(64)
        yield sock.getsockname()[1]


async def write(client: redis.asyncio.Redis) -> Any:
    await client.set("auth:key", b"\xff\x00", ex=60)
    return await client.get("auth:key")


async def ping(client: redis.asyncio.Redis) -> bool:
    return bool(await client.ping())


def end_of_pause(client: Redis) -> None:
    """As if the second had passed."""
    client._try_at = 0.0


def unavailable(registry: CollectorRegistry, operation: str = "probe") -> float:
    return registry.get_sample_value("redis_unavailable_total", {"operation": operation}) or 0


async def test_bytes_go_in_and_out(redis_server: RedisServer) -> None:
    async with opened(redis_server.settings("auth")) as (client, registry):
        await client.ping()
        assert await client.attempt("probe", write, None) == b"\xff\x00"
        assert unavailable(registry) == 0


async def test_a_service_has_its_own_keys_only(redis_server: RedisServer) -> None:
    """Shows that the users of this suite are as narrow as the platform's, or its tests would show nothing."""
    async with opened(redis_server.settings("api")) as (client, _):
        await client.client.zrange("auth:revoked-sessions", 0, -1)
        for attempt in (
            client.client.set("auth:key", "x"),
            client.client.zadd("auth:revoked-sessions", {"x": 1}),
            client.client.get("image:key"),
            client.client.flushall(),
            client.client.keys("*"),
            client.client.config_get("*"),
        ):
            with pytest.raises(NoPermissionError):
                await attempt


async def test_a_refusal_is_no_absence(redis_server: RedisServer) -> None:
    async def forbidden(client: redis.asyncio.Redis) -> Any:
        return await client.get("image:key")

    async with opened(redis_server.settings("auth")) as (client, registry):
        assert await client.attempt("forbidden", forbidden, b"default") == b"default"
        assert unavailable(registry, "forbidden") == 1
        # Others go on.
        assert await client.attempt("probe", ping, False) is True


async def test_a_mistake_of_the_program_is_not_hidden(redis_server: RedisServer) -> None:
    async def wrong(client: redis.asyncio.Redis) -> None:
        await client.set("auth:key", object())  # type: ignore[arg-type]

    async with opened(redis_server.settings("auth")) as (client, _):
        with pytest.raises(DataError):
            await client.attempt("wrong", wrong, None)


async def test_it_may_be_away_and_come_back(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kit_redis, "PAUSE_SECONDS", 1000)
    async with opened(own_redis.settings("auth")) as (client, registry):
        assert await client.attempt("probe", ping, False) is True
        own_redis.stop()
        assert await client.attempt("probe", ping, False) is False
        with pytest.raises((OSError, redis.ConnectionError)):
            await client.ping()
        assert unavailable(registry) == 1
        own_redis.start()
        # Still in the pause.
        assert await client.attempt("probe", ping, False) is False
        end_of_pause(client)
        assert await client.attempt("probe", ping, False) is True
        # Connections that the restart has broken are noticed before they are used.
        assert await asyncio.gather(*(client.attempt("probe", ping, False) for _ in range(20))) == [True] * 20
        assert unavailable(registry) == 2


async def test_a_dead_one_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kit_redis, "PAUSE_SECONDS", 1000)
    tries = 0

    async def counted(client: redis.asyncio.Redis) -> bool:
        nonlocal tries
        tries += 1
        return bool(await client.ping())

    with silent() as port:
        values = {"redis_host": "127.0.0.1", "redis_port": port, "redis_user": "auth", "redis_password": "x"}
        async with opened(values, redis_timeout=0.1) as (client, registry):
            started = time.monotonic()
            assert await client.attempt("probe", counted, False) is False
            assert time.monotonic() - started > 0.09
            for _ in range(1000):
                assert await client.attempt("probe", counted, False) is False
            # None of them waited: none of them tried.
            assert tries == 1
            assert unavailable(registry) == 1001


async def test_after_the_pause_one_caller_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kit_redis, "PAUSE_SECONDS", 1000)
    tries = 0

    async def counted(client: redis.asyncio.Redis) -> bool:
        nonlocal tries
        tries += 1
        return bool(await client.ping())

    with silent() as port:
        values = {"redis_host": "127.0.0.1", "redis_port": port, "redis_user": "auth", "redis_password": "x"}
        async with opened(values, redis_timeout=0.05) as (client, _):
            await client.attempt("probe", counted, False)
            end_of_pause(client)
            await asyncio.gather(*(client.attempt("probe", counted, False) for _ in range(50)))
            assert tries == 2


@pytest.fixture(scope="module")
def tls_redis() -> Iterator[RedisServer]:
    """Speaks TLS only."""
    with running_redis("127.0.0.1") as server:
        yield server


async def test_over_tls(tls_redis: RedisServer) -> None:
    async with opened(tls_redis.settings("auth")) as (client, registry):
        await client.ping()
        assert await client.attempt("probe", write, None) == b"\xff\x00"
        assert await asyncio.gather(*(client.attempt("probe", ping, False) for _ in range(20))) == [True] * 20
        assert unavailable(registry) == 0


async def test_without_tls_it_gets_no_answer_from_a_server_with_it(tls_redis: RedisServer) -> None:
    async with opened(tls_redis.settings("auth"), redis_tls=False) as (client, registry):
        assert await client.attempt("probe", write, None) is None
        assert unavailable(registry) == 1


async def test_with_tls_it_gives_no_password_to_a_server_without(redis_server: RedisServer, tmp_path: Path) -> None:
    ca = Authority(tmp_path).file
    async with opened(redis_server.settings("auth"), redis_tls=True, platform_ca_file=ca) as (client, registry):
        assert await client.attempt("probe", write, None) is None
        assert unavailable(registry) == 1


@pytest.mark.parametrize("other_ca", [True, False], ids=["another CA", "the CAs of the system"])
async def test_a_certificate_of_nobody_it_believes_is_an_absence(
    tls_redis: RedisServer, tmp_path: Path, other_ca: bool
) -> None:
    ca = Authority(tmp_path).file if other_ca else None
    async with opened(tls_redis.settings("auth"), platform_ca_file=ca) as (client, registry):
        assert await client.attempt("probe", write, None) is None
        assert unavailable(registry) == 1
        with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            await client.ping()


async def test_a_certificate_for_another_name_is_an_absence() -> None:
    with running_redis("elsewhere.test") as server:
        async with opened(server.settings("auth")) as (client, _):
            assert await client.attempt("probe", write, None) is None
            with pytest.raises(redis.ConnectionError, match=r"not valid for '127\.0\.0\.1'"):
                await client.ping()


async def test_a_wrong_password_is_an_absence(redis_server: RedisServer) -> None:
    async with opened(redis_server.settings("auth"), redis_password="wrong") as (client, registry):
        assert await client.attempt("probe", ping, False) is False
        assert unavailable(registry) == 1


async def test_a_full_pool_degrades_instead_of_waiting(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kit_redis, "CONNECTIONS", 1)

    monkeypatch.setattr(kit_redis, "PAUSE_SECONDS", 0.01)
    async with opened(redis_server.settings("auth"), redis_timeout=0.5) as (client, _):
        pool = client.client.connection_pool
        taken = await pool.get_connection()  # type: ignore[no-untyped-call]
        assert await client.attempt("probe", ping, False) is False
        await pool.release(taken)
        await asyncio.sleep(0.02)
        assert await client.attempt("probe", ping, False) is True
