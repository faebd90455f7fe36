"""The living lab, as the end-to-end tests see it: its API, its containers, and the check that users' requests work."""

from __future__ import annotations

import time
from collections.abc import Callable

import controller
import pytest
from cluster_access import Cluster, connect


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """Return the lab's cluster."""
    return connect("local")


@pytest.fixture(scope="session")
def playbook() -> Callable[..., str]:
    """Return a function that runs a playbook on the lab and returns its output; the test fails when the play does."""

    def run(*arguments: str) -> str:
        done = controller.playbook(*arguments)
        assert done.code == 0, done.output[-6000:]
        return done.output

    return run


@pytest.fixture(scope="session")
def smoke_within(playbook: Callable[..., str]) -> Callable[[float], float]:
    """Return a function that waits until the whole user's path works again and returns the seconds it took."""

    def wait(seconds: float) -> float:
        began = time.monotonic()
        playbook("playbooks/verify.yml", "--extra-vars", f'{{"smoke_deadline": {seconds}}}')
        return time.monotonic() - began

    return wait
