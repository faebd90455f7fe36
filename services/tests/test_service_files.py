"""service.yml says the same as the code beside it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from slipway_api.settings import Settings as ApiSettings
from slipway_auth.settings import Settings as AuthSettings
from slipway_demo.settings import Settings as DemoSettings
from slipway_image.settings import Settings as ImageSettings
from slipway_kit.settings import ServiceSettings

SERVICES = Path(__file__).parents[1]
SETTINGS: dict[str, type[ServiceSettings]] = {
    "auth": AuthSettings,
    "api": ApiSettings,
    "image": ImageSettings,
    "demo": DemoSettings,
}
# What the platform adds for a service that has these; it also tells the URLs of callees.
DATABASE = {"database_host", "database_port", "database_name", "database_user", "database_password"}
# For the C library and the interpreter, not for the service.
RUNTIME = {"MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"}
REDIS = {"redis_host", "redis_port", "redis_user", "redis_password"}
SERVICE_TOKENS = {"service_tokens_url", "service_key"}
BUCKET = {"s3_endpoint", "s3_bucket", "s3_region", "s3_access_key", "s3_secret_key"}


def definition(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((SERVICES / name / "service.yml").read_text())
    return content


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_without_a_default_is_given(name: str) -> None:
    service = definition(name)
    given = {key.lower() for key in service.get("environment", {}) if key not in RUNTIME}
    assert given <= set(SETTINGS[name].model_fields)
    given |= {"public_url"} | set(service.get("secrets", {}))
    given |= {f"{callee}_url" for callee in service["callees"]}
    given |= {"auth_jwks_url"} if "auth" in service["callees"] else set()
    given |= DATABASE if "database" in service else set()
    given |= BUCKET if "bucket" in service else set()
    given |= REDIS if "redis" in service else set()
    given |= SERVICE_TOKENS if service.get("service_tokens") else set()
    fields = SETTINGS[name].model_fields
    assert {field for field, info in fields.items() if info.is_required()} <= given


@pytest.mark.parametrize("name", SETTINGS)
def test_names_ports_and_commands_agree(name: str) -> None:
    service = definition(name)
    assert service["name"] == name
    assert service["port"] == SETTINGS[name].model_fields["port"].default
    assert service["command"] == ["python3", "-m", f"slipway_{name}"]
    assert service["probes"] == {"live": "/health/live", "ready": "/health/ready"}


def test_callers_and_callees_agree() -> None:
    services = {name: definition(name) for name in SETTINGS}
    for name, service in services.items():
        for callee in set(service["callees"]) & set(services):
            assert name in services[callee]["callers"]
        for caller in set(service["callers"]) & set(services):
            assert name in services[caller]["callees"]


def test_kit_knows_no_service_and_services_not_each_other() -> None:
    command = [Path(sys.executable).with_name("lint-imports"), "--config", SERVICES / ".importlinter", "--no-cache"]
    path = os.pathsep.join(str(SERVICES / package / "src") for package in ("kit", *SETTINGS))
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
