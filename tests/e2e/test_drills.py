"""Two drills of docs/drills.md, as their users run them: a crash of Postgres loses no acknowledged write, and somebody
is told of a service that is down and of a certificate that ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import controller

ROOT = Path(__file__).resolve().parents[2]
ROWS = 1000


def drill(*arguments: str) -> list[dict[str, Any]]:
    """Run drills that have to end well; return what their receipt says."""
    before = set((ROOT / ".cache" / "drills").glob("*.json"))
    done = subprocess.run(
        [sys.executable, "-m", "drills", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=900,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-3000:]
    [receipt] = set((ROOT / ".cache" / "drills").glob("*.json")) - before
    found: list[dict[str, Any]] = json.loads(receipt.read_text(encoding="utf-8"))["drills"]
    return found


def test_no_acknowledged_write_is_lost_with_the_postmaster() -> None:
    [found] = drill("--only", "crash", "--rows", str(ROWS))
    assert found["ok"] >= ROWS
    assert len(found["members"]) == 2
    for name, verdict in found["members"].items():
        assert {what: keys["count"] for what, keys in verdict.items()} == dict.fromkeys(verdict, 0), name
        assert {"lost", "phantom"} <= verdict.keys()


def test_somebody_is_told_of_a_service_that_is_down_and_of_a_certificate_that_ends() -> None:
    found = drill("--only", "alerts", "--fault", "service_down", "--fault", "certificate_ending")
    assert [(one["fault"], one["alert"]) for one in found] == [
        ("service_down", "ServiceDown"),
        ("certificate_ending", "CertificateExpiresSoon"),
    ]
    for one in found:
        assert one["receivers"] == {name: {"fires": True, "over": True} for name in ("webhook", "slack", "mail")}
        assert one["strangers"] == []
    # Alertmanager is again as the inventory says.
    again = controller.playbook("site.yml", "--tags", "alertmanager")
    assert (again.code, again.changed) == (0, 0), again.output[-3000:]
