"""Fits dashboards (roles/grafana/files) to an environment: what it has, and which services run there."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

Dashboard = dict[str, Any]
Panel = dict[str, Any]

PLACE = re.compile(r"<(name|namespace)>")
# What services of Python stand on: services/kit, and with it the metrics of their requests.
KIT = "service"


def fit(board: Mapping[str, Any], sources: Collection[str]) -> Dashboard:
    """Return a dashboard without panels whose data source, by its uid, is not there, and without rows left empty."""
    kept = [
        [p for p in row if p["type"] == "row" or p["datasource"]["uid"] in sources] for row in rows(board["panels"])
    ]
    return {**board, "panels": below([row for row in kept if len(row) > 1])}


def for_service(template: Mapping[str, Any], definition: Mapping[str, Any], sources: Collection[str]) -> Dashboard:
    """Return the dashboard of a service: the rows of the template that its service.yml has what they need for."""
    needs: dict[str, str] = template["needs"]
    has = {name for name, value in definition.items() if value} | ({KIT} & {definition.get("image", KIT)})
    board = template["dashboard"]
    wanted = [row for row in rows(board["panels"]) if needs.get(row[0]["title"]) in {None, *has}]
    words = {"name": definition["name"], "namespace": definition["namespace"]}
    made: Dashboard = _filled(fit({**board, "panels": [panel for row in wanted for panel in row]}, sources), words)
    return made


def rows(panels: list[Panel]) -> list[list[Panel]]:
    """Return panels by the heading that they stand under, each list with its heading first."""
    found: list[list[Panel]] = []
    for panel in panels:
        if panel["type"] == "row":
            found.append([])
        found[-1].append(panel)
    return found


def below(listed: list[list[Panel]]) -> list[Panel]:
    """Return rows one below the other, without the gaps that those left out would leave."""
    panels: list[Panel] = []
    y = 0
    for row in listed:
        top = row[0]["gridPos"]["y"]
        moved = [{**panel, "gridPos": {**panel["gridPos"], "y": panel["gridPos"]["y"] - top + y}} for panel in row]
        y = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in moved)
        panels += moved
    return panels


def _filled(part: Any, words: Mapping[str, str]) -> Any:
    if isinstance(part, str):
        return PLACE.sub(lambda found: words[found[1]], part)
    if isinstance(part, dict):
        return {key: _filled(inner, words) for key, inner in part.items()}
    return [_filled(inner, words) for inner in part] if isinstance(part, list) else part
