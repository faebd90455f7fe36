"""The client of a drill: writers that insert rows, each with a key of its own, and note what became of each.

    python3 writer.py <settings.json>

Runs by itself in a pod, where clients are, and needs asyncpg. Nothing is ever tried again under the same key: what is
unknown stays unknown. It writes until the file `stop` exists, and then one last line, so that a log that was cut off
is known as one.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import ssl
import sys
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

OK, FAILED, UNKNOWN = "ok", "failed", "unknown"
# What a server says that goes away: the commit before it may have happened. Everything else that it says is a refusal.
_GOING_AWAY = ("08", "57", "58", "XX", "40003")


@dataclass(frozen=True)
class Settings:
    """Where to write, and how patiently. `log` and `stop` are paths."""

    host: str
    port: int
    database: str
    user: str
    password: str
    table: str
    log: str
    stop: str
    ca: str = ""  # a file with the CA of the server's certificate; empty: without TLS
    writers: int = 8
    pause_seconds: float = 0.02  # after each insert: about 300 a second from eight writers
    retry_seconds: float = 0.1
    connect_seconds: float = 2
    statement_seconds: float = 3


class Log:
    """Lines that are on disk when `note` returns. Who comes meanwhile shares the next sync."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._waiting: list[str] = []
        self._lock = asyncio.Lock()

    async def note(self, **fields: Any) -> None:
        self._waiting.append(json.dumps(fields) + "\n")
        mine = self._waiting
        async with self._lock:
            if mine is self._waiting:  # nobody took it along
                self._waiting = []
                await asyncio.to_thread(self._write, "".join(mine))

    def _write(self, lines: str) -> None:
        rest = memoryview(lines.encode())
        while rest:
            rest = rest[os.write(self._file, rest) :]
        os.fsync(self._file)


def now() -> dict[str, float]:
    """The time for comparing with other machines, and the clock for measuring, which nobody sets."""
    return {"time": round(time.time(), 4), "clock": round(time.monotonic(), 4)}


def connect(settings: Settings) -> Awaitable[Any]:
    trust = ssl.create_default_context(cafile=settings.ca) if settings.ca else False
    connecting: Awaitable[Any] = asyncpg.connect(
        host=settings.host,
        port=settings.port,
        database=settings.database,
        user=settings.user,
        password=settings.password,
        ssl=trust,
        timeout=settings.connect_seconds,
        server_settings={"application_name": "drill"},
    )
    return connecting


async def prepare(settings: Settings) -> None:
    """The table. No constraint keeps a key single: if something on the way sends a row twice, that has to be seen."""
    connection = await connect(settings)
    try:
        await connection.execute(
            f"CREATE TABLE {settings.table} (writer integer NOT NULL, seq integer NOT NULL,"
            " position bigint GENERATED ALWAYS AS IDENTITY)"
        )
    finally:
        await connection.close()


class Writer:
    """One client, one insert at a time."""

    def __init__(self, settings: Settings, number: int, log: Log) -> None:
        self.settings, self.number, self.log = settings, number, log
        self.connection: Any = None
        self.insert = f"INSERT INTO {settings.table} (writer, seq) VALUES ($1, $2)"  # noqa: S608 - the drill's own name

    async def run(self) -> None:
        for seq in itertools.count(1):
            if os.access(self.settings.stop, os.F_OK):
                break
            outcome, why = await self.attempt(seq)
            await self.log.note(writer=self.number, seq=seq, outcome=outcome, why=why, **now())
            await asyncio.sleep(self.settings.pause_seconds if outcome == OK else self.settings.retry_seconds)
        self.leave()

    async def attempt(self, seq: int) -> tuple[str, str]:
        """What became of one insert, and why it is not ok.

        Whatever the client library makes of a dying server, the writer goes on: an error of asyncpg's own is seen when
        a server says goodbye to an idle connection.
        """
        if self.connection is None:
            try:
                self.connection = await connect(self.settings)
            except Exception as error:
                return FAILED, f"connect: {type(error).__name__}"  # nothing was sent
        try:
            async with asyncio.timeout(self.settings.statement_seconds):
                await self.connection.execute(self.insert, self.number, seq)
        except Exception as error:
            self.leave()
            return outcome_of(error), type(error).__name__
        return OK, ""

    def leave(self) -> None:
        """Forget the connection: the next insert goes wherever the Service leads then."""
        if self.connection is not None:
            self.connection.terminate()
            self.connection = None


def outcome_of(error: Exception) -> str:
    """`failed` only if the server itself said no to the statement; all else may have been committed."""
    state = str(getattr(error, "sqlstate", None) or "")
    return FAILED if state and not state.startswith(_GOING_AWAY) else UNKNOWN


async def write(settings: Settings) -> None:
    log = Log(settings.log)
    await prepare(settings)
    async with asyncio.TaskGroup() as group:
        for number in range(settings.writers):
            group.create_task(Writer(settings, number, log).run())
    await log.note(ended=True, **now())


if __name__ == "__main__":
    asyncio.run(write(Settings(**json.loads(Path(sys.argv[1]).read_text()))))
