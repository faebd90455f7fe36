"""What the services cost and hold, measured on one machine in one run: `python -m bench`, or `make bench`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# As pytest does it (pyproject.toml): the services, and what their tests start servers with. Nothing is installed.
for folder in (*sorted((ROOT / "services").glob("*/src")), ROOT / "services" / "tests"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
