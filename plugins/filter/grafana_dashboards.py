"""Filters `fitted_dashboard` and `service_dashboard`: dashboards as an environment and a service need them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

PLUGINS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PLUGINS / "module_utils"))

import grafana_dashboards  # noqa: E402


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {
            "fitted_dashboard": grafana_dashboards.fit,
            "service_dashboard": grafana_dashboards.for_service,
        }
