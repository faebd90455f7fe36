"""The pool: what passes by itself is a 503 and then over; what does not is an error."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from prometheus_client import CollectorRegistry
from slipway_kit.database import Database, UniqueViolation
from slipway_kit.problems import Problem
from slipway_kit.settings import DatabaseSettings
from slipway_testing.certificates import Authority
from slipway_testing.postgres import Postgres, running_postgres
from slipway_testing.processes import free_port
from slipway_testing.settings import settings_of


@pytest.fixture(scope="module")
def values(postgres: Postgres) -> dict[str, Any]:
    postgres.create_database("kit_other_db", "kit_other", "password-of-other")
    return postgres.create_database("kit_db", "kit", "password-of-kit")


def settings(values: dict[str, Any], **changes: Any) -> DatabaseSettings:
    return settings_of(DatabaseSettings, **(values | changes))


async def opened(settings: DatabaseSettings) -> tuple[Database, CollectorRegistry]:
    registry = CollectorRegistry()
    database = Database(settings, registry, "test")
    await database.open()
    return database, registry


async def test_queries_are_measured_by_name(values: dict[str, Any]) -> None:
    database, registry = await opened(settings(values))
    try:
        assert (await database.fetch("numbers", "SELECT generate_series(1, $1::int) AS n", 3))[2]["n"] == 3
        assert await database.fetchrow("nothing", "SELECT 1 WHERE false") is None
        await database.execute("create", "CREATE TABLE IF NOT EXISTS numbers (n int)")
        assert await database.execute("insert", "INSERT INTO numbers VALUES (1), (2)") == 2
        assert await database.execute("none", "DELETE FROM numbers WHERE false") == 0
        assert registry.get_sample_value("db_query_duration_seconds_count", {"query": "numbers"}) == 1
        assert registry.get_sample_value("db_pool_connections", {"state": "idle"}) == 1
        assert registry.get_sample_value("db_pool_connections", {"state": "max"}) == 10
    finally:
        await database.close()


async def test_lost_connections_are_replaced(values: dict[str, Any], postgres: Postgres) -> None:
    database, _ = await opened(settings(values))
    try:
        await asyncio.gather(*(database.fetch("sleep", "SELECT pg_sleep(0.05)") for _ in range(4)))
        superuser = await postgres.connect()
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
async def test_what_passes_by_itself_is_a_503(values: dict[str, Any], sql: str, changes: dict[str, Any]) -> None:
    if changes.get("database_port"):
        changes = {"database_port": free_port()}
    database, registry = await opened(settings(values, **changes))
    try:
        with pytest.raises(Problem) as error:
            await database.fetch("probe", sql)
        assert (error.value.status_code, error.value.code) == (503, "database-unavailable")
        assert error.value.headers == {"Retry-After": "2"}
        assert registry.get_sample_value("db_unavailable_total", {"query": "probe"}) == 1
    finally:
        await database.close()


async def test_a_pool_that_is_used_up_is_a_503(values: dict[str, Any]) -> None:
    database, _ = await opened(settings(values, database_pool_max=1, database_acquire_timeout=0.2))
    try:
        long = asyncio.create_task(database.fetch("long", "SELECT pg_sleep(0.6)"))
        await asyncio.sleep(0.1)
        with pytest.raises(Problem):
            await database.fetch("short", "SELECT 1")
        await long
        assert await database.fetch("short", "SELECT 1")
    finally:
        await database.close()


async def test_a_mistake_in_sql_is_not_a_503(values: dict[str, Any]) -> None:
    database, _ = await opened(settings(values))
    try:
        with pytest.raises(asyncpg.UndefinedTableError):
            await database.fetch("wrong", "SELECT * FROM nowhere")
    finally:
        await database.close()


async def test_not_open(values: dict[str, Any]) -> None:
    database = Database(settings(values), CollectorRegistry(), "test")
    with pytest.raises(RuntimeError, match="not open"):
        await database.ping()
    await database.close()


async def test_one_service_cannot_read_the_database_of_another(values: dict[str, Any]) -> None:
    database, _ = await opened(settings(values, database_name="kit_other_db"))
    try:
        with pytest.raises((Problem, asyncpg.InsufficientPrivilegeError)):
            await database.fetch("foreign", "SELECT 1")
    finally:
        await database.close()


async def test_a_transaction_counts_as_a_whole_or_not_at_all(values: dict[str, Any]) -> None:
    database, registry = await opened(settings(values))
    try:
        await database.execute("create", "CREATE TABLE IF NOT EXISTS pairs (n int PRIMARY KEY)")
        async with database.transaction("pair") as connection:
            await connection.execute("INSERT INTO pairs VALUES (1)")
            await connection.execute("INSERT INTO pairs VALUES (2)")
        with pytest.raises(UniqueViolation):
            async with database.transaction("pair") as connection:
                await connection.execute("INSERT INTO pairs VALUES (3)")
                await connection.execute("INSERT INTO pairs VALUES (1)")
        with pytest.raises(asyncio.CancelledError):
            async with database.transaction("pair") as connection:
                await connection.execute("INSERT INTO pairs VALUES (4)")
                raise asyncio.CancelledError
        rows = await database.fetch("pairs", "SELECT n FROM pairs ORDER BY n")
        assert [row["n"] for row in rows] == [1, 2]
        assert registry.get_sample_value("db_query_duration_seconds_count", {"query": "pair"}) == 3
    finally:
        await database.close()


async def test_a_query_is_one_round_trip(values: dict[str, Any], postgres: Postgres) -> None:
    """asyncpg's pool resets the session after each use, which would be a second one."""
    database, _ = await opened(settings(values, database_pool_max=1))
    try:
        await database.fetch("mine", "SELECT 'mine'")
        last = "SELECT query FROM pg_stat_activity WHERE application_name = 'test'"
        superuser = await postgres.connect()
        assert await superuser.fetchval(last) == "SELECT 'mine'"
        await superuser.close()
    finally:
        await database.close()


