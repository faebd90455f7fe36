"""The living lab, as the end-to-end tests see it: its API, its containers, and the check that users' requests work."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "plugins" / "module_utils"))

from cluster_access import Cluster, connect  # noqa: E402


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """Return the lab's cluster."""
    return connect("local")


@pytest.fixture(scope="session")
def playbook() -> Callable[..., str]:
    """Return a function that runs a playbook on the lab and returns its output; the test fails when the play does."""

    def run(*arguments: str) -> str:
        done = subprocess.run(
            ["ansible-playbook", *arguments],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=1200,
        )
        assert done.returncode == 0, done.stdout[-6000:]
        return done.stdout

    return run


@pytest.fixture(scope="session")
def smoke_within(playbook: Callable[..., str]) -> Callable[[float], float]:
    """Return a function that waits until the whole user's path works again and returns the seconds it took."""

    def wait(seconds: float) -> float:
        began = time.monotonic()
        playbook("playbooks/verify.yml", "--extra-vars", f'{{"smoke_deadline": {seconds}}}')
        return time.monotonic() - began

    return wait
