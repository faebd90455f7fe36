"""Callback of Patroni: points the read-write Service at this member when it leads, and away when it stops.

A selector would leave the Service on a primary whose node went silent, since nobody takes the label from its pod. So
the Service has no selector, and the member that holds the leader lock writes its EndpointSlice.

    leader_endpoint.py <on_start|on_stop|on_role_change> <role> <scope>
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass

from kubernetes_api import ApiError, Document, KubernetesApi

NOT_FOUND, CONFLICT = 404, 409


@dataclass(frozen=True)
class Member:
    """This pod and the Service that it may serve."""

    name: str
    address: str
    node: str
    namespace: str
    scope: str
    service: str
    port: int

    @classmethod
    def from_environment(cls, scope: str) -> Member:
        return cls(
            name=os.environ["POD_NAME"],
            address=os.environ["POD_IP"],
            node=os.environ["NODE_NAME"],
            namespace=os.environ["POD_NAMESPACE"],
            scope=scope,
            service=os.environ["LEADER_SERVICE"],
            port=int(os.environ.get("LEADER_SERVICE_PORT", "5432")),
        )

    @property
    def slices(self) -> str:
        return f"/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices"

    @property
    def slice_name(self) -> str:
        return f"{self.service}-leader"

    @property
    def slice(self) -> str:
        return f"{self.slices}/{self.slice_name}"

    @property
    def leader_lock(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/configmaps/{self.scope}-leader"


def wanted_slice(member: Member) -> Document:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": member.slice_name,
            "namespace": member.namespace,
            "labels": {
                "kubernetes.io/service-name": member.service,
                "endpointslice.kubernetes.io/managed-by": "patroni",
                "app.kubernetes.io/name": member.scope,
            },
        },
        "addressType": "IPv6" if ":" in member.address else "IPv4",
        "endpoints": [
            {
                "addresses": [member.address],
                "conditions": {"ready": True},
                "nodeName": member.node,
                "targetRef": {"kind": "Pod", "namespace": member.namespace, "name": member.name},
            }
        ],
        "ports": [{"name": "postgres", "port": member.port, "protocol": "TCP"}],
    }


def addresses(document: Document | None) -> list[str]:
    endpoints = (document or {}).get("endpoints") or []
    return [address for endpoint in endpoints for address in endpoint["addresses"]]


def read_slice(api: KubernetesApi, member: Member) -> Document | None:
    try:
        return api.get(member.slice)
    except ApiError as error:
        if error.status == NOT_FOUND:
            return None
        raise


def publish(api: KubernetesApi, member: Member) -> str:
    """Writes the slice if the lock says that this member leads; a member that was frozen may be wrong about it."""
    lock = api.get(member.leader_lock)
    leader = (lock["metadata"].get("annotations") or {}).get("leader")
    if leader != member.name:
        return f"unchanged {member.service}: {leader or 'nobody'} leads"
    current, wanted = read_slice(api, member), wanted_slice(member)
    if current is None:
        api.create(member.slices, wanted)
    elif all(current.get(key) == wanted[key] for key in ("endpoints", "ports")):
        return f"unchanged {member.service}: {member.name} {member.address}"
    else:
        wanted["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"]
        api.replace(member.slice, wanted)
    return f"changed {member.service}: {member.name} {member.address}"


def withdraw(api: KubernetesApi, member: Member) -> str:
    """Empties the slice if it names this member, so that clients are refused at once and do not wait."""
    current = read_slice(api, member)
    if current is None or member.address not in addresses(current):
        return f"unchanged {member.service}: not at {member.name}"
    current["endpoints"] = []
    api.replace(member.slice, current)
    return f"changed {member.service}: withdrawn from {member.name}"


def main(arguments: list[str]) -> int:
    if len(arguments) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    action, role, scope = arguments
    member, api = Member.from_environment(scope), KubernetesApi.in_cluster()
    step = publish if role == "primary" and action != "on_stop" else withdraw
    while True:
        try:
            print(f"leader endpoint: {action} {role}: {step(api, member)}", flush=True)
            return 0
        except ApiError as error:
            print(f"leader endpoint: {action} {role}: {error}", file=sys.stderr, flush=True)
            # Patroni ends this callback when the next one is due. Until then the Service must be right, however long
            # the API is away. A withdrawal that met a newer writer has nothing left to withdraw.
            if step is withdraw and error.status == CONFLICT:
                return 0
            time.sleep(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
