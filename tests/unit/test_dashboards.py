"""Dashboards: what is committed is what scripts/dashboards makes, in Grafana's own types, and each panel is complete.

That every query finds something on a living platform: molecule/grafana.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import alert_table
import grafana_dashboards
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import units

from scripts import generate_dashboards

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("prometheus", "loki", "jaeger")
TEMPLATE = json.loads((ROOT / "roles/grafana/files/service.json").read_text(encoding="utf-8"))
SERVICES = {
    path.parent.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in ROOT.glob("services/*/service.yml")
}
COMMITTED = [
    json.loads(path.read_text(encoding="utf-8")) for path in sorted(ROOT.glob("roles/grafana/files/dashboards/*.json"))
]
BOARDS = COMMITTED + [grafana_dashboards.for_service(TEMPLATE, one, SOURCES) for one in SERVICES.values()]
UIDS = {board["uid"] for board in BOARDS}
FIVE = ["Request Rate", "Error Rate", "Latency p50/p95/p99", "Active Pods", "Requests in the window"]
WINDOWS = {"$__rate_interval": "2m", "$__range": "1h", "$__interval": "1m", "$__auto": "1m"}
TABLES = sorted((ROOT / "roles/prometheus/files/alerts").glob("*.yml")) + sorted(ROOT.glob("services/*/alerts.yml"))

register_default_plugins()
boards = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board["uid"])


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def expressions(board: dict[str, Any], source: str) -> Iterator[tuple[str, str]]:
    """Every expression for a data source with the title of its panel, variables and windows filled in."""
    names = [variable["name"] for variable in board.get("templating", {}).get("list", [])]
    for panel in panels(board):
        for target in panel["targets"]:
            if target["datasource"]["uid"] == source and "expr" in target:
                text = target["expr"]
                for name, value in WINDOWS.items():
                    text = text.replace(name, value)
                yield panel["title"], re.sub("|".join(rf"\${name}\b" for name in names) or "^$", ".*", text)


def places(panel: dict[str, Any]) -> set[tuple[int, int]]:
    place = panel["gridPos"]
    return {
        (x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])
    }


def test_what_is_committed_is_what_is_made() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/generate_dashboards.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_change_by_hand_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the test before stands on."""
    monkeypatch.setattr(generate_dashboards, "ROOT", tmp_path)
    monkeypatch.setattr(generate_dashboards, "DIRECTORY", tmp_path / "boards")
    monkeypatch.setattr(generate_dashboards, "TEMPLATE", tmp_path / "service.json")
    monkeypatch.setattr(generate_dashboards, "PAGE", tmp_path / "page.md")
    assert generate_dashboards.main([]) == 0
    assert generate_dashboards.main(["--check"]) == 0
    (tmp_path / "boards/slo.json").write_text("{}", encoding="utf-8")
    assert generate_dashboards.main(["--check"]) == 1
    assert generate_dashboards.main([]) == 0
    (tmp_path / "boards/old.json").write_text("{}", encoding="utf-8")
    assert generate_dashboards.main(["--check"]) == 1
    assert generate_dashboards.main([]) == 0
    assert not (tmp_path / "boards/old.json").exists()


def test_there_are_ten_and_one_for_each_service() -> None:
    assert len(COMMITTED) >= 10
    assert {f"service-{name}" for name in SERVICES} <= UIDS
    assert len(UIDS) == len(BOARDS)
    assert len({board["title"] for board in BOARDS}) == len(BOARDS)


@boards
def test_grafanas_own_types_lose_nothing_of_it(board: dict[str, Any]) -> None:
    read = models.Dashboard.from_json(json.loads(json.dumps(board)))
    assert json.loads(JSONEncoder().encode(read)) == board


@boards
def test_every_panel_is_complete(board: dict[str, Any]) -> None:
    known = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("__")}
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    # The scenario asks for each by its dashboard and title.
    titles = [panel["title"] for panel in panels(board)]
    assert len(set(titles)) == len(titles)
    for panel in panels(board):
        where = f"{board['uid']}: {panel['title']}"
        assert panel["title"].strip(), where
        assert panel["fieldConfig"]["defaults"]["unit"] in known, where
        assert panel["datasource"]["uid"] in SOURCES, where
        assert panel["targets"], where
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters), where
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"], where
    for row in grafana_dashboards.rows(board["panels"]):
        assert len(row) > 1, row[0]["title"]


