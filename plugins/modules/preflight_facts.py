"""Documentation of the action plugin of the same name, which does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight_facts
short_description: Read what preflight has to know of a host
description:
  - Runs one shell script over the connection, without Python on the host, and C(id -u) with become. Writes nothing.
  - Never fails. A host that cannot be reached is a result too, judged by M(preflight) together with all others.
author: The slipway project
"""
EXAMPLES = r"""
- name: Read facts
  preflight_facts:
  register: __preflight_facts
"""
RETURN = r"""
facts:
  description: Whether the host was reached, why not, and what it is like.
  type: dict
  returned: always
"""
