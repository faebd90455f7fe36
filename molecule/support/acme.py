"""Pebble, an ACME server for tests, in a namespace of its own, and a name in the cluster that leads to the ingress.

No public name leads to the lab, so the name that a certificate is asked for is that of a Service without pods, whose
addresses are the nodes'.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import kubernetes
import yaml
from certificates import server_certificate
from cluster_client import Pods
from controller import ROOT, playbook

NODE = "agent-1"  # the one that has the image (pebble.yml)
PORT, MANAGEMENT = 14000, 15000
CONFIG = {
    "listenAddress": f"0.0.0.0:{PORT}",
    "managementListenAddress": f"0.0.0.0:{MANAGEMENT}",
    "certificate": "/etc/pebble/tls.crt",
    "privateKey": "/etc/pebble/tls.key",
    "httpPort": 80,
    "tlsPort": 443,
    "keyAlgorithm": "ecdsa",
    "retryAfter": {"authz": 1, "order": 1},
}


@dataclass(frozen=True)
class Acme:
    """Where the server is, which CA its own certificate is of, and a name that it can validate."""

    host: str
    ca: str
    site: str

    @property
    def directory(self) -> str:
        """Return the URL of its directory."""
        return f"https://{self.host}:{PORT}/dir"

    @property
    def root(self) -> str:
        """Return the URL of the certificate that all that it issues is below."""
        return f"https://{self.host}:{MANAGEMENT}/roots/0"


@contextlib.contextmanager
def pebble(pods: Pods, namespace: str, addresses: list[str]) -> Iterator[Acme]:
    """Run Pebble in a namespace of its own, gone when it ends."""
    brought = playbook("molecule/support/pebble.yml")
    assert brought.code == 0, brought.output
    versions = yaml.safe_load((ROOT / "group_vars/all/versions.yml").read_text(encoding="utf-8"))
    with pods.namespace(namespace):
        host = f"pebble.{namespace}.svc"
        made = server_certificate("pebble", host)
        files = {
            "pebble.json": json.dumps({"pebble": CONFIG}),
            "tls.crt": made["pebble_certificate"],
            "tls.key": made["pebble_key"],
        }
        pods.core.create_namespaced_secret(namespace, {"metadata": {"name": "pebble"}, "stringData": files})
        ports = [{"name": f"port-{port}", "port": port} for port in (PORT, MANAGEMENT)]
        _service(pods, namespace, "pebble", selector={"app.kubernetes.io/name": "pebble"}, ports=ports)
        _service(pods, namespace, "site", clusterIP="None", ports=[{"name": "http", "port": 80}])
        slice_ = {
            "metadata": {"name": "site", "labels": {"kubernetes.io/service-name": "site"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address]} for address in addresses],
            "ports": [{"name": "http", "port": 80}],
        }
        discovery: Any = kubernetes.client.DiscoveryV1Api(pods.api)
        discovery.create_namespaced_endpoint_slice(namespace, slice_)
        names = pods.core.read_namespaced_service("kube-dns", "kube-system").spec.cluster_ip
        pods.start(
            namespace,
            "pebble",
            f"slipway.local/pebble:{versions['pebble_version']}",
            nodeName=NODE,
            volumes=[{"name": "config", "secret": {"secretName": "pebble"}}],
            container={
                "command": ["/pebble", "-config", "/etc/pebble/pebble.json", "-dnsserver", f"{names}:53"],
                # Without it each validation waits for up to 15 seconds, to be like the real ones.
                "env": [{"name": "PEBBLE_VA_NOSLEEP", "value": "1"}],
                "volumeMounts": [{"name": "config", "mountPath": "/etc/pebble", "readOnly": True}],
                "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 5},
            },
        )
        yield Acme(host, str(made["ca_certificate"]), f"site.{namespace}.svc.cluster.local")


def _service(pods: Pods, namespace: str, name: str, **spec: Any) -> None:
    pods.core.create_namespaced_service(namespace, {"metadata": {"name": name}, "spec": spec})