async def test_a_session_leaves_nothing_behind(values: dict[str, Any]) -> None:
    database, _ = await opened(settings(values, database_pool_max=1))
    try:
        async with database.session("locked") as connection:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            assert await connection.fetchval("SELECT pg_try_advisory_lock(7)")
            await connection.execute("SET statement_timeout = '7s'")
        with pytest.raises(RuntimeError):
            async with database.session("locked") as connection:
                assert await connection.fetchval("SELECT pg_try_advisory_lock(8)")
                raise RuntimeError
        locks = "SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory' AND pid = $1"
        row = await database.fetchrow("locks", locks, pid)
        assert row is not None
        assert row["n"] == 0
        timeout = await database.fetchrow(
            "setting", "SELECT current_setting('statement_timeout') AS t, pg_backend_pid()"
        )
        assert timeout is not None
        # The same connection, as new.
        assert (timeout["t"], timeout["pg_backend_pid"]) == ("0", pid)
    finally:
        await database.close()


async def test_a_session_that_broke_is_a_503(values: dict[str, Any]) -> None:
    database, _ = await opened(settings(values))
    try:
        with pytest.raises(Problem):
            async with database.session("broken") as connection:
                await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        assert await database.fetch("one", "SELECT 1")
    finally:
        await database.close()


@pytest.fixture(scope="module")
def tls_values() -> Iterator[dict[str, Any]]:
    """Return the settings of a service whose Postgres speaks TLS only."""
    with running_postgres("127.0.0.1") as server:
        yield server.create_database("kit_db", "kit", "password-of-kit")


async def reason_of_absence(settings: DatabaseSettings) -> str:
    """Return why there is no connection; to a request it is a 503."""
    database, _ = await opened(settings)
    try:
        with pytest.raises(Problem) as seen:
            await database.fetch("probe", "SELECT 1")
        assert seen.value.status_code == 503
        return str(seen.value.__cause__)
    finally:
        await database.close()


async def test_over_tls(tls_values: dict[str, Any]) -> None:
    database, _ = await opened(settings(tls_values))
    try:
        encrypted = "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        rows = await asyncio.gather(*(database.fetchrow("encrypted", encrypted) for _ in range(10)))
        assert [dict(row or {}) for row in rows] == [{"ssl": True, "version": "TLSv1.3"}] * 10
    finally:
        await database.close()


async def test_without_tls_a_server_with_it_refuses(tls_values: dict[str, Any]) -> None:
    assert "no encryption" in await reason_of_absence(settings(tls_values, database_tls=False))


async def test_with_tls_it_gives_no_password_to_a_server_without(values: dict[str, Any], tmp_path: Path) -> None:
    ca = Authority(tmp_path).file
    reason = await reason_of_absence(settings(values, database_tls=True, platform_ca_file=ca))
    assert "rejected SSL upgrade" in reason


@pytest.mark.parametrize("other_ca", [True, False], ids=["another CA", "the CAs of the system"])
async def test_a_certificate_of_nobody_it_believes_is_an_absence(
    tls_values: dict[str, Any], tmp_path: Path, other_ca: bool
) -> None:
    ca = Authority(tmp_path).file if other_ca else None
    assert "CERTIFICATE_VERIFY_FAILED" in await reason_of_absence(settings(tls_values, platform_ca_file=ca))


def test_a_certificate_for_another_name_is_an_absence() -> None:
    with running_postgres("elsewhere.test") as server:
        values = server.create_database("kit_db", "kit", "password-of-kit")
        assert "not valid for '127.0.0.1'" in asyncio.run(reason_of_absence(settings(values)))
