"""`make status` against an API server that the test plays: whom it asks through it, and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import status_server
import yaml
from platform_status import QUERIES

from scripts import status
from tests.unit.test_status_page import serving

PROXY = "/api/v1/namespaces/monitoring/services/"
PROMETHEUS, ALERTMANAGER = f"{PROXY}prometheus:9090/proxy", f"{PROXY}alertmanager:9093/proxy"
WATCHDOG = {"labels": {"alertname": "Watchdog"}, "startsAt": "2026-12-01T08:00:00.000Z", "status": {"state": "active"}}
NODE = {
    "metadata": {"name": "agent-1"},
    "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1"}},
}
POD = {"metadata": {"name": "shop-1"}, "spec": {"nodeName": "agent-1"}, "status": {"phase": "Pending"}}


class ApiServer:
    """What is answered at each path; a path that is not there is not found."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {
            "/api/v1/nodes": {"items": [NODE]},
            "/api/v1/pods": {"items": []},
            **{f"/apis/apps/v1/{kind}s": {"items": []} for kind in ("deployment", "statefulset", "daemonset")},
            f"{PROMETHEUS}/api/v1/query": {"status": "success", "data": {"result": []}},
            f"{ALERTMANAGER}/api/v2/alerts": [WATCHDOG],
            f"{ALERTMANAGER}/api/v2/receivers": [{"name": "sre"}],
        }
        self.queries: list[str] = []

    def answer(self, path: str) -> tuple[HTTPStatus, Any]:
        parts = urlsplit(path)
        self.queries += parse_qs(parts.query).get("query", [])
        found = self.answers.get(parts.path)
        if found is None:
            message = f"no endpoints available for {parts.path.rpartition('/services/')[2].partition('/')[0]}"
            return HTTPStatus.SERVICE_UNAVAILABLE, {"kind": "Status", "message": message}
        return HTTPStatus.OK, found


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """Return the API server of the environment `local`."""
    played = ApiServer()

    class Answers(status_server.Handler):
        def answer(self) -> tuple[HTTPStatus, Mapping[str, str], str]:
            code, content = played.answer(self.path)
            return code, {"Content-Type": "application/json"}, json.dumps(content)

    with serving(Answers) as port:
        kubeconfig = {
            "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "x", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
            "current-context": "x",
        }
        (tmp_path / "local").mkdir()
        (tmp_path / "local/kubeconfig").write_text(yaml.safe_dump(kubeconfig), encoding="utf-8")
        monkeypatch.setenv("SLIPWAY_STATE", str(tmp_path))
        yield played


def test_it_asks_by_way_of_the_api_server(server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert status.main([]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "All is well: all nodes (1) and workloads (0) are ready, no alert is open"
    )
    # As they are, whatever signs are in them.
    assert set(server.queries) == set(QUERIES.values())


@pytest.mark.parametrize(("service", "name"), [(PROMETHEUS, "Prometheus"), (ALERTMANAGER, "Alertmanager")])
def test_who_does_not_answer_is_a_line_with_the_reason(
    server: ApiServer, capsys: pytest.CaptureFixture[str], service: str, name: str
) -> None:
    server.answers = {path: answer for path, answer in server.answers.items() if not path.startswith(service)}
    assert status.main([]) == 1
    output = capsys.readouterr().out
    reason = f"no endpoints available for {service.removeprefix(PROXY).removesuffix('/proxy')}"
    assert f"  not known: {name} does not answer: 503 {reason}" in output.splitlines(), output
    assert "  agent-1  v1  ready" in output


def test_a_pod_that_waits_is_shown_with_its_reason(server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers["/api/v1/pods"] = {"items": [POD]}
    assert status.main([]) == 0
    assert "Pods that are not ready\n  shop-1  Pending on agent-1\n" in capsys.readouterr().out


def test_a_critical_alert_is_exit_code_1(server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    alert = {**WATCHDOG, "labels": {"alertname": "ShopDown", "severity": "critical"}}
    server.answers[f"{ALERTMANAGER}/api/v2/alerts"] = [WATCHDOG, alert]
    assert status.main([]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "Not well: 1 critical alert is open"


def test_without_an_api_server_it_is_exit_code_2(server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert status.main(["--environment", "staging"]) == 2
    assert capsys.readouterr().err.startswith("status: found no usable kubeconfig at ")
    del server.answers["/api/v1/nodes"]
    assert status.main([]) == 2
    assert capsys.readouterr().err.startswith("status: the API server refuses GET /api/v1/nodes: 503 no endpoints")
