"""The word about ended sessions: written at once, written again when Redis has lost it, and dropped when it is old."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx2
import jwt
import pytest
import structlog
from prometheus_client import CollectorRegistry
from slipway_auth import cleanup, revocations
from slipway_auth.cleanup import Cleanup
from slipway_auth.repository import SessionRepository
from slipway_auth.revocations import RevocationPublisher
from slipway_auth.settings import Settings
from slipway_kit import migrations
from slipway_kit.database import Database
from slipway_kit.migrations import load_migrations
from slipway_kit.problems import Problem
from slipway_kit.redis import Redis
from slipway_kit.revocations import REVOKED_SESSIONS, Revocations
from slipway_testing.platform import PASSWORD, Platform, User
from slipway_testing.redis import RedisServer

LIFETIME = 900
# A busy machine must not look like a Redis that is away.
PATIENT: dict[str, Any] = {"redis_timeout": 10.0}


def login(client: httpx2.Client, account: User) -> tuple[str, dict[str, str]]:
    """Session id, and the headers of a request of that session."""
    token = client.post("/login", json={"username": account.username, "password": PASSWORD}).json()["access_token"]
    sid: str = jwt.decode(token, options={"verify_signature": False})["sid"]
    return sid, {"Authorization": f"Bearer {token}"}


def known(server: RedisServer) -> dict[str, float]:
    with server.admin() as redis:
        return dict(redis.zrange(REVOKED_SESSIONS, 0, -1, withscores=True))


def eventually(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def serving(platform: Platform, own_redis: RedisServer) -> Iterator[httpx2.Client]:
    """An auth with a Redis of its own, at which it looks all the time."""
    changes = (
        own_redis.settings("auth") | PATIENT | {"revocations_interval_seconds": 0.1, "cleanup_interval_seconds": 0.1}
    )
    with platform.auth(**changes) as server, httpx2.Client(base_url=server.url) as client:
        yield client


@pytest.fixture
def patient(platform: Platform) -> Iterator[httpx2.Client]:
    """An auth whose loop never comes to look: what is told is told at once."""
    changes: dict[str, Any] = PATIENT | {"revocations_interval_seconds": 600}
    with platform.auth(**changes) as server, httpx2.Client(base_url=server.url) as client:
        yield client


def test_the_end_of_a_session_is_told_at_once(platform: Platform, patient: httpx2.Client, account: User) -> None:
    session, headers = login(patient, account)
    before = time.time()
    assert patient.post("/logout", headers=headers).status_code == 204
    assert before - 1 <= known(platform.redis)[session] <= time.time() + 1


def test_a_password_change_tells_of_all_others(platform: Platform, patient: httpx2.Client, account: User) -> None:
    others = [login(patient, account)[0] for _ in range(2)]
    kept, headers = login(patient, account)
    body = {"current_password": PASSWORD, "new_password": "a whole new horse"}
    assert patient.post("/password", json=body, headers=headers).status_code == 204
    assert set(others) <= set(known(platform.redis))
    assert kept not in known(platform.redis)


def test_what_redis_loses_is_written_again(serving: httpx2.Client, own_redis: RedisServer, account: User) -> None:
    session, headers = login(serving, account)
    serving.post("/logout", headers=headers)
    score = known(own_redis)[session]
    with own_redis.admin() as redis:
        redis.flushall()
    eventually(lambda: known(own_redis).get(session) == score)
    assert 'auth_revocations_published_total{occasion="restored"}' in serving.get("/metrics").text


def test_what_ends_while_redis_is_away_is_told_when_it_is_back(
    serving: httpx2.Client, own_redis: RedisServer, account: User
) -> None:
    session, headers = login(serving, account)
    own_redis.stop()
    # Whoever asks Postgres is not fooled in the meantime.
    assert serving.post("/logout", headers=headers).status_code == 204
    assert serving.post("/verify", json={"token": headers["Authorization"][7:]}).json() == {"active": False}
    eventually(lambda: "auth_revocations_unpublished 0.0" not in serving.get("/metrics").text)
    own_redis.start()
    eventually(lambda: session in known(own_redis))
    eventually(lambda: "auth_revocations_unpublished 0.0" in serving.get("/metrics").text)


def test_rows_that_nobody_asks_for_any_more_go(serving: httpx2.Client, platform: Platform, account: User) -> None:
    def age(session: str, column: str, days: float) -> None:
        sql = f"UPDATE sessions SET {column} = now() - $2::interval WHERE id = $1 RETURNING 1"  # noqa: S608
        assert platform.postgres.query("auth_db", sql, session, timedelta(days=days))

    sessions = {
        name: login(serving, account)[0] for name in ("live", "expired", "just expired", "revoked", "just revoked")
    }
    sql = "UPDATE sessions SET revoked_at = now(), revoked_because = 'logout' WHERE id = $1 RETURNING 1"
    for name in ("revoked", "just revoked"):
        platform.postgres.query("auth_db", sql, sessions[name])
    age(sessions["expired"], "expires_at", 1.1)
    age(sessions["just expired"], "expires_at", 0.9)
    age(sessions["revoked"], "revoked_at", 1.1)

    def left(table: str, column: str) -> set[str]:
        rows = platform.postgres.query("auth_db", f"SELECT DISTINCT {column}::text AS id FROM {table}")  # noqa: S608
        return {name for name, session in sessions.items() if session in {row["id"] for row in rows}}

    eventually(lambda: len(left("sessions", "id")) <= 3)
    assert left("sessions", "id") == left("refresh_tokens", "session_id") == {"live", "just expired", "just revoked"}


# The parts, without HTTP


@asynccontextmanager
async def parts(platform: Platform, server: RedisServer) -> AsyncIterator[tuple[SessionRepository, Redis]]:
    settings = Settings(**(platform.auth_settings | server.settings("auth") | PATIENT))
    registry = CollectorRegistry()
    database, redis = Database(settings, registry, "test"), Redis(settings, registry, "test")
    await database.open()
    try:
        yield SessionRepository(database, timedelta(days=7), timedelta(days=30)), redis
    finally:
        await redis.close()
        await database.close()


def publisher(sessions: SessionRepository, redis: Redis, **changes: float) -> RevocationPublisher:
    options: dict[str, Any] = {"token_lifetime": LIFETIME, "interval": 0.01} | changes
    return RevocationPublisher(redis, sessions, CollectorRegistry(), **options)


async def test_many_are_compared_and_written_in_pieces(
    platform: Platform, own_redis: RedisServer, account: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "BATCH", 2)
    connection = await platform.postgres.connect("auth_db")
    try:
        rows = await connection.fetch(
            """
            INSERT INTO sessions (user_id, expires_at, revoked_at, revoked_because)
            SELECT $1::uuid, now() + interval '1 day', now() - make_interval(secs => n), 'logout'
            FROM generate_series(1, 5) n RETURNING id::text
            """,
            account.id,
        )
    finally:
        await connection.close()
    async with parts(platform, own_redis) as (sessions, redis):
        await publisher(sessions, redis).restore()
        assert {row["id"] for row in rows} <= set(known(own_redis))
        # One that is missing in the middle is found.
        await redis.client.zrem(REVOKED_SESSIONS, rows[2]["id"])
        await publisher(sessions, redis).restore()
        assert {row["id"] for row in rows} <= set(known(own_redis))
        # And those who verify tokens learn them, although they carry old times.
        copy = Revocations(redis, CollectorRegistry(), keep_seconds=LIFETIME)
        await copy.look()
        assert all(copy.revoked(row["id"]) for row in rows)


async def test_what_no_token_can_live_to_see_is_dropped(platform: Platform, own_redis: RedisServer) -> None:
    now = time.time()
    async with parts(platform, own_redis) as (sessions, redis):
        await redis.client.zadd(REVOKED_SESSIONS, {"old": now - LIFETIME - 120, "young": now - LIFETIME})
        await publisher(sessions, redis).restore()
        assert "old" not in known(own_redis)
        assert "young" in known(own_redis)


async def test_the_loops_go_on_when_the_database_is_away(
    platform: Platform, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    async def away(name: str, *_: object) -> None:
        calls.append(name)
        raise Problem(503, "database-unavailable")

    async with parts(platform, own_redis) as (sessions, redis):
        monkeypatch.setattr(sessions, "revoked_within", lambda *_: away("compare"))
        monkeypatch.setattr(sessions, "remove_ended", lambda *_: away("remove"))
        loops = publisher(sessions, redis).run(), Cleanup(sessions, CollectorRegistry(), 0.01).run()
        tasks = [asyncio.create_task(loop) for loop in loops]
        await asyncio.sleep(0.3)
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert calls.count("compare") > 1
    assert calls.count("remove") > 1


async def test_removal_in_pieces_and_beside_others(
    platform: Platform, own_redis: RedisServer, account: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup, "BATCH", 2)
    connection = await platform.postgres.connect("auth_db")
    try:
        await connection.execute(
            """
            INSERT INTO sessions (user_id, expires_at) SELECT $1::uuid, now() - interval '3 days'
            FROM generate_series(1, 5)
            """,
            account.id,
        )
        async with parts(platform, own_redis) as (sessions, _):
            done = await asyncio.gather(*(Cleanup(sessions, CollectorRegistry(), 1).once() for _ in range(3)))
        assert sum(done) >= 5
        left = await connection.fetchval("SELECT count(*) FROM sessions WHERE expires_at < now() - interval '2 days'")
        assert left == 0
    finally:
        await connection.close()


def test_the_release_before_this_one_works_on_the_new_schema(platform: Platform) -> None:
    """Expand first: 0002 only adds. What the first release does with its table still works."""
    sql = """
        INSERT INTO users (username, password_hash) VALUES ($1, 'x')
        ON CONFLICT (username) DO NOTHING RETURNING id, username, password_hash, created_at
    """
    (row,) = platform.postgres.query("auth_db", sql, f"old-{time.time_ns()}")
    sql = "UPDATE users SET password_hash = $3, updated_at = now() WHERE id = $1 AND password_hash = $2 RETURNING 1"
    assert platform.postgres.query("auth_db", sql, row["id"], "x", "y")


async def test_accounts_of_the_release_before_are_still_there(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"upgrade_{time.time_ns()}"
    database = await asyncio.to_thread(platform.postgres.create_database, name, name, "a-password")
    settings = Settings(**(platform.auth_settings | database))
    with monkeypatch.context() as before:
        before.setattr(migrations, "load_migrations", lambda package: load_migrations(package)[:1])
        assert await migrations.migrate(settings, "slipway_auth") == ["0001"]
    connection = await platform.postgres.connect(name)
    try:
        await connection.execute("INSERT INTO users (username, password_hash) VALUES ('ada', 'x')")
        assert await migrations.migrate(settings, "slipway_auth") == ["0002"]
        assert await connection.fetchval("SELECT password_hash FROM users WHERE username = 'ada'") == "x"
        assert await connection.fetchval("SELECT count(*) FROM sessions") == 0
    finally:
        await connection.close()


def test_the_audit_log_says_who_did_what_and_no_secret(platform: Platform, account: User) -> None:
    lines: list[dict[str, Any]] = []

    def keep(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        lines.append(dict(event))
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, keep],
        wrapper_class=structlog.make_filtering_bound_logger(0),
        cache_logger_on_first_use=False,
    )
    try:
        with platform.auth() as server, httpx2.Client(base_url=server.url) as client:
            session, headers = login(client, account)
            client.post("/login", json={"username": account.username, "password": "wrong password"})
            client.post("/login", json={"username": "nobody-at-all", "password": "wrong password"})
            client.post("/logout", headers=headers)
    finally:
        structlog.configure(**before)
    audit = [line for line in lines if line.get("audit")]
    events = [line["event"] for line in audit]
    assert events == ["login accepted", "login refused", "login refused", "session revoked"]
    assert [line.get("user_id") for line in audit] == [account.id, account.id, None, account.id]
    assert (audit[0]["session_id"], audit[-1]["session_id"], audit[-1]["reason"]) == (session, session, "logout")
    assert all(line["request_id"] and line["client_address"] == "127.0.0.1" for line in audit)
    written = json.dumps(audit, default=str)
    for secret in (PASSWORD, "wrong password", headers["Authorization"][7:], account.username, "nobody-at-all"):
        assert secret not in written
