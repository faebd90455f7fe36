"""What is known of a platform when those who are asked answer, are silent, or talk nonsense."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import pytest
import status_text
from platform_status import QUERIES, Backups, Budget, SilentError, Status, budget_word, gather, span, text

NOW = 1_800_000_000.0
DAY = 86400


def condition(status: str, reason: str = "KubeletReady") -> dict[str, Any]:
    return {"conditions": [{"type": "Ready", "status": status, "reason": reason}], "nodeInfo": {"kubeletVersion": "v1"}}


def workload(namespace: str, name: str, available: int = 1, component: str = "service") -> dict[str, Any]:
    return {
        "metadata": {"namespace": namespace, "name": name, "labels": {"app.kubernetes.io/component": component}},
        "spec": {"replicas": 1},
        "status": {"replicas": 1, "updatedReplicas": 1, "availableReplicas": available},
    }


def alert(
    name: str, severity: str = "warning", since: str = "2027-01-15T07:00:00.123Z", **status: Any
) -> dict[str, Any]:
    return {
        "labels": {"alertname": name, "severity": severity, "service": "shop"},
        "annotations": {"summary": f"{name} is true", "runbook_url": f"docs/runbooks/shop.md#{name.lower()}"},
        "startsAt": since,
        "status": {"state": "active", "silencedBy": [], "inhibitedBy": [], **status},
    }


WATCHDOG = alert("Watchdog", "none")


class Platform:
    """One that is well, until a test changes what somebody says; None is silence."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.nodes: Any = [{"metadata": {"name": "agent-1"}, "status": condition("True")}]
        self.deployments: Any = [workload("shops", "shop"), workload("infrastructure", "pgbouncer", component="pooler")]
        self.series: dict[str, list[tuple[dict[str, str], str]]] = {
            "promised": [({"namespace": "shops", "service": "shop"}, "0.999")],
            "left": [({"namespace": "shops", "service": "shop"}, "0.75")],
            "remembered": [({}, str(2 * DAY))],
            "completed": [({}, str(NOW - 3600))],
            "verified": [({}, str(NOW - 7200))],
            "ends": [({"exported_namespace": "ingress-nginx", "name": "public"}, str(NOW + 60 * DAY))],
            "ready": [({"exported_namespace": "ingress-nginx", "name": "public"}, "1")],
        }
        self.alerts: Any = [WATCHDOG]
        self.firing: Any = []
        self.receivers: Any = [{"name": "none"}, {"name": "sre"}]
        self.silent: set[str] = set()

    def gather(self) -> Status:
        return gather(self._kubernetes, self._prometheus, self._alertmanager, NOW)

    def _hear(self, who: str, path: str) -> None:
        self.asked.append(f"{who} {path}")
        if who in self.silent:
            raise SilentError(f"{who} does not answer: timed out")

    def _kubernetes(self, path: str) -> Any:
        self._hear("the API server", path)
        items = {"/api/v1/nodes": self.nodes, "/apis/apps/v1/deployments": self.deployments}
        return {"items": items.get(path, [])}

    def _prometheus(self, path: str) -> Any:
        self._hear("Prometheus", path)
        if path == "/api/v1/alerts":
            return {"status": "success", "data": {"alerts": self.firing}}
        wanted = unquote(path.removeprefix("/api/v1/query?query="))
        [name] = [name for name, query in QUERIES.items() if query == wanted]
        result = [{"metric": labels, "value": [NOW, value]} for labels, value in self.series[name]]
        return {"status": "success", "data": {"result": result}}

    def _alertmanager(self, path: str) -> Any:
        self._hear("Alertmanager", path)
        return self.alerts if path == "/api/v2/alerts" else self.receivers


@pytest.fixture
def platform() -> Platform:
    return Platform()


def test_a_platform_that_is_well_is_said_to_be(platform: Platform) -> None:
    status = platform.gather()
    assert (status.wrong(), status.doubtful(), status.problems()) == ([], [], [])
    assert [node.name for node in status.nodes.rows] == ["agent-1"]
    assert [(one.name, one.service) for one in status.workloads.rows] == [("pgbouncer", False), ("shop", True)]
    assert status.budgets.rows == (Budget("shops", "shop", 0.999, 0.75),)
    assert status.backups.rows == (Backups(NOW - 3600, NOW - 7200),)
    assert [(one.name, one.ready) for one in status.certificates.rows] == [("public", True)]
    assert (status.alerts.rows, status.arriving, status.told) == ((), True, True)
    assert "\n".join(status_text.lines(status)) == (
        "Nodes\n  agent-1  v1  ready\n"
        "Workloads\n  infrastructure/pgbouncer  Deployment  ready\n  shops/shop                Deployment  ready\n"
        "Error budgets of 30 days (Prometheus looks back 2 d)\n  shops/shop  99.9 %  75.0 % left\n"
        "Backups of Postgres\n"
        "  last one made              1 h ago (2027-01-15 07:00 UTC)\n"
        "  last one shown to restore  2 h ago (2027-01-15 06:00 UTC)\n"
        "Certificates\n  ingress-nginx/public  60 days left  2027-03-16 08:00 UTC\n"
        "Open alerts\n  none\n"
        "All is well: all nodes (1) and workloads (2) are ready, no alert is open"
    )


