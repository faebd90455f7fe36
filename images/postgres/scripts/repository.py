"""The backups outside of the cluster, as pgBackRest sees them with the settings in /etc/pgbackrest."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from errors import DeclarationError, require_declared

STANZA = "postgres"
SETTINGS = Path("/etc/pgbackrest/pgbackrest.conf")
# Codes of the status that `info` gives to a stanza.
READY, NO_STANZA, NO_BACKUP, HALF_A_STANZA = 0, 1, 2, 3
LOCKED = 50  # exit code: another pgBackRest is at it
# For each of several requests.
ANSWER_SECONDS = 5

Run = Callable[..., subprocess.CompletedProcess[str]]


class RepositoryError(Exception):
    """pgBackRest said no; the message is one line. `code` is its exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Backup:
    """One backup, usable by itself together with those that it stands on."""

    label: str
    kind: str
    started: datetime
    stopped: datetime
    size: int
    stored: int

    @classmethod
    def of(cls, entry: dict[str, Any]) -> Backup:
        return cls(
            label=entry["label"],
            kind=entry["type"],
            started=datetime.fromtimestamp(entry["timestamp"]["start"], UTC),
            stopped=datetime.fromtimestamp(entry["timestamp"]["stop"], UTC),
            size=entry["info"]["size"],
            stored=entry["info"]["repository"]["delta"],
        )


@dataclass(frozen=True)
class Info:
    """What the repository holds, oldest backup first."""

    status: int
    systems: list[int]
    backups: list[Backup]
    last_segment: str


def reason(text: str) -> str:
    """The one line that says what is wrong, of the many in which pgBackRest says it. It hides keys by itself."""
    flat = " ".join(text.split())
    if "CryptoError" not in flat and ("outside of section" in flat or "unable to flush" in flat):
        return "the repository cannot be decrypted: another cipher password than the one it was made with"
    refused = re.search(r"failed with (\d+ \([^)]*\)).*?<Code>(\w+)</Code>", flat)
    if refused:
        return f"the object store refuses: {refused[1]}, {refused[2]}"
    error = re.search(r"ERROR: \[\d+\]: (.*)", text)
    line = error[1] if error else next(iter(text.strip().splitlines()), "no reason given")
    return " ".join(line.split())[:300]


def seconds_of(value: str) -> datetime:
    """A moment as users write it: ISO 8601, UTC if nothing else is said."""
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        raise DeclarationError(f"found {value!r}, wanted a time such as 2026-11-28 16:05:00 (UTC)") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def shown(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f").rstrip("0").rstrip(".") + " UTC"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["pgbackrest", f"--stanza={STANZA}", *arguments]
    # What cannot be decrypted is quoted as it is, and that is no text.
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )


class Repository:
    """The stanza `postgres` of the repository that the settings name."""

    def __init__(self, run: Run = run) -> None:
        self._run = run

    def command(self, *arguments: str) -> str:
        done = self._run(*arguments)
        if done.returncode != 0:
            raise RepositoryError(reason(done.stdout + done.stderr), done.returncode)
        return done.stdout

    def info(self) -> Info:
        # Not strict: what could not be decrypted is quoted inside of it.
        answer = json.loads(self.command("info", "--output=json", f"--io-timeout={ANSWER_SECONDS}"), strict=False)
        if not answer:
            return Info(NO_STANZA, [], [], "")
        [stanza] = answer
        code = stanza["status"]["code"]
        if code not in (READY, NO_STANZA, NO_BACKUP, HALF_A_STANZA):
            messages = [repository["status"]["message"] for repository in stanza.get("repo", [])]
            raise RepositoryError(reason("\n".join(messages) or stanza["status"]["message"]))
        return Info(
            code,
            [database["system-id"] for database in stanza["db"]],
            sorted(map(Backup.of, stanza["backup"]), key=lambda backup: backup.stopped),
            max((archive["max"] or "" for archive in stanza["archive"]), default=""),
        )

    def backup(self, kind: str) -> Backup:
        """Make one and return it."""
        self.command("backup", f"--type={kind}")
        return self.info().backups[-1]


def require_settings(revision: str, settings: Path = SETTINGS) -> None:
    """`revision` is the SHA-256 of the settings that were declared."""
    require_declared(settings, hashlib.sha256(settings.read_bytes()).hexdigest(), revision)
