"""Run a command as the only user of this machine's lab.

    python scripts/lab_lock.py COMMAND [ARGUMENT ...]

The lock is the kernel's (flock), so it ends with its holder however that dies; the file beside it only says who holds
it. A command started under the lock passes it on: its own children do not ask again. Exits 75 (EX_TEMPFAIL) when
somebody else holds the lock, otherwise with the command's own exit code.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HELD = "SLIPWAY_LAB_LOCK_HELD"


def lock_path() -> Path:
    """Return the one lock file of this machine (not of a checkout, not of a user's state directory)."""
    return Path(os.environ.get("SLIPWAY_LOCK", "/var/lock/slipway-lab.lock"))


def describe_holder(path: Path) -> str:
    """Return one line that names the lock's holder, what it runs, and since when."""
    try:
        holder = json.loads(path.read_text())
        minutes = (time.time() - holder["since"]) / 60
        return f"process {holder['pid']} in {holder['checkout']}, `{holder['command']}`, for {minutes:.0f} min"
    except (OSError, ValueError, KeyError):
        return "a process that has not said its name yet"


def main(arguments: list[str]) -> int:
    """Take the lock or say who has it; run the command; return its exit code."""
    if not arguments:
        print(
            "lab_lock: found no command, wanted one, for example: lab_lock.py ansible-playbook site.yml",
            file=sys.stderr,
        )
        return 64
    if os.environ.get(HELD):
        return subprocess.call(arguments)
    path = lock_path()
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(
                f"lab: {describe_holder(path)} holds this machine's lab; wait for it or end it, then try again",
                file=sys.stderr,
            )
            return 75
        lock.seek(0)
        lock.truncate()
        mine = {"pid": os.getpid(), "since": time.time(), "checkout": str(Path.cwd()), "command": " ".join(arguments)}
        lock.write(json.dumps(mine))
        lock.flush()
        # Ctrl-C reaches the child as well, and it is the child that knows how to stop. (A handler is not inherited.)
        signal.signal(signal.SIGINT, lambda *_: None)
        # The child keeps the lock open too: should this process be killed, the lab stays held until the child ends.
        return subprocess.call(arguments, env={**os.environ, HELD: str(os.getpid())}, pass_fds=(lock.fileno(),))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
