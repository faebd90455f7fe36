"""Whether a lab is resumed or made anew, and the first line of `make up` that says so."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HOSTS = ["agent-1", "server-1"]


@pytest.fixture(scope="module")
def state() -> ModuleType:
    """Return molecule/lab/state.py as a module."""
    path = Path(__file__).resolve().parents[2] / "molecule" / "lab" / "state.py"
    spec = importlib.util.spec_from_file_location("lab_state", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["lab_state"] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


def container(name: str, checkout: str = "mine") -> dict[str, Any]:
    """Return what podman says of a host."""
    return {"Names": [f"slipway-{name}"], "Labels": {"slipway_checkout": checkout, "slipway_image": "key"}}


def lab(*names: str, checkout: str = "mine") -> list[dict[str, Any]]:
    """Return the containers of a lab."""
    return [container(name, checkout) for name in names]


def test_a_living_lab_of_this_checkout_is_resumed(state: ModuleType) -> None:
    decision = state.decide(lab(*HOSTS), HOSTS, "mine", [], True)
    assert decision == state.Decision("Lab: resuming 2 hosts of this checkout", False, ["key"])


@pytest.mark.parametrize(
    ("containers", "silent", "can_log_in", "reason"),
    [
        ([], [], False, "there is none"),
        (lab(*HOSTS, checkout="theirs"), [], True, "it was left by another checkout"),
        (lab("agent-1") + lab("server-1", checkout="theirs"), [], True, "it was left by another checkout"),
        (lab("server-1"), [], True, "its hosts are not those of the inventory"),
        (lab(*HOSTS, "agent-2"), [], True, "its hosts are not those of the inventory"),
        (lab(*HOSTS), ["agent-1"], True, "agent-1 does not answer"),
        (lab(*HOSTS), HOSTS, True, "agent-1, server-1 do not answer"),
        (lab(*HOSTS), [], False, "it was left half made"),
    ],
)
def test_every_other_lab_is_made_anew_and_the_line_says_why(
    state: ModuleType, containers: list[dict[str, Any]], silent: list[str], can_log_in: bool, reason: str
) -> None:
    decision = state.decide(containers, HOSTS, "mine", silent, can_log_in)
    assert decision.rebuild
    assert decision.line == f"Lab: creating 2 fresh hosts, caches stay ({reason})"
