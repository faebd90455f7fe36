"""ingress-nginx as far as an API server can judge it. The controller itself did not run here, and nothing in this
scenario says that it works: its image can be neither built nor downloaded where the lab lives."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import kubernetes
import pytest
from cluster_client import Pods
from controller import Inventory, Run, apply_role, playbook
from https_client import ask

NAMESPACE, OWN = "ingress-nginx", "molecule-ingress-nginx"
# Under a name that leads nowhere.
IMAGE = f"registry.invalid/ingress-nginx/controller@sha256:{64 * '0'}"
CHOSEN = {"ingress_controller": "ingress-nginx", "ingress_nginx_image": IMAGE, "ingress_nginx_wait_timeout": 20}

pytestmark = [pytest.mark.explain(NAMESPACE), pytest.mark.explain(OWN)]


def serving(pods: Pods) -> dict[str, str]:
    """Return the pods of controllers and the DaemonSets that own them."""
    found = pods.core.list_namespaced_pod(NAMESPACE, label_selector="app.kubernetes.io/component=ingress").items
    assert found
    return {pod.metadata.name: pod.metadata.owner_references[0].uid for pod in found}


def applied(cluster: Any) -> dict[str, str]:
    """Return everything that the role would touch, and its version."""
    paths = [
        f"/api/v1/namespaces/{NAMESPACE}/{kind}" for kind in ("configmaps", "secrets", "serviceaccounts", "pods")
    ] + [
        f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets",
        f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs",
        f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/ingresses",
        "/apis/networking.k8s.io/v1/ingressclasses",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        "/apis/rbac.authorization.k8s.io/v1/rolebindings",
    ]
    return {
        f"{path}/{one['metadata'].get('namespace', '')}/{one['metadata']['name']}": one["metadata"]["resourceVersion"]
        for path in paths
        for one in cluster.items(path)
        if one["metadata"].get("namespace", NAMESPACE) == NAMESPACE
    }


def test_the_api_server_would_take_everything_and_traefik_would_give_way(pods: Pods, cluster: Any) -> None:
    """A server-side dry run of the whole change; the controller itself did not run here."""
    before = applied(cluster)
    run = playbook("site.yml", "--tags", "ingress_nginx", "--check", variables=CHOSEN)
    assert run.code == 0, run.output
    assert run.changed > 3
    assert {name: version for name, version in applied(cluster).items() if name in before} == before
    assert len(applied(cluster)) == len(before)


def test_an_image_that_cannot_be_pulled_stops_nothing(
    pods: Pods, inventory: Inventory, domain: str, trust: Any, cluster: Any
) -> None:
    before = serving(pods)
    run = playbook("site.yml", "--tags", "ingress_nginx", variables=CHOSEN)
    assert run.code != 0
    for word in ("ingress-nginx-trial-", "registry.invalid", "kubectl"):
        assert word in run.output, f"does not say {word!r}"
    assert "Traceback" not in run.output
    assert serving(pods) == before, "pods of controllers are others than before"
    for host in inventory.hosts():
        assert ask(inventory.address(host), domain, "/", trust).status == 200, host
    daemonsets = cluster.items(f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets")
    assert [one["metadata"]["name"] for one in daemonsets] == ["traefik"]
    # Nobody has to remove what was tried.
    jobs = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
    assert pods.eventually(lambda: [job["metadata"]["name"] for job in cluster.items(jobs)], []) == []


def test_the_role_by_itself_refuses_upstreams_image_before_it_asks_anybody() -> None:
    image = f"registry.k8s.io/ingress-nginx/controller:v1.15.1@sha256:{64 * '0'}"
    given = {
        "ingress_nginx_kubeconfig": "/nowhere",
        "ingress_nginx_certificate": "",
        "ingress_nginx_certificate_key": "",
    }
    run = apply_role("ingress_nginx", variables=given | {"ingress_nginx_image": image})
    assert run.code != 0
    assert f"ingress_nginx_image: found {image}, which is upstream's own and gets no fixes any more" in run.failure
    accepted = given | {"ingress_nginx_image": image, "ingress_nginx_accept_unpatched": image}
    run = apply_role("ingress_nginx", variables=accepted)
    assert run.code != 0
    assert "upstream" not in run.output, "accepted, it goes on to the cluster, which is nowhere"


@pytest.fixture(scope="module")
def installed(pods: Pods, inventory: Inventory, state: Any) -> Iterator[Run]:
    """Apply the role in a namespace of its own, beside Traefik, which keeps the host ports: its pods can only wait."""
    given = {
        "ingress_nginx_kubeconfig": str(state / "kubeconfig"),
        "ingress_nginx_namespace": OWN,
        "ingress_nginx_watched_namespaces": ["sre-app"],
    }
    more = {
        "ingress_nginx_image": IMAGE,
        "ingress_nginx_certificate": "-----BEGIN CERTIFICATE-----\n",
        "ingress_nginx_certificate_key": "none",
        "ingress_nginx_wait_timeout": 20,
    }
    with pods.namespace(OWN, **{"pod-security.kubernetes.io/enforce": "privileged"}):
        yield apply_role("ingress_nginx", variables=given | more)
        removed = apply_role("ingress_nginx", variables=given | {"applied_tasks": "uninstall"})
        assert removed.code == 0, removed.output
        rights: Any = kubernetes.client.RbacAuthorizationV1Api(pods.api)
        left = [
            one.metadata.name
            for listed in (
                rights.list_cluster_role(),
                rights.list_cluster_role_binding(),
                rights.list_namespaced_role_binding("sre-app"),
            )
            for one in listed.items
            if "ingress-nginx" in one.metadata.name
        ]
        assert left == []


def test_it_is_admitted_and_its_pods_wait_for_the_host_ports(installed: Run, pods: Pods) -> None:
    assert installed.code != 0
    assert "free ports" in installed.output, installed.output[-3000:]
    assert "Traceback" not in installed.output
    found = pods.core.list_namespaced_pod(OWN, label_selector="app.kubernetes.io/name=ingress-nginx").items
    assert len(found) == 3
    assert {pod.status.phase for pod in found} == {"Pending"}
    assert {pod.spec.priority for pod in found} == {1000000}


def test_it_may_do_what_it_has_to_and_no_more(installed: Run, pods: Pods) -> None:
    may = partial(pods.may, f"{OWN}:ingress-nginx")
    for group, resource in (
        ("", "services"),
        ("", "configmaps"),
        ("", "secrets"),
        ("", "namespaces"),
        ("discovery.k8s.io", "endpointslices"),
        ("networking.k8s.io", "ingresses"),
        ("networking.k8s.io", "ingressclasses"),
    ):
        assert may("list", resource, group=group), resource
        assert may("watch", resource, group=group), resource
        assert not [v for v in ("create", "update", "patch", "delete") if may(v, resource, group=group)], resource
    assert may("get", "pods", OWN)
    assert may("create", "events", "sre-app")
    assert not may("create", "events", "auth")
    assert not may("get", "pods", "auth")
    assert not may("create", "pods", OWN)
    assert not may("get", "nodes")
    assert not may("create", "pods/exec", OWN)


def test_nothing_of_it_is_left_where_traefik_serves(cluster: Any) -> None:
    """The scenario's own run removes what another controller left."""
    names = {one["metadata"]["name"] for one in cluster.items(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts")}
    assert "ingress-nginx" not in names
    assert "traefik" in names
