"""Documentation of the action plugin of the same name, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_definitions
short_description: Read and check the descriptions of services
description:
  - Reads C(<name>/service.yml) below O(directory) for each of O(names), fills in defaults and the platform's variables.
  - Prints one line for each mistake (where, found, wanted, example) and fails when there is one. Changes nothing.
options:
  directory:
    description: Directory with one folder for each service.
    type: path
    required: true
  names:
    description: The services to read.
    type: list
    elements: str
    required: true
  schema:
    description: JSON Schema of a description.
    type: path
    required: true
author: The slipway project
"""
EXAMPLES = r"""
- name: Read the services
  service_definitions:
    directory: services
    names: [auth, api]
    schema: roles/service/files/service.schema.yml
  register: services
"""
RETURN = r"""
definitions:
  description: The descriptions, in the order of the names.
  type: list
  elements: dict
  returned: success
"""