@boards
def test_no_panel_covers_another(board: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        mine = places(panel)
        assert not taken & mine, f"{board['uid']}: {panel['title']}"
        assert max(x for x, _ in mine) < 24
        taken |= mine


@boards
def test_promql_is_promql(board: dict[str, Any], tmp_path: Path) -> None:
    listed = [{"record": f"panel:{n}", "expr": text} for n, (_, text) in enumerate(expressions(board, "prometheus"))]
    assert listed
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": listed}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(tmp_path / "rules.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@boards
def test_what_it_takes_from_rules_is_recorded(board: dict[str, Any]) -> None:
    tables = [alert_table.read(path.read_text(encoding="utf-8"), str(path)) for path in TABLES]
    declared = (ROOT / "roles/prometheus/templates/declared.rules.yml.j2").read_text(encoding="utf-8")
    recorded = {entry["record"] for table in tables for entry in table["records"]}
    recorded |= set(re.findall(r"record: (\S+)", declared)) | {"monitoring:refused_rules:info"}
    for title, text in expressions(board, "prometheus"):
        named = {name for name in alert_table.metrics(text) if ":" in name}
        assert named <= recorded, f"{board['uid']}: {title}: {sorted(named - recorded)}"


@boards
def test_nothing_is_left_to_fill_in(board: dict[str, Any]) -> None:
    assert not grafana_dashboards.PLACE.search(json.dumps(board))
    variables = {variable["name"] for variable in board.get("templating", {}).get("list", [])}
    for name in re.findall(r"\$(?!__|1)(\w+)", json.dumps([panel["targets"] for panel in panels(board)])):
        assert name in variables, f"{board['uid']}: ${name}"


@pytest.mark.parametrize("path", TABLES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_alert_leads_to_a_dashboard_that_exists(path: Path) -> None:
    table = alert_table.read(path.read_text(encoding="utf-8"), path.name)
    for alert in table["alerts"]:
        uid = alert.get("dashboard", table["dashboard"])
        # Its label says which service's; every service has one.
        found = UIDS if uid == "service-{{ $labels.service }}" else UIDS & {uid}
        assert found, f"{alert['alert']}: no dashboard {uid}"
        if "{{" in uid:
            assert "service" in alert["trial"].get("labels", {}), f"{alert['alert']}: no label for {uid}"


def test_demo_has_its_five_panels_first() -> None:
    [demo] = [board for board in BOARDS if board["uid"] == "service-demo"]
    assert [panel["title"] for panel in panels(demo)][:5] == FIVE


SHOP = {"name": "shop", "namespace": "shops", "database": {"name": "shop_db"}, "ingress": {"path": "/shop"}}


def headings(board: dict[str, Any]) -> list[str]:
    return [panel["title"] for panel in board["panels"] if panel["type"] == "row"]


def test_a_service_that_is_new_gets_what_fits_its_service_yml() -> None:
    board = grafana_dashboards.for_service(TEMPLATE, SHOP, ["prometheus"])
    assert (board["uid"], board["title"]) == ("service-shop", "Service shop")
    assert headings(board) == ["Requests", "Routes", "Promise", "At the ingress", "Database", "Pods"]
    assert 'service="shop", namespace="shops"' in panels(board)[0]["targets"][0]["expr"]
    bottom = 0
    for row in grafana_dashboards.rows(board["panels"]):
        assert row[0]["gridPos"]["y"] == bottom, "a gap where a row was left out"
        bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in row)


def test_a_service_of_another_kind_has_no_metrics_of_the_kit() -> None:
    page = {"name": "page", "namespace": "pages", "image": "web", "database": None}
    assert headings(grafana_dashboards.for_service(TEMPLATE, page, SOURCES)) == ["Pods", "Logs", "Traces"]


def test_without_a_data_source_its_panels_are_left_out() -> None:
    [board] = [one for one in COMMITTED if one["uid"] == "logs-traces"]
    fitted = grafana_dashboards.fit(board, ["prometheus", "loki"])
    assert {panel["datasource"]["uid"] for panel in panels(fitted)} == {"prometheus", "loki"}
    assert grafana_dashboards.fit(board, SOURCES) == board
