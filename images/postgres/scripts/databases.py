"""Brings the databases of the services to their declared state, on the primary, through the local socket.

Each owner owns one database and can connect to no other. Nothing is ever dropped.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
from errors import DeclarationError, NotYetError
from psycopg2 import extensions, sql

Connection = Any
BUILT_IN = ("postgres", "template1")
REPLICATION = "replicator"  # pg_rewind signs in with it to the database postgres of the new primary
MONITOR = (
    "_monitor"  # the exporter, which signs in by the user that it runs as; without a password there is no other way
)
POOLER = "_pooler"  # PgBouncer, which asks for the verifier of whoever signs in, and for nothing else
VERIFIER = "_verifier"  # the check of the backups, which reads every table; the backups are open to it anyway
LOGIN = """
  SELECT rolname::text, rolpassword FROM pg_authid
  WHERE rolname = wanted AND rolcanlogin AND NOT rolsuper AND NOT rolreplication AND left(rolname, 1) <> '_'
    AND (rolvaliduntil IS NULL OR rolvaliduntil > now())
"""


@dataclass(frozen=True)
class Database:
    """One service's database and the role that owns it."""

    name: str
    owner: str


def parse(declared: Iterable[Mapping[str, str]]) -> list[Database]:
    try:
        databases = [Database(name=entry["name"], owner=entry["owner"]) for entry in declared]
    except (KeyError, TypeError) as error:
        raise DeclarationError(f'databases: {error!r}, wanted [{{"name": "auth_db", "owner": "auth_user"}}]') from error
    for kind, names in (("name", [d.name for d in databases]), ("owner", [d.owner for d in databases])):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DeclarationError(f"databases: {kind} {twice[0]!r} stands there twice, wanted one per owner")
    return databases


def password_matches(password: str, verifier: str | None) -> bool:
    """Whether a stored SCRAM-SHA-256 verifier was made from this password (RFC 5803)."""
    try:
        scheme, parameters, keys = (verifier or "").split("$")
        iterations, salt = parameters.split(":")
        stored_key = base64.b64decode(keys.split(":")[0], validate=True)
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(iterations))
    except (ValueError, binascii.Error):
        return False
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return scheme == "SCRAM-SHA-256" and hmac.compare_digest(hashlib.sha256(client_key).digest(), stored_key)


