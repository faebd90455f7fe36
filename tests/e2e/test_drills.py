"""One drill of docs/drills.md, as its users run it: a crash of Postgres under writes loses nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROWS = 1000


def test_no_acknowledged_write_is_lost_with_the_postmaster() -> None:
    before = set((ROOT / ".cache" / "drills").glob("*.json"))
    done = subprocess.run(
        [sys.executable, "-m", "drills", "--only", "crash", "--rows", str(ROWS)],
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
    [drill] = json.loads(receipt.read_text(encoding="utf-8"))["drills"]
    assert drill["ok"] >= ROWS
    assert len(drill["members"]) == 2
    for name, verdict in drill["members"].items():
        assert {what: keys["count"] for what, keys in verdict.items()} == dict.fromkeys(verdict, 0), name
        assert {"lost", "phantom"} <= verdict.keys()
