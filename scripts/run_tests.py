"""Run the stages of the tests from fast to slow and end with one line: N passed, N failed.

    python scripts/run_tests.py fast|all [STAGE ...]

A stage is a command. Where it writes JUnit XML its cases are counted, otherwise it counts as one case. Nothing may be
skipped: a skipped case counts as failed, because a check that cannot run must say so in its name and in docs/lab.md.
The next stage runs even when one failed, except after a failed `up`, which everything after it stands on.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / ".cache" / "test-results"


@dataclass(frozen=True)
class Stage:
    """One step of the tests: its name, its command, and when it runs."""

    name: str
    command: list[str]
    full: bool = False  # not part of `test-fast`: needs the lab, or minutes
    required: bool = False  # what follows stands on it


def pytest(name: str, *arguments: str, full: bool = False) -> Stage:
    """Return a stage that runs pytest and writes JUnit XML."""
    return Stage(name, [sys.executable, "-m", "pytest", "-q", f"--junitxml={RESULTS / name}.xml", *arguments], full)


def vitest(name: str) -> Stage:
    """Return a stage that runs the tests of the page's own code and writes JUnit XML."""
    reports = ["--reporter=default", "--reporter=junit", f"--outputFile.junit={RESULTS / name}.xml"]
    return Stage(name, ["scripts/web", "test", "--", *reports])


def molecule_scenarios() -> list[str]:
    """Return the scenarios, one per role, in the order of the roles' names."""
    return sorted(p.parent.name for p in ROOT.glob("molecule/*/molecule.yml") if p.parent.name != "default")


def stages(wanted: str = "all") -> list[Stage]:
    """Return the stages of `fast` or `all`, from fast to slow."""
    # Fails below the branch coverage that pyproject.toml wants. Counting costs a third more time.
    coverage = ["--cov"] if wanted == "all" else []
    every = [
        Stage("lint", ["scripts/lint"]),
        pytest("unit", "tests/unit"),
        pytest("rendering", "tests/rendering"),
        pytest("preflight", "tests/preflight", "-m", "not lab"),
        # The services are tested against the MinIO that the platform runs.
        Stage("minio", [sys.executable, "plugins/module_utils/artifact_store.py", "build", "minio"], required=True),
        pytest("services", "services", "-m", "not slow", *coverage),
        vitest("web-client"),
        pytest("services-slow", "services", "-m", "slow", full=True),
        pytest("web", "tests/web", full=True),
        Stage("up", ["make", "--no-print-directory", "up"], full=True, required=True),
        pytest("preflight-lab", "tests/preflight", "-m", "lab", full=True),
        *(Stage(f"molecule-{name}", ["molecule", "test", "-s", name], full=True) for name in molecule_scenarios()),
        pytest("end-to-end", "tests/e2e", full=True),
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
    began = time.monotonic()
    passed = failed = 0
    summary: list[str] = []
    environment = {**os.environ, "SLIPWAY_LAB": "1" if wanted == "all" else "0"}
    for number, stage in enumerate(chosen, 1):
        print(
            f"\n=== test {number} of {len(chosen)} · {stage.name} · {time.monotonic() - began:.0f}s so far", flush=True
        )
        stage_began = time.monotonic()
        code = subprocess.run(
            stage.command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, check=False
        ).returncode
        good, bad = count(stage, code)
        passed, failed = passed + good, failed + bad
        summary.append(f"{stage.name:24} {good:5} passed {bad:5} failed {time.monotonic() - stage_began:6.0f}s")
        if bad and stage.required:
            summary.append(f"stopped after {stage.name}: what follows stands on it")
            break
    print("\n=== summary\n" + "\n".join(summary), flush=True)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
