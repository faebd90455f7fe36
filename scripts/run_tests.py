"""Run the stages of the tests from fast to slow and end with one line: N passed, N failed.

    python scripts/run_tests.py fast|all [STAGE ...]

A stage is a command. Where it writes JUnit XML its cases are counted, otherwise it counts as one case. Nothing may be
skipped: a skipped case counts as failed, because a check that cannot run must say so in its name and in docs/lab.md.

There are two lanes. In the second one the lab is made, and later run the scenarios that have a host of their own, or
namespaces of their own in which they mostly wait; in the first one comes everything else. Within a lane one stage comes
after the other, and what minds how busy the machine is has it for itself. The next stage runs even when one failed,
except after one that everything after it stands on.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / ".cache" / "test-results"
# What the end of the output repeats of each stage that failed: a reader of the end alone must see why.
LAST_LINES, LAST_CHARACTERS = 30, 500
# Scenarios that take minutes in namespaces of their own, and damage nothing that others look at.
APART = ("minio", "postgres")
# A host of Ansible's PLAY RECAP on which something was changed.
CHANGED = re.compile(r"\bchanged=[1-9]")


@dataclass(frozen=True)
class Stage:
    """One step of the tests: its name, its command, and when it runs."""

    name: str
    command: list[str]
    full: bool = False  # not part of `test-fast`: needs the lab, or minutes
    required: bool = False  # what follows in its lane, or names it, stands on it
    beside: bool = False  # runs in the second lane
    after: str = ""  # a stage of the other lane that has to have passed
    waits: str = ""  # a stage of the other lane that has to have ended, however
    unchanged: bool = False  # applies what is applied already: Ansible may not report a change


def pytest(name: str, *arguments: str, **more: Any) -> Stage:
    """Return a stage that runs pytest and writes JUnit XML."""
    return Stage(name, [sys.executable, "-m", "pytest", "-q", f"--junitxml={RESULTS / name}.xml", *arguments], **more)


def vitest(name: str) -> Stage:
    """Return a stage that runs the tests of the page's own code and writes JUnit XML."""
    reports = ["--reporter=default", "--reporter=junit", f"--outputFile.junit={RESULTS / name}.xml"]
    return Stage(name, ["scripts/web", "test", "--", *reports])


def molecule_scenarios() -> list[str]:
    """Return the scenarios, one per role, in the order of the roles' names."""
    return sorted(p.parent.name for p in ROOT.glob("molecule/*/molecule.yml") if p.parent.name != "default")


def molecule(name: str) -> Stage:
    """Return a stage that runs a scenario. Those with a host of their own need no turn at the lab, only its image."""
    command = ["molecule", "test", "-s", name]
    definition = (ROOT / "molecule" / name / "molecule.yml").read_text(encoding="utf-8")
    if "molecule/host/inventory" in definition:
        # Not beside the tests of services and page, some of which mind the time.
        return Stage(f"molecule-{name}", command, full=True, beside=True, waits="preflight-lab")
    if "playbooks:" in definition or "test_sequence:" in definition:
        return Stage(f"molecule-{name}", command, full=True, after="up")
    # It applies its role to the lab as `up` has just done: once more is enough to see that this changes nothing.
    once = ["env", "SLIPWAY_TEST_SEQUENCE=[converge, verify]", *command]
    if name in APART:
        return Stage(f"molecule-{name}", once, full=True, unchanged=True, beside=True, waits="preflight-lab")
    return Stage(f"molecule-{name}", once, full=True, after="up", unchanged=True)


def stages(wanted: str = "all") -> list[Stage]:
    """Return the stages of `fast` or `all`, from fast to slow in each lane."""
    # Fails below the branch coverage that pyproject.toml wants. Counting costs a third more time.
    coverage = ["--cov"] if wanted == "all" else []
    scenarios = [molecule(name) for name in molecule_scenarios()]
    last_apart = [stage.name for stage in scenarios if stage.beside][-1]
    every = [
        # In `all` the second lane makes the lab meanwhile.
        Stage("lint", ["scripts/lint"], beside=wanted == "fast"),
        pytest("unit", "tests/unit"),
        pytest("rendering", "tests/rendering"),
        pytest("preflight", "tests/preflight", "-m", "not lab"),
        # The services are tested against the MinIO that the platform runs. Whoever is first builds it, or it is there.
        Stage("minio", [sys.executable, "plugins/module_utils/artifact_store.py", "build", "minio"], required=True),
        pytest("services", "services", "-m", "not slow", *coverage),
        vitest("web-client"),
        # Minds how busy the machine is.
        pytest("services-slow", "services", "-m", "slow", full=True, waits="up"),
        pytest("web", "tests/web", full=True),
        Stage("up", ["make", "--no-print-directory", "up"], full=True, required=True, beside=True),
        pytest("preflight-lab", "tests/preflight", "-m", "lab", full=True, after="up"),
        *scenarios,
        # Restarts hosts: nobody else may be at work.
        pytest("end-to-end", "tests/e2e", full=True, after="up", waits=last_apart),
    ]
    return [stage for stage in every if wanted == "all" or not stage.full]


