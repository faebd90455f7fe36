"""A command of which nobody knows how it ended is told from one that failed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "plugins" / "filter"))
exec_code: Any = importlib.import_module("exec_code").exec_code


@pytest.mark.parametrize(
    ("result", "code"),
    [
        ({"rc": 0, "stdout": ""}, 0),
        ({"rc": 3, "failed": True, "msg": "non-zero"}, 3),
        ({"rc": 75}, 75),
        # As ansible-core 2.19 shows `until` a module that raised.
        ({"failed": True, "changed": False, "attempts": 1, "exception": "(traceback unavailable)"}, 75),
        ({"failed": True, "msg": "Failed to execute on pod postgres-0 due to : (404) not found"}, 1),
        ({"failed": True}, 1),
    ],
)
def test_code(result: dict[str, Any], code: int) -> None:
    assert exec_code(result) == code
