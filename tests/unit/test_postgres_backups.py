"""The scripts of the postgres image that make backups and restore them: what they decide, with pgBackRest played."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "images/postgres/scripts"
NAMES = ("repository", "backup", "restore")
NOW = datetime(2026, 11, 28, 16, 0, tzinfo=UTC)


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import them as the image does, beside each other; the client of Postgres is in the image alone."""
    played: Any = ModuleType("psycopg2")
    played.Error = played.OperationalError = type("Error", (Exception,), {})
    played.extensions = played.sql = ModuleType("part")
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
