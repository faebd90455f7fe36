"""Vars plugin `strict_files`: broken variable files end a run with one line each, before Ansible reads them itself.

Ansible loads group_vars before the first task of the first play, too early for the preflight play to say anything.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleError
from ansible.plugins.vars import BaseVarsPlugin
from ansible.utils.display import Display

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

from preflight.mistake import summary
from preflight.yaml_files import read_vars

DOCUMENTATION = r"""
name: strict_files
short_description: Refuse variable files that are not clean YAML
description:
  - Provides no variables. Looks once at every file below C(group_vars) and C(host_vars).
"""

_checked: set[str] = set()


class VarsModule(BaseVarsPlugin):  # type: ignore[misc]
    def get_vars(self, loader: Any, path: str, entities: Any, cache: bool = True) -> dict[str, Any]:
        super().get_vars(loader, path, entities)
        if path not in _checked:
            mistakes = sorted(set(read_vars(Path(path)).mistakes))
            for mistake in mistakes:
                Display().display(str(mistake), color=constants.COLOR_ERROR)
            if mistakes:
                raise AnsibleError(summary(len(mistakes)))
            _checked.add(path)
        return {}
