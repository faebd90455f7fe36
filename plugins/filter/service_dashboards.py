"""Filter `service_dashboard`: the dashboard of a service, from the template of all."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PLUGINS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PLUGINS / "module_utils"))

import service_dashboards  # noqa: E402


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"service_dashboard": service_dashboard}


def service_dashboard(template: Mapping[str, Any], definition: Mapping[str, Any], backends: Iterable[str]) -> Any:
    """The dashboard that a definition gets; `backends` are loki and jaeger, where they are there."""
    return service_dashboards.fill(template, definition, set(backends))
