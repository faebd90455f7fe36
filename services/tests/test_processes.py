"""Each service as the container starts it: a process of its own, settings from variables and mounted files."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from slipway_testing.platform import PASSWORD, Platform, User
from slipway_testing.processes import free_port

pytestmark = pytest.mark.slow

SECRETS = (
    "database_password",
    "redis_password",
    "auth_signing_key",
    "service_key",
    "service_keys",
    "s3_access_key",
    "s3_secret_key",
)


@dataclass
class Service:
    process: "subprocess.Popen[str]"
    url: str

    def finish(self, seconds: float = 20) -> tuple[int, list[dict[str, Any]], str]:
        """Exit code, log, and what was written to standard error."""
        out, error = self.process.communicate(timeout=seconds)
        return self.process.returncode, [json.loads(line) for line in out.splitlines()], error


def environment(settings: dict[str, Any], secrets: Path, **changes: str) -> dict[str, str]:
    """As the platform passes settings: secrets as files, the rest as variables, no HOME to speak of."""
    secrets.mkdir(exist_ok=True)
    secrets.chmod(0o755)
    for name in SECRETS:
        if name in settings:
            (secrets / name).write_text(str(settings[name]) + "\n")
    plain = {name.upper(): str(value) for name, value in settings.items() if name not in SECRETS}
    python = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONDONTWRITEBYTECODE": "1"}
    return {"SLIPWAY_SECRETS_DIR": str(secrets), **python, **plain, **changes}


def command(package: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", package, *arguments]


@contextmanager
def running(package: str, settings: dict[str, Any], secrets: Path, **changes: str) -> Iterator[Service]:
    port = free_port()
    process = subprocess.Popen(
        command(package),
        env=environment(settings, secrets, PORT=str(port), HOST="127.0.0.1", **changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    service = Service(process, f"http://127.0.0.1:{port}")
    try:
        deadline = time.monotonic() + 30
        while not is_live(service.url):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise AssertionError(process.communicate())
            time.sleep(0.05)
        yield service
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def is_live(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health/live").status_code == 200
    except httpx2.TransportError:
        return False


@pytest.mark.parametrize("name", ["auth", "api", "image"])
def test_serves_logs_and_ends(platform: Platform, tmp_path: Path, name: str) -> None:
    settings = getattr(platform, f"{name}_settings")
    with running(f"slipway_{name}", settings, tmp_path / "secrets", SERVICE_VERSION="1a2b3c") as service:
        # On a busy machine those it depends on may be slow to answer the first time.
        deadline = time.monotonic() + 20
        while (health := httpx2.get(f"{service.url}/health").json())["status"] != "ok" and time.monotonic() < deadline:
            time.sleep(0.2)
        assert (health["status"], health["service"], health["version"]) == ("ok", name, "1a2b3c")
        assert httpx2.get(f"{service.url}/health/ready").status_code == 200
        assert "process_resident_memory_bytes" in httpx2.get(f"{service.url}/metrics").text
        httpx2.get(f"{service.url}/nothing?password=hunter2", headers={"X-Request-Id": "find-me-1"})
        service.process.send_signal(signal.SIGTERM)
        code, log, error = service.finish()
    assert (code, error) == (0, "")
    assert all({"event", "level", "time", "service", "version"} <= set(line) for line in log)
    (line,) = [line for line in log if line.get("request_id") == "find-me-1"]
    assert line | {"time": "", "duration_ms": 0, "client": ""} == {
        "event": "request",
        "level": "info",
        "time": "",
        "service": name,
        "version": "1a2b3c",
        "request_id": "find-me-1",
        "method": "GET",
        "path": "/nothing",
        "route": "unmatched",
        "status": 404,
        "duration_ms": 0,
        "client": "",
    }
    # Probes and scrapes are not in the log.
    assert not [line for line in log if str(line.get("path", "")).startswith(("/health", "/metrics"))]


def test_no_secret_in_the_log(platform: Platform, account: User, tmp_path: Path) -> None:
    with running("slipway_auth", platform.auth_settings, tmp_path / "secrets", LOG_LEVEL="debug") as service:
        credentials = {"username": account.username, "password": PASSWORD}
        token = httpx2.post(f"{service.url}/login", json=credentials).json()["access_token"]
        httpx2.post(f"{service.url}/login", json=credentials | {"password": "wrong-one"})
        httpx2.post(f"{service.url}/login", json=credentials | {"password": 5})
        httpx2.post(f"{service.url}/register", json=credentials)
        httpx2.post(f"{service.url}/verify", json={"token": token[:-2]}, headers={"Authorization": f"Bearer {token}"})
        service.process.send_signal(signal.SIGTERM)
        _, log, error = service.finish()
    assert {"login accepted", "login refused", "token refused", "request"} <= {line["event"] for line in log}
    written = json.dumps(log) + error
    stored = [platform.auth_settings[name] for name in ("database_password", "auth_signing_key")]
    for secret in (PASSWORD, "wrong-one", token, token[:-2], *stored, "$argon2id$"):
        assert secret not in written


def test_sigterm_loses_no_request(platform: Platform, account: User, tmp_path: Path) -> None:
    """Requests keep coming after the signal, as from a proxy that has not heard of it; each gets its answer."""
    with running(
        "slipway_auth", platform.auth_settings | {"shutdown_delay_seconds": 6}, tmp_path / "secrets"
    ) as service:
        credentials = {"username": account.username, "password": PASSWORD}
        stop_at = time.monotonic() + 0.7

        def logins(_: int) -> list[int]:
            seen = []
            with httpx2.Client(base_url=service.url) as client:
                while time.monotonic() < stop_at:
                    seen.append(client.post("/login", json=credentials).status_code)
            return seen

        with ThreadPoolExecutor(4) as pool:
            results = [pool.submit(logins, number) for number in range(4)]
            time.sleep(0.1)
            service.process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 5
            while (ready := httpx2.get(f"{service.url}/health/ready")).status_code == 200:
                assert time.monotonic() < deadline
            assert ready.json() == {"status": "draining"}
            statuses = [status for result in results for status in result.result()]
        code, _, error = service.finish()
    assert set(statuses) == {200}
    assert (code, error) == (0, "")


def test_a_second_signal_ends_the_waiting(platform: Platform, tmp_path: Path) -> None:
    settings = platform.auth_settings | {"shutdown_delay_seconds": 60}
    with running("slipway_auth", settings, tmp_path / "secrets") as service:
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert service.process.poll() is None
        service.process.send_signal(signal.SIGTERM)
        assert service.finish()[0] == 0


def test_ctrl_c_ends_at_once(platform: Platform, tmp_path: Path) -> None:
    settings = platform.auth_settings | {"shutdown_delay_seconds": 60}
    with running("slipway_auth", settings, tmp_path / "secrets") as service:
        service.process.send_signal(signal.SIGINT)
        code, _, error = service.finish()
    assert (code, error) == (0, "")


def test_starts_without_its_database_and_is_not_ready(platform: Platform, tmp_path: Path) -> None:
    settings = platform.auth_settings | {"database_port": free_port()}
    with running("slipway_auth", settings, tmp_path / "secrets") as service:
        ready = httpx2.get(f"{service.url}/health/ready")
        assert ready.status_code == 503
        assert ready.json()["checks"]["database"]["status"] == "down"
        assert httpx2.get(f"{service.url}/health").status_code == 503
        assert httpx2.get(f"{service.url}/.well-known/jwks.json").status_code == 200


def test_a_port_in_use(platform: Platform, tmp_path: Path) -> None:
    port = platform.url("auth").rpartition(":")[2]
    variables = environment(platform.auth_settings, tmp_path / "secrets", PORT=port, HOST="127.0.0.1")
    done = subprocess.run(
        command("slipway_auth"), env=variables, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 1
    assert "address already in use" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_migrate_and_what_it_says(platform: Platform, tmp_path: Path) -> None:
    variables = environment(platform.image_settings, tmp_path / "secrets", MIGRATE_TIMEOUT="1")
    done = subprocess.run(
        command("slipway_image", "migrate"), env=variables, capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout.splitlines()[-1])["event"] == "schema is up to date"
    variables["DATABASE_PORT"] = str(free_port())
    done = subprocess.run(
        command("slipway_image", "migrate"), env=variables, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 1
    assert done.stderr.startswith("slipway_image: migrate: no connection to image_user@127.0.0.1:")
    assert done.stderr.count("\n") == 1
