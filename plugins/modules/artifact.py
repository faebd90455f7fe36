#!/usr/bin/python
"""Make artifacts exist in the store on the controller."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from ansible.module_utils.artifact_recipe import ArtifactError
from ansible.module_utils.artifact_store import make_engine, stop_on_signal
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
---
module: artifact
short_description: Make artifacts exist in the store on the controller
description:
  - Builds each artifact from its recipe, or downloads it where the release lock pins it, unless the store has it.
  - What is not in the release lock is built whichever the provider.
options:
  names:
    description: Names of recipes, with parameters as in C(service:auth); or dictionaries of C(name) and C(params).
    type: list
    elements: raw
    required: true
  provider:
    description: C(build) builds everything, C(release) downloads what the lock pins.
    type: str
    choices: [build, release]
    default: build
  source:
    description: Root of the project; what recipes call C(SOURCE).
    type: path
    required: true
  recipe_paths:
    description: Directories that hold recipes.
    type: list
    elements: path
    required: true
  versions:
    description: The versions that recipes refer to by key.
    type: dict
    required: true
  cache:
    description: Directory of the store, the logs and the caches of compilers and package managers.
    type: path
    required: true
  lock:
    description: The release lock.
    type: path
    required: true
  keep_days:
    description: Afterwards remove what nobody used for so many days. 0 keeps everything. Never counts as a change.
    type: int
    default: 0
author: slipway (@slipway)
"""

EXAMPLES = r"""
- name: Make the ingress controller's image exist
  artifact:
    names: [traefik]
    source: "{{ playbook_dir }}/.."
    recipe_paths: ["{{ playbook_dir }}/../images"]
    versions: "{{ {'traefik_version': traefik_version} }}"
    cache: "{{ slipway_cache_dir }}"
    lock: "{{ playbook_dir }}/../roles/artifacts/files/release.lock.yml"
"""

RETURN = r"""
artifacts:
  description: For each name its directory, key, version, the SHA-256 of each file and the path of each file.
  returned: success
  type: dict
removed:
  description: Entries of the store that were pruned.
  returned: success
  type: list
made:
  description: Names of what was built or downloaded (in check mode, would be).
  returned: success
  type: list
"""


def caller_lives() -> Callable[[], bool]:
    """Whether the Ansible run that started this is still there.

    Its worker leads a session of its own, so that a Ctrl-C never reaches what the worker started; and should the run be
    killed, nobody passes anything on. Builds that nobody waits for would keep the next run from its locks.
    """
    leader = os.getsid(0)
    before = _parents(leader)

    def lives() -> bool:
        return _parents(leader) == before

    return lives


def _parents(leader: int) -> tuple[int, str]:
    """The parent of this process and of its session's leader, which change when one of them dies."""
    try:
        status = Path(f"/proc/{leader}/status").read_text(encoding="utf-8")
    except OSError:
        status = ""
    return os.getppid(), next((line for line in status.splitlines() if line.startswith("PPid:")), "")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "raw", "required": True},
            "provider": {"type": "str", "choices": ["build", "release"], "default": "build"},
            "source": {"type": "path", "required": True},
            "recipe_paths": {"type": "list", "elements": "path", "required": True},
            "versions": {"type": "dict", "required": True},
            "cache": {"type": "path", "required": True},
            "lock": {"type": "path", "required": True},
            "keep_days": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    given = module.params
    stop_on_signal()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    removed: list[str] = []
    try:
        engine = make_engine(
            source=Path(given["source"]).resolve(),
            cache=Path(given["cache"]).resolve(),
            recipe_paths=[Path(path).resolve() for path in given["recipe_paths"]],
            versions=given["versions"],
            lock=Path(given["lock"]),
            keep_going=caller_lives(),
        )
        requests = [engine.catalog.request(name) for name in given["names"]]
        if module.check_mode:
            artifacts, jobs = engine.plan(requests, given["provider"])
            made = [job.request.label for job in jobs]
        else:
            artifacts, made = engine.ensure(requests, given["provider"])
            removed = engine.store.prune(given["keep_days"]) if given["keep_days"] else []
    except ArtifactError as error:
        module.fail_json(msg=str(error))
    except KeyboardInterrupt:
        module.fail_json(msg="stopped; what was finished is kept, run again to go on")
    results = {label: artifact.as_result() for label, artifact in artifacts.items()}
    module.exit_json(changed=bool(made), made=made, removed=removed, artifacts=results)


if __name__ == "__main__":
    main()
