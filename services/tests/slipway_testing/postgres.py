"""A Postgres of Debian's packages on a directory and a port of its own."""

import asyncio
import os
import secrets
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from slipway_testing.certificates import Authority
from slipway_testing.processes import free_port, stop, unprivileged, unprivileged_user, wait_until

SUPERUSER = "postgres"


@dataclass(frozen=True)
class Postgres:
    host: str
    port: int
    password: str
    # The CA of its certificate; without one it speaks no TLS.
    ca: Path | None = None

    def create_database(self, name: str, user: str, password: str) -> dict[str, Any]:
        """As the platform does it: each service owns its database and nothing else. The settings of that service."""

        async def create() -> None:
            connection = await self.connect()
            try:
                await connection.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{password}'")
                await connection.execute(f"CREATE DATABASE {name} OWNER {user}")
                await connection.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
            finally:
                await connection.close()

        asyncio.run(create())
        tls = {"database_tls": True, "platform_ca_file": self.ca} if self.ca else {}
        return {
            "database_host": self.host,
            "database_port": self.port,
            "database_name": name,
            "database_user": user,
            "database_password": password,
            **tls,
        }

    async def connect(self, database: str = "postgres") -> Any:
        trust = ssl.create_default_context(cafile=self.ca) if self.ca else None
        if trust:
            trust.check_hostname = False  # some tests give it a wrong name
        return await asyncpg.connect(
            host=self.host, port=self.port, user=SUPERUSER, password=self.password, database=database, ssl=trust
        )

    def query(self, database: str, sql: str, *arguments: Any) -> list[Any]:
        """As superuser, to arrange or to look behind a service's back."""

        async def run() -> list[Any]:
            connection = await self.connect(database)
            try:
                rows: list[Any] = await connection.fetch(sql, *arguments)
                return rows
            finally:
                await connection.close()

        return asyncio.run(run())


def binaries() -> Path:
    """The newest installed server, or the one that SLIPWAY_TEST_POSTGRES (a bin directory) names."""
    named = os.environ.get("SLIPWAY_TEST_POSTGRES")
    if named:
        return Path(named)
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise RuntimeError("no Postgres server found: install the package postgresql, or set SLIPWAY_TEST_POSTGRES")
    return found[-1].parent


@contextmanager
def running_postgres(*names: str, authority: Authority | None = None, **changes: str) -> Iterator[Postgres]:
    """`changes` are settings of the server that differ from those of the tests.

    With names it speaks TLS only, with a certificate for them of that CA, or of one of its own.
    """
    # Not below pytest's own directory: that one is closed to other users.
    directory = Path(tempfile.mkdtemp(prefix="slipway-postgres-"))
    authority = authority or (Authority(directory) if names else None)
    server = Postgres("127.0.0.1", free_port(), secrets.token_hex(16), authority.file if authority else None)
    data, password_file, log = directory / "data", directory / "password", directory / "log"
    password_file.write_text(server.password)
    files = [directory, password_file]
    if authority:
        certificate, key = authority.issue(*names, directory=directory)
        key.chmod(0o600)
        files += [certificate, key]
        changes = {"ssl": "on", "ssl_cert_file": str(certificate), "ssl_key_file": str(key)} | changes
    if os.geteuid() == 0:
        for path in files:
            shutil.chown(path, unprivileged_user())
    bin_ = binaries()
    try:
        initdb = [bin_ / "initdb", "-D", data, "-U", SUPERUSER, "--pwfile", password_file, "--no-sync", "-E", "UTF8"]
        subprocess.run(
            unprivileged([*map(str, initdb), "--locale=C.UTF-8", "--auth-local=trust", "--auth-host=scram-sha-256"]),
            check=True,
            cwd=directory,
            capture_output=True,
        )
        if authority:
            (data / "pg_hba.conf").write_text("local all all trust\nhostssl all all all scram-sha-256\n")
        settings = {
            "listen_addresses": server.host,
            "port": str(server.port),
            "unix_socket_directories": str(directory),
            "max_connections": "200",
            # Nothing here has to survive a power cut.
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
        } | changes
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with log.open("wb") as output:
            process = subprocess.Popen(
                unprivileged([str(bin_ / "postgres"), "-D", str(data), *options]),
                cwd=directory,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(lambda: _answers(bin_, server), process, log)
            yield server
        finally:
            stop(process)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _answers(bin_: Path, server: Postgres) -> bool:
    command = [str(bin_ / "pg_isready"), "-q", "-h", server.host, "-p", str(server.port), "-t", "1"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0
