"""What a platform is like at a moment: nodes, workloads, error budgets, backups, certificates, open alerts.

Knows no client: it is given three functions that ask (the API server, Prometheus, Alertmanager). What somebody does not
tell is missing with the reason, and everything else is there. Shown by scripts/status.py and by the role status_page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import kube_reason

Row = TypeVar("Row")
# Takes a path with its query; returns what the JSON of the answer says, or raises SilentError.
Ask = Callable[[str], Any]

KINDS = ("Deployment", "StatefulSet", "DaemonSet")
WATCHDOG = "Watchdog"
# What Alertmanager has besides people to tell.
NOBODY = {"none", "deadman"}
SEVERITIES = ("critical", "warning")
# As the alerts of roles/prometheus/files/alerts have it.
SOON_SECONDS = 21 * 86400
UNVERIFIED_SECONDS = 50 * 3600
# Of a text that somebody else has written.
SHOWN_CHARACTERS = 300

QUERIES = {
    "promised": "service:slo_availability:ratio",
    "left": "service:error_budget_left:ratio30d",
    "remembered": "time() - min(prometheus_tsdb_lowest_timestamp_seconds)",
    "completed": "max(backup_last_completed_timestamp)",
    "verified": "max(backup_last_verified_timestamp)",
    "ends": "max by (exported_namespace, name) (certmanager_certificate_expiration_timestamp_seconds)",
    "ready": 'max by (exported_namespace, name) (certmanager_certificate_ready_status{condition="True"})',
}


class SilentError(Exception):
    """Somebody does not answer; the message is one line that says who and why."""


@dataclass(frozen=True)
class Section(Generic[Row]):
    """What is known of one thing, and why it is not all, if it is not."""

    rows: tuple[Row, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Node:
    name: str
    version: str
    missing: str  # what keeps it from being ready, or nothing


@dataclass(frozen=True)
class Workload:
    kind: str
    namespace: str
    name: str
    missing: str  # what keeps it from being rolled out, or nothing
    service: bool  # one of services/


@dataclass(frozen=True)
class Budget:
    """What is left of what a service may fail in 30 days: 1 is all of it, below 0 it has failed more often."""

    namespace: str
    service: str
    promised: float
    left: float | None  # none: no request was counted yet


@dataclass(frozen=True)
class Backups:
    """When the last backup of Postgres ended and until when one was shown to restore; 0 is never."""

    completed: float
    verified: float


@dataclass(frozen=True)
class Certificate:
    namespace: str
    name: str
    ends: float
    ready: bool


@dataclass(frozen=True)
class Alert:
    name: str
    severity: str
    since: float
    summary: str
    place: str  # labels that say where
    runbook: str
    quiet: str  # why nobody is told of it: silenced, or part of a worse alert

    @property
    def critical(self) -> bool:
        return self.severity == "critical" and not self.quiet


@dataclass(frozen=True)
class Status:
    """A platform at the moment `taken`, in seconds since 1970."""

    taken: float
    nodes: Section[Node]
    workloads: Section[Workload]
    budgets: Section[Budget]
    remembered: float  # seconds that Prometheus looks back, at most 30 days of which count
    backups: Section[Backups]
    certificates: Section[Certificate]
    alerts: Section[Alert]
    arriving: bool | None  # whether the alert that fires always has arrived; None: not known
    told: bool | None  # whether somebody is told of alerts

    def wrong(self) -> list[str]:
        """Return what is wrong, the reasons for an exit code other than 0."""
        nodes = [node.name for node in self.nodes.rows if node.missing]
        workloads = [one.name for one in self.workloads.rows if one.missing]
        critical = [alert for alert in self.alerts.rows if alert.critical]
        found = [
            _count(len(nodes), "node is not ready", "nodes are not ready"),
            _count(len(workloads), "workload is not ready", "workloads are not ready"),
            _count(len(critical), "critical alert is open", "critical alerts are open"),
            "alerts do not arrive: Watchdog, which fires always, is not there" if self.arriving is False else "",
            *self.problems(),
        ]
        return [line for line in found if line]

    def doubtful(self) -> list[str]:
        """Return what somebody should look at, in time."""
        warnings = [alert for alert in self.alerts.rows if not alert.quiet and not alert.critical]
        spent = [budget for budget in self.budgets.rows if budget.left is not None and budget.left <= 0]
        late = [backups for backups in self.backups.rows if not verified(backups, self.taken)]
        ending = [one for one in self.certificates.rows if not certificate_word(one, self.taken)[0]]
        found = [
            _count(len(warnings), "warning is open", "warnings are open"),
            _count(len(spent), "error budget is used up", "error budgets are used up"),
            "no backup was shown to restore of late" if late else "",
            _count(len(ending), "certificate needs a look", "certificates need a look"),
        ]
        return [line for line in found if line]

    def problems(self) -> list[str]:
        """Return what could not be learned, each reason once."""
        sections: tuple[Section[Any], ...] = (
            *(self.nodes, self.workloads, self.alerts),
            *(self.budgets, self.backups, self.certificates),
        )
        return list(dict.fromkeys(section.problem for section in sections if section.problem))


def gather(kubernetes: Ask, prometheus: Ask, alertmanager: Ask, now: float) -> Status:
    """Ask all three; return what they say. Whoever does not answer once is not asked again."""
    api, metrics = _patient(kubernetes), _patient(prometheus)
    remembered = _section(lambda: [max(0.0, value) for _, value in _series(metrics, "remembered")])
    alerts, arriving, told = _alerts(_patient(alertmanager), metrics)
    return Status(
        taken=now,
        nodes=_section(lambda: map(_node, api("/api/v1/nodes")["items"])),
        workloads=_section(lambda: _workloads(api)),
        budgets=_section(lambda: _budgets(metrics)),
        remembered=remembered.rows[0] if remembered.rows else 0.0,
        backups=_section(lambda: _backups(metrics)),
        certificates=_section(lambda: _certificates(metrics)),
        alerts=alerts,
        arriving=arriving,
        told=told,
    )


# --- what rows say, in words both renderings share --------------------------------------------------------------------


def span(seconds: float) -> str:
    """Return a duration for people: 2 d 3 h, 5 min."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for word, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if left >= size or (word == "s" and not parts):
            parts.append(f"{left // size} {word}")
            left %= size
        elif parts:
            break
        if len(parts) == 2:
            break
    return " ".join(parts)


