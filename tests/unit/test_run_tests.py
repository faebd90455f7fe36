"""The runner of the tests: two lanes side by side, what stands on what, and the line that CI reads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts import run_tests
from scripts.run_tests import Stage

PASS, FAIL = [sys.executable, "-c", "print('fine')"], [sys.executable, "-c", "raise SystemExit(3)"]
ROOT = Path(__file__).parents[2]


def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *stages: Stage) -> int:
    monkeypatch.setattr(run_tests, "stages", lambda _: list(stages))
    monkeypatch.setattr(run_tests, "RESULTS", tmp_path)
    return run_tests.main(["all"])


def touch_and_wait_for(mine: Path, other: Path) -> list[str]:
    code = (
        "import pathlib, sys, time\n"
        f"pathlib.Path({str(mine)!r}).touch()\n"
        f"other = pathlib.Path({str(other)!r})\n"
        "limit = time.monotonic() + 30\n"
        "while not other.exists() and time.monotonic() < limit: time.sleep(0.05)\n"
        "sys.exit(0 if other.exists() else 1)"
    )
    return [sys.executable, "-c", code]


def test_two_lanes_run_side_by_side(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    code = run(
        monkeypatch,
        tmp_path,
        Stage("machine", touch_and_wait_for(one, two)),
        Stage("lab", touch_and_wait_for(two, one), beside=True),
    )
    output = capfd.readouterr().out
    assert code == 0
    assert output.splitlines()[-1] == "2 passed, 0 failed"


def test_of_two_lanes_each_line_says_whose_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, tmp_path, Stage("machine", PASS), Stage("lab", PASS, beside=True)) == 0
    lines = capfd.readouterr().out.splitlines()
    assert "machine | fine" in lines and "lab | fine" in lines


def test_the_end_repeats_how_it_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    reason = [sys.executable, "-c", "raise SystemExit('the reason')"]
    assert run(monkeypatch, tmp_path, Stage("machine", reason), Stage("lab", PASS, beside=True)) == 1
    end = capfd.readouterr().out.partition("=== summary")[2].splitlines()
    assert end[-3:] == ["=== how machine ended", "the reason", "1 passed, 1 failed"]


@pytest.mark.parametrize(("recap", "code"), [("changed=0", 0), ("changed=2", 1)])
def test_what_is_applied_already_may_not_change(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str], recap: str, code: int
) -> None:
    again = [sys.executable, "-c", f"print('localhost : ok=5 {recap} unreachable=0 failed=0')"]
    assert run(monkeypatch, tmp_path, Stage("role", again, unchanged=True)) == code
    output = capfd.readouterr().out
    assert output.splitlines()[-1] == f"{1 - code} passed, {code} failed"
    assert ("changed what was applied already: localhost : ok=5 changed=2" in output) is bool(code)
    # The first time it is no mistake.
    assert run(monkeypatch, tmp_path, Stage("role", again)) == 0


def test_a_failure_is_counted_and_the_rest_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, tmp_path, Stage("one", FAIL), Stage("two", PASS)) == 1
    assert capfd.readouterr().out.splitlines()[-1] == "1 passed, 1 failed"


def test_nothing_runs_that_stands_on_what_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = run(
        monkeypatch,
        tmp_path,
        Stage("up", FAIL, required=True, beside=True),
        Stage("end-to-end", PASS, beside=True),
        Stage("host", PASS, after="up"),
        Stage("other", PASS),
    )
    output = capfd.readouterr().out
    assert code == 1
    assert output.splitlines()[-1] == "1 passed, 1 failed"
    for name in ("end-to-end", "host"):
        assert f"{name:24} not run: it stands on up, which failed" in output


def test_a_stage_waits_for_the_one_of_the_other_lane_that_it_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    slow = [sys.executable, "-c", f"import pathlib, time; time.sleep(1); pathlib.Path({str(made)!r}).touch()"]
    look = [sys.executable, "-c", f"import pathlib; assert pathlib.Path({str(made)!r}).exists()"]
    stages = [Stage("up", slow, beside=True), Stage("host", look, after="up")]
    assert run(monkeypatch, tmp_path, *stages) == 0


def test_a_stage_may_wait_for_one_that_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stages = [Stage("up", FAIL, beside=True), Stage("page", PASS, waits="up"), Stage("role", PASS, after="up")]
    assert run(monkeypatch, tmp_path, *stages) == 1
    output = capfd.readouterr().out
    assert output.splitlines()[-1] == "1 passed, 1 failed"
    assert output.index("up                           0 passed") < output.index("· page ·")


def test_cases_are_counted_and_a_skipped_one_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_tests, "RESULTS", tmp_path)
    report = "<testsuites><testsuite><testcase/><testcase><skipped/></testcase><testcase/></testsuite></testsuites>"
    (tmp_path / "unit.xml").write_text(report)
    assert run_tests.count(Stage("unit", []), 0) == (2, 1)
    # Failed as a whole, though each case passed.
    (tmp_path / "unit.xml").write_text("<testsuite><testcase/></testsuite>")
    assert run_tests.count(Stage("unit", []), 1) == (1, 1)


def test_every_scenario_has_its_stage_and_those_on_the_lab_take_turns() -> None:
    scenarios = {stage.name: stage for stage in run_tests.stages() if stage.name.startswith("molecule-")}
    assert set(scenarios) == {f"molecule-{name}" for name in run_tests.molecule_scenarios()}
    apart = [stage.name for stage in run_tests.stages() if stage.beside]
    assert apart == ["up", "molecule-k3s", "molecule-minio", "molecule-node", "molecule-postgres"]
    assert all(stage.waits == "preflight-lab" if stage.beside else stage.after == "up" for stage in scenarios.values())
    # It restarts hosts.
    assert run_tests.stages()[-1].waits == apart[-1]


def test_what_minds_a_busy_machine_does_not_run_while_the_lab_is_made() -> None:
    first = [stage for stage in run_tests.stages() if not stage.beside]
    names = [stage.name for stage in first]
    waits = [stage.name for stage in first if stage.waits == "up"]
    assert waits == ["services-slow"]
    assert names.index("services-slow") < names.index("web")
    assert names.index("minio") < names.index("services")


def test_a_scenario_that_applies_what_was_applied_changes_nothing() -> None:
    scenarios = {stage.name: stage for stage in run_tests.stages() if stage.name.startswith("molecule-")}
    # Those with plays of their own have nothing that was applied before.
    own = {f"molecule-{name}" for name in ("k3s", "kube_apply", "node")}
    assert {name for name, stage in scenarios.items() if not stage.unchanged} == own


def test_the_fast_part_needs_no_lab() -> None:
    fast = run_tests.stages("fast")
    assert not [stage.name for stage in fast if stage.after or stage.full]
    assert [stage.name for stage in fast if stage.beside] == ["lint"]


def test_ctrl_c_starts_nothing_more(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom scripts import run_tests\nfrom scripts.run_tests import Stage\n"
        f"run_tests.RESULTS = Path({str(tmp_path)!r})\n"
        "wait = [sys.executable, '-c', 'import time; print(\"up\", flush=True); time.sleep(60)']\n"
        "run_tests.stages = lambda _: [Stage('one', wait), Stage('two', wait), Stage('lab', wait, beside=True)]\n"
        "sys.exit(run_tests.main(['all']))"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as running:
        assert running.stdout is not None
        seen = ""
        while seen.count("| up") < 2:
            seen += running.stdout.readline()
        os.killpg(running.pid, signal.SIGINT)
        began = time.monotonic()
        rest = running.stdout.read()
    assert running.returncode == 1
    assert time.monotonic() - began < 30
    assert "two" not in (seen + rest).replace("=== summary", "")
