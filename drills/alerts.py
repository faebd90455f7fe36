"""Faults that somebody has to be told of: is the alert there in time, at every receiver, alone, and over afterwards?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import alert_table
import yaml
from alert_sink import Sink
from cluster_access import Cluster
from cluster_client import Pods
from rule_cases import seconds

from bench.report import markdown
from drills import ROOT, told
from drills.alert_faults import FAULTS, NAMESPACE, Platform
from drills.drill import platform_trouble
from drills.installation import wait

TABLE = Path(__file__).with_name("alerts.yml")
# From the moment that its expression is true for as long as the alert says, until somebody was told.
AIM_SECONDS = 60
# Machines are busy, too: a deadline that is missed is a failed drill, an aim that is missed is one in the table.
PATIENCE = 3
QUIET_SECONDS = 900


@dataclass(frozen=True)
class Row:
    """A line of drills/alerts.yml."""

    fault: str
    title: str
    how: str
    undone: str
    alert: str
    labels: dict[str, str]
    companions: Sequence[str]
    together: bool = False

    @property
    def lasts(self) -> int:
        """Seconds that the alert says it has to last, and those until its expression is true at the earliest."""
        entry = entries()[self.alert]
        return seconds(entry.get("for", "0s")) + seconds(entry["trial"].get("lead", "0s"))

    @property
    def aim(self) -> int:
        return self.lasts + AIM_SECONDS

    @property
    def tail(self) -> int:
        """Seconds until its expression is no longer true, at the latest."""
        return seconds(entries()[self.alert]["trial"].get("tail", "0s"))


@cache
def entries() -> dict[str, Any]:
    """All alerts of the platform's tables by their names."""
    files = [*(ROOT / "roles/prometheus/files/alerts").glob("*.yml"), *ROOT.glob("services/*/alerts.yml")]
    tables = [alert_table.read(path.read_text(encoding="utf-8"), path.name) for path in files]
    return {entry["alert"]: entry for table in tables for entry in table["alerts"]}


@cache
def rows() -> dict[str, Row]:
    content = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return {row["fault"]: Row(**row) for row in content["faults"]}


@dataclass(frozen=True)
class Outcome:
    """What became of a fault. Times are None for what did not come."""

    row: Row
    told_seconds: float | None
    over_seconds: float | None
    receivers: Mapping[str, tuple[bool, bool]]  # told that it fires, told that it is over
    companions: Sequence[str]
    strangers: Sequence[str]  # alerts that no line of the table expects

    @property
    def good(self) -> bool:
        all_told = all(fired and over for fired, over in self.receivers.values())
        return None not in (self.told_seconds, self.over_seconds) and all_told and not self.strangers

    def receipt(self) -> dict[str, Any]:
        return {
            "fault": self.row.fault,
            "good": self.good,
            "alert": self.row.alert,
            "told_seconds": self.told_seconds and round(self.told_seconds, 1),
            "aim_seconds": self.row.aim,
            "over_seconds": self.over_seconds and round(self.over_seconds, 1),
            "receivers": {name: {"fires": fired, "over": over} for name, (fired, over) in self.receivers.items()},
            "companions": list(self.companions),
            "strangers": list(self.strangers),
        }


HEADER = ("fault", "alert", "told after", "aim", "over after", "receivers", "arrived with it", "as it should")


def line(outcome: Outcome) -> tuple[str, ...]:
    told_seconds, over_seconds = outcome.told_seconds, outcome.over_seconds
    aim = f"<= {outcome.row.aim} s"
    if told_seconds is not None and told_seconds > outcome.row.aim:
        aim += ", MISSED"
    with_it = [*outcome.companions, *(f"{name} (NOT EXPECTED)" for name in outcome.strangers)]
    return (
        outcome.row.title,
        f"`{outcome.row.alert}`",
        "NOT AT ALL" if told_seconds is None else f"{told_seconds:.0f} s",
        aim,
        "NOT AT ALL" if over_seconds is None else f"{over_seconds:.0f} s",
        f"{sum(fired and over for fired, over in outcome.receivers.values())} of {len(outcome.receivers)}",
        ", ".join(with_it) or "nothing",
        "yes" if outcome.good else "NO",
    )


def merged(page: str, outcomes: Sequence[Outcome]) -> str:
    """The table of a page with new lines in the place of old ones: each fault may have a run of its own."""
    known = {row.title: row.fault for row in rows().values()}
    found = [[cell.strip() for cell in text.strip("|").split("|")] for text in page.splitlines() if text[:2] == "| "]
    lines = {known[cells[0]]: tuple(cells) for cells in found if cells[0] in known and len(cells) == len(HEADER)}
    lines |= {outcome.row.fault: line(outcome) for outcome in outcomes}
    return markdown(HEADER, [lines[fault] for fault in rows() if fault in lines])