def changed(**values: Any) -> Callable[[Platform], None]:
    def change(platform: Platform) -> None:
        for name, value in values.items():
            setattr(platform, name, value)

    return change


def series(name: str, *values: tuple[dict[str, str], str]) -> Callable[[Platform], None]:
    return lambda platform: platform.series.update({name: list(values)})


@pytest.mark.parametrize(
    ("change", "wrong", "doubtful"),
    [
        (
            changed(nodes=[{"metadata": {"name": "a"}, "status": condition("Unknown", "NodeStatusUnknown")}]),
            ["1 node is not ready"],
            [],
        ),
        (changed(deployments=[workload("a", "x", 0), workload("a", "y", 0)]), ["2 workloads are not ready"], []),
        (changed(alerts=[WATCHDOG, alert("ShopDown", "critical")]), ["1 critical alert is open"], []),
        (changed(alerts=[WATCHDOG, alert("ShopSlow")]), [], ["1 warning is open"]),
        (changed(alerts=[WATCHDOG, alert("ShopDown", "critical", silencedBy=["x"])]), [], []),
        (changed(alerts=[WATCHDOG, alert("ShopDown", "critical", inhibitedBy=["x"])]), [], []),
        (
            changed(alerts=[]),
            ["alerts do not arrive: Watchdog, which fires always, is not there"],
            [],
        ),
        (series("left", ({"namespace": "shops", "service": "shop"}, "-0.2")), [], ["1 error budget is used up"]),
        (series("left", ({"namespace": "shops", "service": "shop"}, "NaN")), [], []),
        (series("verified", ({}, "0")), [], ["no backup was shown to restore of late"]),
        (series("verified", ({}, str(NOW - 3 * DAY))), [], ["no backup was shown to restore of late"]),
        (series("completed"), [], []),
        (
            series("ends", ({"exported_namespace": "ingress-nginx", "name": "public"}, str(NOW + 20 * DAY))),
            [],
            ["1 certificate needs a look"],
        ),
        (series("ready"), [], ["1 certificate needs a look"]),
    ],
)
def test_what_is_not_well_is_counted(
    platform: Platform, change: Callable[[Platform], None], wrong: list[str], doubtful: list[str]
) -> None:
    change(platform)
    status = platform.gather()
    assert (status.wrong(), status.doubtful()) == (wrong, doubtful)
    last = status_text.lines(status)[-1]
    assert last.startswith("Not well: " if wrong else "Worth a look: " if doubtful else "All is well: ")
    assert all(reason in last for reason in [*wrong, *doubtful])


@pytest.mark.parametrize("who", ["the API server", "Prometheus", "Alertmanager"])
def test_who_is_silent_is_named_once_and_asked_once_and_the_others_are_shown(platform: Platform, who: str) -> None:
    platform.silent = {who}
    status = platform.gather()
    assert status.problems() == [f"{who} does not answer: timed out"]
    assert status.wrong() == status.problems()
    assert len([line for line in platform.asked if line.startswith(who)]) == 1, "its timeouts would add up"
    shown = {
        "the API server": bool(status.nodes.rows and status.workloads.rows),
        "Prometheus": bool(status.budgets.rows and status.backups.rows and status.certificates.rows),
        "Alertmanager": status.arriving is not None,
    }
    assert shown == {name: name != who for name in shown}
    assert f"  not known: {who} does not answer: timed out" in status_text.lines(status)


def test_when_all_are_silent_there_is_a_line_for_each(platform: Platform) -> None:
    platform.silent = {"the API server", "Prometheus", "Alertmanager"}
    status = platform.gather()
    assert len(status.problems()) == 3
    assert status_text.lines(status)[-1].startswith("Not well: ")


def test_without_alertmanager_what_prometheus_says_is_shown(platform: Platform) -> None:
    platform.silent = {"Alertmanager"}
    firing = {"labels": {"alertname": "ShopDown", "severity": "critical"}, "annotations": {}, "state": "firing"}
    pending = {"labels": {"alertname": "ShopSlow"}, "state": "pending", "activeAt": "2027-01-15T07:00:00Z"}
    platform.firing = [firing | {"activeAt": "2027-01-15T07:00:00.123456789Z"}, pending]
    status = platform.gather()
    assert [one.name for one in status.alerts.rows] == ["ShopDown"]
    assert status.alerts.problem.startswith("Alertmanager does not answer")
    assert status.wrong() == ["1 critical alert is open", status.alerts.problem]


