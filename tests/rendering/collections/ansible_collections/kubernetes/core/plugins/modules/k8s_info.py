#!/usr/bin/python
"""Stands in for kubernetes.core.k8s_info: a cluster in which nothing exists yet."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = "{module: k8s_info, short_description: Finds nothing}"


def main() -> None:
    text = ("api_version", "kind", "kubeconfig", "name", "namespace")
    arguments = {name: {"type": "str"} for name in text}
    lists = {name: {"type": "list", "elements": "str"} for name in ("field_selectors", "label_selectors")}
    module = AnsibleModule(arguments | lists, supports_check_mode=True)
    module.exit_json(changed=False, api_found=True, resources=[])


if __name__ == "__main__":
    main()
