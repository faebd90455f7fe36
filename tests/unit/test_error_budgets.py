"""What of its error budget a service has left, computed by promtool from requests that were counted."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import alert_table
import pytest

TABLE = Path(__file__).parents[2] / "roles/prometheus/files/alerts/slo.yml"
LEFT = "service:error_budget_left:ratio30d"
SHOP = 'namespace="shops", service="shop", pod="a-1"'


def counted(route: str, status: int, each: int, minutes: int = 120) -> dict[str, str]:
    name = f'http_requests_total{{{SHOP}, route="{route}", status="{status}"}}'
    return {"series": name, "values": f"0+{each}x{minutes}"}


@pytest.mark.parametrize(
    ("series", "left"),
    [
        ([counted("/", 200, 10000)], 1.0),
        ([counted("/", 200, 9995), counted("/", 500, 5)], 0.5),
        ([counted("/", 200, 9800), counted("/", 503, 200)], -19.0),
        # Probes are not users, and what a client has done wrong is not the service's.
        ([counted("/", 404, 10000), counted("/health/ready", 503, 100)], 1.0),
        # It was asked once, long ago.
        ([counted("/", 200, 0)], 1.0),
        # Nobody has asked it, or it does not count.
        ([counted("/metrics", 200, 4)], None),
        ([], None),
    ],
    ids=["no errors", "half", "used up", "not its fault", "no requests now", "only Prometheus", "nothing"],
)
def test_what_is_left(tmp_path: Path, series: list[dict[str, str]], left: float | None) -> None:
    rules = alert_table.rules(alert_table.read(TABLE.read_text(encoding="utf-8"), "slo"), "slo")
    (tmp_path / "rules.yml").write_text(json.dumps(rules), encoding="utf-8")
    promised = {"series": 'service:slo_availability:ratio{namespace="shops", service="shop"}', "values": "0.999x120"}
    labels = f'{LEFT}{{namespace="shops", service="shop"}}'
    wanted: list[dict[str, Any]] = [] if left is None else [{"labels": labels, "value": left}]
    # The last digits are those of a computer.
    rounded = f'label_replace(round({LEFT}, 0.001), "__name__", "{LEFT}", "", "")'
    test = {
        "interval": "1m",
        "input_series": [promised, *series],
        "promql_expr_test": [{"expr": rounded, "eval_time": "2h", "exp_samples": wanted}],
    }
    cases = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "cases.yml").write_text(json.dumps(cases), encoding="utf-8")
    command = ["promtool", "test", "rules", str(tmp_path / "cases.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
