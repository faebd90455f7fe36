"""Action plugin `service_definitions`: the services' descriptions, checked and complete.

An action plugin because the files lie on the controller, and settings in them may use the platform's variables.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template
from ansible.utils.display import Display

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

from service_definition import load, load_schema


class ActionModule(ActionBase):  # type: ignore[misc]
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            argument_spec={
                "directory": {"type": "path", "required": True},
                "names": {"type": "list", "elements": "str", "required": True},
                "schema": {"type": "path", "required": True},
            }
        )
        schema = load_schema(Path(arguments["schema"]))
        definitions, mistakes = load(Path(arguments["directory"]), arguments["names"], schema)
        for mistake in mistakes:
            Display().display(str(mistake), color=constants.COLOR_ERROR)
        if mistakes:
            count = f"{len(mistakes)} mistake{'' if len(mistakes) == 1 else 's'}"
            return {**result, "failed": True, "msg": f"{count} in the services' definitions; nothing was changed"}
        for definition in definitions:
            # The files are part of the project, as its templates are.
            definition["environment"] = {
                name: str(self._templar.template(trust_as_template(value)))
                for name, value in definition["environment"].items()
            }
        return {**result, "changed": False, "definitions": definitions}
