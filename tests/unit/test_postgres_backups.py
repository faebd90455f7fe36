"""The scripts of the postgres image that make backups and restore them: what they decide, with pgBackRest played."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "images/postgres/scripts"
NAMES = ("repository", "backup", "restore", "contents", "verify_backup")
NOW = datetime(2026, 11, 28, 16, 0, tzinfo=UTC)


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import them as the image does, beside each other; the client of Postgres is in the image alone."""
    played: Any = ModuleType("psycopg2")
    played.Error = played.OperationalError = type("Error", (Exception,), {})
    played.extensions = played.extras = played.sql = ModuleType("part")
    monkeypatch.setitem(sys.modules, "psycopg2", played)
    monkeypatch.syspath_prepend(str(SCRIPTS))
    before = set(sys.modules)
    modules = {name: importlib.import_module(name) for name in (*NAMES, "errors")}
    yield type("Scripts", (), modules)
    for name in set(sys.modules) - before:
        sys.modules.pop(name)


def stanza(code: int = 0, message: str = "ok", **more: Any) -> dict[str, Any]:
    status = {"code": code, "message": message}
    found = {"name": "postgres", "status": status, "repo": [{"key": 1, "status": status}], "archive": [], "backup": []}
    return found | {"db": [{"id": 1, "system-id": 7713255691500165696}]} | more


def entry(label: str, stopped: datetime, kind: str = "full", size: int = 1000) -> dict[str, Any]:
    end = int(stopped.timestamp())
    return {
        "label": label,
        "type": kind,
        "timestamp": {"start": end - 60, "stop": end},
        "info": {"size": size, "repository": {"delta": 100}},
    }


@pytest.fixture
def repository(scripts: Any) -> Callable[..., Any]:
    """Return a function that makes a repository which answers like this."""

    def make(*answers: Any, code: int = 0) -> Any:
        text = answers[0] if answers and isinstance(answers[0], str) else json.dumps(list(answers))

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.CompletedProcess(arguments, code, text, "")

        return scripts.repository.Repository(run)

    return make


def days_ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


# --- what the repository says


def test_backups_come_oldest_first_with_the_last_segment(repository: Any) -> None:
    newer, older = entry("two", days_ago(1)), entry("one", days_ago(2))
    archive = [{"max": "00000001000000000000000A"}, {"max": "00000002000000000000000C"}, {"max": None}]
    found = repository(stanza(backup=[newer, older], archive=archive)).info()
    assert [backup.label for backup in found.backups] == ["one", "two"]
    assert (found.systems, found.last_segment) == ([7713255691500165696], "00000002000000000000000C")


def test_a_repository_that_is_not_there_yet_is_no_failure(repository: Any, scripts: Any) -> None:
    assert repository().info().status == scripts.repository.NO_STANZA
    assert repository(stanza(1, "missing stanza path", db=[])).info().backups == []


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "[FormatError] unable to load info file 'backup.info':\nFormatError: key/value found outside of section at"
            " line 1: \udc00\nHINT: has a stanza-create been performed?",
            "the repository cannot be decrypted: another cipher password than the one it was made with",
        ),
        (
            "[ProtocolError] HTTP request failed with 403 (Forbidden):\n*** Path/Query ***:\nGET /backups/\n"
            "authorization: <redacted>\n<Error><Code>SignatureDoesNotMatch</Code><Message>x</Message></Error>",
            "the object store refuses: 403 (Forbidden), SignatureDoesNotMatch",
        ),
        (
            "[CryptoError] unable to verify certificate presented by '10.0.0.1:9000': [20] no issuer\nmore",
            "[CryptoError] unable to verify certificate presented by '10.0.0.1:9000': [20] no issuer",
        ),
    ],
    ids=["cipher password", "key", "certificate"],
)
def test_a_repository_that_cannot_be_read_gives_one_reason(
    repository: Any, scripts: Any, message: str, said: str
) -> None:
    with pytest.raises(scripts.repository.RepositoryError) as refused:
        repository(stanza(99, message)).info()
    assert str(refused.value) == said


def test_a_status_with_control_characters_is_read_all_the_same(repository: Any, scripts: Any) -> None:
    text = json.dumps([stanza(99, "[FormatError] key/value found outside of section at line 1: BYTES")])
    with pytest.raises(scripts.repository.RepositoryError, match="cannot be decrypted"):
        repository(text.replace("BYTES", "\x01\x02\ufffd")).info()


