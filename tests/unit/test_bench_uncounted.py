"""A service that counts nothing still answers at /metrics, and every value there stays as it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
from bench.uncounted import count_nothing
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

registry = CollectorRegistry()
counter = Counter("seen", "Seen.", ["what"], registry=registry)
gauge = Gauge("open", "Open.", registry=registry)
histogram = Histogram("took", "Took.", registry=registry)
child = counter.labels("a")
{start}
child.inc()
gauge.inc()
gauge.set(7)
histogram.observe(2)
print(generate_latest(registry).decode())
"""


def exposed(start: str) -> dict[str, float]:
    """In a process of its own, since what is changed there stays changed."""
    command = [sys.executable, "-c", PROGRAM.format(start=start)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    samples = [line.rsplit(" ", 1) for line in done.stdout.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in samples if not name.endswith("_created")}


def test_no_value_changes() -> None:
    found = exposed("count_nothing()")
    assert found['seen_total{what="a"}'] == found["open"] == found["took_count"] == 0


def test_without_it_all_do() -> None:
    found = exposed("")
    assert (found['seen_total{what="a"}'], found["open"], found["took_count"]) == (1, 7, 1)
