"""Backups of the cluster into the repository outside of it. Runs beside each member; only the leader's does anything.

    backup.py schedule --hour 2 --full-days 7   make a backup each day at that hour (UTC), the first one at once
    backup.py now --kind incr                   make one now; prints what was made, as JSON
    backup.py ensure <SHA-256 of the settings>  make the repository ready: "changed repository" or "unchanged ..."
    backup.py flush                             everything that was written until now is in the repository

Exit code 75 means that trying again later will help.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
from databases import connect, value
from errors import DeclarationError, NotYetError
from repository import LOCKED, NO_BACKUP, READY, Backup, Repository, RepositoryError, require_settings

SOCKET = "/run/postgresql"
LOOK_SECONDS = 60
AFTER_FAILURE_SECONDS = 600
OTHERS_SECONDS = 3600


def due(now: datetime, backups: Sequence[Backup], hour: int, full_days: int) -> str:
    """Which kind of backup is to be made now; nothing if none is."""
    if not backups:
        return "full"
    window = now.replace(hour=hour, minute=0, second=0, microsecond=0)
    if window > now:
        window -= timedelta(days=1)
    if backups[-1].started >= window:
        return ""
    fulls = [backup.started for backup in backups if backup.kind == "full"]
    # Half a day early: one that began some minutes late must not move those after it to another day.
    old = not fulls or now - fulls[-1] >= timedelta(days=full_days) - timedelta(hours=12)
    return "full" if old else "incr"


def ask(question: str) -> Any:
    connection = connect(SOCKET)
    try:
        return value(connection, question)
    finally:
        connection.close()


def leads() -> bool:
    return not ask("SELECT pg_is_in_recovery()")


def require_leader() -> None:
    if not leads():
        raise NotYetError("this member is a replica, wanted the primary")


def note(stopped: datetime) -> None:
    """Write down when the last backup was made, for the exporter; what is known already is not written again."""
    connection = connect(SOCKET)
    try:
        # `ensure.py` makes the table.
        if value(connection, "SELECT to_regclass('backups.state')") is None:
            return
        if value(connection, "SELECT max(happened) FROM backups.state WHERE what = 'completed'") != stopped:
            with connection.cursor() as cursor:
                cursor.execute(
                    "INSERT INTO backups.state (what, happened) VALUES ('completed', %s)"
                    " ON CONFLICT (what) DO UPDATE SET happened = EXCLUDED.happened",
                    (stopped,),
                )
    finally:
        connection.close()


def describe(backup: Backup) -> dict[str, Any]:
    return {
        "label": backup.label,
        "kind": backup.kind,
        "bytes": backup.size,
        "stored_bytes": backup.stored,
        "seconds": round((backup.stopped - backup.started).total_seconds()),
    }


def make(repository: Repository, kind: str) -> dict[str, Any]:
    """Make one; when another is being made, after that one."""
    limit = time.monotonic() + OTHERS_SECONDS
    while True:
        try:
            return describe(repository.backup(kind))
        except RepositoryError as error:
            if error.code != LOCKED or time.monotonic() > limit:
                raise
            time.sleep(5)


def schedule(repository: Repository, hour: int, full_days: int) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        pause = LOOK_SECONDS
        try:
            if leads():
                backups = repository.info().backups
                kind = due(datetime.now(UTC), backups, hour, full_days)
                if kind:
                    print("backup:", json.dumps(make(repository, kind)), flush=True)
                    backups = repository.info().backups
                if backups:
                    note(backups[-1].stopped)
        except NotYetError:
            pass  # the server is on its way up or down
        except (RepositoryError, psycopg2.Error, OSError, ValueError) as error:
            print("backup:", " ".join(str(error).split()), file=sys.stderr, flush=True)
            pause = AFTER_FAILURE_SECONDS
        time.sleep(pause)


def ensure(repository: Repository, revision: str) -> str:
    """A repository that holds another cluster is never touched: what is in it may be all that is left of that."""
    require_settings(revision)
    require_leader()
    if ask("SHOW archive_mode") != "on":
        raise NotYetError("archive_mode is off: the server is about to be restarted")
    found, own = repository.info(), ask("SELECT system_identifier FROM pg_control_system()")
    if found.systems and own not in found.systems:
        raise DeclarationError(
            f"the repository holds cluster {found.systems[-1]}, and this one is {own}; bring that one back with"
            " playbooks/rebuild.yml, or name another place with postgres_backup_path"
        )
    if found.status in (READY, NO_BACKUP):
        return "unchanged repository"
    repository.command("stanza-create")
    repository.command("check")
    return "changed repository"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Backups of the cluster into the repository outside of it")
    actions = parser.add_subparsers(dest="action", required=True)
    scheduled = actions.add_parser("schedule")
    scheduled.add_argument("--hour", type=int, required=True)
    scheduled.add_argument("--full-days", type=int, required=True)
    actions.add_parser("now").add_argument("--kind", choices=("full", "diff", "incr"), default="incr")
    actions.add_parser("ensure").add_argument("revision")
    actions.add_parser("flush")
    options = parser.parse_args(arguments)
    repository = Repository()
    try:
        if options.action == "schedule":
            schedule(repository, options.hour, options.full_days)
        elif options.action == "now":
            require_leader()
            print(json.dumps(make(repository, options.kind)))
        elif options.action == "ensure":
            print(ensure(repository, options.revision))
        else:
            require_leader()
            repository.command("check")
    except (NotYetError, FileNotFoundError) as error:
        print("backup:", error, file=sys.stderr)
        return os.EX_TEMPFAIL
    except (RepositoryError, DeclarationError, psycopg2.Error, OSError, ValueError) as error:
        print("backup:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
