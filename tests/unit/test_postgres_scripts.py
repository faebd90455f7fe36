"""The scripts of the postgres image: what they decide, with Patroni and the Kubernetes API played by the test."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from secret_store import authority
from secret_store import certificate as issue

SCRIPTS = Path(__file__).parents[2] / "images/postgres/scripts"
NAMES = ("certificate", "kubernetes_api", "leader_endpoint", "settings", "errors")
LOCK = "/api/v1/namespaces/data/configmaps/postgres-leader"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/data/endpointslices"
SLICE = f"{SLICES}/postgres-leader"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import them as the image does, beside each other."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    modules = {name: importlib.import_module(name) for name in NAMES}
    yield type("Scripts", (), modules)
    for name in NAMES:
        sys.modules.pop(name, None)


class Api:
    """The objects of an API server, by path."""

    def __init__(self, errors: ModuleType, leader: str | None) -> None:
        self.error = errors.ApiError
        self.objects: dict[str, Any] = {LOCK: {"metadata": {"annotations": {"leader": leader} if leader else None}}}
        self.written: list[str] = []

    def get(self, path: str) -> Any:
        if path not in self.objects:
            raise self.error(404, "not found")
        return copy.deepcopy(self.objects[path])

    def create(self, path: str, document: Any) -> None:
        self.written.append("create")
        self.objects[f"{path}/{document['metadata']['name']}"] = document | {
            "metadata": document["metadata"] | {"resourceVersion": "1"}
        }

    def replace(self, path: str, document: Any) -> None:
        if document["metadata"]["resourceVersion"] != self.objects[path]["metadata"]["resourceVersion"]:
            raise self.error(409, "conflict")
        self.written.append("replace")
        self.objects[path] = document


def member(scripts: Any, name: str, address: str) -> Any:
    return scripts.leader_endpoint.Member(name, address, "node-1", "data", "postgres", "postgres", 5432)


def test_the_leader_points_the_service_at_itself_once(scripts: Any) -> None:
    api, one = Api(scripts.kubernetes_api, "postgres-0"), member(scripts, "postgres-0", "10.0.0.1")
    assert scripts.leader_endpoint.publish(api, one).startswith("changed")
    assert scripts.leader_endpoint.publish(api, one).startswith("unchanged")
    assert api.written == ["create"]
    assert scripts.leader_endpoint.addresses(api.objects[SLICE]) == ["10.0.0.1"]
    assert api.objects[SLICE]["metadata"]["labels"]["kubernetes.io/service-name"] == "postgres"


def test_the_next_leader_takes_the_service_over(scripts: Any) -> None:
    api = Api(scripts.kubernetes_api, "postgres-0")
    scripts.leader_endpoint.publish(api, member(scripts, "postgres-0", "10.0.0.1"))
    api.objects[LOCK]["metadata"]["annotations"]["leader"] = "postgres-1"
    assert scripts.leader_endpoint.publish(api, member(scripts, "postgres-1", "10.0.0.2")).startswith("changed")
    assert scripts.leader_endpoint.addresses(api.objects[SLICE]) == ["10.0.0.2"]


@pytest.mark.parametrize("leader", ["postgres-1", None])
def test_a_member_that_was_frozen_does_not_take_the_service_back(scripts: Any, leader: str | None) -> None:
    api = Api(scripts.kubernetes_api, leader)
    assert scripts.leader_endpoint.publish(api, member(scripts, "postgres-0", "10.0.0.1")).startswith("unchanged")
    assert SLICE not in api.objects


def test_a_member_that_stops_withdraws_only_itself(scripts: Any) -> None:
    api = Api(scripts.kubernetes_api, "postgres-0")
    one, two = member(scripts, "postgres-0", "10.0.0.1"), member(scripts, "postgres-1", "10.0.0.2")
    assert scripts.leader_endpoint.withdraw(api, one).startswith("unchanged")
    scripts.leader_endpoint.publish(api, one)
    assert scripts.leader_endpoint.withdraw(api, two).startswith("unchanged")
    assert scripts.leader_endpoint.addresses(api.objects[SLICE]) == ["10.0.0.1"]
    assert scripts.leader_endpoint.withdraw(api, one).startswith("changed")
    assert scripts.leader_endpoint.addresses(api.objects[SLICE]) == []


@pytest.mark.parametrize(
    ("found", "patch"),
    [
        ({"ttl": 20, "postgresql": {"parameters": {"jit": "off"}}}, {}),
        ({"ttl": 30, "postgresql": {"parameters": {"jit": "off"}}}, {"ttl": 20}),
        ({"ttl": 20, "pause": True, "postgresql": {"parameters": {"jit": "off"}}}, {}),
        ({"ttl": 20, "postgresql": {"use_slots": True, "parameters": {"jit": "off"}}}, {}),
        (
            {"ttl": 20, "postgresql": {"parameters": {"jit": "on", "work_mem": "1GB"}}},
            {"postgresql": {"parameters": {"jit": "off", "work_mem": None}}},
        ),
        ({"ttl": 20}, {"postgresql": {"parameters": {"jit": "off"}}}),
    ],
    ids=["same", "value", "operator's mark", "undeclared elsewhere", "undeclared parameter", "missing section"],
)
def test_settings_are_patched_as_little_as_possible(scripts: Any, found: Any, patch: Any) -> None:
    wanted = {"ttl": 20, "postgresql": {"parameters": {"jit": "off"}}}
    assert scripts.settings.difference(wanted, found) == patch


def test_each_changed_setting_is_named(scripts: Any) -> None:
    patch = {"ttl": 20, "postgresql": {"parameters": {"jit": "off", "work_mem": None}}}
    flat = [("postgresql.parameters.jit", "off"), ("postgresql.parameters.work_mem", None), ("ttl", 20)]
    assert scripts.settings.flatten(patch) == flat


class TlsServer:
    """Takes the first words of Postgres' protocol and shows the certificate of the files that it has read last."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.certificate = directory, directory / "tls.crt"
        self.made: dict[str, Any] = authority("ca", "a CA of the tests", datetime.now(UTC))
        self.renew()
        self.reload()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        threading.Thread(target=self._serve, daemon=True).start()

    def renew(self) -> None:
        entry = {"name": "postgres", "authority": "ca", "domains": ["postgres.test"]}
        self.made |= issue(self.made, entry, datetime.now(UTC))
        self.certificate.write_text(self.made["postgres_certificate"])
        (self.directory / "tls.key").write_text(self.made["postgres_key"])

    def reload(self) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.certificate, self.directory / "tls.key")

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.certificate.read_bytes()).hexdigest()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                connection, _ = self.listener.accept()
                connection.sendall(b"S" if connection.recv(8) == bytes.fromhex("0000000804d2162f") else b"N")
                self.context.wrap_socket(connection, server_side=True).close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TlsServer]:
    found = TlsServer(tmp_path)
    yield found
    found.listener.close()