def test_a_command_that_fails_gives_its_error_and_its_code(repository: Any, scripts: Any) -> None:
    lines = (
        "2026-11-28 16:00:00.000 P00   WARN: x\n2026-11-28 16:00:00.001 P00  ERROR: [050]: unable to lock\n   HINT: y\n"
    )
    with pytest.raises(scripts.repository.RepositoryError, match=r"^unable to lock$") as refused:
        repository(lines, code=50).command("backup")
    assert refused.value.code == scripts.repository.LOCKED


def test_what_is_no_text_does_not_hide_the_reason(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "pgbackrest"
    program.write_bytes(b"#!/bin/sh\nprintf 'x P00  ERROR: [029]: found \\254 there\\n'; exit 29\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(scripts.repository.RepositoryError, match=r"^found . there$"):
        scripts.repository.Repository().command("check")


def test_settings_that_have_not_come_yet_are_waited_for(scripts: Any, tmp_path: Path) -> None:
    file = tmp_path / "pgbackrest.conf"
    file.write_text("old")
    with pytest.raises(scripts.errors.NotYetError, match="the kubelet is about to bring it"):
        scripts.repository.require_settings("0" * 64, file)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026-11-28 16:05:00", "2026-11-28 16:05:00 UTC"),
        ("2026-11-28T17:05:00.25+01:00", "2026-11-28 16:05:00.25 UTC"),
        (" 2026-11-28 16:05Z ", "2026-11-28 16:05:00 UTC"),
    ],
)
def test_a_time_is_utc_unless_it_says_otherwise(scripts: Any, written: str, meant: str) -> None:
    assert scripts.repository.shown(scripts.repository.seconds_of(written)) == meant


# --- when a backup is due


def backups(scripts: Any, *entries: tuple[str, datetime]) -> list[Any]:
    return [scripts.repository.Backup.of(entry(kind, moment, kind)) for kind, moment in entries]


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        ([], "full"),
        # Two o'clock of today was fourteen hours ago.
        ([("full", NOW - timedelta(hours=13))], ""),
        ([("full", NOW - timedelta(hours=15))], "incr"),
        ([("full", NOW - timedelta(days=6, hours=10)), ("incr", NOW - timedelta(hours=38))], "incr"),
        ([("full", NOW - timedelta(days=6, hours=13)), ("incr", NOW - timedelta(hours=38))], "full"),
        ([("full", NOW - timedelta(days=30)), ("incr", NOW - timedelta(hours=1))], ""),
    ],
    ids=["first", "made today", "next day", "within the week", "after the week", "missed full waits for its hour"],
)
def test_a_backup_is_due_once_a_day_and_a_full_one_each_week(scripts: Any, made: Any, kind: str) -> None:
    assert scripts.backup.due(NOW, backups(scripts, *made), 2, 7) == kind


def test_before_its_hour_the_window_is_that_of_yesterday(scripts: Any) -> None:
    early = NOW.replace(hour=1)
    made = backups(scripts, ("full", early - timedelta(hours=22)))
    assert scripts.backup.due(early, made, 2, 7) == ""


