"""The runner of the tests: what runs side by side, what stands on what, and the line that CI reads."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

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


def test_stages_run_side_by_side(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    stages = [Stage("machine", touch_and_wait_for(one, two)), Stage("lab", touch_and_wait_for(two, one), width=2)]
    assert run(monkeypatch, tmp_path, *stages) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "2 passed, 0 failed"


def test_each_line_says_whose_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, tmp_path, Stage("machine", PASS), Stage("lab", PASS)) == 0
    lines = capfd.readouterr().out.splitlines()
    assert "machine | fine" in lines and "lab | fine" in lines


def alone(log: Path, name: str) -> list[str]:
    """Return a command that fails when another of its kind runs, and writes down its name."""
    code = (
        "import pathlib, time\n"
        f"log, busy = pathlib.Path({str(log)!r}), pathlib.Path({str(log) + '.busy'!r})\n"
        "busy.touch(exist_ok=False)\n"
        "time.sleep(0.3)\n"
        f"log.open('a').write({name + chr(10)!r})\n"
        "busy.unlink()"
    )
    return [sys.executable, "-c", code]


@pytest.mark.parametrize(
    "how",
    [{"turns": ("ingress", "monitoring")}, {"width": run_tests.ROOM}, {"width": run_tests.ROOM // 2 + 1}],
    ids=str,
)
def test_what_would_disturb_each_other_comes_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: dict[str, Any]
) -> None:
    log = tmp_path / "log"
    names = ["first", "second", "third"]
    assert run(monkeypatch, tmp_path, *[Stage(name, alone(log, name), **how) for name in names]) == 0
    assert log.read_text().split() == names


def test_what_waits_for_its_turn_keeps_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    stages = [
        Stage("first", touch_and_wait_for(one, two), turns=("ingress",)),
        Stage("second", PASS, turns=("ingress",)),
        Stage("other", touch_and_wait_for(two, one)),
    ]
    assert run(monkeypatch, tmp_path, *stages) == 0


def test_what_is_wide_is_not_passed_for_ever(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    short = [sys.executable, "-c", "import time; time.sleep(0.2)"]
    narrow = [Stage(f"narrow-{number}", short) for number in range(3)]
    assert run(monkeypatch, tmp_path, Stage("first", short), Stage("wide", short, width=run_tests.ROOM), *narrow) == 0
    output = capfd.readouterr().out
    assert output.index("· wide ·") < output.index("· narrow-0 ·")


def test_the_end_repeats_how_it_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    reason = [sys.executable, "-c", "raise SystemExit('the reason')"]
    assert run(monkeypatch, tmp_path, Stage("machine", reason), Stage("lab", PASS)) == 1
    end = capfd.readouterr().out.partition("=== summary")[2].splitlines()
    assert end[-3:] == ["=== how machine ended", "the reason", "1 passed, 1 failed"]


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
        Stage("up", FAIL),
        Stage("host", PASS, needs=("up",)),
        Stage("end-to-end", PASS, needs=("host",)),
        Stage("other", PASS),
    )
    output = capfd.readouterr().out
    assert code == 1
    assert output.splitlines()[-1] == "1 passed, 1 failed"
    for name, failed in (("host", "up"), ("end-to-end", "host")):
        assert f"{name:24} not run: it stands on {failed}, which failed" in output


def test_a_stage_waits_for_what_it_stands_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = tmp_path / "made"
    slow = [sys.executable, "-c", f"import pathlib, time; time.sleep(1); pathlib.Path({str(made)!r}).touch()"]
    look = [sys.executable, "-c", f"import pathlib; assert pathlib.Path({str(made)!r}).exists()"]
    stages = [Stage("host", look, needs=("up",)), Stage("up", slow)]
    assert run(monkeypatch, tmp_path, *stages) == 0


def test_a_stage_may_wait_for_one_that_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stages = [Stage("page", PASS, after=("up",)), Stage("role", PASS, needs=("up",)), Stage("up", FAIL)]
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


def scenarios() -> dict[str, Stage]:
    return {s.name.removeprefix("molecule-"): s for s in run_tests.stages() if s.name.startswith("molecule-")}


def test_every_scenario_has_its_stage_on_the_lab() -> None:
    assert sorted(scenarios()) == run_tests.molecule_scenarios()
    assert all(stage.needs == ("up",) for stage in scenarios().values())
    taking_turns = {name for name, stage in scenarios().items() if stage.turns}
    assert taking_turns == {name for names in run_tests.TURNS.values() for name in names}
    # Those with plays of their own, and hosts or namespaces to apply them to, apply them.
    own = {name for name, stage in scenarios().items() if stage.command[0] == "molecule"}
    assert own == {"k3s", "kube_apply", "node"}


def test_the_name_of_a_scenario_is_a_tag_of_the_platform() -> None:
    tags: set[str] = set()
    for path in (ROOT / "playbooks").glob("*.yml"):
        for line in re.findall(r"^ *tags: \[(.+)\]$", path.read_text(encoding="utf-8"), re.MULTILINE):
            tags |= set(line.split(", "))
    assert set(run_tests.molecule_scenarios()) - tags == {"kube_apply"}  # which every other role calls


def test_recovery_is_alone_and_the_last() -> None:
    *others, last = run_tests.stages()
    assert last.name == "recovery" and last.width == run_tests.ROOM
    assert set(last.after) == {stage.name for stage in others}
    assert all(stage.width < run_tests.ROOM for stage in others)


def test_what_minds_a_busy_machine_does_not_run_while_the_lab_is_made() -> None:
    found = {stage.name: stage for stage in run_tests.stages()}
    for name in ("services-slow", "web"):
        assert "up" in found[name].after and "up" not in found[name].needs


def test_the_fast_part_needs_no_lab() -> None:
    fast = {stage.name: stage for stage in run_tests.stages("fast")}
    assert not [
        name for name, stage in fast.items() if stage.after or stage.full or not fast.keys() >= set(stage.needs)
    ]


def test_ctrl_c_starts_nothing_more(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom scripts import run_tests\nfrom scripts.run_tests import Stage\n"
        f"run_tests.RESULTS = Path({str(tmp_path)!r})\n"
        "wait = [sys.executable, '-c', 'import time; print(\"up\", flush=True); time.sleep(60)']\n"
        "run_tests.stages = lambda _: [Stage('one', wait), Stage('lab', wait), Stage('two', wait, width=2)]\n"
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
