"""The state of a platform as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from platform_status import Alert, Section, Status, budget_word, certificate_word, moment, span, verified


def lines(status: Status, pods: Sequence[str] = ()) -> list[str]:
    """Return the tables, and last what it all comes to; `pods` are those that are not ready, a line each."""
    return [
        *_table("Nodes", status.nodes, ((n.name, n.version, n.missing or "ready") for n in status.nodes.rows)),
        *_table(
            "Workloads",
            status.workloads,
            ((f"{w.namespace}/{w.name}", w.kind, w.missing or "ready") for w in status.workloads.rows),
        ),
        *(["Pods that are not ready", *(f"  {line}" for line in pods)] if pods else []),
        *_table(
            f"Error budgets of 30 days{_looking_back(status)}",
            status.budgets,
            (
                (f"{b.namespace}/{b.service}", f"{b.promised * 100:.6g} %", budget_word(b)[1])
                for b in status.budgets.rows
            ),
        ),
        *_table("Backups of Postgres", status.backups, _backups(status), "nobody makes any"),
        *_table(
            "Certificates",
            status.certificates,
            (
                (f"{c.namespace}/{c.name}", certificate_word(c, status.taken)[1], _moment(c.ends))
                for c in status.certificates.rows
            ),
            "none",
        ),
        *_table("Open alerts", status.alerts, (_alert(a, status.taken) for a in status.alerts.rows), "none"),
        *(["  nobody is told of alerts: no receiver is set (docs/operations.md)"] if status.told is False else []),
        verdict(status),
    ]


def verdict(status: Status) -> str:
    """Return one line: what it all comes to."""
    if wrong := status.wrong():
        return "Not well: " + "; ".join([*wrong, *status.doubtful()])
    ready = f"all nodes ({len(status.nodes.rows)}) and workloads ({len(status.workloads.rows)}) are ready"
    if doubtful := status.doubtful():
        return f"Worth a look: {'; '.join(doubtful)}; {ready}"
    return f"All is well: {ready}, no alert is open"


def _table(title: str, section: Section[Any], rows: Iterable[Sequence[str]], empty: str = "") -> list[str]:
    cells = list(rows)
    widths = [max(len(row[place]) for row in cells) for place in range(len(cells[0]) - 1)] if cells else []
    told = ["  " + "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]) for row in cells]
    why = [f"  not known: {section.problem}"] if section.problem else []
    return [title, *why, *(told or ([f"  {empty}"] if empty and not why else []))]


def _looking_back(status: Status) -> str:
    """Prometheus may not remember as much."""
    return f" (Prometheus looks back {span(status.remembered)})" if 0 < status.remembered < 30 * 86400 else ""


def _backups(status: Status) -> list[tuple[str, str]]:
    def row(word: str, when: float, late: bool) -> tuple[str, str]:
        ago = f"{span(status.taken - when)} ago ({_moment(when)})" if when else "never"
        return word, ago + (", which is late" if late and when else "")

    return [
        line
        for backups in status.backups.rows
        for line in (
            row("last one made", backups.completed, False),
            row("last one shown to restore", backups.verified, not verified(backups, status.taken)),
        )
    ]


def _alert(alert: Alert, now: float) -> tuple[str, str, str]:
    word = alert.severity + (f", {alert.quiet}" if alert.quiet else "")
    where = f" ({alert.place})" if alert.place else ""
    return word, f"for {span(now - alert.since)}", f"{alert.name}: {alert.summary}{where}"


def _moment(seconds: float) -> str:
    found = moment(seconds)
    return f"{found:%Y-%m-%d %H:%M UTC}" if found else "at no time that there is"
