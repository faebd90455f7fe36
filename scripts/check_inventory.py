#!/usr/bin/env python3
"""Check that the files of an inventory can be read at all, before Ansible tries: one line per mistake.

    python scripts/check_inventory.py inventories/production

`ansible-playbook site.yml` makes the same check itself (plugins/vars/strict_files.py and the first play), but only
after Ansible has printed its own warnings about the broken file, with an excerpt of it.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "plugins" / "module_utils"))

from preflight.mistake import summary  # noqa: E402
from preflight.yaml_files import read_inventory, read_vars  # noqa: E402


def main(sources: list[str]) -> int:
    if not sources:
        print(__doc__, file=sys.stderr)
        return 2
    mistakes = [mistake for source in sources for mistake in read_inventory(Path(source)).mistakes]
    mistakes += read_vars(ROOT).mistakes
    for mistake in sorted(set(mistakes)):
        print(mistake, file=sys.stderr)
    if mistakes:
        print(summary(len(set(mistakes))), file=sys.stderr)
    return 1 if mistakes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
