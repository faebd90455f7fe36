"""A Postgres of the drills' own: the role `postgres` with two members in a namespace that nothing else uses."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kubernetes
import urllib3
from certificates import server_certificate
from cluster_access import Cluster, ClusterUnreachableError
from cluster_client import Pods
from controller import apply_role

from drills.history import Key
from drills.members import Member, named, trouble

NAMESPACE = STORAGE_CLASS = "drills"
DATABASE = OWNER = "drill"
HOST = f"postgres.{NAMESPACE}.svc"
PLATFORM = "infrastructure"  # whose image of Postgres is drilled
MEMBERS = 2
SYNC_SECONDS = 300
# What asking says while the API server or a member is away.
AWAY = (ClusterUnreachableError, kubernetes.client.ApiException, urllib3.exceptions.HTTPError, OSError, AssertionError)


class DrillError(Exception):
    """A drill cannot start or go on; the message is one line."""


def wait(look: Callable[[], str], seconds: float, what: str) -> None:
    """Until `look` finds no trouble; DrillError with the last one after `seconds`."""
    limit = time.monotonic() + seconds
    while True:
        try:
            found = look()
        except AWAY as error:
            found = str(error).strip().partition("\n")[0] or type(error).__name__
        if not found:
            return
        if time.monotonic() > limit:
            raise DrillError(f"{what}: {found}, for {seconds:.0f} s")
        time.sleep(1)


@dataclass
class Installation:
    """A running one. `servers` and `agents` are the names of the nodes that have the API server and those without."""

    pods: Pods
    cluster: Cluster
    servers: list[str]
    agents: list[str]
    synchronous: bool = True
    password: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    ca: str = ""

    def apply(self) -> None:
        """The role as the platform applies it, with sizes, passwords and a CA of its own."""
        made = server_certificate("postgres", HOST)
        self.ca = str(made["ca_certificate"])
        image = self.pods.core.read_namespaced_pod("postgres-0", PLATFORM).spec.containers[0].image
        run = apply_role(
            "postgres",
            variables={
                "postgres_kubeconfig": str(self.cluster.kubeconfig),
                "postgres_namespace": NAMESPACE,
                "postgres_image": image,
                "postgres_members": MEMBERS,
                "postgres_storage_class": STORAGE_CLASS,
                "postgres_storage_size": "1Gi",
                "postgres_superuser_password": secrets.token_urlsafe(24),
                "postgres_replication_password": secrets.token_urlsafe(24),
                # Writers meet Postgres itself: a pooler in between would answer for it while it is away.
                "postgres_pooler_password": secrets.token_urlsafe(24),
                "postgres_pooler_replicas": 1,
                "postgres_ca_certificate": self.ca,
                "postgres_certificate": made["postgres_certificate"],
                "postgres_certificate_key": made["postgres_key"],
                "postgres_databases": [{"name": DATABASE, "owner": OWNER, "password": self.password}],
            },
        )
        if run.code != 0:
            raise DrillError(f"the role postgres failed in namespace {NAMESPACE}: {run.failure}")

    @property
    def names(self) -> list[str]:
        return [f"postgres-{number}" for number in range(MEMBERS)]

    def members(self) -> list[Member]:
        """What Patroni's REST API says, whichever member answers."""
        refused: Exception = DrillError("no members")
        for name in self.names:
            try:
                path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}:8008/proxy/cluster"
                found: list[Member] = self.cluster.get(path)["members"]
                return found
            except AWAY as error:
                refused = error
        raise refused

    def wait_in_sync(self, what: str, *, at_rest: bool = True) -> None:
        def look() -> str:
            return trouble(self.members(), wanted=MEMBERS, synchronous=self.synchronous, at_rest=at_rest)

        wait(look, SYNC_SECONDS, what)

    @property
    def leader(self) -> str:
        return named(self.members(), "leader")

    def pod(self, name: str) -> Any:
        return self.pods.core.read_namespaced_pod(name, NAMESPACE)

    @property
    def service_address(self) -> str:
        return str(self.pods.core.read_namespaced_service("postgres", NAMESPACE).spec.cluster_ip)

    def execute(self, member: str, *command: str) -> str:
        """In the pod of a member, as the user that the server runs as."""
        ended = self.pods.execute(NAMESPACE, member, *command, container="postgres")
        if ended.code != 0:
            raise DrillError(f"{command[0]} in {NAMESPACE}/{member}: {ended.errors.strip()[-300:]}")
        return ended.output

    def query(self, member: str, statement: str) -> list[str]:
        return self.execute(member, "psql", "-XAtqc", statement, "-d", DATABASE).splitlines()

    def replicate_asynchronously(self) -> None:
        """From now on an answer waits for nobody: what the negative control needs."""
        self.execute(self.leader, "patronictl", "edit-config", "--force", "--quiet", "--set", "synchronous_mode=false")
        self.synchronous = False

    def rows(self, table: str) -> dict[str, list[Key]]:
        """The keys that each member holds, as soon as all have what the leader had."""
        [position] = self.query(self.leader, "SELECT pg_current_wal_lsn()")

        def behind(member: str) -> str:
            there = f"NOT pg_is_in_recovery() OR pg_last_wal_replay_lsn() >= '{position}'"
            return "" if self.query(member, f"SELECT {there}") == ["t"] else f"{member} is not at {position} yet"

        statement = f"SELECT writer, seq FROM {table} ORDER BY position"  # noqa: S608 - the drill's own name
        found = {}
        for member in self.names:
            wait(lambda member=member: behind(member), SYNC_SECONDS, "catching up")  # type: ignore[misc]
            lines = [line.split("|") for line in self.query(member, statement)]
            found[member] = [(int(writer), int(seq)) for writer, seq in lines]
        return found


