"""Makes the dashboard of a service from the template that all services share (roles/grafana/files/service.json)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Dashboard = dict[str, Any]

PLACE = re.compile(r"<(name|namespace)>")
# What services of Python stand on: services/kit, and with it the metrics of their requests.
KIT = "service"


def fill(template: Mapping[str, Any], definition: Mapping[str, Any], backends: set[str]) -> Dashboard:
    """Return the dashboard of a service, with the rows that fit its service.yml and `backends`: loki, jaeger."""
    needs: dict[str, str] = template["needs"]
    there = {name for name, value in definition.items() if value} | backends
    if definition.get("image", KIT) == KIT:
        there.add("kit")
    board = template["dashboard"]
    panels = below([row for row in rows(board["panels"]) if needs.get(row[0]["title"], "") in there | {""}])
    words = {"name": definition["name"], "namespace": definition["namespace"]}
    made: Dashboard = _filled({**board, "panels": panels}, words)
    return made


def rows(panels: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return panels by the heading that they stand under, each list with its heading first."""
    found: list[list[dict[str, Any]]] = []
    for panel in panels:
        if panel["type"] == "row":
            found.append([])
        found[-1].append(panel)
    return found


def below(listed: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return rows one below the other, without the gaps that those left out would leave."""
    panels, y = [], 0
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
