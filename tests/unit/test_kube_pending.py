"""Nobody waits for what the API server has just shown to run, and nothing else is left out."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "plugins" / "filter"))
kube_pending: Any = importlib.import_module("kube_pending").kube_pending


RECORDED = json.loads((Path(__file__).parent / "recorded" / "workloads.json").read_text(encoding="utf-8"))
WAITS = [
    {"kind": "Deployment", "name": "good", "namespace": "slipway-trial"},
    {"kind": "StatefulSet", "name": "unready", "namespace": "slipway-trial"},
]


def answer(*names: str) -> dict[str, Any]:
    """What the module registers: a list of results, or the one result itself."""
    results = [{"changed": False, "method": "apply", "result": RECORDED[name]["object"]} for name in names]
    return results[0] if len(results) == 1 else {"changed": False, "result": {"results": results}}


def test_what_runs_is_left_out() -> None:
    assert kube_pending(WAITS, answer("good", "unready", "crash")) == WAITS[1:]


def test_one_document() -> None:
    assert kube_pending(WAITS[:1], answer("good")) == []
    assert kube_pending(WAITS[1:], answer("unready")) == WAITS[1:]


@pytest.mark.parametrize("applied", [{}, {"skipped": True}, {"result": {}}, {"result": {"results": [{"result": {}}]}}])
def test_what_was_not_applied_is_waited_for(applied: dict[str, Any]) -> None:
    assert kube_pending(WAITS, applied) == WAITS


def test_a_change_that_nobody_has_seen_is_waited_for() -> None:
    changed = json.loads(json.dumps(answer("good")))
    changed["result"]["metadata"]["generation"] += 1
    assert kube_pending(WAITS[:1], changed) == WAITS[:1]


def test_a_job_that_has_failed_is_looked_at() -> None:
    wait = {"kind": "Job", "name": "migrate", "namespace": "slipway-trial"}
    assert kube_pending([wait], answer("migrate")) == [wait]