def test_the_worst_alert_comes_first_and_the_silenced_last(platform: Platform) -> None:
    platform.alerts = [
        alert("Quiet", "critical", silencedBy=["x"]),
        alert("Odd", "page-me"),
        alert("Warning"),
        alert("Later", "critical", since="2027-01-15T07:30:00Z"),
        alert("First", "critical", since="2027-01-15T07:00:00Z"),
        WATCHDOG,
    ]
    found = platform.gather().alerts.rows
    assert [one.name for one in found] == ["First", "Later", "Warning", "Odd", "Quiet"]
    assert [one.quiet for one in found] == ["", "", "", "", "silenced"]
    assert (found[0].place, found[0].since) == ("service=shop", NOW - 3600)


def test_nobody_is_told_when_no_receiver_is_set(platform: Platform) -> None:
    platform.receivers = [{"name": "none"}, {"name": "deadman"}]
    status = platform.gather()
    assert status.told is False
    assert "  nobody is told of alerts: no receiver is set (docs/operations.md)" in status_text.lines(status)


def test_a_service_that_nobody_has_asked_has_its_whole_budget(platform: Platform) -> None:
    platform.series["left"] = []
    [budget] = platform.gather().budgets.rows
    assert budget_word(budget) == (True, "no requests counted yet")


@pytest.mark.parametrize(
    ("left", "word"),
    [
        (1.0, "100.0 % left"),
        (0.9999, "99.9 % left"),
        (0.0004, "0.0 % left"),
        (0.0, "used up (0.0 %)"),
        (-3, "used up (-300.0 %)"),
    ],
)
def test_a_budget_is_never_said_to_be_more_than_it_is(left: float, word: str) -> None:
    assert budget_word(Budget("shops", "shop", 0.999, left))[1] == word


def nonsense(chance: random.Random, depth: int = 3) -> Any:
    kinds: list[Callable[[], Any]] = [
        lambda: None,
        lambda: chance.choice([0, -1, 1e308, True]),
        lambda: "".join(chance.choices(string.printable + "\x1b\x00é", k=chance.randrange(12))),
    ]
    if depth:
        kinds += [
            lambda: [nonsense(chance, depth - 1) for _ in range(chance.randrange(3))],
            lambda: {
                chance.choice(
                    ["items", "metadata", "name", "labels", "status", "data", "result", "alertname"]
                ): nonsense(chance, depth - 1)
                for _ in range(chance.randrange(4))
            },
        ]
    return chance.choice(kinds)()


def damaged(answer: Any, chance: random.Random) -> Any:
    """Return an answer with something else in one place of it."""
    if not isinstance(answer, (dict, list)) or not answer or chance.random() < 0.1:
        return nonsense(chance)
    place = chance.choice(list(answer) if isinstance(answer, dict) else range(len(answer)))
    copy: Any = answer.copy()
    copy[place] = damaged(answer[place], chance)
    return copy


@pytest.mark.parametrize("seed", range(300))
def test_whatever_is_answered_there_is_a_status(platform: Platform, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    platform.alerts = [WATCHDOG, alert("ShopDown", "critical")]

    def ask(who: Callable[[str], Any]) -> Callable[[str], Any]:
        return lambda path: damaged(who(path), chance)

    status = gather(ask(platform._kubernetes), ask(platform._prometheus), ask(platform._alertmanager), NOW)
    printed = "\n".join(status_text.lines(status))
    assert all(sign == "\n" or sign.isprintable() for sign in printed)


def test_what_steers_a_terminal_is_taken_out(platform: Platform) -> None:
    evil = alert("Evil\x1b[2J\r\nNodes\u202e")
    evil["annotations"]["summary"] = "x" * 5000 + "\x07"
    platform.alerts = [WATCHDOG, evil]
    printed = "\n".join(status_text.lines(platform.gather()))
    assert not {"\x1b", "\r", "\x07", "\u202e"} & set(printed)
    assert "Evil?[2J Nodes?" in printed
    assert max(map(len, printed.splitlines())) < 800


@pytest.mark.parametrize(
    ("seconds", "word"),
    [
        (-5, "0 s"),
        (0.4, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3660, "1 h 1 min"),
        (3661, "1 h 1 min"),
        (3605, "1 h"),
        (90000, "1 d 1 h"),
        (2 * DAY + 60, "2 d"),
    ],
)
def test_a_span_has_two_parts_at_most(seconds: float, word: str) -> None:
    assert span(seconds) == word


def test_a_text_is_one_line() -> None:
    assert text("a\n b\t\x00c") == "a b ?c"


def test_a_certificate_that_ends_never_is_shown(platform: Platform) -> None:
    platform.series["ends"] = [({"exported_namespace": "a", "name": "b"}, "1e300")]
    platform.series["ready"] = [({"exported_namespace": "a", "name": "b"}, "1")]
    status = platform.gather()
    assert "at no time that there is" in "\n".join(status_text.lines(status))
    assert replace(status, taken=0).doubtful() == []
