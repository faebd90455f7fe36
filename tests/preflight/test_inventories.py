"""Phase A: wrong inventories end the run before any host is contacted and before anything is written."""

from __future__ import annotations

import pytest

from tests.preflight.conftest import BASE, CANARY, CASES, Case, Outcome, Runner


def check_refusal(runner: Runner, case: Case) -> Outcome:
    """What holds for every wrong inventory, wherever its hosts are."""
    outcome = runner.run(case)
    assert outcome.exit_code != 0
    assert outcome.mistakes == [runner.on_lab(line) for line in case.expected], outcome.output
    assert "Traceback" not in outcome.output
    assert CANARY not in outcome.output
    return outcome


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_mistake_is_one_line_and_nothing_is_touched(case: Case, runner: Runner) -> None:
    outcome = check_refusal(runner, case)
    assert outcome.contacted == []
    assert not outcome.written


def test_the_base_of_the_cases_is_right(runner: Runner) -> None:
    """The control: without a mistake the hosts are contacted, so the stand-in for ssh does see attempts."""
    outcome = runner.run(Case("base", []))
    assert outcome.exit_code != 0
    assert any("198.18.0.11" in call for call in outcome.contacted), outcome.output
    assert outcome.mistakes == [
        f'INVENTORY/hosts.yml:{line}: {host} connection: found "Connection timed out", wanted an SSH login as ops, '
        f"for example ssh ops@{address} true"
        for line, host, address in (
            (6, "server-1", "198.18.0.11"),
            (9, "agent-1", "198.18.0.21"),
            (10, "agent-2", "198.18.0.22"),
        )
    ]
    assert not outcome.written


def test_the_cases_cover_the_first_ten_bad_inputs() -> None:
    numbers = {case.name[:2] for case in CASES}
    assert {f"{number:02}" for number in range(1, 11)} <= numbers
    assert "198.18.0." in BASE["hosts"]
