"""A gateway in a process of its own: its memory is then its own too, and tracing, which is a process's, can be on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from slipway_testing.platform import Platform
from slipway_testing.processes import free_port

START_SECONDS = 60


@contextmanager
def gateway(platform: Platform, directory: Path, **changes: Any) -> Iterator[tuple[str, int]]:
    """URL and process id. `directory` is for secret files and the log; `changes` are those of settings."""
    settings: dict[str, Any] = platform.api_settings | {"host": "127.0.0.1", "port": free_port()} | changes
    secrets = [name for name in settings if name.endswith(("_password", "_key"))]
    for name in secrets:
        (directory / name).write_text(settings[name])
    variables = {name.upper(): str(value) for name, value in settings.items() if name not in secrets}
    path = {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry), "SLIPWAY_SECRETS_DIR": str(directory)}
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "slipway_api"], env=path | variables, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        url = f"http://127.0.0.1:{settings['port']}"
        deadline = time.monotonic() + START_SECONDS
        while not _is_live(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the gateway did not start: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield url, process.pid
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)


def _is_live(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health/live").status_code == 200
    except httpx2.TransportError:
        return False
