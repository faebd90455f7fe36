"""What a status is made of, told by a real Prometheus and a real Alertmanager: theirs is the form that answers have."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import alert_table
import pytest
import status_server
from platform_status import QUERIES, Ask, Status, gather

from tests.unit.test_status_page import serving

ROOT = Path(__file__).parents[2]
SECONDS = 60
NAMES = ("ShopDown", "ShopSlow", "ShopQuiet")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(program: str, log: Path, *arguments: str) -> Iterator[None]:
    with log.open("wb") as output, subprocess.Popen([program, *arguments], stdout=output, stderr=output) as process:
        try:
            yield
        finally:
            process.terminate()


class Exporter(status_server.Handler):
    """What a platform's exporters tell, as far as a status asks for it."""

    def answer(self) -> tuple[HTTPStatus, Mapping[str, str], str]:
        now = time.time()
        lines = [
            f"backup_last_completed_timestamp {now - 3600:.0f}",
            "backup_last_verified_timestamp 0",
            *(f'certmanager_certificate_{name}{{exported_namespace="web",name="public"{more}}} {value:.0f}'
              for name, more, value in (("expiration_timestamp_seconds", "", now + 10 * 86400),
                                        ("ready_status", ',condition="True"', 1),
                                        ("ready_status", ',condition="False"', 0))),
            f'http_requests_total{{namespace="shops",service="shop",route="/",status="200"}} {now * 75:.0f}',
            f'http_requests_total{{namespace="shops",service="shop",route="/",status="500"}} {now * 25:.0f}',
        ]  # fmt: skip
        return status_server.plain(HTTPStatus.OK, "\n".join([*lines, ""]))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ask, Ask, str]]:
    """Return Prometheus, with the rules of error budgets, Alertmanager, and the address of that."""
    directory = tmp_path_factory.mktemp("sources")
    own, other = free_port(), free_port()
    # Not every five minutes: a test has no time for that.
    table = (ROOT / "roles/prometheus/files/alerts/slo.yml").read_text(encoding="utf-8").replace("[30d:5m]", "[30d:1s]")
    slo = alert_table.rules(alert_table.read(table, "slo"), "slo")
    promised = [
        {"record": "service:slo_availability:ratio", "expr": "0.999", "labels": {"namespace": "shops", "service": name}}
        for name in ("shop", "till")
    ]
    firing = {"alert": "ShopDown", "expr": "vector(1)", "labels": {"severity": "critical"}}
    groups = [{"name": "declared", "rules": [*promised, firing]}, *slo["groups"]]
    (directory / "rules.yml").write_text(json.dumps({"groups": groups}), encoding="utf-8")
    (directory / "alertmanager.yml").write_text(
        json.dumps({"route": {"receiver": "none"}, "receivers": [{"name": "none"}, {"name": "sre"}]}), encoding="utf-8"
    )
    with serving(Exporter) as exporter:
        settings = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(directory / "rules.yml")],
            "scrape_configs": [
                {"job_name": "all", "static_configs": [{"targets": [f"127.0.0.1:{exporter}", f"127.0.0.1:{own}"]}]}
            ],
        }
        (directory / "prometheus.yml").write_text(json.dumps(settings), encoding="utf-8")
        with (
            running(
                "prometheus",
                directory / "prometheus.log",
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{own}",
            ),
            running(
                "prometheus-alertmanager",
                directory / "alertmanager.log",
                f"--config.file={directory / 'alertmanager.yml'}",
                f"--storage.path={directory / 'alerts'}",
                f"--web.listen-address=127.0.0.1:{other}",
                "--cluster.listen-address=",
            ),
        ):
            address = f"http://127.0.0.1:{other}"
            yield (
                status_server.asking("Prometheus", f"http://127.0.0.1:{own}"),
                status_server.asking("Alertmanager", address),
                address,
            )


def nobody(_: str) -> Any:
    return {"items": []}


