"""One drill: writers write, a fault strikes, the members heal, and what was acknowledged is looked for on each."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from drills import ROOT
from drills.faults import FAULTS, Target
from drills.history import Gap, History, Verdict, recovery_seconds
from drills.installation import Installation, wait
from drills.members import named
from drills.writer import FAILED, OK, UNKNOWN
from drills.writers import writing

# The share of the rows that is written before the fault strikes.
BEFORE = 0.25
PLATFORM_SECONDS = 300
SHOWN_KEYS = 20


@dataclass(frozen=True)
class Outcome:
    """What a drill found. `verdicts` has one for each member."""

    fault: str
    history: History
    verdicts: Mapping[str, Verdict]
    gap: Gap
    recovery_seconds: float
    leaders: tuple[str, str]  # before and after

    @property
    def lost(self) -> int:
        return max(len(verdict.lost) for verdict in self.verdicts.values())

    @property
    def wrong(self) -> int:
        """Keys that no mode of replication may leave behind, on the member with the most of them."""
        return max(len(v.phantom) + len(v.duplicate) + len(v.disordered) for v in self.verdicts.values())

    @property
    def good(self) -> bool:
        """Nothing lost, or, where the checker has to show that it sees, something lost; and nothing else wrong."""
        return not self.wrong and (self.lost == 0) is FAULTS[self.fault].synchronous

    def receipt(self) -> dict[str, Any]:
        return {
            "fault": self.fault,
            "good": self.good,
            **{outcome: self.history.count(outcome) for outcome in (OK, FAILED, UNKNOWN)},
            "reasons": self.history.reasons(),
            "members": {
                name: {what: {"count": len(keys), "first": keys[:SHOWN_KEYS]} for what, keys in asdict(verdict).items()}
                for name, verdict in self.verdicts.items()
            },
            "gap_seconds": round(self.gap.seconds, 3),
            "recovery_seconds": round(self.recovery_seconds, 3),
            "leaders": self.leaders,
        }


def run(name: str, installation: Installation, hosts: Mapping[str, Any], rows: int) -> Outcome:
    """A whole drill, with at least `rows` acknowledged inserts. DrillError if it cannot start or does not heal."""
    fault = FAULTS[name]
    installation.wait_in_sync(f"{name} does not start")
    if installation.synchronous and not fault.synchronous:
        installation.replicate_asynchronously()
        installation.wait_in_sync(f"{name} does not start")
    with writing(installation, table=name) as writers:
        writers.wait_acknowledged(round(rows * BEFORE))
        members = installation.members()
        leader = named(members, "leader")
        standby = next(str(member["name"]) for member in members if member["name"] != leader)
        struck = fault.strike(Target(installation, hosts, leader, standby))
        time.sleep(max(0.0, struck + fault.lasts - time.time()))
        installation.wait_in_sync(f"{name} does not heal")
        writers.wait_acknowledged(rows)
        history = writers.end()
    found = installation.rows(name)
    wait(platform_trouble, PLATFORM_SECONDS, f"after {name}")
    gap = history.longest_gap()
    verdicts = {member: history.check(keys) for member, keys in found.items()}
    return Outcome(name, history, verdicts, gap, recovery_seconds(gap, struck), (leader, installation.leader))


def platform_trouble() -> str:
    """What `make status` says last while anything of the platform is not ready."""
    done = subprocess.run(
        [sys.executable, "scripts/status.py"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    return "" if done.returncode == 0 else (done.stdout + done.stderr).strip().rpartition("\n")[2]
