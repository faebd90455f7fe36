"""Runs `ansible-playbook site.yml` on inventories that the cases write, and looks at what it may not touch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
CANARY = "canary-7f3a91c5"
MISTAKE = re.compile(r"^\S.*: found .*, wanted .*, for example .*$", re.MULTILINE)

# Stands in for ssh: whoever is called leaves a note and reaches nobody.
SSH = """#!/bin/sh
echo "$@" >> {calls}
echo "ssh: connect to host {address} port 22: Connection timed out" >&2
exit 255
"""


@dataclass
class Case:
    """A correct inventory with one thing wrong."""

    name: str
    expected: list[str]
    hosts: str | None = None
    variables: str = ""
    replace: dict[str, str] | None = None
    arguments: list[str] | None = None
    bytes: str | None = None

    def __str__(self) -> str:
        return self.name


def load_cases() -> tuple[dict[str, str], list[Case]]:
    document = yaml.safe_load((HERE / "cases.yml").read_text(encoding="utf-8"))
    return document["base"], [Case(**case) for case in document["cases"]]


BASE, CASES = load_cases()


@dataclass
class Outcome:
    exit_code: int
    output: str
    contacted: list[str]
    written: bool
    inventory: Path

    @property
    def mistakes(self) -> list[str]:
        return [line.replace(self.place, "INVENTORY") for line in MISTAKE.findall(self.output)]

    @property
    def place(self) -> str:
        return str(self.inventory)


class Runner:
    """Writes an inventory and runs the playbook on it; with `lab`, on the addresses and with the ssh of the lab."""

    def __init__(self, directory: Path, *, lab: bool = False) -> None:
        self.directory, self.lab = directory, lab

    def write(self, case: Case) -> Path:
        hosts, variables = case.hosts if case.hosts is not None else BASE["hosts"], BASE["variables"]
        for old, new in (case.replace or {}).items():
            assert old in hosts + variables, f"{case}: the base has no {old!r}"
            hosts, variables = hosts.replace(old, new), variables.replace(old, new)
        variables += case.variables
        inventory = self.directory / "inventory"
        (inventory / "group_vars").mkdir(parents=True)
        if self.lab:
            hosts = self.on_lab(hosts)
            variables = self.on_lab(variables)
            connection = ROOT / "inventories" / "local" / "group_vars" / "k3s_cluster.yml"
            (inventory / "group_vars" / "k3s_cluster.yml").write_bytes(connection.read_bytes())
        (inventory / "hosts.yml").write_text(hosts.replace("CANARY", CANARY), encoding="utf-8", newline="")
        text = variables.replace("CANARY", CANARY)
        data = text.encode() + (case.bytes or "").encode("latin-1")
        (inventory / "group_vars" / "all.yml").write_bytes(data)
        return inventory

    def on_lab(self, text: str) -> str:
        return text.replace("198.18.0.", "10.66.0.").replace("trial", "local") if self.lab else text

    def run(self, case: Case) -> Outcome:
        inventory = self.write(case)
        calls, state = self.directory / "ssh-calls", self.directory / "state"
        ssh = self.directory / "ssh"
        ssh.write_text(SSH.format(calls=calls, address="198.18.0.11"), encoding="utf-8")
        ssh.chmod(0o755)
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0", "COLUMNS": "80"}
        if not self.lab:
            environment |= {"ANSIBLE_SSH_EXECUTABLE": str(ssh), "SLIPWAY_STATE": str(state), "ANSIBLE_SSH_RETRIES": "0"}
        command = [
            str(Path(sys.executable).parent / "ansible-playbook"),
            "site.yml",
            "-i",
            str(inventory),
        ]
        done = subprocess.run(
            [*command, *(case.arguments or [])],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        contacted = calls.read_text(encoding="utf-8").splitlines() if calls.exists() else []
        return Outcome(done.returncode, done.stdout, contacted, state.exists(), inventory)


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)
