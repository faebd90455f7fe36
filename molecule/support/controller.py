"""The controller's side of the tests: playbooks as users run them, the inventory, and SSH to the hosts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import testinfra

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK_SECONDS = 900


@dataclass(frozen=True)
class Run:
    """How a playbook ended; `output` is all that its user saw."""

    code: int
    output: str

    @property
    def changed(self) -> int:
        """The number of tasks that changed something, over all hosts; a run without a recap has none to tell."""
        counts = [word for word in self.output.split() if word.startswith("changed=")]
        assert counts, self.output[-3000:]
        return sum(int(count.removeprefix("changed=")) for count in counts)

    @property
    def failure(self) -> str:
        """The message of the first task that failed."""
        lines = self.output.splitlines()
        found = [line for line in lines if line.startswith(("[ERROR]", "fatal:", "ERROR!"))]
        assert found, self.output[-3000:]
        return found[0]


def ansible(program: str, *arguments: str, environment: dict[str, str] | None = None) -> Run:
    """Run one of Ansible's programs from the root of the project."""
    return _run([str(Path(sys.executable).parent / program), *arguments], environment)


def python(script: str, *arguments: str) -> Run:
    """Run one of the project's own programs from its root."""
    return _run([sys.executable, script, *arguments])


def _run(command: list[str], environment: dict[str, str] | None = None) -> Run:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_FORCE_COLOR": "0",
            **(environment or {}),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=PLAYBOOK_SECONDS,
    )
    return Run(done.returncode, done.stdout)


def playbook(*arguments: str, variables: dict[str, Any] | None = None, **environment: str) -> Run:
    """Run playbooks; `variables` are extra ones, `environment` is added to the process'."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:  # 0600: passwords are on no command line
        json.dump(variables or {}, file)
        file.flush()
        return ansible("ansible-playbook", *arguments, "--extra-vars", f"@{file.name}", environment=environment)


def apply_role(role: str, *arguments: str, variables: dict[str, Any] | None = None, **environment: str) -> Run:
    """Run one role by itself on the controller."""
    wanted = {"applied_role": role, **(variables or {})}
    return playbook("molecule/support/role.yml", *arguments, variables=wanted, **environment)


class Inventory:
    """An inventory: names and addresses of its hosts, and the variables that the controller's plays get."""

    def __init__(self, path: Path) -> None:
        self.path = path
        listed = ansible("ansible-inventory", "--inventory", str(path), "--list", "--export")
        self._groups = _first_object(listed)
        self._variables: dict[str, Any] = {}

    def hosts(self, group: str = "k3s_cluster") -> list[str]:
        """Return the hosts of a group and of the groups inside of it."""
        entry = self._groups.get(group, {})
        mine: list[str] = entry.get("hosts", [])
        return mine + [host for child in entry.get("children", []) for host in self.hosts(child)]

    def address(self, host: str) -> str:
        """Return the address of a host."""
        return str(self._groups["_meta"]["hostvars"][host]["ansible_host"])

    def variable(self, name: str) -> Any:
        """Return the value that a variable has in a play."""
        if name not in self._variables:
            shown = ansible(
                *("ansible", "localhost", "--inventory", str(self.path), "--playbook-dir", str(ROOT)),
                *("--module-name", "ansible.builtin.debug", "--args", f"var={name}"),
                environment={"ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
            )
            self._variables |= _first_object(shown)
        return self._variables[name]


def _first_object(run: Run) -> dict[str, Any]:
    assert run.code == 0, run.output
    found: dict[str, Any] = json.JSONDecoder().raw_decode(run.output[run.output.index("{") :])[0]
    return found


def ssh(address: str, state: Path) -> testinfra.host.Host:
    """Return a host as root, reached as Ansible reaches it: SSH as a plain user, then sudo."""
    key, known = state / "ssh" / "id_ed25519", state / "ssh" / "known_hosts"
    return testinfra.get_host(
        f"ssh://ops@{address}",
        sudo=True,
        ssh_identity_file=str(key),
        ssh_extra_args=f"-o UserKnownHostsFile={known} -o BatchMode=yes",
    )
