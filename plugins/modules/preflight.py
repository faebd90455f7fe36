"""Documentation of the action plugin of the same name, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Find every mistake in the inventory, the variables or the hosts
description:
  - Prints one line for each mistake (where, found, wanted, example) and fails when there is one. Changes nothing.
  - Runs on the controller; contacts no host.
options:
  check:
    description: C(variables) looks at the inventory and the variables alone, C(hosts) at what M(preflight_facts) found.
    type: str
    choices: [variables, hosts]
    required: true
  schema:
    description: Directory of the JSON Schema of all variables.
    type: path
    required: true
  wanted:
    description: What hosts have to be like (systems, architectures, minimum sizes).
    type: dict
    default: {}
author: The slipway project
"""
EXAMPLES = r"""
- name: Check the inventory and the variables
  preflight:
    check: variables
    schema: "{{ role_path }}/files/schema"
"""
RETURN = "{}"
