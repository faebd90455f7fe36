"""A narrow, typed and measured way to Postgres. Queries have names: metrics and logs speak of those, never of SQL."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from slipway_kit.metrics import BUCKETS
from slipway_kit.problems import unavailable
from slipway_kit.settings import DatabaseSettings

Row = Mapping[str, Any]
UniqueViolation = asyncpg.UniqueViolationError

# What passes by itself: no connection, a lost one, a failover in progress, too many clients.
_PASSING = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.QueryCanceledError,
    asyncpg.ReadOnlySQLTransactionError,
    # Patroni has the role and the database only after the first start.
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidAuthorizationSpecificationError,
)

log = structlog.get_logger()


def connect_arguments(settings: DatabaseSettings) -> dict[str, Any]:
    return {
        "host": settings.database_host,
        "port": settings.database_port,
        "database": settings.database_name,
        "user": settings.database_user,
        # Asked for each new connection, so that a rotated password needs no restart.
        "password": lambda: settings.secret("database_password"),
        # Never "prefer", asyncpg's default: it believes any certificate, and does without one.
        "ssl": settings.trust() if settings.database_tls else False,
        "timeout": settings.database_connect_timeout,
        "command_timeout": settings.database_command_timeout,
    }


async def _leave_as_it_is(_: Any) -> None:
    """asyncpg would ask the server to reset the session after each use of a connection: a second round trip per query.

    Queries and transactions leave nothing behind in it; open transactions are rolled back all the same.
    """


class Database:
    def __init__(self, settings: DatabaseSettings, registry: CollectorRegistry, application: str) -> None:
        self._settings = settings
        self._application = application
        self._pool: asyncpg.Pool | None = None
        self._seconds = Histogram(
            "db_query_duration_seconds",
            "Time in the database by query name.",
            ["query"],
            buckets=BUCKETS,
            registry=registry,
        )
        self._errors = Counter(
            "db_unavailable_total", "Queries that failed because the database was away.", ["query"], registry=registry
        )
        registry.register(_PoolCollector(self))

    @property
    def pool(self) -> asyncpg.Pool:
        if self._pool is None:
            raise RuntimeError("the database is not open")
        return self._pool

    async def open(self) -> None:
        """Connects nowhere yet: a service that starts before its database is not ready, but it does not crash."""
        self._pool = await asyncpg.create_pool(
            **connect_arguments(self._settings),
            min_size=0,
            max_size=self._settings.database_pool_max,
            server_settings={"application_name": self._application},
            reset=_leave_as_it_is,
        )

    async def close(self) -> None:
        if self._pool is None:
            return
        try:
            await asyncio.wait_for(self._pool.close(), 5)
        except TimeoutError:
            self._pool.terminate()

    async def ping(self) -> None:
        async with self.pool.acquire(timeout=self._settings.database_acquire_timeout) as connection:
            await connection.fetchval("SELECT 1")

    @asynccontextmanager
    async def _measured(self, query: str) -> AsyncIterator[Any]:
        started = time.perf_counter()
        try:
            async with self.pool.acquire(timeout=self._settings.database_acquire_timeout) as connection:
                yield connection
        except _PASSING as error:
            self._errors.labels(query).inc()
            log.warning("database unavailable", query=query, error=f"{type(error).__name__}: {error}")
            raise unavailable("database-unavailable", "The database does not answer at the moment.") from error
        finally:
            self._seconds.labels(query).observe(time.perf_counter() - started)

    @asynccontextmanager
    async def session(self, query: str) -> AsyncIterator[Any]:
        """The same asyncpg connection for all of the body, without a transaction: for locks that outlive statements.

        What the body leaves behind in the session, locks too, is gone after it.
        """
        async with self._measured(query) as connection:
            try:
                yield connection
            finally:
                await connection.reset(timeout=self._settings.database_command_timeout)

    @asynccontextmanager
    async def transaction(self, query: str) -> AsyncIterator[Any]:
        """An asyncpg connection for statements that count together or not at all; measured as one query.

        Only for SQL: what else fails in its body would be taken for a failure of the database.
        """
        async with self._measured(query) as connection, connection.transaction():
            yield connection

    async def fetch(self, query: str, sql: str, *arguments: Any) -> list[Row]:
        async with self._measured(query) as connection:
            rows: list[Row] = await connection.fetch(sql, *arguments)
            return rows

    async def fetchrow(self, query: str, sql: str, *arguments: Any) -> Row | None:
        async with self._measured(query) as connection:
            row: Row | None = await connection.fetchrow(sql, *arguments)
            return row

    async def execute(self, query: str, sql: str, *arguments: Any) -> int:
        """The number of rows that a command touched."""
        async with self._measured(query) as connection:
            tag: str = await connection.execute(sql, *arguments)
            count = tag.rpartition(" ")[2]
            return int(count) if count.isdecimal() else 0


class _PoolCollector(Collector):
    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> list[GaugeMetricFamily]:
        return [GaugeMetricFamily("db_pool_connections", "Connections of the pool.", labels=["state"])]

    def collect(self) -> list[GaugeMetricFamily]:
        pool = self._database._pool
        (family,) = self.describe()
        if pool is not None:
            idle = pool.get_idle_size()
            family.add_metric(["idle"], idle)
            family.add_metric(["used"], pool.get_size() - idle)
            family.add_metric(["max"], pool.get_max_size())
        return [family]
