#!/usr/bin/python
"""Stands in for kubernetes.core.k8s_exec: where nothing runs, nothing can be run in it."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = "{module: k8s_exec, short_description: Fails}"


def main() -> None:
    arguments = {name: {"type": "str"} for name in ("command", "container", "kubeconfig", "namespace", "pod")}
    module = AnsibleModule(arguments, supports_check_mode=True)
    module.fail_json(msg=f"there is no pod {module.params['pod']} in this cluster")


if __name__ == "__main__":
    main()
