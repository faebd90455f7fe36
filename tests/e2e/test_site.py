"""`ansible-playbook site.yml` on a running platform changes nothing, neither for real nor in check mode."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


@pytest.mark.parametrize("arguments", [["--check"], []], ids=["check", "run"])
def test_a_second_run_changes_nothing(playbook: Callable[..., str], arguments: list[str]) -> None:
    output = playbook("site.yml", *arguments)
    recap = {host: int(changed) for host, _ok, changed, _unreachable, _failed in RECAP.findall(output)}
    assert set(recap) == {"localhost", "server-1", "agent-1", "agent-2", "backup-1"}
    assert set(recap.values()) == {0}, output[-3000:]
