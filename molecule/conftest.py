"""What every scenario's tests share: ways into the platform, and the reasons that it gives itself on failure."""

from __future__ import annotations

import contextlib
import ssl
import sys
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "plugins" / "module_utils"), str(ROOT / "molecule" / "support")]

import kube_reason  # noqa: E402
from cluster_access import Cluster, connect, state_directory  # noqa: E402
from cluster_client import Client, Pods  # noqa: E402
from controller import Inventory, Run, ansible, ssh  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks of these tests; show no arguments of functions in failures, since some are secrets."""
    config.option.tbstyle = "short"
    config.addinivalue_line(
        "markers", "explain(namespace): show the pods and events of a namespace when the test fails"
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in which a test was skipped, as happens by itself when no host fits the pattern."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the cluster says about a namespace to the report of a test that failed."""
    report = yield
    if report.failed and report.when != "teardown":
        for mark in item.iter_markers("explain"):
            with contextlib.suppress(Exception):  # an explanation that fails must not hide the failure
                cluster = connect("local")
                report.sections.append((f"namespace {mark.args[0]}", explanation(cluster, mark.args[0])))
    return report


def explanation(cluster: Cluster, namespace: str) -> str:
    """Say which pods of a namespace are how, and what happened there of late."""
    path = f"/api/v1/namespaces/{namespace}"
    pods, events = cluster.items(f"{path}/pods"), cluster.items(f"{path}/events")
    names = [pod["metadata"]["name"] for pod in pods]
    recent = kube_reason.recent_events(events, names, datetime.now(UTC))
    return "\n".join([*map(kube_reason.describe_pod, pods), "events:", *recent])


@pytest.fixture(scope="session")
def inventory(request: pytest.FixtureRequest) -> Inventory:
    """Return the inventory that the scenario was applied with: one of its own, or the lab's."""
    scenario = next(p for p in request.session.items[0].path.parents if (p / "molecule.yml").exists())
    own = "molecule/host/inventory"
    return Inventory(ROOT / (own if own in (scenario / "molecule.yml").read_text() else "inventories/local"))


@pytest.fixture(scope="session")
def state(inventory: Inventory) -> Path:
    """Return the directory with the environment's kubeconfig, CA and secrets."""
    return state_directory(inventory.variable("slipway_environment"))


@pytest.fixture(scope="session")
def hosts(inventory: Inventory, state: Path) -> dict[str, Any]:
    """Return every host of the cluster by its name, as root."""
    return {name: ssh(inventory.address(name), state) for name in inventory.hosts()}


@pytest.fixture(scope="session")
def server(inventory: Inventory, hosts: dict[str, Any]) -> Any:
    """Return the first server."""
    return hosts[inventory.hosts("server")[0]]


@pytest.fixture(scope="session")
def cluster(state: Path) -> Cluster:
    """Return the cluster's API as plain objects."""
    return Cluster(state / "kubeconfig")


@pytest.fixture(scope="session")
def pods(state: Path) -> Pods:
    """Return the way into pods."""
    return Pods(state / "kubeconfig")


@pytest.fixture(scope="session")
def service_image(cluster: Cluster) -> str:
    """Return an image that is on every node and has Python and the clients of the data stores."""
    deployment = cluster.get("/apis/apps/v1/namespaces/auth/deployments/auth")
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])


@pytest.fixture(scope="module")
def client(pods: Pods, service_image: str, request: pytest.FixtureRequest) -> Iterator[Client]:
    """Return a pod in a namespace of its own, as any workload of the cluster would be one."""
    name = f"{request.path.parent.parent.name}-{request.path.stem.removeprefix('test_')}".replace("_", "-")
    with pods.namespace(f"molecule-{name}-client") as namespace:
        yield pods.start(namespace, "client", service_image)


@pytest.fixture(scope="session")
def domain(inventory: Inventory) -> str:
    """Return the domain of the platform."""
    return str(inventory.variable("platform_domain"))


@pytest.fixture(scope="session")
def ca(state: Path) -> str:
    """Return the certificate of the platform's CA."""
    return (state / "ca.crt").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def trust(state: Path) -> ssl.SSLContext:
    """Return what a browser has that imported the platform's CA, and nothing else."""
    return ssl.create_default_context(cafile=str(state / "ca.crt"))


@pytest.fixture(scope="session")
def definitions(inventory: Inventory) -> dict[str, dict[str, Any]]:
    """Return the service.yml of every service that is enabled."""
    folder = ROOT / "services"
    return {
        name: yaml.safe_load((folder / name / "service.yml").read_text(encoding="utf-8"))
        for name in inventory.variable("services_enabled")
    }


@pytest.fixture(scope="session")
def secrets(state: Path) -> dict[str, Any]:
    """Return the environment's secrets, read as an operator would: with ansible-vault and the key."""
    key, file = str(state / "vault.key"), str(state / "secrets.yml")
    shown: Run = ansible("ansible-vault", "view", "--vault-password-file", key, file)
    assert shown.code == 0, "ansible-vault cannot read the secrets"
    loaded: dict[str, Any] = yaml.safe_load(shown.output)
    return loaded
