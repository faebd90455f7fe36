"""Restores the last backup into a scratch volume, replays what was written since, and compares all rows.

    verify_backup.py --host postgres.infrastructure.svc --databases auth_db,api_db --seconds 3600

Runs in a pod of its own, which can reach the repository and, over the network, the running cluster. The copy ends at a
mark that the check itself sets in the log, so it has to be equal, however much is written. Then its tables, indexes and
checksums are gone through, and the running cluster writes down that moment: it is restorable until then. The last line
is the result or the one reason.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import contents
import psycopg2
import restore
from databases import VERIFIER, value
from errors import DeclarationError, NotYetError
from psycopg2 import extensions, extras
from repository import Repository, RepositoryError, shown

SECRETS = Path("/run/secrets/postgres-verify-backup")
ARRIVAL_SECONDS = 300
# A copy that nobody will use: it may be lost in a crash, and it sends nothing to anybody.
SCRATCH = ("archive_mode=off", "fsync=off", "full_page_writes=off")


class Verification:
    """One check; `doing` is what it is at, for whoever has to end it."""

    def __init__(self, repository: Repository, server: dict[str, str], databases: Sequence[str]) -> None:
        self._repository = repository
        self._server = server
        self._databases = databases
        self.doing = "starting"

    def step(self, doing: str) -> None:
        self.doing = doing
        print(doing, flush=True)

    def take(self) -> dict[str, Any]:
        began = time.monotonic()
        self.step("looking for the last backup")
        backup = restore.choose(self._repository.info(), None, "", datetime.now(UTC))
        shutil.rmtree(restore.RESTORED, ignore_errors=True)
        restore.require_room(backup, shutil.disk_usage(restore.VOLUME).free)
        self.step("reading the running cluster")
        name = f"verify-{time.time_ns()}"
        moment, segment, wanted = self.running(name)
        self.step(f"waiting for {segment} in the archive")
        self.arrived(segment)
        self.step(f"restoring {backup.label}")
        restoring = time.monotonic()
        restore.RESTORED.mkdir(mode=0o700)
        target = ("--type=name", f"--target={name}", "--target-action=promote")
        self._repository.command("restore", f"--pg1-path={restore.RESTORED}", f"--set={backup.label}", *target)
        self.step(f"replaying until {shown(moment)}")
        with restore.server(*SCRATCH) as running:
            restore.wait(running, lambda found: not value(found, "SELECT pg_is_in_recovery()"), None).close()
            restored = time.monotonic()
            self.step("comparing all rows")
            different = contents.differences(wanted, self.copied())
            if different:
                more = f", and {len(different) - 1} more tables differ" if len(different) > 1 else ""
                raise DeclarationError(f"{different[0]}{more} (backup {backup.label}, replayed until {shown(moment)})")
            self.step("going through tables and indexes")
            checked("pg_amcheck", "--all", "--install-missing", "--heapallindexed", f"--host={restore.SOCKET}")
        self.step("going through checksums")
        checked("pg_checksums", "--check", f"--pgdata={restore.RESTORED}")
        self.step("writing it down")
        self.write_down(moment)
        found = [content for tables in wanted.values() for content in tables.values()]
        return {
            "backup": backup.label,
            "until": shown(moment),
            "databases": len(wanted),
            "tables": len(found),
            "rows": sum(content.rows for content in found),
            "restore_seconds": round(restored - restoring, 1),
            "seconds": round(time.monotonic() - began, 1),
        }

    def running(self, name: str) -> tuple[datetime, str, contents.Contents]:
        """Set the mark; return its moment, the segment that it is in, and what every database holds there."""
        with ExitStack() as stack:
            control = stack.enter_context(contents.connected("postgres", **self._server))
            opened = {
                database: stack.enter_context(contents.connected(database, **self._server))
                for database in self._databases
            }
            # The clock is looked at first: what comes after the mark was not verified.
            question = f"SELECT clock_timestamp(), pg_walfile_name(pg_create_restore_point('{name}'))"
            moment, segment = contents.at_one_moment(opened, lambda: contents.row(control, question))
            # Not a minute later, when it would go by itself.
            value(control, "SELECT pg_switch_wal()::text")
            held = {database: contents.read(connection) for database, connection in opened.items()}
            return moment.astimezone(UTC), segment, held

    def arrived(self, segment: str) -> None:
        limit = time.monotonic() + ARRIVAL_SECONDS
        while (last := self._repository.info().last_segment) < segment:
            if time.monotonic() > limit:
                raise RepositoryError(
                    f"the archive ends with {last or 'nothing'}, wanted {segment} within {ARRIVAL_SECONDS} s:"
                    " the second site does not take what is written"
                )
            time.sleep(1)

    def copied(self) -> contents.Contents:
        """What the restored copy holds."""
        local = {"host": str(restore.SOCKET), "user": "postgres"}
        with contents.connected("postgres", **local) as connection:
            there = value(connection, "SELECT array_agg(datname::text) FROM pg_database")
        missing = [database for database in self._databases if database not in there]
        if missing:
            raise DeclarationError(f"{missing[0]}: not in the restored copy, wanted every database that is declared")
        found = {}
        for database in self._databases:
            with contents.connected(database, **local) as connection:
                found[database] = contents.read(connection)
        return found

    def write_down(self, moment: datetime) -> None:
        with contents.connected("postgres", **self._server) as connection, connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO backups.state AS known (what, happened) VALUES ('verified', %s)"
                " ON CONFLICT (what) DO UPDATE SET happened = EXCLUDED.happened",
                (moment,),
            )


def checked(*command: str) -> None:
    """Run a program that looks for damage; what it finds is the reason."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = " ".join((done.stderr + done.stdout).split())
        raise DeclarationError(f"{command[0]} found damage in the restored copy: {said or done.returncode}"[:500])


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Restores the last backup and compares it with the running cluster")
    parser.add_argument("--host", required=True)
    parser.add_argument("--databases", default="", help="names, with commas in between")
    parser.add_argument("--seconds", type=int, default=3600, help="how long it may take")
    parser.add_argument("--secrets", type=Path, default=SECRETS)
    parser.add_argument("--result", type=Path, default=restore.RESULT)
    found = parser.parse_args(arguments)
    try:
        server = {
            "host": found.host,
            "user": VERIFIER,
            "password": (found.secrets / "password").read_text(encoding="utf-8").strip(),
            "sslmode": "verify-full",
            "sslrootcert": str(found.secrets / "ca.crt"),
        }
        check = Verification(Repository(), server, [name for name in found.databases.split(",") if name])

        def end(number: int, _: object) -> None:
            why = f"did not end in {found.seconds} s" if number == signal.SIGALRM else "was told to end"
            raise DeclarationError(f"the check {why}, while {check.doing}")

        # A question that waits for its answer is ended too.
        extensions.set_wait_callback(extras.wait_select)
        signal.signal(signal.SIGALRM, end)
        signal.signal(signal.SIGTERM, end)
        signal.alarm(found.seconds)
        line, code = json.dumps(check.take()), 0
    except psycopg2.Error as error:
        line, code = " ".join(f"{error} while {check.doing}".split()), 1
    except (DeclarationError, RepositoryError, NotYetError, subprocess.SubprocessError, OSError) as error:
        line, code = " ".join(str(error).split()), 1
    finally:
        # The volume outlives the container for a while.
        shutil.rmtree(restore.RESTORED, ignore_errors=True)
    print(line)
    found.result.write_text(line, encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
