"""The checker of the drills about alerts: what did not arrive, came to one receiver alone, or does not belong."""

from __future__ import annotations

from typing import Any, cast

import pytest

import drills.__main__ as main
from drills import alerts, told
from drills.alert_faults import FAULTS

ROW = alerts.rows()["service_down"]


def webhook(name: str, status: str = "firing", **labels: str) -> dict[str, Any]:
    return {"to": "/webhook", "body": {"alerts": [{"status": status, "labels": {"alertname": name, **labels}}]}}


def slack(title: str) -> dict[str, Any]:
    return {"to": "/slack", "body": {"attachments": [{"title": title}]}}


def mail(subject: str) -> dict[str, Any]:
    return {"to": [told.ADDRESS], "subject": subject, "body": ""}


def outcome(**changed: Any) -> alerts.Outcome:
    both = (True, True)
    found: dict[str, Any] = {
        "row": ROW,
        "told_seconds": 95.2,
        "over_seconds": 31.0,
        "receivers": {"webhook": both, "slack": both, "mail": both},
        "companions": ["HealthCheckFailing"],
        "strangers": [],
    }
    return alerts.Outcome(**(found | changed))


# --- the table


def test_every_line_has_its_fault_and_every_fault_its_line() -> None:
    assert list(alerts.rows()) == list(FAULTS)


def test_every_alert_of_the_table_exists() -> None:
    for row in alerts.rows().values():
        for name in (row.alert, *row.companions):
            assert name in alerts.entries(), f"{row.fault}: {name}"
        assert row.alert not in row.companions


def test_the_faults_that_have_to_be_there_are() -> None:
    assert set(alerts.rows()) >= {
        "service_down",
        "errors",
        "latency",
        "database_down",
        "redis_down",
        "disk_filling",
        "certificate_ending",
        "memory_hog",
        "cpu_hog",
    }


def test_an_aim_is_what_the_alert_itself_waits_for_and_a_minute() -> None:
    assert (ROW.lasts, ROW.aim) == (60, 120)
    assert alerts.rows()["errors"].tail == 60


def test_faults_that_could_meet_are_injected_one_after_the_other() -> None:
    groups = [[row.fault for row in group] for group in alerts.plan(list(alerts.rows()))]
    assert groups[:-1] == [["service_down"], ["errors"], ["latency"], ["database_down"], ["redis_down"]]
    assert groups[-1] == ["disk_filling", "certificate_ending", "memory_hog", "cpu_hog"]
    assert alerts.plan(["errors"]) == [[alerts.rows()["errors"]]]


# --- what has arrived


def test_an_alert_is_known_by_its_labels() -> None:
    [mine, other] = told.messages(
        [webhook("ServiceDown", service="demo", namespace="sre-app"), webhook("ServiceDown", service="auth")]
    )
    assert mine.about(ROW.alert, ROW.labels)
    assert not other.about(ROW.alert, ROW.labels)


def test_slack_and_mail_have_to_be_told_both_times() -> None:
    everything = [slack("critical: ServiceDown (1)"), slack("Over: ServiceDown (1)"), mail("critical: ServiceDown (2)")]
    assert told.told_by(everything, "ServiceDown") == {"slack": (True, True), "mail": (True, False)}
    assert told.told_by([slack("Over: ServiceDown (1)")], "ServiceDown") == {
        "slack": (False, True),
        "mail": (False, False),
    }
    # Another alert whose name begins alike.
    assert told.told_by([slack("critical: ServiceDownAgain (1)")], "ServiceDown")["slack"] == (False, False)


class Clock:
    """Time that goes on when it is asked to, and receivers that are told what a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.undone = 1000.0, 0
        monkeypatch.setattr("drills.alerts.time.monotonic", lambda: self.now)
        monkeypatch.setitem(cast("dict[str, Any]", FAULTS), "service_down", lambda _: self._undo)

    def _undo(self) -> None:
        self.undone += 1
        self.now += 5


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


FIRES, OVER = told.messages(
    [webhook("ServiceDown", status, service="demo", namespace="sre-app") for status in ("firing", "resolved")]
)


def test_a_fault_is_undone_as_soon_as_somebody_was_told_and_its_end_is_waited_for(clock: Clock) -> None:
    watch = alerts.Watch(ROW, None)  # type: ignore[arg-type]
    assert watch.look([])
    clock.now += 90
    assert watch.look([FIRES])
    assert (clock.undone, watch.told - watch.began, watch.undone - watch.began) == (1, 90, 95)
    clock.now += 20
    assert watch.look([FIRES])
    assert not watch.look([FIRES, OVER])
    assert (clock.undone, watch.over - watch.undone) == (1, 20)


def test_a_fault_that_nobody_is_told_of_is_undone_and_not_waited_for(clock: Clock) -> None:
    watch = alerts.Watch(ROW, None)  # type: ignore[arg-type]
    clock.now += alerts.PATIENCE * ROW.aim + 1
    assert watch.look([])
    assert clock.undone == 1
    clock.now += alerts.PATIENCE * (ROW.tail + alerts.AIM_SECONDS) + 1
    assert not watch.look([])
    assert (watch.told, watch.over, clock.undone) == (0, 0, 1)


def test_what_is_over_before_it_was_there_does_not_count(clock: Clock) -> None:
    watch = alerts.Watch(ROW, None)  # type: ignore[arg-type]
    assert watch.look([OVER])
    assert watch.told == watch.over == 0


# --- the verdict


def test_all_three_receivers_and_nobody_else() -> None:
    assert outcome().good
    assert not outcome(told_seconds=None).good
    assert not outcome(over_seconds=None).good
    assert not outcome(strangers=["RedisDown"]).good
    assert not outcome(receivers={"webhook": (True, True), "slack": (True, False), "mail": (True, True)}).good


def test_a_line_says_what_was_wrong() -> None:
    bad = outcome(told_seconds=None, over_seconds=None, strangers=["RedisDown"])
    assert alerts.line(bad)[2:] == (
        "NOT AT ALL",
        "<= 120 s",
        "NOT AT ALL",
        "3 of 3",
        "HealthCheckFailing, RedisDown (NOT EXPECTED)",
        "NO",
    )
    assert alerts.line(outcome(told_seconds=121.0))[3] == "<= 120 s, MISSED"
    assert alerts.line(outcome(companions=[]))[-2:] == ("nothing", "yes")


def test_a_run_of_some_faults_keeps_the_lines_of_the_others() -> None:
    errors = alerts.rows()["errors"]
    first = alerts.merged("", [outcome(), outcome(row=errors, told_seconds=50.0)])
    second = alerts.merged(f"words\n\n{first}\n\nwords", [outcome(told_seconds=77.0)])
    lines = [text for text in second.splitlines() if text.startswith("| a service")]
    assert len(lines) == 2
    assert "77 s" in lines[0] and "50 s" in lines[1]


def test_a_receipt_has_what_the_table_has() -> None:
    receipt = outcome().receipt()
    assert (receipt["fault"], receipt["good"], receipt["told_seconds"], receipt["aim_seconds"]) == (
        "service_down",
        True,
        95.2,
        120,
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "crash", "--fault", "errors"], "--fault: found it without alerts, wanted --only alerts"),
        (["--only", "crash", "--write-docs"], "--write-docs: found a part of the drills"),
    ],
    ids=["fault", "docs"],
)
def test_arguments_that_do_not_fit_are_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main.arguments_of(words)
    assert message in capsys.readouterr().err
    assert main.arguments_of(["--only", "alerts", "--fault", "errors", "--write-docs"]).fault == ["errors"]
