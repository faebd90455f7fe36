"""Faults under load, and whether an acknowledged write was lost in one: `python -m drills`, or `make drills`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# As pytest does it (pyproject.toml): what reads the cluster, and the tests' ways into pods and hosts.
for folder in (ROOT / "plugins" / "module_utils", ROOT / "molecule" / "support"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
