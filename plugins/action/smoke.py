"""Action plugin `smoke`: the end-to-end check from the controller; see module_utils/smoke_check.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

from smoke_check import Target, check_until


class ActionModule(ActionBase):  # type: ignore[misc]
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            argument_spec={
                "url": {"type": "str", "required": True},
                "ca": {"type": "path", "required": True},
                "addresses": {"type": "list", "elements": "str", "default": []},
                "username": {"type": "str", "default": "smoke"},
                "password": {"type": "str", "required": True, "no_log": True},
                "deadline": {"type": "float", "default": 0.0},
            }
        )
        if self._task.check_mode:
            return {**result, "changed": False, "skipped": True, "msg": "a check writes, so check mode leaves it out"}
        target = Target(
            url=arguments["url"].rstrip("/"),
            ca=Path(arguments["ca"]),
            addresses=tuple(arguments["addresses"]),
            username=arguments["username"],
            password=arguments["password"],
        )
        found = check_until(target, arguments["deadline"])
        for line in found.table():
            Display().display(line, color=constants.COLOR_OK if found.green else constants.COLOR_ERROR)
        result.update(changed=found.registered, attempts=found.attempts, seconds=round(found.seconds, 1))
        if found.failed:
            text = f"{found.failed.name}: {found.failed.detail}\nwhere to look: {found.hint}"
            result.update(failed=True, msg=f"not green after {found.seconds:.0f} s. {text}")
        return result
