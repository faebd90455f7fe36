"""Processes of the bench: started, put on a core, looked at, ended."""

import os
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.arithmetic import CpuTime, parse_stat

PROC = Path("/proc")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# More than the services ask for at shutdown; afterwards they are killed.
STOP_SECONDS = 15

Cpus = frozenset[int]


@dataclass(frozen=True)
class Cores:
    """Where the measured service runs, and where everything else does. With one core only, both are the same."""

    service: Cpus
    others: Cpus

    @property
    def every(self) -> Cpus:
        return self.service | self.others

    @classmethod
    def of_this_machine(cls) -> "Cores":
        allowed = sorted(os.sched_getaffinity(0))
        return cls(frozenset(allowed[:1]), frozenset(allowed[1:] or allowed))


def cpu_time(pid: int) -> CpuTime:
    """User and system time of all threads since the start; in steps of a tick (10 ms)."""
    return parse_stat((PROC / str(pid) / "stat").read_text(), TICKS_PER_SECOND)


def _status_mib(pid: int, field: str) -> float:
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) / 1024
    raise LookupError(f"/proc/{pid}/status: found no {field}")


def memory_mib(pid: int) -> float:
    """Resident memory now (VmRSS)."""
    return _status_mib(pid, "VmRSS")


def peak_memory_mib(pid: int) -> float:
    """The most resident memory since the start or the last reset (VmHWM)."""
    return _status_mib(pid, "VmHWM")


def reset_peak_memory(pid: int) -> None:
    """From now on the peak counts anew (proc(5), clear_refs)."""
    (PROC / str(pid) / "clear_refs").write_text("5")


def pin(pids: Iterable[int], cpus: Cpus) -> None:
    """All threads of these processes; threads and processes that they start later inherit it."""
    for pid in pids:
        with suppress(ProcessLookupError, FileNotFoundError):
            for thread in (PROC / str(pid) / "task").iterdir():
                with suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread.name), cpus)


def descendants(root: int) -> list[int]:
    """Every process below this one: what it started and what those started, such as a database's workers."""
    parents: dict[int, int] = {}
    for entry in PROC.iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                # The field after the state; the name before it may hold anything.
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found: list[int] = []
    level = {root}
    while level:
        level = {pid for pid, parent in parents.items() if parent in level}
        found += sorted(level)
    return found


def named(root: int, name: str) -> list[int]:
    """Processes below `root` whose program has this name (its first 15 characters)."""
    found = []
    for pid in descendants(root):
        with suppress(OSError):
            if (PROC / str(pid) / "comm").read_text().strip() == name[:15]:
                found.append(pid)
    return found


@dataclass
class Process:
    """A server under measurement, or one that helps."""

    name: str
    popen: "subprocess.Popen[bytes]"
    log: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    def check(self) -> None:
        """RuntimeError with the end of its log when it has ended."""
        if self.popen.poll() is not None:
            end = self.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{self.name} ended with {self.popen.returncode}: {end}")

    def stop(self) -> None:
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()


@contextmanager
def running(name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Iterator[Process]:
    """A process whose output goes to a file in `folder`, as a container's goes to the runtime; ended at the end."""
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        popen = subprocess.Popen(
            list(command),
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    process = Process(name, popen, log)
    try:
        yield process
    finally:
        process.stop()
