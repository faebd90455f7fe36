"""Run the stages of the tests from fast to slow and end with one line: N passed, N failed.

    python scripts/run_tests.py fast|all [STAGE ...]

A stage is a command. Where it writes JUnit XML its cases are counted, otherwise it counts as one case. Nothing may be
skipped: a skipped case counts as failed, because a check that cannot run must say so in its name and in docs/lab.md.

Stages run side by side, as many as the machine's ROOM takes. The next to start is the first of the list whose turn it
is: what it stands on has passed, what it comes after has ended, and nothing runs that it would disturb. What stands on
something that failed is not run and says so; everything else is.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / ".cache" / "test-results"
# What the end of the output repeats of each stage that failed: a reader of the end alone must see why.
LAST_LINES, LAST_CHARACTERS = 30, 500
# How many stages of width 1 run side by side. Most wait more than they compute, even on two cores.
ROOM = 3
# Scenarios that take away what others look at, or look at what others take away: of each kind one at a time.
TURNS = {
    "ingress": (
        *("blackbox_exporter", "cert_manager", "grafana", "ingress_common", "ingress_nginx", "otel_collector"),
        *("prometheus", "smoke", "status_page", "tracing", "traefik"),
    ),
    "monitoring": ("alertmanager", "grafana", "logging", "otel_collector", "prometheus", "redis", "tracing"),
}
# Scenarios that take minutes: begun before the others, so that none of them is waited for at the end. Prometheus' also
# wants that nothing fires, and others make alerts that last for a while.
LONG = ("postgres", "k3s", "prometheus", "minio")
SITE = "tests/e2e/test_site.py"


@dataclass(frozen=True)
class Stage:
    """One step of the tests: its name, its command, and when it runs."""

    name: str
    command: list[str]
    full: bool = False  # not part of `test-fast`: needs the lab, or minutes
    needs: tuple[str, ...] = ()  # stages that have to have passed
    after: tuple[str, ...] = ()  # stages that have to have ended, however
    width: int = 1  # how much of ROOM it takes: all of it runs alone
    turns: tuple[str, ...] = ()  # of those that share one, one runs at a time


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
    """Return a stage that runs a scenario."""
    command = ["molecule", "test", "-s", name]
    definition = (ROOT / "molecule" / name / "molecule.yml").read_text(encoding="utf-8")
    if "playbooks:" not in definition and "test_sequence:" not in definition:
        # `up` has just applied its role to the lab; that once more would change nothing, `site` shows for all roles.
        command = ["env", "SLIPWAY_TEST_SEQUENCE=[verify]", *command]
    turns = tuple(turn for turn, names in TURNS.items() if name in names)
    return Stage(f"molecule-{name}", command, full=True, needs=("up",), turns=turns)


def stages(wanted: str = "all") -> list[Stage]:
    """Return the stages of `fast` or `all`: from fast to slow where nothing else decides."""
    # Fails below the branch coverage that pyproject.toml wants. Counting costs a third more time.
    coverage = ["--cov"] if wanted == "all" else []
    beside = ("-m", "not alone", f"--ignore={SITE}")
    scenarios = {name: molecule(name) for name in [*LONG, *molecule_scenarios()]}
    every = [
        # In `all` the lab is made meanwhile, by two processes at a time.
        Stage("up", ["make", "--no-print-directory", "up"], full=True, width=2),
        Stage("lint", ["scripts/lint"]),
        pytest("unit", "tests/unit"),
        pytest("rendering", "tests/rendering"),
        pytest("preflight", "tests/preflight", "-m", "not lab"),
        # The services are tested against the MinIO that the platform runs. Whoever is first builds it, or it is there.
        Stage("minio", [sys.executable, "plugins/module_utils/artifact_store.py", "build", "minio"]),
        pytest("services", "services", "-m", "not slow", *coverage, needs=("minio",)),
        vitest("web-client"),
        # Minds how busy the machine is.
        pytest("services-slow", "services", "-m", "slow", full=True, needs=("minio",), after=("up",), width=2),
        *[scenarios[name] for name in LONG],
        # A second run changes nothing, whatever the role.
        pytest("site", SITE, full=True, needs=("up",), turns=(*TURNS,)),
        pytest("web", "tests/web", full=True, needs=("minio",), after=("up",)),
        pytest("preflight-lab", "tests/preflight", "-m", "lab", full=True, needs=("up",)),
        *[stage for name, stage in scenarios.items() if name not in LONG],
        pytest("end-to-end", "tests/e2e", *beside, full=True, needs=("up",), turns=(*TURNS,)),
    ]
    chosen = [stage for stage in every if wanted == "all" or not stage.full]
    # Restarts hosts and kills what others stand on: nobody else may be at work.
    alone = pytest("recovery", "tests/e2e", "-m", "alone", full=True, needs=("up",), width=ROOM)
    return [*chosen, replace(alone, after=tuple(s.name for s in chosen))] if wanted == "all" else chosen


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
    """Runs stages side by side and adds up what they passed and failed."""

    def __init__(self, chosen: Sequence[Stage]) -> None:
        self.chosen = chosen
        self.began = time.monotonic()
        self.passed = self.failed = self.started = 0
        self.summary: list[str] = []
        self.failures: list[str] = []  # how the output of what failed ended
        self.stopped = False
        self._names = {stage.name for stage in chosen}
        self._waiting = list(chosen)
        self._running: list[Stage] = []
        self._ended: dict[str, bool] = {}  # whether it passed
        self._lock = threading.Lock()  # of the output and the sums
        self._changed = threading.Condition()  # of what waits, runs and has ended

    def all(self) -> None:
        """Run every stage. Ctrl-C reaches the commands as well: no other one is started after them."""
        threads = []
        while (stage := self._next()) is not None:
            thread = threading.Thread(target=self._work, args=(stage,))
            thread.start()
            threads.append(thread)
        for thread in threads:
            while thread.is_alive():
                try:
                    thread.join()
                except KeyboardInterrupt:
                    self.stopped = True

    def _next(self) -> Stage | None:
        """Wait for the stage whose turn it is; it counts as running from here on. None when there is none left."""
        while True:
            try:
                with self._changed:
                    while self._waiting and not self.stopped:
                        self._drop_what_stands_on_failures()
                        found = self._startable()
                        if found is not None:
                            self._waiting.remove(found)
                            self._running.append(found)
                            return found
                        if self._waiting:
                            self._changed.wait()
                    return None
            except KeyboardInterrupt:
                self.stopped = True

    def _startable(self) -> Stage | None:
        room = ROOM - sum(stage.width for stage in self._running)
        turns = {turn for stage in self._running for turn in stage.turns}
        for stage in self._waiting:
            ready = all(name in self._ended for name in (*stage.needs, *stage.after) if name in self._names)
            if ready and turns.isdisjoint(stage.turns):
                # What is wide would wait for ever if what is narrow went past it.
                return stage if stage.width <= room else None
        return None

    def _drop_what_stands_on_failures(self) -> None:
        for stage in list(self._waiting):
            failed = next((name for name in stage.needs if self._ended.get(name) is False), "")
            if failed:
                self._waiting.remove(stage)
                self._ended[stage.name] = False
                with self._lock:
                    self.summary.append(f"{stage.name:24} not run: it stands on {failed}, which failed")

    def _work(self, stage: Stage) -> None:
        good = False
        try:
            good = self._stage(stage)
        finally:
            with self._changed:
                self._running.remove(stage)
                self._ended[stage.name] = good
                self._changed.notify_all()

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
        # Of several at a time each line says whose it is.
        prefix = f"{stage.name} | " if len(self.chosen) > 1 else ""
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
                with self._lock:
                    print(f"{prefix}{line}", end="", flush=True)
        return running.returncode, list(last)


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
