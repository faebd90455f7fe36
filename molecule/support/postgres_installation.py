"""A Postgres of a test's own, and ways to look into one."""

from __future__ import annotations

import json
import secrets as random
from pathlib import Path
from typing import Any

from certificates import server_certificate
from cluster_client import Client, Pods
from controller import Run, apply_role


def sign_in(ca: str, attempts: list[dict[str, Any]], statement: str = "SELECT 1") -> list[str]:
    """In the cluster: for each attempt the first value that the statement gives, or the class of the refusal.

    With a CA as the services do it: TLS, and a certificate of it for the name; without one in the clear.
    """
    import asyncio
    import ssl

    import asyncpg

    trust = ssl.create_default_context(cadata=ca) if ca else False

    async def attempt(login: dict[str, Any]) -> str:
        try:
            connection = await asyncpg.connect(timeout=20, ssl=trust, **login)
            try:
                return str(await connection.fetchval(statement))
            finally:
                await connection.close()
        except (asyncpg.PostgresError, OSError) as error:
            return f"refused: {type(error).__name__}"

    async def all_attempts() -> list[str]:
        return [await attempt(login) for login in attempts]

    return asyncio.run(all_attempts())


def leader(pods: Pods, namespace: str) -> str:
    """Return the name of the member that holds the lock."""
    lock = pods.core.read_namespaced_config_map("postgres-leader", namespace)
    return str(lock.metadata.annotations["leader"])


def superuser(pods: Pods, namespace: str, statement: str, member: str = "", database: str = "postgres") -> list[str]:
    """Ask a server as the operator does who is let into its pod: over the socket, without a password. The leader's,
    if no member is named."""
    command = ["psql", "-XAtqc", statement, "-d", database]
    ended = pods.execute(namespace, member or leader(pods, namespace), *command, container="postgres")
    assert ended.code == 0, ended.errors
    return ended.output.splitlines()


def members(pods: Pods, namespace: str) -> dict[str, tuple[str, str]]:
    """Return role and state of each member, as Patroni tells them to its operator."""
    ended = pods.execute(namespace, "postgres-0", "patronictl", "list", "-f", "json", container="postgres")
    assert ended.code == 0, ended.errors
    return {member["Member"]: (member["Role"], member["State"]) for member in json.loads(ended.output)}


class Installation:
    """A second Postgres with the role's own defaults, and what was chosen for it."""

    def __init__(self, namespace: str, state: Path, image: str) -> None:
        self.namespace, self.host = namespace, f"postgres.{namespace}.svc"
        self.kubeconfig = state / "kubeconfig"
        self.password = random.token_urlsafe(24)
        self.variables: dict[str, Any] = {
            "postgres_kubeconfig": str(self.kubeconfig),
            "postgres_image": image,
            "postgres_namespace": namespace,
            "postgres_storage_size": "1Gi",
            "postgres_superuser_password": random.token_urlsafe(24),
            "postgres_replication_password": random.token_urlsafe(24),
            "postgres_pooler_password": random.token_urlsafe(24),
            "postgres_pooler_replicas": 1,
        }
        self.renew()

    def renew(self) -> None:
        """Take a new CA and a certificate of it."""
        made = server_certificate("postgres", self.host)
        self.ca = str(made["ca_certificate"])
        self.variables |= {
            "postgres_ca_certificate": self.ca,
            "postgres_certificate": made["postgres_certificate"],
            "postgres_certificate_key": made["postgres_key"],
        }

    def apply(self, *arguments: str, **variables: Any) -> Run:
        databases = [{"name": "one_db", "owner": "one", "password": self.password}]
        return apply_role(
            "postgres", *arguments, variables={**self.variables, "postgres_databases": databases, **variables}
        )

    def uninstall(self, **variables: Any) -> Run:
        return self.apply(applied_tasks="uninstall", **variables)

    @property
    def login(self) -> dict[str, Any]:
        return {"host": self.host, "user": "one", "database": "one_db", "password": self.password}

    def query(self, client: Client, statement: str) -> str:
        return str(client.call(sign_in, ca=self.ca, attempts=[self.login], statement=statement)[0])
