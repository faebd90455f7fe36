"""The stand-in's own tests, in its own language."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "molecule" / "standin"
CACHE = Path(os.environ.get("SLIPWAY_CACHE", "~/.cache/slipway")).expanduser()
GO = shutil.which("go", path=f"{ROOT / '.venv' / 'bin'}:{os.environ.get('PATH', '')}")


@pytest.mark.parametrize("arguments", [["vet", "."], ["test", "."]], ids=["vet", "test"])
def test_go(arguments: list[str]) -> None:
    assert GO, "go is in the locked list of requirements/dev.txt"
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOCACHE": str(CACHE / "go-build"),
        "GOFLAGS": "-mod=readonly",
        "GOMODCACHE": str(CACHE / "go-mod"),
        "GOTOOLCHAIN": "local",
    }
    run = subprocess.run([GO, *arguments], cwd=SOURCE, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