@contextmanager
def installed(kubeconfig: Path) -> Iterator[Installation]:
    """Made from nothing, in sync, and gone at the end."""
    pods, cluster = Pods(kubeconfig), Cluster(kubeconfig)
    nodes = cluster.items("/api/v1/nodes")
    servers = [
        n["metadata"]["name"] for n in nodes if "node-role.kubernetes.io/control-plane" in n["metadata"]["labels"]
    ]
    agents = [n["metadata"]["name"] for n in nodes if n["metadata"]["name"] not in servers]
    if len(agents) < MEMBERS:
        raise DrillError(f"found {len(agents)} nodes without the API server, wanted {MEMBERS} for the members")
    with storage(pods, agents), pods.namespace(NAMESPACE):
        found = Installation(pods, cluster, servers, agents)
        found.apply()
        found.wait_in_sync("a new installation")
        yield found


@contextmanager
def storage(pods: Pods, nodes: list[str]) -> Iterator[None]:
    """A storage class on these nodes alone: volumes are where their node is, and the API server has to survive one."""
    api: Any = kubernetes.client.StorageV1Api(pods.api)
    default = next(
        item
        for item in api.list_storage_class().items
        if (item.metadata.annotations or {}).get("storageclass.kubernetes.io/is-default-class") == "true"
    )
    try:
        api.delete_storage_class(STORAGE_CLASS)  # of a run that was broken off
    except kubernetes.client.ApiException as error:
        if error.status != 404:
            raise
    api.create_storage_class(
        {
            "metadata": {"name": STORAGE_CLASS, "labels": {"app.kubernetes.io/part-of": "slipway-test"}},
            "provisioner": default.provisioner,
            "volumeBindingMode": "WaitForFirstConsumer",
            "allowedTopologies": [{"matchLabelExpressions": [{"key": "kubernetes.io/hostname", "values": nodes}]}],
        }
    )
    try:
        yield
    finally:
        api.delete_storage_class(STORAGE_CLASS)
