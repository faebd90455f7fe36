"""Filter `alert_rules`: the text of a table of alerts as Prometheus' rules."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

PLUGINS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PLUGINS / "module_utils"))

import alert_table  # noqa: E402


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"alert_rules": alert_rules}


def alert_rules(
    text: str, family: str, runbooks: str = alert_table.RUNBOOKS, dashboards: str = alert_table.DASHBOARDS
) -> dict[str, Any]:
    """The groups of rules of a table; `family` names the group and the runbook's page below `runbooks`."""
    try:
        table = alert_table.read(str(text), f"alerts of {family}")
    except alert_table.TableError as error:
        raise AnsibleFilterError(str(error)) from error
    return alert_table.rules(table, family, runbooks, dashboards)
