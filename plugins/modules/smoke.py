"""Documentation of the action plugin of the same name, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: smoke
short_description: Do what a user does, and say what does not work
description:
  - Logs in (registers the account the first time), creates and reads a post, uploads a JPEG of 10 MB, reads it back,
    compares the SHA-256, and deletes both. Everything over HTTPS, trusting the given CA and nothing else.
  - Prints a table, or the first thing that is wrong and where to look. Leaves nothing behind but the account.
options:
  url:
    description: Public URL of the platform.
    type: str
    required: true
  ca:
    description: Certificate of the platform's CA, on the controller.
    type: path
    required: true
  addresses:
    description: Addresses to connect to instead of what DNS says; the next one is tried when one is down.
    type: list
    elements: str
    default: []
  username:
    description: Account to use.
    type: str
    default: smoke
  password:
    description: Password of the account.
    type: str
    required: true
  deadline:
    description: Seconds to try again until everything is green; 0 tries once.
    type: float
    default: 0
author: The slipway project
"""
EXAMPLES = r"""
- name: Check as a user
  smoke:
    url: https://slipway.test
    ca: "{{ slipway_state_dir }}/ca.crt"
    addresses: [10.66.0.21, 10.66.0.11]
    password: "{{ secrets.smoke_password }}"
    deadline: 120
"""
RETURN = r"""
attempts:
  description: How many runs it took.
  type: int
  returned: always
seconds:
  description: Seconds until it was green or given up.
  type: float
  returned: always
"""
