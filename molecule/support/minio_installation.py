"""A MinIO of a test's own."""

from __future__ import annotations

import secrets as random
from pathlib import Path
from typing import Any

from certificates import server_certificate
from cluster_client import Client
from controller import Run, apply_role
from object_store import store


def user(name: str, **grants: str) -> dict[str, Any]:
    """Return a user with keys of its own and what it may do in which buckets."""
    wanted = [{"bucket": bucket, "access": access} for bucket, access in grants.items()]
    return {"name": name, "access_key": random.token_hex(8), "secret_key": random.token_hex(20), "grants": wanted}


class Installation:
    """A second MinIO with the role's own defaults, and what was chosen for it."""

    def __init__(self, namespace: str, state: Path, image: str) -> None:
        self.host = f"minio.{namespace}.svc"
        self.members = f"*.minio-members.{namespace}.svc.cluster.local"
        self.users = {"writer": user("writer", letters="write"), "reader": user("reader", letters="read")}
        self.variables: dict[str, Any] = {
            "minio_kubeconfig": str(state / "kubeconfig"),
            "minio_image": image,
            "minio_namespace": namespace,
            "minio_storage_size": "1Gi",
            "minio_root_user": random.token_hex(8),
            "minio_root_password": random.token_hex(20),
            "minio_buckets": [{"name": "letters"}, {"name": "stamps"}],
        }
        self.renew()

    def renew(self, signer: dict[str, Any] | None = None) -> None:
        """Take a certificate of a new CA, or of another installation's."""
        self.made = made = server_certificate("minio", self.host, self.members, signer=signer)
        self.ca = str(made["ca_certificate"])
        self.variables |= {
            "minio_ca_certificate": self.ca,
            "minio_certificate": made["minio_certificate"],
            "minio_certificate_key": made["minio_key"],
        }

    def apply(self, *arguments: str, **variables: Any) -> Run:
        users = list(self.users.values())
        return apply_role("minio", *arguments, variables={**self.variables, "minio_users": users, **variables})

    def steps(self, client: Client, name: str, *steps: list[str]) -> list[str]:
        return self.take(client, self.users[name], *steps)

    def take(self, client: Client, key: dict[str, str], *steps: list[str]) -> list[str]:
        found: list[str] = client.call(store, endpoint=f"{self.host}:9000", ca=self.ca, key=key, steps=list(steps))
        return found
