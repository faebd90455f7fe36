"""What databases hold, table by table: how many rows, and a hash of them that minds neither order nor place.

Two servers give the same answers exactly if the rows are the same. To compare a restored copy with a server that is
written to meanwhile, both are looked at as they are at one mark in the log; `at_one_moment` sets it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg2
from databases import Connection
from errors import DeclarationError

# A value has to be the same text on both sides, whatever was set for the database or for the role.
SETTINGS = {
    "search_path": "pg_catalog",
    "timezone": "UTC",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "lc_monetary": "C",
    "jit": "off",
    # Several databases wait for each other here.
    "idle_in_transaction_session_timeout": "0",
    "statement_timeout": "0",
    # As long as this all writers may have to wait, so it is short.
    "lock_timeout": "500ms",
}
# What another one derives from tables, and what is empty after a recovery by design, is no content.
TABLES = """
  SELECT coalesce(array_agg(format('%I.%I', nspname, relname) ORDER BY nspname, relname), '{}')
  FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
  WHERE relkind = 'r' AND relpersistence = 'p' AND nspname <> 'information_schema' AND left(nspname, 3) <> 'pg_'
"""
# Found by damage, not safe from whoever can write into both; a sum, because equal rows must not cancel each other out.
CONTENT = "SELECT count(*), coalesce(sum(hashtextextended((whole.*)::text, 0)), 0)::text FROM ONLY {} AS whole"
ATTEMPTS, PAUSE_SECONDS = 20, 3.0
# Somebody writes, somebody alters tables, or both at once.
BUSY = ("55P03", "40P01", "42P01")


@dataclass(frozen=True)
class Content:
    """Number of rows, and their hash."""

    rows: int
    digest: str


T = TypeVar("T")
Contents = dict[str, dict[str, Content]]  # by database and table


@contextlib.contextmanager
def connected(database: str, **server: Any) -> Iterator[Connection]:
    """A connection to a database; `server` says whose and as whom."""
    options = " ".join(f"-c {name}={setting}" for name, setting in SETTINGS.items())
    connection = psycopg2.connect(dbname=database, options=options, connect_timeout=10, **server)
    connection.autocommit = True
    try:
        yield connection
    finally:
        connection.close()


def run(connection: Connection, statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def row(connection: Connection, question: str) -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute(question)
        found: tuple[Any, ...] = cursor.fetchone()
        return found


def tables(connection: Connection) -> list[str]:
    return list(row(connection, TABLES)[0])


def read(connection: Connection) -> dict[str, Content]:
    """Every table of a database."""
    found = {}
    for table in tables(connection):
        try:
            found[table] = Content(*row(connection, CONTENT.format(table)))
        except psycopg2.Error as error:
            raise DeclarationError(f"{connection.info.dbname}: {table}: {error}") from error
    return found


def at_one_moment(connections: Mapping[str, Connection], mark: Callable[[], T], pause: float = PAUSE_SECONDS) -> T:
    """Set a mark, leave each connection in a transaction that sees its database as it is there, and return the mark.

    A transaction is in the log before others see it, so nobody may be writing at that moment. Writers are kept out of
    all tables until the mark is set: some milliseconds. Who cannot be kept out in time is let through.
    """
    for _ in range(ATTEMPTS):
        try:
            for connection in connections.values():
                _hold(connection)
            found = mark()
            for connection in connections.values():
                run(connection, "ROLLBACK TO SAVEPOINT written_to")
            return found
        except psycopg2.Error as error:
            if error.pgcode not in BUSY:
                raise
            reason = " ".join(str(error).split())
        for connection in connections.values():
            run(connection, "ROLLBACK")
        time.sleep(pause)
    raise DeclarationError(f"found no moment in {ATTEMPTS} attempts in which nobody writes: {reason}")


def _hold(connection: Connection) -> None:
    named = ", ".join(tables(connection))
    run(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    if named:
        # Until the end nobody may empty or alter one of them; with the savepoint only the writers' lock goes.
        run(connection, f"LOCK TABLE {named} IN ACCESS SHARE MODE")
        run(connection, "SAVEPOINT written_to")
        run(connection, f"LOCK TABLE {named} IN SHARE MODE")
    else:
        run(connection, "SAVEPOINT written_to")
    # The first question of the transaction: what it sees is fixed by it.
    tables(connection)


def differences(wanted: Contents, found: Contents) -> list[str]:
    """What a restored copy has otherwise, a line for each table. One made at the very moment may be there already."""
    lines = []
    for database, contents in wanted.items():
        for table, content in contents.items():
            where, other = f"{database}: {table}", found.get(database, {}).get(table)
            if other is None:
                lines.append(f"{where}: found no such table, wanted {content.rows} rows")
            elif other.rows != content.rows:
                lines.append(f"{where}: found {other.rows} rows, wanted {content.rows}")
            elif other != content:
                lines.append(
                    f"{where}: found other content in its {content.rows} rows, wanted that of the running cluster"
                )
    return lines
