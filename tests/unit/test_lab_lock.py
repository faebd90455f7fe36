"""The lab's lock: one user at a time, its holder named, a dead holder's lock taken over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "lab_lock.py"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return an environment with a lock file of its own, and no lock held."""
    clean = {k: v for k, v in os.environ.items() if k != "SLIPWAY_LAB_LOCK_HELD"}
    return {**clean, "SLIPWAY_LOCK": str(tmp_path / "lock")}


def run(environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command under the lock."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), *command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def hold(environment: dict[str, str], tmp_path: Path) -> subprocess.Popen[bytes]:
    """Start a holder and return it once it has the lock."""
    ready = tmp_path / "ready"
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), "sh", "-c", f"touch {ready}; exec sleep 60"],
        env=environment,
        start_new_session=True,
    )
    deadline = time.monotonic() + 20
    while not ready.exists():
        assert time.monotonic() < deadline, "the holder never started"
        time.sleep(0.05)
    return process


def test_passes_the_exit_code_on(environment: dict[str, str]) -> None:
    assert run(environment, "sh", "-c", "exit 7").returncode == 7


def test_a_second_user_is_told_who_holds_it(environment: dict[str, str], tmp_path: Path) -> None:
    holder = hold(environment, tmp_path)
    try:
        refused = run(environment, "true")
        assert refused.returncode == 75
        assert f"process {holder.pid} in " in refused.stderr
        assert "sleep 60" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()


def test_a_dead_holders_lock_is_taken_over(environment: dict[str, str], tmp_path: Path) -> None:
    holder = hold(environment, tmp_path)
    os.killpg(holder.pid, signal.SIGKILL)
    holder.wait()
    assert run(environment, "true").returncode == 0


def test_the_lock_lives_as_long_as_the_work_it_guards(environment: dict[str, str], tmp_path: Path) -> None:
    holder = hold(environment, tmp_path)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    try:
        assert run(environment, "true").returncode == 75
    finally:
        os.killpg(holder.pid, signal.SIGKILL)


def test_a_command_under_the_lock_does_not_wait_for_itself(environment: dict[str, str]) -> None:
    assert run(environment, sys.executable, str(SCRIPT), "true").returncode == 0


def test_an_interrupt_is_the_commands_to_handle(environment: dict[str, str], tmp_path: Path) -> None:
    ready, cleaned = tmp_path / "ready", tmp_path / "cleaned"
    script = f"trap 'sleep 1; touch {cleaned}; exit 3' INT; touch {ready}; while :; do sleep 0.1; done"
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), "sh", "-c", script], env=environment, start_new_session=True
    )
    deadline = time.monotonic() + 20
    while not ready.exists():
        assert time.monotonic() < deadline, "the command never started"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=20) == 3
    assert cleaned.exists()


def test_without_a_command_it_says_what_it_wants(environment: dict[str, str]) -> None:
    wrong = run(environment)
    assert wrong.returncode == 64
    assert "for example" in wrong.stderr
