"""Plain SQL files, applied once each, in order, by one process at a time.

`0001_name.sql`, `0002_...`: each in its own transaction together with its entry in `schema_migrations`. A file never
changes after it was applied. Versions that this build does not know are left alone: they belong to a newer release,
and after a rollback the older one has to run on its schema (expand first, contract later).
"""

import asyncio
import hashlib
import re
import time
import zlib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import asyncpg
import structlog

from slipway_kit.database import connect_arguments
from slipway_kit.settings import DatabaseSettings

_FILE = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    text PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""

log = structlog.get_logger()


class MigrationError(Exception):
    """Printable in one line."""


@dataclass(frozen=True)
class Migration:
    version: str
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def load_migrations(package: str) -> list[Migration]:
    found = []
    for entry in files(package).joinpath("migrations").iterdir():
        if not entry.name.endswith(".sql"):
            continue
        match = _FILE.fullmatch(entry.name)
        if not match:
            raise MigrationError(f"{package}/migrations/{entry.name}: wanted a name such as 0001_create_posts.sql")
        found.append(Migration(match[1], match[2], entry.read_text(encoding="utf-8")))
    found.sort(key=lambda migration: migration.version)
    for number, migration in enumerate(found, 1):
        if int(migration.version) != number:
            raise MigrationError(
                f"{package}/migrations: wanted {number:04d}_*.sql next, found {migration.version}_{migration.name}.sql"
            )
    return found


async def migrate(settings: DatabaseSettings, package: str) -> list[str]:
    """Bring the schema up to date; the versions that were applied now."""
    migrations = load_migrations(package)
    deadline = time.monotonic() + settings.migrate_timeout
    connection = await _connect(settings, package, deadline)
    try:
        await _lock(connection, package, deadline)
        await connection.execute(_TABLE)
        return await _apply(connection, migrations)
    finally:
        # Ends the session, and with it the lock.
        await connection.close(timeout=5)


async def _connect(settings: DatabaseSettings, package: str, deadline: float) -> Any:
    """The first tries may be refused: the database still starts, or the rules for a new pod are not in force yet."""
    delay = 0.2
    while True:
        try:
            return await asyncpg.connect(
                # A migration may take longer than a request; the Job has its own deadline.
                **{**connect_arguments(settings), "command_timeout": None},
                server_settings={"application_name": f"{package} migrate", "lock_timeout": "30s"},
            )
        except (OSError, TimeoutError, asyncpg.PostgresError) as error:
            reason = (
                f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no answer'}"
            )
            if time.monotonic() + delay > deadline:
                server = f"{settings.database_host}:{settings.database_port}"
                where = f"{settings.database_user}@{server}/{settings.database_name}"
                raise MigrationError(
                    f"no connection to {where} within {settings.migrate_timeout:g} s: {reason}"
                ) from None
            log.info("waiting for the database", reason=reason)
            await asyncio.sleep(delay)
            delay = min(delay * 1.5, 5)


async def _lock(connection: Any, package: str, deadline: float) -> None:
    key = zlib.crc32(package.encode())
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", key):
        if time.monotonic() > deadline:
            raise MigrationError("another migration holds the lock and does not end")
        await asyncio.sleep(0.2)


async def _apply(connection: Any, migrations: list[Migration]) -> list[str]:
    known = {
        row["version"]: row["checksum"]
        for row in await connection.fetch("SELECT version, checksum FROM schema_migrations")
    }
    applied = []
    for migration in migrations:
        if migration.version in known:
            if known[migration.version] != migration.checksum:
                raise MigrationError(
                    f"{migration.version}_{migration.name}.sql was changed after it had been applied; "
                    "add a new file instead"
                )
            continue
        try:
            async with connection.transaction():
                await connection.execute(migration.sql)
                await connection.execute(
                    "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",
                    migration.version,
                    migration.name,
                    migration.checksum,
                )
        except asyncpg.PostgresError as error:
            raise MigrationError(
                f"{migration.version}_{migration.name}.sql failed and was rolled back: {error}"
            ) from error
        log.info("migration applied", migration=f"{migration.version}_{migration.name}")
        applied.append(migration.version)
    for version in sorted(set(known) - {migration.version for migration in migrations}):
        log.info("migration of a newer release left alone", migration=version)
    return applied
