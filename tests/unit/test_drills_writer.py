"""The writers of the drills, as a process of their own against a real Postgres."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from slipway_testing.postgres import Postgres, running_postgres

from drills import ROOT
from drills.history import History, Key

WAIT_SECONDS = 30
WRITERS = 4


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        server.create_database("drill", "drill", "drill-password")
        yield server


@dataclass
class Run:
    """Writers that run, and what they have noted so far."""

    process: subprocess.Popen[bytes]
    log: Path
    stop: Path

    def history(self) -> History:
        return History.parse(self.log.read_text() if self.log.exists() else "")

    def until(self, enough: Callable[[History], bool]) -> History:
        limit = time.monotonic() + WAIT_SECONDS
        while not enough(seen := self.history()):
            assert self.process.poll() is None, f"the writers ended with {self.process.returncode}"
            assert time.monotonic() < limit, seen.reasons()
            time.sleep(0.05)
        return seen

    def end(self) -> History:
        self.stop.touch()
        assert self.process.wait(WAIT_SECONDS) == 0
        return self.history()


@pytest.fixture
def start(postgres: Postgres, tmp_path: Path) -> Iterator[Callable[[str], Run]]:
    started: list[Run] = []

    def start(table: str) -> Run:
        log, stop, settings = (tmp_path / f"{table}.{name}" for name in ("log", "stop", "json"))
        where = {"host": postgres.host, "port": postgres.port, "log": str(log), "stop": str(stop), "table": table}
        login = {"database": "drill", "user": "drill", "password": "drill-password"}
        pace = {"writers": WRITERS, "pause_seconds": 0.002, "retry_seconds": 0.02, "statement_seconds": 0.5}
        settings.write_text(json.dumps(where | login | pace))
        process = subprocess.Popen([sys.executable, str(ROOT / "drills" / "writer.py"), str(settings)])
        started.append(Run(process, log, stop))
        return started[-1]

    yield start
    for run in started:
        run.process.kill()
        run.process.wait()


def rows(postgres: Postgres, table: str) -> list[Key]:
    found = postgres.query("drill", f"SELECT writer, seq FROM {table} ORDER BY position")  # noqa: S608 - names of ours
    return [(row["writer"], row["seq"]) for row in found]


def test_undisturbed_each_insert_is_acknowledged_and_there(postgres: Postgres, start: Callable[[str], Run]) -> None:
    run = start("calm")
    run.until(lambda seen: seen.count("ok") >= 200)
    history = run.end()
    assert history.ended
    assert {attempt.writer for attempt in history.attempts} == set(range(WRITERS))
    assert history.reasons() == {}
    found = rows(postgres, "calm")
    assert len(found) == history.count("ok") >= 200
    assert history.check(found).good


def test_a_row_that_is_taken_away_is_missed(postgres: Postgres, start: Callable[[str], Run]) -> None:
    run = start("robbed")
    run.until(lambda seen: seen.count("ok") >= 50)
    history = run.end()
    postgres.query("drill", "DELETE FROM robbed WHERE (writer, seq) IN ((0, 2), (3, 1))")
    assert history.check(rows(postgres, "robbed")).lost == [(0, 2), (3, 1)]


def test_connections_that_break_leave_unknowns_and_the_writers_go_on(
    postgres: Postgres, start: Callable[[str], Run]
) -> None:
    run = start("broken")
    run.until(lambda seen: seen.count("ok") >= 50)
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'drill'"

    def broken(seen: History) -> bool:
        return bool(seen.count("unknown")) or not postgres.query("postgres", end)

    run.until(broken)
    before = run.until(lambda seen: bool(seen.count("unknown"))).count("ok")
    run.until(lambda seen: seen.count("ok") >= before + 50)
    history = run.end()
    assert history.count("unknown") > 0
    assert history.check(rows(postgres, "broken")).good


def test_a_statement_that_hangs_is_unknown_in_time(postgres: Postgres, start: Callable[[str], Run]) -> None:
    run = start("hanging")
    run.until(lambda seen: seen.count("ok") >= 20)
    postgres.query("drill", "DO $$ BEGIN LOCK TABLE hanging; PERFORM pg_sleep(1.5); END $$")
    history = run.until(lambda seen: "unknown: TimeoutError" in seen.reasons())
    acknowledged = history.count("ok")
    run.until(lambda seen: seen.count("ok") >= acknowledged + 20)
    history = run.end()
    assert history.longest_gap().seconds >= 1
    assert history.check(rows(postgres, "hanging")).good


def test_what_the_server_refuses_has_failed(postgres: Postgres, start: Callable[[str], Run]) -> None:
    run = start("refusing")
    run.until(lambda seen: seen.count("ok") >= 20)
    postgres.query("drill", "ALTER TABLE refusing ADD CHECK (false) NOT VALID")
    run.until(lambda seen: seen.count("failed") >= 20)
    history = run.end()
    assert set(history.reasons()) == {"failed: CheckViolationError"}
    assert history.check(rows(postgres, "refusing")).good


def test_where_nobody_listens_has_failed(postgres: Postgres, start: Callable[[str], Run]) -> None:
    run = start("locked_out")
    run.until(lambda seen: seen.count("ok") >= 20)
    postgres.query("postgres", "ALTER ROLE drill NOLOGIN")
    try:
        postgres.query(
            "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'drill'"
        )
        run.until(lambda seen: seen.count("failed") >= 20)
    finally:
        postgres.query("postgres", "ALTER ROLE drill LOGIN")
    history = run.end()
    assert "failed: connect: InvalidAuthorizationSpecificationError" in history.reasons()
    assert history.check(rows(postgres, "locked_out")).good


def test_writers_that_are_killed_leave_a_log_that_can_be_judged(
    postgres: Postgres, start: Callable[[str], Run]
) -> None:
    run = start("killed")
    run.until(lambda seen: seen.count("ok") >= 100)
    run.process.send_signal(signal.SIGKILL)
    run.process.wait()
    history = run.history()
    assert history.ended is None
    assert history.check(rows(postgres, "killed")).good


def test_a_log_is_never_written_over(start: Callable[[str], Run]) -> None:
    first = start("twice")
    first.until(lambda seen: seen.count("ok") >= 1)
    second = start("twice")
    assert second.process.wait(WAIT_SECONDS) != 0
    assert first.end().ended
