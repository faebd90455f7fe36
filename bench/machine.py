"""The machine that numbers were measured on, and how much of it others used: without it no number means anything."""

import os
import platform as machine
import subprocess
import time
from pathlib import Path
from typing import Any

from bench import ROOT


def busy_share(seconds: float = 1.0) -> float:
    """How much of all cores is in use, by whomever, while the bench itself does nothing."""

    def look() -> tuple[int, int]:
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]

    total, idle = look()
    time.sleep(seconds)
    total_after, idle_after = look()
    return 1 - (idle_after - idle) / max(total_after - total, 1)


def describe_machine() -> dict[str, Any]:
    """What the numbers depend on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        machine.machine(),
    )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3),
        "python": ".".join(machine.python_version_tuple()[:2]),
        "commit": commit.stdout.strip() or "unknown",
        "busy_before": round(busy_share(), 3),
    }


def sentence(about: dict[str, Any]) -> str:
    """The machine and the run, for readers of the page."""
    return (
        f"{about['cores']} cores of {about['processor']}, {about['memory_gib']} GiB, Python {about['python']}; "
        f"commit {about['commit']}; the run took {about['seconds']} s, and others used {about['busy_before']:.0%} of "
        "the machine when it began."
    )
