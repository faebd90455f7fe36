"""Action plugin `preflight_facts`: what one host is like, by a shell script that writes nothing and needs no Python.

Whatever goes wrong becomes part of the result, so that all hosts are judged together.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

from preflight import hosts


class ActionModule(ActionBase):  # type: ignore[misc]
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        self.validate_argument_spec(argument_spec={})
        result.update(changed=False, facts=dataclasses.asdict(self._facts()))
        return result

    def _facts(self) -> hosts.Facts:
        try:
            self._low_level_execute_command("true", sudoable=False)  # the connection's own cost must not count below
            asked = time.time()
            answer = self._low_level_execute_command(hosts.FACTS_SCRIPT, sudoable=False)
            answered = time.time()
        except AnsibleError as error:
            return hosts.Facts(reached=False, reason=hosts.ssh_reason(str(error)))
        if answer["rc"] != 0:
            return hosts.Facts(reached=False, reason=f"a shell that ended with {answer['rc']}")
        values = hosts.parse(answer["stdout"])
        root, reason = self._root()
        return hosts.Facts(
            reached=True,
            root=root,
            root_reason=reason,
            clock_offset=float(values.get("clock") or asked) - (asked + answered) / 2,
            clock_margin=(answered - asked) / 2,
            values=values,
        )

    def _root(self) -> tuple[bool, str]:
        """The answer to `id -u` with the privileges that every later task will have."""
        try:
            answer = self._low_level_execute_command("id -u", sudoable=True)
        except AnsibleError:
            return False, "sudo asks for a password"
        return answer["stdout"].strip() == "0", "no root rights"
