"""What the progress callback prints while a long task runs."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def progress() -> ModuleType:
    """Return the callback plugin as a module."""
    path = Path(__file__).resolve().parents[2] / "plugins" / "callback" / "progress.py"
    spec = importlib.util.spec_from_file_location("progress", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.9, "59s"), (60, "1m00s"), (125, "2m05s"), (3725, "1h02m")]
)
def test_durations_read_like_a_clock(progress: ModuleType, seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text


def test_names_each_build_that_runs(progress: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    running = [{"name": "kubernetes", "started_at": 1000.0, "typical_seconds": 300}]
    path.write_text(json.dumps({"total": 14, "done": 2, "running": running}))
    line = progress.describe_builds(path, now=1125.0)
    assert line == "artifacts 2 of 14 done, building kubernetes for 2m05s (usually 5m00s)"


@pytest.mark.parametrize(
    "content", ["", "{", "{}", "[]", '{"running": []}', '{"running": [{}], "done": 1, "total": 2}']
)
def test_a_broken_or_idle_progress_file_is_silence(progress: ModuleType, tmp_path: Path, content: str) -> None:
    path = tmp_path / "progress.json"
    path.write_text(content)
    assert progress.describe_builds(path, now=0) == ""


def test_the_table_tells_how_long_each_playbook_took_and_its_long_roles(progress: ModuleType) -> None:
    times = progress.Times()
    for now, playbook, role in [
        (0, "preflight", ""),
        (2, "preflight", "preflight"),
        (10, "platform", ""),
        (11, "platform", "postgres"),
        (40, "platform", "minio"),
        (41, "platform", "postgres"),
        (60, "platform", "redis"),
        (70, "", ""),
    ]:
        times.enter(playbook, role, now)
    assert [line.split() for line in times.table()] == [
        ["preflight", "10s"],
        ["platform", "1m00s"],
        ["postgres", "48s"],
        ["redis", "10s"],
        ["all", "1m10s"],
    ]


def test_one_playbook_by_itself_needs_no_table(progress: ModuleType) -> None:
    times = progress.Times()
    times.enter("verify", "", 0)
    times.enter("", "", 9)
    assert times.table() == []
