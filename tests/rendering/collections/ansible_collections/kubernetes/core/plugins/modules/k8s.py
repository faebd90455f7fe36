#!/usr/bin/python
"""Stands in for kubernetes.core.k8s: writes down what it was to apply, and reaches no cluster."""

from __future__ import annotations

import json
import os
from pathlib import Path

import yaml
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = "{module: k8s, short_description: Writes down what it was to apply}"
ARGUMENTS = {
    "api_version": "str",
    "apply": "bool",
    "continue_on_error": "bool",
    "definition": "raw",
    "delete_options": "dict",
    "kind": "str",
    "kubeconfig": "path",
    "name": "str",
    "namespace": "str",
    "server_side_apply": "dict",
    "state": "str",
    "wait": "bool",
    "wait_sleep": "int",
    "wait_timeout": "int",
}


def main() -> None:
    module = AnsibleModule({name: {"type": kind} for name, kind in ARGUMENTS.items()}, supports_check_mode=True)
    definition = module.params["definition"]
    if isinstance(definition, str):
        documents = list(yaml.safe_load_all(definition))
    else:
        documents = definition if isinstance(definition, list) else [definition]
    record = {
        "documents": [document for document in documents if document],
        "server_side_apply": module.params["server_side_apply"],
        "state": module.params["state"],
    }
    with Path(os.environ["RENDERING_RECORD"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    module.exit_json(changed=True, result={})


if __name__ == "__main__":
    main()
