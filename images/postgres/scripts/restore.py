"""Brings the data of a member back from the repository, beside what is there, and then in its place.

    restore.py prepare [--time T] [--backup LABEL]   restore and replay beside the running server, and touch nothing
    restore.py finish [--time T]                     with every member stopped: end the recovery and take the place

Whatever can be wrong with a time, a backup, a key or the disk is found by `prepare`, while the cluster still runs. Runs
in a pod of its own on the volume of the member; the last line that it prints is its result or the one reason.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg2
from databases import connect, value
from errors import DeclarationError, NotYetError
from repository import NO_BACKUP, READY, Backup, Info, Repository, RepositoryError, seconds_of, shown

VOLUME = Path("/var/lib/postgresql")
DATA, RESTORED, BEFORE = VOLUME / "data", VOLUME / "restored", VOLUME / "data.before-restore"
# Not that of a server which runs beside it.
SOCKET = Path("/run/postgresql/restored")
LOG = Path("/tmp/server.log")  # noqa: S108 the pod's own
RESULT = Path("/dev/termination-log")
SPARE_BYTES = 256 * 2**20
# A standby reads what the primary wrote only if it has room for at least as much; names as pg_controldata has them.
LIMITS = {
    "max_connections": "max_connections",
    "max_worker_processes": "max_worker_processes",
    "max_wal_senders": "max_wal_senders",
    "max_prepared_xacts": "max_prepared_transactions",
    "max_locks_per_xact": "max_locks_per_transaction",
}
RECOVERY = ("restore_command", "recovery_target_time", "recovery_target_action", "recovery_target_timeline")
STOPPED = re.compile(r"recovery stopping (?:before|after) .*")
ENDED = "recovery ended before configured recovery target was reached"
# What pgBackRest says when a segment is there and cannot be had.
UNREADABLE = re.compile(r"P\d+ +ERROR: \[\d+\]: (?:raised from \S+ protocol: )?(.+(?:\n +repo\d+: .+)?)")
LAST = re.compile(r"last completed transaction was at log time (\S+ \S+)")
REPLAY_SECONDS = 4 * 3600
START_SECONDS = 60


def choose(info: Info, moment: datetime | None, label: str, now: datetime) -> Backup:
    """The backup to begin with: the one that was asked for, or the last one before the time, or the last one."""
    if info.status not in (READY, NO_BACKUP) or not info.backups:
        raise DeclarationError("the repository has no backup; make one with playbooks/backup.yml")
    oldest = info.backups[0]
    if moment and moment > now:
        raise DeclarationError(f"time: found {shown(moment)}, which is still to come, wanted one before {shown(now)}")
    usable = [backup for backup in info.backups if moment is None or backup.stopped < moment]
    if not usable:
        raise DeclarationError(
            f"time: found {shown(moment or now)}, wanted one after the end of the oldest, {shown(oldest.stopped)}"
        )
    if not label:
        return usable[-1]
    labels = [backup.label for backup in usable]
    if label not in labels:
        raise DeclarationError(f"backup: found {label!r}, wanted one of {', '.join(labels[-10:])}")
    return usable[labels.index(label)]


def require_room(backup: Backup, free: int) -> None:
    wanted = backup.size + SPARE_BYTES
    if free < wanted:
        raise DeclarationError(
            f"volume: found {free // 2**20} MiB free, wanted {wanted // 2**20} MiB for backup {backup.label}"
            " beside what is there; make room or grow postgres_storage_size"
        )


def options(control: str) -> list[str]:
    """The server as it is started here: alone, on a socket, and sending nothing into the archive."""
    wanted = {
        "listen_addresses": "",
        "unix_socket_directories": str(SOCKET),
        "hba_file": str(SOCKET / "hba"),
        "ident_file": str(SOCKET / "ident"),
        "ssl": "off",
        # What it leaves for the archive waits until the server runs in its own place.
        "archive_mode": "on",
        "archive_command": "false",
        "primary_conninfo": "",
        "synchronous_standby_names": "",
        "shared_buffers": "128MB",
        "wal_retrieve_retry_interval": "500ms",
        "recovery_target_timeline": "latest",
    }
    for line in control.splitlines():
        name, _, value = line.partition(":")
        setting = LIMITS.get(name.removesuffix(" setting").strip())
        if setting:
            wanted[setting] = value.strip()
    return [word for name, value in wanted.items() for word in ("-c", f"{name}={value}")]


@contextlib.contextmanager
def server(*settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """The restored data, running, with settings on top of the usual ones; stopped at the end."""
    SOCKET.mkdir(mode=0o700, exist_ok=True)
    (SOCKET / "hba").write_text("local all postgres peer\n", encoding="utf-8")
    (SOCKET / "ident").write_text("", encoding="utf-8")
    control = subprocess.run(["pg_controldata", str(RESTORED)], capture_output=True, text=True, check=True).stdout
    more = [word for setting in settings for word in ("-c", setting)]
    command = ["postgres", "-D", str(RESTORED), *options(control), *more]
    with LOG.open("wb") as log:
        running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield running
    finally:
        if running.poll() is None:
            subprocess.run(
                ["pg_ctl", "-D", str(RESTORED), "-m", "fast", "-w", "-t", "600", "stop"], check=False, stdout=2
            )
        running.wait()


def why(log: str, moment: datetime | None) -> str:
    """The reason for which the recovery ended too early."""
    unreadable = UNREADABLE.search(log)
    if unreadable:
        return " ".join(f"the archive cannot be read: {unreadable[1]}".split())[:300]
    if ENDED in log:
        last = LAST.search(log)
        until = f"; the last change there is of {shown(seconds_of(last[1]))}" if last else ""
        if moment is None:
            return f"the archive ends too early{until}"
        return f"time: found {shown(moment)}, after everything in the archive{until}"
    fatal = [line for line in log.splitlines() if re.search(r" (FATAL|PANIC|ERROR): ", line)]
    return " ".join((fatal or log.splitlines() or ["the server did not start"])[-1].split())[:300]


def wait(running: subprocess.Popen[bytes], look: Callable[[Any], bool], moment: datetime | None) -> Any:
    """Until what is looked for is seen; return the connection that saw it."""
    limit = time.monotonic() + REPLAY_SECONDS
    while time.monotonic() < limit:
        if running.poll() is not None:
            raise DeclarationError(why(LOG.read_text(errors="replace"), moment))
        with contextlib.suppress(NotYetError, psycopg2.OperationalError):
            connection = connect(str(SOCKET))
            if look(connection):
                return connection
            connection.close()
        time.sleep(0.3)
    raise DeclarationError(f"the recovery did not end in {REPLAY_SECONDS} s: {LOG.read_text(errors='replace')[-200:]}")


def reached(connection: Any, moment: datetime | None) -> bool:
    """Whether the replay is where it should end; without a time any consistent state will do, the rest comes later."""
    if moment is None:
        return True
    if value(connection, "SELECT pg_get_wal_replay_pause_state()") != "paused":
        return False
    if not STOPPED.search(LOG.read_text(errors="replace")):
        raise DeclarationError(
            "the recovery paused before its time: a limit such as max_connections was raised meanwhile"
        )
    return True


def restore(repository: Repository, backup: Backup, moment: datetime | None) -> None:
    # Without a time it replays until it is told to end: what the old primary writes last is not left out.
    target = (
        ["--type=time", f"--target={moment.strftime('%Y-%m-%d %H:%M:%S.%f+00')}", "--target-action=pause"]
        if moment
        else ["--type=standby"]
    )
    repository.command("restore", f"--pg1-path={RESTORED}", f"--set={backup.label}", *target)


def prepare(repository: Repository, moment: datetime | None, label: str) -> dict[str, Any]:
    began = time.monotonic()
    backup = choose(repository.info(), moment, label, datetime.now(UTC))
    shutil.rmtree(RESTORED, ignore_errors=True)
    require_room(backup, shutil.disk_usage(VOLUME).free)
    RESTORED.mkdir(mode=0o700)
    try:
        restore(repository, backup, moment)
        copied = time.monotonic()
        with server() as running:
            wait(running, lambda connection: reached(connection, moment), moment).close()
    except BaseException:
        shutil.rmtree(RESTORED, ignore_errors=True)
        raise
    return {
        "backup": backup.label,
        "copy_seconds": round(copied - began, 1),
        "replay_seconds": round(time.monotonic() - copied, 1),
    }


def segment_start(name: str) -> int:
    """The position at which a segment of 16 MiB begins, from its name."""
    return (int(name[8:16], 16) << 32) + (int(name[16:24], 16) << 24)


def finish(repository: Repository, moment: datetime | None) -> dict[str, Any]:
    began = time.monotonic()
    last = repository.info().last_segment
    with server() as running:
        connection = wait(running, lambda found: reached(found, moment), moment)
        if moment:
            value(connection, "SELECT 1 FROM (SELECT pg_wal_replay_resume()) AS resumed")
        else:
            value(connection, "SELECT pg_promote(wait => false)")
        connection.close()
        connection = wait(running, lambda found: not value(found, "SELECT pg_is_in_recovery()"), moment)
        position = int(value(connection, "SELECT (pg_last_wal_replay_lsn() - '0/0')::bigint"))
        if moment is None and last and position < segment_start(last):
            raise RepositoryError("the archive was not read to its end: it stopped answering")
        with connection.cursor() as cursor:
            for name in RECOVERY:
                cursor.execute(f"ALTER SYSTEM RESET {name}")
            cursor.execute("CHECKPOINT")
        system, timeline = (
            value(connection, "SELECT system_identifier FROM pg_control_system()"),
            value(connection, "SELECT timeline_id FROM pg_control_checkpoint()"),
        )
        connection.close()
        log = LOG.read_text(errors="replace")
    stopped, completed = STOPPED.search(log), LAST.search(log)
    take_place()
    return {
        # A string: as a number it is too large for what reads JSON here and there.
        "system": str(system),
        "timeline": timeline,
        "stopped": stopped[0] if stopped else "",
        "last_transaction": completed[1] if completed else "",
        "seconds": round(time.monotonic() - began, 1),
    }


def take_place() -> None:
    """What was there stays beside it until every member runs again."""
    shutil.rmtree(BEFORE, ignore_errors=True)
    if DATA.exists():
        DATA.rename(BEFORE)
    RESTORED.rename(DATA)
    directory = os.open(VOLUME, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Brings the data of a member back from the repository")
    parser.add_argument("action", choices=("prepare", "finish"))
    parser.add_argument("--time", default="")
    parser.add_argument("--backup", default="")
    parser.add_argument("--result", type=Path, default=RESULT)
    found = parser.parse_args(arguments)
    try:
        moment = seconds_of(found.time) if found.time else None
        repository = Repository()
        step = finish(repository, moment) if found.action == "finish" else prepare(repository, moment, found.backup)
        line, code = json.dumps(step), 0
    except (
        DeclarationError,
        RepositoryError,
        NotYetError,
        psycopg2.Error,
        subprocess.SubprocessError,
        OSError,
    ) as error:
        line, code = " ".join(str(error).split()), 1
    print(line)
    found.result.write_text(line, encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
