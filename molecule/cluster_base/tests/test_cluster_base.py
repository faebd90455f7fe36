"""What every namespace of the platform starts with, as somebody meets it who wants to run a pod there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cluster_client import Pods, restricted_pod
from kubernetes.client import ApiException

NAMESPACES = [
    "auth",
    "api",
    "image-storage",
    "web",
    "infrastructure",
    "monitoring",
    "ingress-nginx",
    "node-exporter",
    "status",
    "otel-collector",
    "cert-manager",
    "sre-app",
]
RESTRICTED = [name for name in NAMESPACES if name not in ("ingress-nginx", "node-exporter", "otel-collector")]
IMAGE = "slipway.local/none:0"

BAD_PODS: dict[str, dict[str, Any]] = {
    "a privileged container": {"container": {"securityContext": {"privileged": True}}},
    "root": {"securityContext": {"runAsUser": 0, "seccompProfile": {"type": "RuntimeDefault"}}},
    "the host's network": {"hostNetwork": True},
    "a directory of the host": {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]},
    "a host port": {"container": {"ports": [{"containerPort": 8080, "hostPort": 8080}]}},
}


def admitted(pods: Pods, namespace: str, **more: Any) -> Any:
    """Ask the API server for a pod that it does everything with but keep it."""
    return pods.core.create_namespaced_pod(namespace, restricted_pod("molecule", IMAGE, **more), dry_run="All")


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_a_careful_pod_is_admitted(pods: Pods, namespace: str) -> None:
    assert admitted(pods, namespace).metadata.namespace == namespace


@pytest.mark.parametrize("namespace", RESTRICTED)
@pytest.mark.parametrize("wish", BAD_PODS)
def test_pod_security_refuses(pods: Pods, namespace: str, wish: str) -> None:
    with pytest.raises(ApiException) as refused:
        admitted(pods, namespace, **BAD_PODS[wish])
    assert refused.value.status == 403
    assert 'violates PodSecurity "restricted:' in json.loads(str(refused.value.body))["message"]


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_the_rules_do_not_move_with_an_upgrade_of_the_cluster(pods: Pods, namespace: str) -> None:
    labels = pods.core.read_namespace(namespace).metadata.labels
    versions = {labels[f"pod-security.kubernetes.io/{mode}-version"] for mode in ("enforce", "audit", "warn")}
    assert len(versions) == 1
    assert versions.pop().startswith("v1.")


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_a_pod_that_asks_for_nothing_is_bounded_all_the_same(pods: Pods, namespace: str) -> None:
    resources = admitted(pods, namespace, container={"resources": {}}).spec.containers[0].resources
    assert {"cpu", "memory"} <= set(resources.requests)
    assert "memory" in resources.limits


@pytest.mark.parametrize("namespace", ["default", *NAMESPACES])
def test_a_pod_that_names_no_account_gets_no_token(pods: Pods, namespace: str) -> None:
    wish = restricted_pod("molecule", IMAGE)
    del wish["spec"]["automountServiceAccountToken"]
    spec = pods.core.create_namespaced_pod(namespace, wish, dry_run="All").spec
    assert not [volume for volume in spec.volumes or [] if volume.projected]


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_the_quota_is_counted(pods: Pods, namespace: str) -> None:
    quotas = pods.core.list_namespaced_resource_quota(namespace).items
    assert quotas
    for quota in quotas:
        assert quota.status.used, f"nobody counts what quota {quota.metadata.name} bounds"
        assert set(quota.status.used) == set(quota.spec.hard)


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_no_way_in_beside_the_ingress(pods: Pods, namespace: str) -> None:
    service = {
        "metadata": {"name": "molecule"},
        "spec": {"type": "NodePort", "ports": [{"port": 80}], "selector": {"app": "none"}},
    }
    with pytest.raises(ApiException) as refused:
        pods.core.create_namespaced_service(namespace, service, dry_run="All")
    assert refused.value.status == 403
    assert "exceeded quota" in json.loads(str(refused.value.body))["message"]


def test_ingress_and_data_stores_matter_more_than_services_and_these_more_than_the_rest(pods: Pods) -> None:
    platform, service = (
        admitted(pods, "api", priorityClassName=name).spec.priority for name in ("slipway-platform", "slipway-service")
    )
    plain = admitted(pods, "api").spec.priority
    assert plain < service < platform
