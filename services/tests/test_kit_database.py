"""The pool: what passes by itself is a 503 and then over; what does not is an error."""

import asyncio
from typing import Any

import asyncpg
import pytest
from prometheus_client import CollectorRegistry
from slipway_kit.database import Database
from slipway_kit.problems import Problem
from slipway_kit.settings import DatabaseSettings
from slipway_testing.platform import Platform
from slipway_testing.processes import free_port


def settings(platform: Platform, **changes: Any) -> DatabaseSettings:
    names = ("database_host", "database_port", "database_name", "database_user", "database_password", "public_url")
    values = {name: platform.api_settings[name] for name in names}
    return DatabaseSettings(**(values | {"port": 1} | changes))


async def opened(settings: DatabaseSettings) -> tuple[Database, CollectorRegistry]:
    registry = CollectorRegistry()
    database = Database(settings, registry, "test")
    await database.open()
    return database, registry


async def test_queries_are_measured_by_name(platform: Platform) -> None:
    database, registry = await opened(settings(platform))
    try:
        assert (await database.fetch("numbers", "SELECT generate_series(1, $1::int) AS n", 3))[2]["n"] == 3
        assert await database.fetchrow("nothing", "SELECT 1 WHERE false") is None
        assert await database.execute("none", "DELETE FROM posts WHERE false") == 0
        assert registry.get_sample_value("db_query_duration_seconds_count", {"query": "numbers"}) == 1
        assert registry.get_sample_value("db_pool_connections", {"state": "idle"}) == 1
        assert registry.get_sample_value("db_pool_connections", {"state": "max"}) == 10
    finally:
        await database.close()


async def test_lost_connections_are_replaced(platform: Platform) -> None:
    database, _ = await opened(settings(platform))
    try:
        await asyncio.gather(*(database.fetch("sleep", "SELECT pg_sleep(0.05)") for _ in range(4)))
        superuser = await platform.postgres.connect()
        await superuser.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'test'"
        )
        await superuser.close()
        await asyncio.sleep(0.1)
        for _ in range(6):
            assert (await database.fetch("one", "SELECT 1 AS n"))[0]["n"] == 1
    finally:
        await database.close()


@pytest.mark.parametrize(
    ("sql", "changes"),
    [
        ("SELECT pg_sleep(5)", {"database_command_timeout": 0.2}),
        ("SELECT pg_terminate_backend(pg_backend_pid())", {}),
        ("SELECT 1", {"database_port": 1}),
        ("SELECT 1", {"database_name": "nowhere"}),
        ("SELECT 1", {"database_password": "wrong"}),
    ],
    ids=["too slow", "killed", "nobody listens", "no such database yet", "password not known yet"],
)
async def test_what_passes_by_itself_is_a_503(platform: Platform, sql: str, changes: dict[str, Any]) -> None:
    if changes.get("database_port"):
        changes = {"database_port": free_port()}
    database, registry = await opened(settings(platform, **changes))
    try:
        with pytest.raises(Problem) as error:
            await database.fetch("probe", sql)
        assert (error.value.status_code, error.value.code) == (503, "database-unavailable")
        assert error.value.headers == {"Retry-After": "2"}
        assert registry.get_sample_value("db_unavailable_total", {"query": "probe"}) == 1
    finally:
        await database.close()


async def test_a_pool_that_is_used_up_is_a_503(platform: Platform) -> None:
    database, _ = await opened(settings(platform, database_pool_max=1, database_acquire_timeout=0.2))
    try:
        long = asyncio.create_task(database.fetch("long", "SELECT pg_sleep(0.6)"))
        await asyncio.sleep(0.1)
        with pytest.raises(Problem):
            await database.fetch("short", "SELECT 1")
        await long
        assert await database.fetch("short", "SELECT 1")
    finally:
        await database.close()


async def test_a_mistake_in_sql_is_not_a_503(platform: Platform) -> None:
    database, _ = await opened(settings(platform))
    try:
        with pytest.raises(asyncpg.UndefinedTableError):
            await database.fetch("wrong", "SELECT * FROM nowhere")
    finally:
        await database.close()


async def test_not_open(platform: Platform) -> None:
    database = Database(settings(platform), CollectorRegistry(), "test")
    with pytest.raises(RuntimeError, match="not open"):
        await database.ping()
    await database.close()


async def test_one_service_cannot_read_the_database_of_another(platform: Platform) -> None:
    database, _ = await opened(settings(platform, database_name="auth_db"))
    try:
        with pytest.raises((Problem, asyncpg.InsufficientPrivilegeError)):
            await database.fetch("foreign", "SELECT * FROM users")
    finally:
        await database.close()