def count(stage: Stage, exit_code: int) -> tuple[int, int]:
    """Return (passed, failed) of a stage that has ended with exit_code."""
    report = RESULTS / f"{stage.name}.xml"
    if not report.exists():
        return (1, 0) if exit_code == 0 else (0, 1)
    cases = failed = 0
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - pytest wrote it a moment ago
        cases += 1
        failed += any(case.find(kind) is not None for kind in ("failure", "error", "skipped"))
    if exit_code != 0 and failed == 0:
        failed, cases = 1, cases + 1
    return cases - failed, failed


class Run:
    """Runs lanes of stages side by side and adds up what they passed and failed."""

    def __init__(self, chosen: Sequence[Stage]) -> None:
        self.chosen = chosen
        self.began = time.monotonic()
        self.passed = self.failed = self.started = 0
        self.summary: list[str] = []
        self.failures: list[str] = []  # how the output of what failed ended
        self.stopped = False
        self._ended = {stage.name: threading.Event() for stage in chosen}
        self._good: set[str] = set()
        self._lock = threading.Lock()
        lanes = [[s for s in chosen if s.beside is beside] for beside in (False, True)]
        self._lanes = [lane for lane in lanes if lane]

    def all(self) -> None:
        """Run every lane to its end. Ctrl-C reaches the commands as well: no other one is started after them."""
        threads = [threading.Thread(target=self._lane, args=(lane,)) for lane in self._lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                try:
                    thread.join()
                except KeyboardInterrupt:
                    self.stopped = True

    def _lane(self, lane: Sequence[Stage]) -> None:
        missing = ""
        for stage in lane:
            for other in (stage.after, stage.waits):
                if other in self._ended:
                    self._ended[other].wait()
            needed = missing or (stage.after if stage.after in self._ended and stage.after not in self._good else "")
            if not self.stopped:
                good = self._not_run(stage, needed) if needed else self._stage(stage)
                if stage.required and not good:
                    missing = missing or stage.name
                if good:
                    self._good.add(stage.name)
            self._ended[stage.name].set()

    def _not_run(self, stage: Stage, needed: str) -> bool:
        with self._lock:
            self.summary.append(f"{stage.name:24} not run: it stands on {needed}, which failed")
        return False

    def _stage(self, stage: Stage) -> bool:
        with self._lock:
            self.started += 1
            seconds = time.monotonic() - self.began
            print(f"\n=== test {self.started} of {len(self.chosen)} · {stage.name} · {seconds:.0f}s so far", flush=True)
        began = time.monotonic()
        code, last = self._command(stage)
        good, bad = count(stage, code)
        line = f"{stage.name:24} {good:5} passed {bad:5} failed {time.monotonic() - began:6.0f}s"
        with self._lock:
            self.passed, self.failed = self.passed + good, self.failed + bad
            self.summary.append(line)
            if bad and last:
                self.failures += [f"\n=== how {stage.name} ended", *last]
            print(f"=== {line}", flush=True)
        return not bad

    def _command(self, stage: Stage) -> tuple[int, list[str]]:
        """Run a stage's command; return its exit code and its last lines."""
        last: deque[str] = deque(maxlen=LAST_LINES)
        # Of two at a time each line says whose it is.
        prefix = f"{stage.name} | " if len(self._lanes) > 1 else ""
        changes = []
        with subprocess.Popen(
            stage.command,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as running:
            for line in running.stdout or ():
                last.append(line.rstrip("\n")[:LAST_CHARACTERS])
                if stage.unchanged and CHANGED.search(line):
                    changes.append(f"changed what was applied already: {last[-1]}")
                with self._lock:
                    print(f"{prefix}{line}", end="", flush=True)
        return running.returncode or min(len(changes), 1), [*last, *changes]


def main(arguments: list[str]) -> int:
    """Run the stages that the arguments name; print a summary; return 0 when nothing failed."""
    if not arguments or arguments[0] not in ("fast", "all"):
        print("run_tests: wanted fast or all, for example: run_tests.py fast unit services", file=sys.stderr)
        return 64
    wanted, only = arguments[0], set(arguments[1:])
    chosen = [s for s in stages(wanted) if not only or s.name in only]
    RESULTS.mkdir(parents=True, exist_ok=True)
    for old in RESULTS.glob("*.xml"):
        old.unlink()
    run = Run(chosen)
    run.all()
    print("\n".join(["", "=== summary", *run.summary, *run.failures]), flush=True)
    print(f"{run.passed} passed, {run.failed} failed", flush=True)
    return 1 if run.failed or run.stopped or not run.passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
