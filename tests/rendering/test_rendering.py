"""Everything that the roles apply is valid, complete and safe: looked at before any cluster sees it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from tests.rendering.conftest import KUBERNETES, PROFILES, ROOT, Rendering

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")
PROBES = {"livenessProbe", "readinessProbe", "startupProbe"}
# Who speaks to the API, and so may have a token.
API_CLIENTS = {
    *("cert-manager", "cert-manager-webhook", "cert-manager-cainjector"),
    *("traefik", "ingress-nginx", "postgres", "prometheus", "otel-collector"),
}
# The ingress controller of each profile, and the role of the other one. The image of ingress-nginx is not ours.
CONTROLLERS = {"local": ("traefik", "ingress_nginx"), "ha": ("ingress-nginx", "traefik")}
FOREIGN = "DaemonSet/ingress-nginx"
# It reads the files that the logs of all pods are in.
READER = "DaemonSet/otel-collector"
# Roles whose templates go to hosts and not to the API.
HOST_ROLES = {"artifacts", "k3s", "node", "preflight", "secrets"}


def pod_of(document: dict[str, Any]) -> dict[str, Any]:
    template = document["spec"]["jobTemplate"]["spec"] if document["kind"] == "CronJob" else document["spec"]
    found: dict[str, Any] = template["template"]
    return found


def workloads(rendering: Rendering) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    for document in rendering.of_kind(*WORKLOADS):
        metadata = document["metadata"]
        yield f"{document['kind']}/{metadata['name']}", metadata["namespace"], document, pod_of(document)


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def where(document: dict[str, Any]) -> str:
    metadata = document["metadata"]
    return f"{document['kind']} {metadata.get('namespace', '-')}/{metadata['name']}"


def test_every_document_is_valid(rendering: Rendering) -> None:
    mistakes = []
    for document in rendering.documents:
        try:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            place = ".".join(str(part) for part in error.path)
            mistakes.append(f"{where(document)}: {place}: {error.message}")
    assert mistakes == []


def test_every_object_is_applied_once_and_server_side_as_slipway(rendering: Rendering) -> None:
    counts = Counter(where(document) for document in rendering.documents)
    assert [name for name, count in counts.items() if count > 1] == []
    managers = [call["server_side_apply"]["field_manager"] for call in rendering.calls if call["state"] == "present"]
    assert set(managers) == {"slipway"}


def test_every_template_of_every_role_is_used() -> None:
    unused = []
    for template in sorted(ROOT.glob("roles/*/templates/*")):
        role = template.parents[1]
        if role.name in HOST_ROLES:
            continue
        sources = [*role.glob("tasks/*.yml"), *role.glob("vars/*.yml"), *role.glob("templates/*")]
        if not any(template.name in path.read_text(encoding="utf-8") for path in sources if path != template):
            unused.append(str(template.relative_to(ROOT)))
    assert unused == []


def test_every_role_that_has_templates_has_applied_something(rendering: Rendering) -> None:
    """A template that is never rendered is never checked."""
    text = yaml.safe_dump(rendering.documents)
    roles = {template.parents[1].name for template in ROOT.glob("roles/*/templates/*")} - HOST_ROLES
    marks = {
        "cluster_base": "ResourceQuota",
        "cert_manager": "name: cert-manager-webhook",
        "ingress_common": "kind: IngressClass",
        "ingress_nginx": "name: ingress-nginx-controller",
        "logging": "app.kubernetes.io/name: loki",
        "node_exporter": "app.kubernetes.io/name: node-exporter",
        "otel_collector": "app.kubernetes.io/name: otel-collector",
        "tracing": "app.kubernetes.io/name: jaeger",
        "service": "auth-migrate-",
    }
    missing = {role for role in roles if marks.get(role, f"app.kubernetes.io/name: {role}") not in text}
    assert missing == {CONTROLLERS[rendering.profile][1]}, "that of the controller that was not chosen, and no other"


def test_namespaces_exist(rendering: Rendering) -> None:
    known = {document["metadata"]["name"] for document in rendering.of_kind("Namespace")} | {"default"}
    ours = {image.removeprefix("slipway.local/") for image in images if image.startswith("slipway.local/")}
    assert names == {image.partition(":")[0] for image in ours} - services