def plan(faults: Sequence[str]) -> list[list[Row]]:
    """In the order of the table, each alone, and last of all together those that stay by themselves."""
    chosen = [row for row in rows().values() if row.fault in faults]
    together = [row for row in chosen if row.together]
    return [[row] for row in chosen if not row.together] + ([together] if together else [])


def firing(cluster: Cluster) -> list[str]:
    """Names of the alerts that fire, without the one that always does."""
    alerts = cluster.proxied("monitoring", "prometheus", 9090, "/api/v1/alerts")["data"]["alerts"]
    names = {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}
    return sorted(names - {"Watchdog"})


def wait_quiet(cluster: Cluster, what: str) -> None:
    wait(lambda: ", ".join(firing(cluster)), QUIET_SECONDS, what)


def run(faults: Sequence[str], state: Path, hosts: Mapping[str, Any]) -> Iterator[Outcome]:
    """Inject faults and yield what became of each. DrillError if the platform is not well before or afterwards."""
    pods, cluster = Pods(state / "kubeconfig"), Cluster(state / "kubeconfig")
    auth = cluster.get("/apis/apps/v1/namespaces/auth/deployments/auth")
    image = auth["spec"]["template"]["spec"]["containers"][0]["image"]
    with pods.namespace(NAMESPACE):
        sink, client = Sink(pods, NAMESPACE, image), pods.start(NAMESPACE, "client", image)
        with told.told(sink, client, state) as receivers:
            for group in plan(faults):
                names = ", ".join(row.fault for row in group)
                wait_quiet(cluster, f"{names} does not start, since there are alerts already")
                with ExitStack() as stack:
                    yield from strike(group, Platform(pods, cluster, hosts, image, stack), receivers)
                wait(lambda: platform_trouble(cluster), QUIET_SECONDS, f"after {names}")


class Watch:
    """One fault, from its beginning until its alert is over."""

    def __init__(self, row: Row, platform: Platform) -> None:
        self.row, self.began = row, time.monotonic()
        self._undo = FAULTS[row.fault](platform)
        self.undone = self.told = self.over = 0.0

    def look(self, messages: Sequence[told.Message]) -> bool:
        """Take what has arrived; undo the fault once its alert is there. Whether there is more to wait for."""
        now = time.monotonic()
        mine = [message for message in messages if message.about(self.row.alert, self.row.labels)]
        if not self.told and any(message.firing for message in mine):
            self.told = now
        if not self.undone and (self.told or now > self.began + PATIENCE * self.row.aim):
            self._undo()
            self.undone = time.monotonic()
        if self.told and not self.over and any(not message.firing for message in mine):
            self.over = now
        late = self.undone and now > self.undone + PATIENCE * (self.row.tail + AIM_SECONDS)
        return not (self.over or late)


def strike(group: Sequence[Row], platform: Platform, receivers: told.Told) -> Iterator[Outcome]:
    """Inject all faults of a group, undo each as soon as its alert has arrived, and wait until nothing fires."""
    before = len(receivers.raw())
    watches = [Watch(row, platform) for row in group]

    def waiting() -> str:
        seen = told.messages(receivers.raw()[before:])
        left = [watch.row.alert for watch in watches if watch.look(seen)]
        return ", ".join(left)

    limit = max(PATIENCE * (row.aim + row.tail + 2 * AIM_SECONDS) for row in group) + AIM_SECONDS
    wait(waiting, limit, "waiting for alerts and their ends")
    wait_quiet(platform.cluster, f"{', '.join(row.fault for row in group)} is undone, and there are alerts still")
    # The end of the last one is on its way.
    time.sleep(AIM_SECONDS / 4)
    raw = receivers.raw()[before:]
    arrived = told.messages(raw)
    for watch in watches:
        row = watch.row
        others = [
            message for message in arrived if not any(message.about(other.alert, other.labels) for other in group)
        ]
        allowed = {name for other in group for name in other.companions}
        yield Outcome(
            row,
            watch.told - watch.began if watch.told else None,
            watch.over - watch.undone if watch.over else None,
            {"webhook": (bool(watch.told), bool(watch.over)), **told.told_by(raw, row.alert)},
            sorted({message.name for message in others if message.name in allowed}),
            # With what they are about: whose they are has to be found out.
            sorted({message.subject for message in others if message.name not in allowed}),
        )
