"""The same wrong inventories with the addresses of living hosts: not one file on any of them may change."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.preflight.conftest import CASES, ROOT, Runner
from tests.preflight.test_inventories import check_refusal

SCRIPT = Path(__file__).with_name("tree_hash.py")


def trees(directory: Path) -> dict[str, dict[str, str]]:
    """Every lab host's files: path -> description. Ansible leaves each host's answer in `directory`."""
    program = str(Path(sys.executable).parent / "ansible")
    arguments = json.dumps({"cmd": "/usr/bin/python3 -", "stdin": SCRIPT.read_text(encoding="utf-8")})
    where = ["k3s_cluster", "-i", "inventories/local", "-b", "--tree", str(directory)]
    done = subprocess.run(
        [program, *where, "-m", "ansible.builtin.command", "-a", arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return {path.name: json.loads(json.loads(path.read_text())["stdout"]) for path in directory.iterdir()}


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


@pytest.mark.lab
def test_nothing_changes_on_any_host(tmp_path: Path) -> None:
    before = trees(tmp_path / "before")
    assert len(before) >= 3
    assert min(len(tree) for tree in before.values()) > 100
    for case in CASES:
        (tmp_path / case.name).mkdir()
        check_refusal(Runner(tmp_path / case.name, lab=True), case)
    after = trees(tmp_path / "after")
    assert {host: changed(before[host], after[host]) for host in before} == {host: [] for host in before}


@pytest.mark.lab
def test_a_change_would_be_seen(tmp_path: Path) -> None:
    """The control: the comparison is not blind."""
    sys.path.insert(0, str(SCRIPT.parent))
    from tests.preflight.tree_hash import tree

    (tmp_path / "file").write_text("one")
    before = tree([str(tmp_path)])
    (tmp_path / "file").write_text("two")
    assert changed(before, tree([str(tmp_path)])) == [str(tmp_path / "file")]
    (tmp_path / "file").chmod(0o600)
    (tmp_path / "new").touch()
    assert str(tmp_path / "new") in changed(before, tree([str(tmp_path)]))
