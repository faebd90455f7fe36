"""Action plugin `secrets_vault`: the secrets of an environment, on the controller; see module_utils/secret_store.py.

An action plugin because ansible-vault's code exists on the controller alone, and so that no secret travels to a host.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

from secret_store import RefusedError, Store, ensure, for_services

ARGUMENTS = {
    "state": {"type": "str", "choices": ["present", "read"], "default": "present"},
    "path": {"type": "path", "required": True},
    "key_file": {"type": "path", "required": True},
    "wanted": {"type": "list", "elements": "dict", "default": []},
    "services": {"type": "list", "elements": "str", "default": []},
    "services_dir": {"type": "path"},
    "checkout": {"type": "path"},
    "living": {"type": "list", "elements": "path", "default": []},
}


class ActionModule(ActionBase):  # type: ignore[misc]
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, options = self.validate_argument_spec(argument_spec=ARGUMENTS)
        try:
            return {**result, **run(options, check_mode=self._task.check_mode)}
        except RefusedError as refusal:
            return {**result, "failed": True, "msg": str(refusal)}


def run(options: dict[str, Any], *, check_mode: bool) -> dict[str, Any]:
    wanted = options["wanted"]
    if options["services_dir"]:
        wanted = for_services(wanted, options["services"], Path(options["services_dir"]))
    store = Store(
        Path(options["path"]),
        Path(options["key_file"]),
        checkout=Path(options["checkout"]) if options["checkout"] else None,
        living=[Path(path) for path in options["living"]],
    )
    if options["state"] == "present":
        _, created = ensure(store, wanted, dry_run=check_mode)
        return {"changed": bool(created), "created": created}
    content = store.read()
    if check_mode:  # the tasks that follow need values, also where nothing could be generated
        content, _ = ensure(store, wanted, dry_run=True)
    if content is None:
        raise RefusedError(store.path, "no such file", "the secrets of this environment", "ansible-playbook site.yml")
    return {"changed": False, "created": [], "secrets": content}
