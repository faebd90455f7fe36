"""One drill: writers write, a fault strikes, the members heal, and what was acknowledged is looked for on each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import kube_reason
from cluster_access import Cluster

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
    table = f"drill_{name}"  # names of faults are words of SQL, too
    with writing(installation, table) as writers:
        writers.wait_acknowledged(round(rows * BEFORE))
        members = installation.members()
        leader = named(members, "leader")
        standby = next(str(member["name"]) for member in members if member["name"] != leader)
        struck = fault.strike(Target(installation, hosts, leader, standby))
        time.sleep(max(0.0, struck + fault.lasts - time.time()))
        installation.wait_in_sync(f"{name} does not heal", at_rest=False)
        writers.wait_acknowledged(rows)
        history = writers.end()
    found = installation.rows(table)
    wait(lambda: platform_trouble(installation.cluster), PLATFORM_SECONDS, f"after {name}")
    gap = history.longest_gap()
    verdicts = {member: history.check(keys) for member, keys in found.items()}
    return Outcome(name, history, verdicts, gap, recovery_seconds(gap, struck), (leader, installation.leader))


def platform_trouble(cluster: Cluster) -> str:
    """The first node or workload of the platform that is not ready: what a drill took down has to come back."""
    for node in cluster.items("/api/v1/nodes"):
        if ("Ready", "True") not in [(c["type"], c["status"]) for c in node["status"]["conditions"]]:
            return f"node {node['metadata']['name']} is not ready"
    ours = cluster.items("/api/v1/namespaces", labelSelector="app.kubernetes.io/part-of=slipway")
    names = {"kube-system", *(namespace["metadata"]["name"] for namespace in ours)}
    for kind in ("Deployment", "StatefulSet", "DaemonSet"):
        for workload in cluster.items(f"/apis/apps/v1/{kind.lower()}s"):
            about, missing = workload["metadata"], kube_reason.state(kind, workload).missing
            if about["namespace"] in names and missing:
                return f"{about['namespace']}/{about['name']}: {missing}"
    return ""
