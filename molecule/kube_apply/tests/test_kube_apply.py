"""The one way in which roles talk to the Kubernetes API: what it shows, what it owns, and what it says when a workload
does not come up."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cluster_client import Pods
from controller import Run, playbook
from kubernetes.client import AppsV1Api

NAMESPACE = "molecule-kube-apply"
MANAGER = "slipway"
# Long enough for a container to start and end on a busy machine: before, there is no reason to tell.
FAILS_WITHIN_SECONDS = 30


def apply(*arguments: str, **variables: Any) -> Run:
    """Apply the scenario's templates again."""
    return playbook("molecule/kube_apply/converge.yml", *arguments, variables=variables)


def test_every_object_is_there_and_ours(pods: Pods) -> None:
    apps: Any = AppsV1Api(pods.api)
    deployment = apps.read_namespaced_deployment("workload", NAMESPACE)
    objects = [
        deployment,
        pods.core.read_namespaced_secret("workload", NAMESPACE),
        pods.core.read_namespaced_config_map("workload", NAMESPACE),
        pods.core.read_namespaced_service_account("workload", NAMESPACE),
    ]
    for found in objects:
        owners = {(field.manager, field.operation) for field in found.metadata.managed_fields}
        assert (MANAGER, "Apply") in owners, found.kind
    assert deployment.status.available_replicas == 1


@pytest.mark.parametrize("arguments", [["--diff", "-vvv"], ["--check", "--diff", "-vvv"]], ids=["run", "check"])
def test_a_secret_is_never_shown_and_a_setting_is(arguments: list[str]) -> None:
    password = f"another-horse-{len(arguments)}"
    run = apply(*arguments, applied_password=password, applied_timeout=91)
    assert run.code == 0, run.output
    assert run.changed >= 1
    for form in (password, base64.b64encode(password.encode()).decode()):
        assert form not in run.output.replace(f'"applied_password": "{password}"', "")


def test_what_somebody_else_changed_is_put_right(pods: Pods) -> None:
    pods.core.patch_namespaced_config_map("workload", NAMESPACE, {"data": {"colour": "red", "own": "kept"}})
    run = apply()
    assert run.code == 0, run.output
    found = pods.core.read_namespaced_config_map("workload", NAMESPACE).data
    assert found == {"colour": "blue", "own": "kept"}, "fields that are not ours are left alone"


def test_check_mode_says_what_would_change_and_changes_nothing(pods: Pods) -> None:
    pods.core.patch_namespaced_config_map("workload", NAMESPACE, {"data": {"colour": "green"}})
    run = apply("--check")
    assert run.code == 0, run.output
    assert run.changed == 1
    assert pods.core.read_namespaced_config_map("workload", NAMESPACE).data["colour"] == "green"
    assert apply().changed == 1


def test_what_the_server_refuses_fails_a_check_too() -> None:
    run = apply("--check", applied_command="no list")
    assert run.code != 0
    assert "command" in run.output


def test_a_workload_that_does_not_start_says_why_and_what_to_type() -> None:
    broken = ["bash", "-c", "echo no room for the horse >&2; exit 3"]
    run = apply(applied_command=broken, applied_timeout=FAILS_WITHIN_SECONDS)
    assert run.code != 0
    for word in ("workload", NAMESPACE, "exit code 3", "no room for the horse", "kubectl"):
        assert word in run.output, f"does not say {word!r}"
    assert "Traceback" not in run.output
    assert apply().code == 0


def test_an_image_that_is_not_there_is_named() -> None:
    run = apply(applied_image="slipway.local/nothing:0", applied_timeout=FAILS_WITHIN_SECONDS)
    assert run.code != 0
    assert "slipway.local/nothing:0" in run.output
    assert apply().code == 0