class Server:
    """The primary, as its superuser sees it."""

    def __init__(self, connection: Connection, *, check: bool) -> None:
        self._connection = connection
        self._check = check

    def row(self, query: str, *values: object) -> tuple[Any, ...] | None:
        with self._connection.cursor() as cursor:
            cursor.execute(query, values)
            found: tuple[Any, ...] | None = cursor.fetchone()
            return found

    def change(self, needed: bool, what: str, statement: str, *names: str, values: tuple[object, ...] = ()) -> None:
        if needed and not self._check:
            with self._connection.cursor() as cursor:
                cursor.execute(sql.SQL(statement).format(*map(sql.Identifier, names)), values)
        print("changed" if needed else "unchanged", what)

    def role(self, name: str, password: str) -> None:
        found = self.row("SELECT rolpassword, rolcanlogin FROM pg_authid WHERE rolname = %s", name)
        if found is None:
            self.change(True, f"role {name}", "CREATE ROLE {} LOGIN", name)
        else:
            self.change(not found[1], f"role {name}", "ALTER ROLE {} LOGIN", name)
        stored = found[0] if found else None
        # The verifier is made here, so that the server never sees the password: not in a statement, not in its log.
        verifier = extensions.encrypt_password(password, name, self._connection, "scram-sha-256")
        self.change(
            not password_matches(password, stored),
            f"password of {name}",
            "ALTER ROLE {} PASSWORD %s",
            name,
            values=(verifier,),
        )

    def monitor(self, role: str) -> None:
        """Sees how the server is, and no rows."""
        found = self.row("SELECT pg_has_role(oid, 'pg_monitor', 'MEMBER') FROM pg_roles WHERE rolname = %s", role)
        self.change(found is None, f"role {role}", "CREATE ROLE {} LOGIN", role)
        self.change(found is None or not found[0], f"rights of {role}", "GRANT pg_monitor TO {}", role)

    def pooler(self, role: str) -> None:
        """May ask how a service signs in; a superuser, a member or somebody of the platform's own is nobody to it."""
        found = self.row(
            "SELECT prosrc FROM pg_proc WHERE pronamespace = to_regnamespace('pooler') AND proname = 'login'"
        )
        self.change(
            found is None or found[0] != LOGIN,
            "function pooler.login",
            "CREATE SCHEMA IF NOT EXISTS pooler;"
            " CREATE OR REPLACE FUNCTION pooler.login(wanted text) RETURNS TABLE (name text, verifier text)"
            f" LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $login${LOGIN}$login$;"
            " REVOKE ALL ON FUNCTION pooler.login(text) FROM PUBLIC;"
            " GRANT USAGE ON SCHEMA pooler TO {0}; GRANT EXECUTE ON FUNCTION pooler.login(text) TO {0}",
            role,
        )

    def verifier(self, role: str) -> None:
        """Reads all rows, can keep tables from being written to for a moment, and marks a moment in the archive."""
        found = self.row(
            "SELECT rolbypassrls AND pg_has_role(oid, 'pg_read_all_data', 'MEMBER')"
            " AND pg_has_role(oid, 'pg_maintain', 'MEMBER')"
            " AND has_function_privilege(oid, 'pg_create_restore_point(text)', 'EXECUTE')"
            " AND has_function_privilege(oid, 'pg_switch_wal()', 'EXECUTE') FROM pg_roles WHERE rolname = %s",
            role,
        )
        self.change(
            found is None or not found[0],
            f"rights of {role}",
            "ALTER ROLE {0} BYPASSRLS; GRANT pg_read_all_data, pg_maintain TO {0};"
            " GRANT EXECUTE ON FUNCTION pg_create_restore_point(text), pg_switch_wal() TO {0}",
            role,
        )

    def backups(self, writer: str, reader: str) -> None:
        """When a backup was last made and last verified: whoever leads knows it, and the exporter tells it."""
        found = self.row("SELECT to_regclass('backups.state') IS NOT NULL")
        self.change(
            not (found and found[0]),
            "table backups.state",
            "CREATE SCHEMA IF NOT EXISTS backups; GRANT USAGE ON SCHEMA backups TO {0}, {1};"
            " CREATE TABLE backups.state (what text PRIMARY KEY, happened timestamptz NOT NULL);"
            " GRANT SELECT, INSERT, UPDATE ON backups.state TO {0}; GRANT SELECT ON backups.state TO {1}",
            writer,
            reader,
        )

    def database(self, database: Database) -> None:
        name, owner = database.name, database.owner
        found = self.row("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", name)
        if found is None:
            self.change(True, f"database {name}", "CREATE DATABASE {} OWNER {} TEMPLATE template0", name, owner)
        else:
            self.change(found[0] != owner, f"database {name}", "ALTER DATABASE {} OWNER TO {}", name, owner)
        self.close_to_public(name)

    def close_to_public(self, name: str) -> None:
        """Postgres lets everybody connect to every database unless told otherwise."""
        found = self.row(
            "SELECT datacl IS NULL OR EXISTS (SELECT FROM aclexplode(datacl) WHERE grantee = 0)"
            " FROM pg_database WHERE datname = %s",
            name,
        )
        needed = found is None or bool(found[0])
        self.change(needed, f"privacy of {name}", "REVOKE ALL ON DATABASE {} FROM PUBLIC", name)

    def open_to(self, name: str, role: str) -> None:
        found = self.row(
            "SELECT has_database_privilege(oid, %s, 'CONNECT') FROM pg_roles WHERE rolname = %s", name, role
        )
        if found is not None:
            statement = "GRANT CONNECT ON DATABASE {} TO {}"
            self.change(not found[0], f"access of {role} to {name}", statement, name, role)


def ensure(server: Server, databases: list[Database], secrets: Path) -> None:
    """Makes it so. The password of a role is the file of its name among the secrets."""
    recovery = server.row("SELECT pg_is_in_recovery()")
    if recovery is None or recovery[0]:
        raise NotYetError("this member is a replica, wanted the primary")
    for name in BUILT_IN:
        server.close_to_public(name)
    server.monitor(MONITOR)
    server.role(POOLER, password_of(POOLER, secrets))
    server.pooler(POOLER)
    # Without backups there is nobody to verify them.
    verified = (secrets / VERIFIER).is_file()
    if verified:
        server.role(VERIFIER, password_of(VERIFIER, secrets))
        server.verifier(VERIFIER)
        server.backups(VERIFIER, MONITOR)
    for role in (REPLICATION, MONITOR, POOLER, VERIFIER):
        server.open_to("postgres", role)
    for database in databases:
        server.role(database.owner, password_of(database.owner, secrets))
        server.database(database)
        if verified:
            server.open_to(database.name, VERIFIER)


def password_of(role: str, secrets: Path) -> str:
    password = (secrets / role).read_text(encoding="utf-8").strip()
    if not password:
        raise DeclarationError(f"{secrets / role}: empty, wanted a password")
    return password


def connect(socket: str) -> Connection:
    try:
        connection = psycopg2.connect(host=socket, dbname="postgres", user="postgres", connect_timeout=5)
    except psycopg2.OperationalError as error:  # it is starting, or being restarted
        raise NotYetError(" ".join(str(error).split())) from error
    connection.autocommit = True  # CREATE DATABASE cannot run in a transaction
    return connection


def value(connection: Connection, question: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(question)
        return cursor.fetchone()[0]
