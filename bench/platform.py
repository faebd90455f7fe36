"""The servers of the bench: Postgres, Redis, MinIO, a sink for traces, and the services as the platform starts them."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx2
import yaml
from pydantic import SecretStr
from slipway_kit.settings import ServiceSettings
from slipway_testing.certificates import Authority
from slipway_testing.minio import ObjectStore, running_minio
from slipway_testing.platform import PUBLIC_URL, prepared_platform
from slipway_testing.postgres import running_postgres
from slipway_testing.processes import free_port
from slipway_testing.redis import running_redis

from bench import ROOT, uploads
from bench.metrics import Exposed
from bench.processes import Cores, Process, descendants, pin, running

SERVICES = ("auth", "api", "image", "demo")
# The gateway once more, without traces, and without traces and metrics.
UNTRACED, UNCOUNTED = "api-untraced", "api-uncounted"
START_SECONDS = 30
PYTHONPATH = os.pathsep.join([str(ROOT), *(path for path in sys.path if path)])
# One client asks more often than any user would. The limits stay on, so that what they cost is measured too.
_UNREACHED = "1000000000/minute"
# What differs from the defaults: limits per user and address, which would end the bench instead of measuring it.
CHANGES: Mapping[str, Mapping[str, Any]] = {
    "auth": {
        name: _UNREACHED
        for name in import_module("slipway_auth.settings").Settings.model_fields
        if name.startswith("limit_")
    },
    "image": {
        name: 1024**4
        for name in import_module("slipway_image.settings").Settings.model_fields
        if name.startswith("quota_") and name.endswith("bytes")
    },
}


@dataclass
class Running:
    """Everything that runs, by name; the services at `urls`."""

    services: dict[str, Process]
    urls: dict[str, str]
    store: ObjectStore
    service_keys: Mapping[str, str]
    cores: Cores
    folder: Path

    def alone(self, name: str) -> None:
        """The core for measured services belongs to this one; everything else shares the others."""
        pin(descendants(os.getpid()), self.cores.others)
        pin([self.services[name].pid], self.cores.service)

    def side_by_side(self) -> None:
        """Everybody may run everywhere, as on a node."""
        pin(descendants(os.getpid()), self.cores.every)
        pin([os.getpid()], self.cores.every)

    def metrics(self, name: str) -> Exposed:
        return Exposed.of(self.urls[name])

    def check(self) -> None:
        """RuntimeError when one of the services has died on the way."""
        for process in self.services.values():
            process.check()

    def traced(self) -> dict[str, int]:
        """Exports and bytes that the sink has taken."""
        answer: dict[str, int] = httpx2.get(f"{self.urls['sink']}/count").json()
        return answer


def definition(name: str) -> dict[str, Any]:
    """services/<name>/service.yml"""
    content: dict[str, Any] = yaml.safe_load((ROOT / "services" / name / "service.yml").read_text())
    return content


def memory_limit_mib(name: str) -> float:
    """What a pod of the service may use."""
    text: str = definition(name)["resources"]["limits"]["memory"]
    units = {"Ki": 1 / 1024, "Mi": 1.0, "Gi": 1024.0}
    return float(text[:-2]) * units[text[-2:]]


def _environment(name: str, settings: Mapping[str, Any], folder: Path, process: str = "") -> dict[str, str]:
    """As the platform passes settings: secrets as files, the rest as variables, and nothing of ours."""
    model: type[ServiceSettings] = import_module(f"slipway_{name}.settings").Settings
    secret = {field for field, info in model.model_fields.items() if SecretStr.__name__ in str(info.annotation)}
    mounted = folder / f"{process or name}-secrets"
    mounted.mkdir(mode=0o700)
    for field in secret & settings.keys():
        (mounted / field).write_text(f"{settings[field]}\n")
    return {
        "SLIPWAY_SECRETS_DIR": str(mounted),
        "PYTHONPATH": PYTHONPATH,
        **{key: str(value) for key, value in definition(name).get("environment", {}).items()},
        **{field.upper(): str(value) for field, value in settings.items() if field not in secret},
    }


def _command(name: str, profile: str | None, folder: Path) -> list[str]:
    if name == profile:
        return [sys.executable, "-m", "bench.profiled", f"slipway_{name}", str(folder / f"{name}.prof")]
    return [sys.executable, "-m", f"slipway_{name}"]


@contextmanager
def platform(cores: Cores, folder: Path, *, profile: str | None = None) -> Iterator[Running]:
    """Started, migrated and live; ended with everything it started, whatever happens. `profile` runs under cProfile."""
    pin([os.getpid()], cores.others)
    with ExitStack() as stack:
        # Durable, as in production: a login that is answered has been written.
        durable = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
        # The data stores speak TLS only, as the platform's do.
        authority, address = Authority(folder), "127.0.0.1"
        postgres = stack.enter_context(running_postgres(address, authority=authority, **durable))
        store = stack.enter_context(running_minio(authority))
        redis = stack.enter_context(running_redis(address, authority=authority))
        ports = {name: free_port() for name in (*SERVICES, UNTRACED, UNCOUNTED, "bare", "sink")}
        urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        prepared = prepared_platform(postgres, store, redis, urls)
        store.client.make_bucket(uploads.BUCKET)
        settings: dict[str, dict[str, Any]] = {
            "auth": prepared.auth_settings,
            "api": prepared.api_settings,
            "image": prepared.image_settings,
            "demo": {"public_url": PUBLIC_URL, "shutdown_delay_seconds": 0},
        }
        ours = {"PYTHONPATH": PYTHONPATH}
        stack.enter_context(
            running("sink", [sys.executable, "-m", "bench.sink", str(ports["sink"])], {**os.environ, **ours}, folder)
        )
        processes = {
            "bare": stack.enter_context(
                running("bare", [sys.executable, "-m", "bench.bare", str(ports["bare"])], ours, folder)
            )
        }
        for name in SERVICES:
            values = {
                **settings[name],
                **CHANGES.get(name, {}),
                "host": "127.0.0.1",
                "port": ports[name],
                "otel_exporter_otlp_endpoint": urls["sink"],
            }
            environment = _environment(name, values, folder)
            processes[name] = stack.enter_context(running(name, _command(name, profile, folder), environment, folder))
        for name, command in (
            (UNTRACED, [sys.executable, "-m", "slipway_api"]),
            (UNCOUNTED, [sys.executable, "-m", "bench.uncounted", "slipway_api"]),
        ):
            values = {**settings["api"], **CHANGES.get("api", {}), "host": "127.0.0.1", "port": ports[name]}
            environment = _environment("api", values, folder, name)
            processes[name] = stack.enter_context(running(name, command, environment, folder))
        for name, process in processes.items():
            _wait(process, urls[name] + ("/" if name == "bare" else "/health/ready"))
        yield Running(processes, urls, store, prepared.service_keys, cores, folder)


def _wait(process: Process, url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if httpx2.get(url, timeout=5).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        process.check()
        if time.monotonic() > deadline:
            raise RuntimeError(
                f"{process.name} is not ready after {START_SECONDS} s: {process.log.read_text()[-2000:]}"
            )
        time.sleep(0.05)