def test_a_backup_waits_for_another_one(scripts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = [scripts.repository.RepositoryError("unable to lock", scripts.repository.LOCKED)] * 2
    waits: list[float] = []
    monkeypatch.setattr(scripts.backup.time, "sleep", waits.append)

    class Played:
        def backup(self, kind: str) -> Any:
            if refusals:
                raise refusals.pop()
            return backups(scripts, (kind, NOW))[0]

    assert scripts.backup.make(Played(), "incr")["label"] == "incr"
    assert waits == [5, 5]


@pytest.mark.parametrize(
    ("systems", "status", "outcome"),
    [([1], 0, "unchanged repository"), ([1], 2, "unchanged repository"), ([], 1, "changed repository")],
)
def test_a_repository_is_made_once(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, systems: list[int], status: int, outcome: str
) -> None:
    ran, found = ready(scripts, monkeypatch, systems, status)
    assert scripts.backup.ensure(found, "revision") == outcome
    assert ran == (["stanza-create", "check"] if outcome.startswith("changed") else [])


def test_a_repository_of_another_cluster_is_left_alone(scripts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ran, found = ready(scripts, monkeypatch, [2], 0)
    with pytest.raises(
        scripts.errors.DeclarationError, match="holds cluster 2, and this one is 1; bring that one back"
    ):
        scripts.backup.ensure(found, "revision")
    assert ran == []


def ready(scripts: Any, monkeypatch: pytest.MonkeyPatch, systems: list[int], status: int) -> tuple[list[str], Any]:
    """Play a primary of cluster 1 that archives, and a repository."""
    answers = {"SELECT pg_is_in_recovery()": False, "SHOW archive_mode": "on"}
    monkeypatch.setattr(scripts.backup, "ask", lambda question: answers.get(question, 1))
    monkeypatch.setattr(scripts.backup, "require_settings", lambda revision: None)
    ran: list[str] = []

    class Played:
        def info(self) -> Any:
            return scripts.repository.Info(status, systems, [], "")

        def command(self, name: str) -> None:
            ran.append(name)

    return ran, Played()


# --- what is restored


def info_of(scripts: Any, *moments: datetime) -> Any:
    found = [scripts.repository.Backup.of(entry(f"backup-{n}", moment)) for n, moment in enumerate(moments)]
    return scripts.repository.Info(scripts.repository.READY, [1], found, "")


def test_the_last_backup_before_the_time_is_taken(scripts: Any) -> None:
    found = info_of(scripts, days_ago(3), days_ago(2), days_ago(1))
    assert scripts.restore.choose(found, None, "", NOW).label == "backup-2"
    assert scripts.restore.choose(found, days_ago(1.5), "", NOW).label == "backup-1"
    assert scripts.restore.choose(found, days_ago(1.5), "backup-0", NOW).label == "backup-0"


@pytest.mark.parametrize(
    ("moment", "label", "said"),
    [
        (days_ago(4), "", "time: found 2026-11-24 16:00:00 UTC, wanted one after the end of the oldest, 2026-11-25"),
        (days_ago(-1), "", "which is still to come"),
        (None, "other", "backup: found 'other', wanted one of backup-0, backup-1"),
        # Of after the time.
        (days_ago(2), "backup-1", "backup: found 'backup-1', wanted one of backup-0"),
    ],
)
def test_what_cannot_be_restored_is_one_line(scripts: Any, moment: Any, label: str, said: str) -> None:
    with pytest.raises(scripts.errors.DeclarationError) as refused:
        scripts.restore.choose(info_of(scripts, days_ago(3), days_ago(1)), moment, label, NOW)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_without_a_backup_there_is_nothing_to_restore(scripts: Any) -> None:
    with pytest.raises(scripts.errors.DeclarationError, match="the repository has no backup"):
        scripts.restore.choose(scripts.repository.Info(2, [1], [], ""), None, "", NOW)


def test_a_disk_without_room_is_found_before_anything_is_copied(scripts: Any) -> None:
    [backup] = info_of(scripts, days_ago(1)).backups
    scripts.restore.require_room(backup, 2**30)
    with pytest.raises(scripts.errors.DeclarationError, match="volume: found 100 MiB free, wanted 256 MiB for backup"):
        scripts.restore.require_room(backup, 100 * 2**20)


def test_the_restored_server_talks_to_nobody_and_has_room_for_its_primary(scripts: Any) -> None:
    control = "max_connections setting:              120\nmax_prepared_xacts setting:  3\nDatabase cluster state: x\n"
    words = scripts.restore.options(control)
    settings = dict(word.split("=", 1) for word in words[1::2])
    assert set(words[::2]) == {"-c"}
    assert settings["listen_addresses"] == settings["synchronous_standby_names"] == ""
    # Not off: the history of its new timeline has to reach the archive later.
    assert (settings["archive_mode"], settings["archive_command"]) == ("on", "false")
    assert (settings["max_connections"], settings["max_prepared_transactions"]) == ("120", "3")


def test_a_recovery_that_ends_too_early_names_the_last_change(scripts: Any) -> None:
    log = (
        "LOG:  last completed transaction was at log time 2026-11-28 15:59:00.5+00\n"
        "2026-11-28 16:00:00 UTC [7] FATAL:  recovery ended before configured recovery target was reached\n"
    )
    said = "time: found 2026-11-28 16:00:00 UTC, after everything in the archive; the last change there is of"
    assert scripts.restore.why(log, NOW) == f"{said} 2026-11-28 15:59:00.5 UTC"
    assert "could not open" in scripts.restore.why("x [7] FATAL:  could not open file\nx [7] LOG:  down\n", None)


def test_an_archive_that_is_damaged_or_ends_too_early_is_named(scripts: Any) -> None:
    ended = "2026-11-28 16:00:00 UTC [7] FATAL:  recovery ended before configured recovery target was reached\n"
    log = (
        "2026-11-28 16:00:00.040 P00  ERROR: [042]: raised from local-1 protocol: unable to get"
        " 000000010000000000000008:\n"
        "                                    repo1: 17-1/0/08-6a.zst [FormatError] zst error: [-20]\n"
        "                                        [FileReadError] on retry at 18ms: unable to get it\n"
    )
    said = (
        "the archive cannot be read: unable to get 000000010000000000000008: repo1: 17-1/0/08-6a.zst [FormatError] zst"
    )
    assert scripts.restore.why(log + ended, NOW) == f"{said} error: [-20]"
    last = "LOG:  last completed transaction was at log time 2026-11-28 15:59:00.5+00\n"
    said = "the archive ends too early; the last change there is of 2026-11-28 15:59:00.5 UTC"
    assert scripts.restore.why(last + ended, None) == said


def test_segments_are_where_their_names_say(scripts: Any) -> None:
    assert scripts.restore.segment_start("00000003000000010000000A") == (1 << 32) + 10 * 2**24


def test_what_was_restored_takes_the_place_and_leaves_the_other_beside_it(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, directory in (("VOLUME", ""), ("DATA", "data"), ("RESTORED", "restored"), ("BEFORE", "before")):
        monkeypatch.setattr(scripts.restore, name, tmp_path / directory)
        (tmp_path / directory).mkdir(exist_ok=True)
        (tmp_path / directory / "is").write_text(name)
    scripts.restore.take_place()
    assert (tmp_path / "data/is").read_text() == "RESTORED"
    assert (tmp_path / "before/is").read_text() == "DATA"
    assert not (tmp_path / "restored").exists()


# --- whether a backup is what the running cluster holds


class Cluster:
    """Databases with tables, played: a connection reads what they hold now, or what was fixed for it before."""

    def __init__(self, scripts: Any, monkeypatch: pytest.MonkeyPatch, **tables: dict[str, tuple[int, str]]) -> None:
        self.databases: dict[str, dict[str, tuple[int, str]]] = {name: dict(found) for name, found in tables.items()}
        self.statements: list[str] = []
        self.refusals: list[Exception] = []
        monkeypatch.setattr(scripts.contents, "run", self.run)
        monkeypatch.setattr(scripts.contents, "row", self.row)
        self._contents = scripts.contents

    def connection(self, database: str) -> Any:
        return type("Connection", (), {"name": database, "fixed": None})()

    def run(self, connection: Any, statement: str) -> None:
        self.statements.append(f"{connection.name}: {statement}")
        if statement.endswith("IN SHARE MODE") and self.refusals:
            raise self.refusals.pop()
        if statement == "ROLLBACK":
            connection.fixed = None

    def row(self, connection: Any, question: str) -> tuple[Any, ...]:
        held = connection.fixed or self.databases[connection.name]
        if question == self._contents.TABLES:
            # The first question after the lock fixes what is seen.
            if self.statements and self.statements[-1].startswith(f"{connection.name}: LOCK"):
                connection.fixed = dict(self.databases[connection.name])
            return (sorted(held),)
        return next(content for table, content in held.items() if f" {table} " in question)


def busy(scripts: Any, code: str) -> Exception:
    error: Exception = scripts.contents.psycopg2.Error("canceling statement\ndue to lock timeout")
    error.pgcode = code  # type: ignore[attr-defined]
    return error


def test_a_database_is_read_as_it_was_at_the_mark(scripts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(
        scripts, monkeypatch, one={"public.a": (1, "x"), "public.b": (2, "y")}, two={"public.c": (3, "z")}
    )
    opened = {name: cluster.connection(name) for name in ("one", "two")}

    def mark() -> str:
        assert [line for line in cluster.statements if line.endswith("IN SHARE MODE")] == [
            "one: LOCK TABLE public.a, public.b IN SHARE MODE",
            "two: LOCK TABLE public.c IN SHARE MODE",
        ]
        assert not [line for line in cluster.statements if "ROLLBACK" in line]
        return "mark"

    assert scripts.contents.at_one_moment(opened, mark) == "mark"
    # Writers go on, and nobody may empty a table that is still to be read.
    assert cluster.statements[-2:] == [f"{name}: ROLLBACK TO SAVEPOINT written_to" for name in ("one", "two")]
    assert "one: LOCK TABLE public.a, public.b IN ACCESS SHARE MODE" in cluster.statements
    cluster.databases["one"]["public.a"] = (9, "later")
    assert scripts.contents.read(opened["one"])["public.a"] == scripts.contents.Content(1, "x")


def test_who_writes_for_long_is_let_through(scripts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(scripts, monkeypatch, one={"public.a": (1, "x")})
    cluster.refusals = [busy(scripts, "55P03"), busy(scripts, "40P01")]
    opened = {"one": cluster.connection("one")}
    assert scripts.contents.at_one_moment(opened, lambda: "mark", pause=0) == "mark"
    assert cluster.statements.count("one: ROLLBACK") == 2
    cluster.refusals = [busy(scripts, "55P03") for _ in range(scripts.contents.ATTEMPTS)]
    with pytest.raises(
        scripts.errors.DeclarationError, match=r"^found no moment in 20 attempts .*: canceling statement due"
    ):
        scripts.contents.at_one_moment(opened, lambda: "mark", pause=0)
    cluster.refusals = [busy(scripts, "42501")]
    with pytest.raises(scripts.contents.psycopg2.Error):
        scripts.contents.at_one_moment(opened, lambda: "mark", pause=0)


def test_a_copy_that_differs_says_where(scripts: Any) -> None:
    content = scripts.contents.Content
    wanted = {"one": {"public.a": content(1, "x"), "public.b": content(2, "y")}, "two": {"public.c": content(3, "z")}}
    same = {name: dict(tables) for name, tables in wanted.items()}
    assert scripts.contents.differences(wanted, same) == []
    # Made when the mark was set: who comes from the log may have it already.
    assert scripts.contents.differences(wanted, same | {"two": same["two"] | {"public.new": content(1, "n")}}) == []
    found = {"one": {"public.a": content(1, "other"), "public.b": content(1, "y")}, "two": {}}
    assert scripts.contents.differences(wanted, found) == [
        "one: public.a: found other content in its 1 rows, wanted that of the running cluster",
        "one: public.b: found 1 rows, wanted 2",
        "two: public.c: found no such table, wanted 3 rows",
    ]


class Arriving:
    """A repository whose archive ends with these segments, one after the other."""

    def __init__(self, scripts: Any, *segments: str) -> None:
        self._scripts, self._segments = scripts, list(segments)

    def info(self) -> Any:
        last = self._segments.pop(0) if len(self._segments) > 1 else self._segments[0]
        return self._scripts.repository.Info(0, [1], [], last)


def test_what_was_marked_is_waited_for_in_the_archive(scripts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts.verify_backup.time, "sleep", lambda seconds: None)
    make = partial(scripts.verify_backup.Verification, server={}, databases=[])
    make(Arriving(scripts, "", "000000010000000000000004", "000000010000000000000005")).arrived(
        "000000010000000000000005"
    )
    monkeypatch.setattr(scripts.verify_backup, "ARRIVAL_SECONDS", -1)
    with pytest.raises(scripts.repository.RepositoryError, match=r"ends with nothing, wanted 00.*05 within"):
        make(Arriving(scripts, "")).arrived("000000010000000000000005")


def test_damage_that_a_program_finds_is_one_line(scripts: Any) -> None:
    scripts.verify_backup.checked("true")
    with pytest.raises(scripts.errors.DeclarationError) as found:
        scripts.verify_backup.checked("sh", "-c", "echo 'heap table \"one\":'; echo '  wrong'; exit 2")
    assert str(found.value) == 'sh found damage in the restored copy: heap table "one": wrong'


def test_a_check_without_its_password_says_so_in_one_line(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scripts.restore, "RESTORED", tmp_path / "restored")
    result = tmp_path / "result"
    code = scripts.verify_backup.main(["--host", "h", "--secrets", str(tmp_path), "--result", str(result)])
    assert code == 1
    assert capsys.readouterr().out == result.read_text() + "\n"
    assert "No such file" in result.read_text() and str(tmp_path / "password") in result.read_text()


# --- what the exporter is told


def test_the_last_backup_is_written_down_once(scripts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Any] = []
    known: dict[str, Any] = {"to_regclass": "backups.state", "max": None}

    class Cursor(AbstractContextManager[Any]):
        def __exit__(self, *_: object) -> None:
            return None

        def execute(self, statement: str, values: tuple[Any, ...]) -> None:
            written.append(values[0])
            known["max"] = values[0]

    connection = type("Connection", (), {"cursor": staticmethod(Cursor), "close": staticmethod(lambda: None)})
    monkeypatch.setattr(scripts.backup, "connect", lambda socket: connection)
    monkeypatch.setattr(
        scripts.backup, "value", lambda _, question: next(known[name] for name in known if name in question)
    )
    scripts.backup.note(NOW)
    scripts.backup.note(NOW)
    assert written == [NOW]
    known["to_regclass"] = None
    scripts.backup.note(NOW + timedelta(days=1))
    assert written == [NOW]