def test_a_server_is_told_of_a_new_certificate_once(scripts: Any, server: TlsServer) -> None:
    told: list[None] = []

    def reload() -> None:
        told.append(None)
        server.reload()

    def ensure() -> str:
        wanted = scripts.certificate.mounted(server.certificate, server.sha256)
        return str(scripts.certificate.ensure(wanted, lambda: scripts.certificate.shown(server.address), reload))

    assert ensure() == "unchanged certificate"
    server.renew()
    assert [ensure(), ensure()] == ["changed certificate", "unchanged certificate"]
    assert len(told) == 1


def test_a_certificate_that_has_not_come_yet_is_waited_for(scripts: Any, server: TlsServer) -> None:
    old = server.sha256
    server.renew()
    with pytest.raises(scripts.errors.NotYetError, match="the kubelet is about to bring it"):
        scripts.certificate.mounted(server.certificate, old)


def test_a_server_that_does_not_read_its_files_is_no_success(scripts: Any, server: TlsServer) -> None:
    server.renew()
    wanted = scripts.certificate.mounted(server.certificate, server.sha256)
    with pytest.raises(scripts.errors.NotYetError, match="still shows another certificate"):
        scripts.certificate.ensure(wanted, lambda: scripts.certificate.shown(server.address), lambda: None, 0.3)


def test_a_server_that_does_not_answer_is_waited_for(scripts: Any, server: TlsServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = closed.getsockname()
    with pytest.raises(scripts.errors.NotYetError, match="does not answer"):
        scripts.certificate.shown(address)