def eventually(look: Any) -> Any:
    limit = time.monotonic() + SECONDS
    while not (seen := look())[0] and time.monotonic() < limit:
        time.sleep(0.5)
    assert seen[0], seen[1]
    return seen[1]


def send(url: str, content: Any) -> Any:
    request = urllib.request.Request(url, json.dumps(content).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read() or b"null")


def test_every_question_is_answered(sources: tuple[Ask, Ask, str]) -> None:
    prometheus, alertmanager, _ = sources

    def look() -> tuple[bool, Status]:
        status = gather(nobody, prometheus, alertmanager, time.time())
        known = not status.problems() and status.backups.rows and status.certificates.rows
        return bool(
            known and any(budget.left is not None and budget.left < 0 for budget in status.budgets.rows)
        ), status

    status = eventually(look)
    shop, till = status.budgets.rows
    # A quarter of its requests fail, where one of a thousand may.
    assert (shop.service, till.service, till.left) == ("shop", "till", None)
    assert shop.left == pytest.approx(-249, abs=30)
    [backups] = status.backups.rows
    assert (backups.verified, status.taken - backups.completed) == (0, pytest.approx(3600, abs=60))
    [certificate] = status.certificates.rows
    assert (certificate.namespace, certificate.name, certificate.ready) == ("web", "public", True)
    assert certificate.ends - status.taken == pytest.approx(10 * 86400, abs=60)
    assert 0 <= status.remembered < 3 * SECONDS
    assert (status.arriving, status.told) == (False, True)


def test_a_question_that_is_wrong_is_told_from_silence(
    sources: tuple[Ask, Ask, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(QUERIES, "left", "sum(")
    status = gather(nobody, *sources[:2], time.time())
    assert status.problems() == ["Prometheus refuses /api/v1/query: 400 Bad Request"]


def test_alerts_are_told_with_silences(sources: tuple[Ask, Ask, str]) -> None:
    prometheus, alertmanager, address = sources
    now = datetime.now(UTC)
    times = {"startsAt": (now - timedelta(hours=2)).isoformat(), "endsAt": (now + timedelta(hours=1)).isoformat()}
    quiet = {"name": "alertname", "value": "ShopQuiet", "isRegex": False, "isEqual": True}
    silence = {"matchers": [quiet], **times, "createdBy": "test", "comment": "only a test"}
    send(f"{address}/api/v2/silences", silence)
    send(
        f"{address}/api/v2/alerts",
        [
            {
                "labels": {"alertname": name, "severity": "critical", "service": "shop"},
                "annotations": {"summary": f"{name} is true"},
                **times,
            }
            for name in (*NAMES, "Watchdog")
        ],
    )

    def look() -> tuple[bool, Status]:
        status = gather(nobody, prometheus, alertmanager, time.time())
        return [(a.name, a.quiet) for a in status.alerts.rows] == [
            ("ShopDown", ""),
            ("ShopSlow", ""),
            ("ShopQuiet", "silenced"),
        ], status

    status = eventually(look)
    assert status.arriving is True
    assert status.alerts.rows[0].since == pytest.approx(now.timestamp() - 7200, abs=1)
    assert (status.alerts.rows[0].summary, status.alerts.rows[0].place) == ("ShopDown is true", "service=shop")
    assert "2 critical alerts are open" in status.wrong()


def test_prometheus_is_asked_for_alerts_when_alertmanager_is_away(sources: tuple[Ask, Ask, str]) -> None:
    away = status_server.asking("Alertmanager", f"http://127.0.0.1:{free_port()}")

    def look() -> tuple[bool, Status]:
        status = gather(nobody, sources[0], away, time.time())
        return [alert.name for alert in status.alerts.rows if alert.critical and alert.place == ""] == [
            "ShopDown"
        ], status

    status = eventually(look)
    assert status.taken - status.alerts.rows[0].since < 3 * SECONDS
    assert status.problems() == ["Alertmanager does not answer: [Errno 111] Connection refused"]
