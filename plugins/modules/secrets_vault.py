"""Documentation of the action plugin of the same name, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: secrets_vault
short_description: Generate the secrets of an environment once, keep them encrypted, read them
description:
  - Runs on the controller, whatever the host of the task.
  - Keeps one file that C(ansible-vault view) can read, mode 0600, with its key beside it.
  - Generates what is missing and never replaces what exists; a certificate is renewed when fewer than 30 days are left
    or its domains have changed.
  - Refuses a key or file that others may read or git tracks, a file that is not encrypted, a wrong key, and to invent
    new secrets for an environment that lives.
  - In check mode nothing is written; what is missing is made up for the duration of the task.
options:
  state:
    description: C(present) generates what is missing and returns no secret, C(read) returns the secrets.
    type: str
    choices: [present, read]
    default: present
  path:
    description: The encrypted file.
    type: path
    required: true
  key_file:
    description: The key; generated with the file.
    type: path
    required: true
  wanted:
    description:
      - What has to exist. C(name) with dots for maps inside of maps; C(kind) is one of password, token, user,
        access_key, ec_key, text and map (empty until somebody writes there), authority (needs C(common_name); with
        C(authority) it is signed by that one) and certificate (needs C(authority) and C(domains)).
      - An entry with C(each) is made for every service whose service.yml has that key; C(SERVICE) in its name is
        replaced.
    type: list
    elements: dict
    default: []
  services:
    description: Names of the services that run here.
    type: list
    elements: str
    default: []
  services_dir:
    description: Where the services' folders are.
    type: path
  checkout:
    description: A directory in which the key must not be.
    type: path
  living:
    description: Files that prove that the environment exists already, so that its secrets must exist too.
    type: list
    elements: path
    default: []
author: The slipway project
"""
EXAMPLES = r"""
- name: Generate
  secrets_vault:
    path: /var/lib/slipway/production/secrets.yml
    key_file: /var/lib/slipway/production/vault.key
    wanted:
      - {name: postgres_superuser_password, kind: password}
"""
RETURN = r"""
created:
  description: Names of what was generated or renewed.
  type: list
  returned: always
secrets:
  description: The secrets, with state=read.
  type: dict
  returned: state=read
"""