def moment(seconds: float) -> datetime | None:
    """Return a moment in UTC, or nothing for what no calendar has."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def budget_word(budget: Budget) -> tuple[bool, str]:
    """Return whether there is some left, and how much."""
    if budget.left is None:
        return True, "no requests counted yet"
    share = f"{math.floor(budget.left * 1000) / 10:.1f} %"
    return budget.left > 0, f"{share} left" if budget.left > 0 else f"used up ({share})"


def verified(backups: Backups, now: float) -> bool:
    """Return whether a backup was shown to restore of late."""
    return now - backups.verified <= UNVERIFIED_SECONDS


def certificate_word(certificate: Certificate, now: float) -> tuple[bool, str]:
    """Return whether all is well with it, and how long it lasts."""
    left = certificate.ends - now
    if not certificate.ready:
        return False, "asked for and not there"
    if left <= 0:
        return False, f"has ended {span(-left)} ago"
    return left >= SOON_SECONDS, f"{int(left // 86400)} days left"


# --- what each of them says -------------------------------------------------------------------------------------------


def _patient(ask: Ask) -> Ask:
    """One that is silent once is not asked again: a timeout for each question would add up."""
    silent: list[SilentError] = []

    def asked(path: str) -> Any:
        if silent:
            raise silent[0]
        try:
            return ask(path)
        except SilentError as error:
            silent.append(error)
            raise

    return asked


def _section(rows: Callable[[], Iterable[Row]]) -> Section[Row]:
    try:
        return Section(tuple(rows()))
    except SilentError as error:
        return Section(problem=text(error))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        return Section(problem=f"an answer is not understood: {type(error).__name__}: {text(error)}")


def text(value: object) -> str:
    """Return what somebody else has written as one line without anything that steers a terminal."""
    line = " ".join(str(value).split())
    return "".join(sign if sign.isprintable() else "?" for sign in line)[:SHOWN_CHARACTERS]


def _count(number: int, one: str, more: str) -> str:
    return "" if number == 0 else f"1 {one}" if number == 1 else f"{number} {more}"


def _node(node: Mapping[str, Any]) -> Node:
    ready: Mapping[str, Any] = next((c for c in node["status"].get("conditions", []) if c["type"] == "Ready"), {})
    missing = "" if ready.get("status") == "True" else f"not ready: {ready.get('reason', 'it has never reported')}"
    version = node["status"]["nodeInfo"]["kubeletVersion"]
    return Node(text(node["metadata"]["name"]), text(version), text(missing))


def _workloads(api: Ask) -> list[Workload]:
    found = []
    for kind in KINDS:
        for item in api(f"/apis/apps/v1/{kind.lower()}s")["items"]:
            metadata = item["metadata"]
            labels = metadata.get("labels") or {}
            service = labels.get("app.kubernetes.io/component") == "service"
            missing = text(kube_reason.state(kind, item).missing)
            found.append(Workload(kind, text(metadata["namespace"]), text(metadata["name"]), missing, service))
    return sorted(found, key=lambda one: (one.namespace, one.name, one.kind))


def _series(metrics: Ask, query: str) -> list[tuple[Mapping[str, str], float]]:
    """Return labels and value of each series that a query gives."""
    answer = metrics(f"/api/v1/query?query={quote(QUERIES[query])}")
    if answer["status"] != "success":
        raise SilentError(f"Prometheus refuses a query: {text(answer.get('error', 'no reason given'))}")
    values = [(series["metric"], float(series["value"][1])) for series in answer["data"]["result"]]
    return [(labels, value) for labels, value in values if math.isfinite(value)]


def _budgets(metrics: Ask) -> list[Budget]:
    left = {(labels["namespace"], labels["service"]): value for labels, value in _series(metrics, "left")}
    found = [
        Budget(
            text(labels["namespace"]),
            text(labels["service"]),
            promised,
            left.get((labels["namespace"], labels["service"])),
        )
        for labels, promised in _series(metrics, "promised")
    ]
    return sorted(found, key=lambda budget: (budget.namespace, budget.service))


def _backups(metrics: Ask) -> list[Backups]:
    """One row, or none where nobody makes backups."""
    [completed, verified] = ([value for _, value in _series(metrics, query)] for query in ("completed", "verified"))
    return [Backups(completed[0], verified[0] if verified else 0.0)] if completed else []


def _certificates(metrics: Ask) -> list[Certificate]:
    ready = {(labels["exported_namespace"], labels["name"]): value for labels, value in _series(metrics, "ready")}
    found = []
    for labels, ends in _series(metrics, "ends"):
        key = (labels["exported_namespace"], labels["name"])
        found.append(Certificate(text(key[0]), text(key[1]), ends, ready.get(key) == 1))
    return sorted(found, key=lambda one: (one.ends, one.namespace, one.name))


def _alerts(alertmanager: Ask, metrics: Ask) -> tuple[Section[Alert], bool | None, bool | None]:
    """What is open, whether Watchdog is, and whether somebody is told; by Prometheus if Alertmanager is silent."""
    known = _section(lambda: [_alert(one, one["startsAt"]) for one in alertmanager("/api/v2/alerts")])
    told = _section(lambda: [text(one["name"]) for one in alertmanager("/api/v2/receivers")])
    if not known.problem:
        open_alerts = tuple(sorted((a for a in known.rows if a.name != WATCHDOG), key=_urgency))
        somebody = None if told.problem else bool(set(told.rows) - NOBODY)
        return Section(open_alerts), any(a.name == WATCHDOG for a in known.rows), somebody
    # Better than nothing when nobody is told anything.
    firing = _section(lambda: [_alert(one, one["activeAt"]) for one in _firing(metrics)])
    rows = tuple(sorted((a for a in firing.rows if a.name != WATCHDOG), key=_urgency))
    return Section(rows, known.problem), None, None


def _firing(metrics: Ask) -> list[Mapping[str, Any]]:
    return [one for one in metrics("/api/v1/alerts")["data"]["alerts"] if one["state"] == "firing"]


def _alert(one: Mapping[str, Any], since: str) -> Alert:
    labels, annotations, status = one["labels"], one.get("annotations", {}), one.get("status", {})
    quiet = "silenced" if status.get("silencedBy") else "part of a worse alert" if status.get("inhibitedBy") else ""
    where = {name: value for name, value in labels.items() if name not in ("alertname", "severity")}
    return Alert(
        name=text(labels["alertname"]),
        severity=text(labels.get("severity", "none")),
        since=datetime.fromisoformat(since.replace("Z", "+00:00")).timestamp(),
        summary=text(annotations.get("summary", "")),
        place=text(", ".join(f"{name}={value}" for name, value in sorted(where.items()))),
        runbook=text(annotations.get("runbook_url", "")),
        quiet=quiet,
    )


def _urgency(alert: Alert) -> tuple[bool, int, float, str, str]:
    order = SEVERITIES.index(alert.severity) if alert.severity in SEVERITIES else len(SEVERITIES)
    return bool(alert.quiet), order, alert.since, alert.name, alert.place
