"""What a failed wait says, on objects that a real API server gave (tests/unit/recorded/workloads.json)."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "plugins" / "module_utils"))

import kube_reason  # noqa: E402

RECORDED: dict[str, dict[str, Any]] = json.loads((HERE / "recorded" / "workloads.json").read_text(encoding="utf-8"))
KUBECONFIG = "/state/kubeconfig"
AFTERWARDS = datetime(2026, 11, 21, 8, 20, tzinfo=UTC)


def state(name: str, **status: Any) -> kube_reason.State:
    case = RECORDED[name]
    obj = {**case["object"], "status": {**case["object"]["status"], **status}}
    return kube_reason.state(case["kind"], obj)


def report(name: str) -> list[str]:
    case = RECORDED[name]
    metadata = case["object"]["metadata"]
    text = kube_reason.report(
        case["kind"],
        metadata["name"],
        metadata["namespace"],
        kubeconfig=KUBECONFIG,
        waited=120.4,
        found=kube_reason.state(case["kind"], case["object"]),
        obj=case["object"],
        pods=case["pods"],
        events=case["events"],
        log=case["log"],
        now=AFTERWARDS,
    )
    return text.splitlines()


def section(lines: list[str], title: str) -> list[str]:
    """The indented lines under a title."""
    start = next(number for number, line in enumerate(lines) if line.startswith(title)) + 1
    found = []
    for line in lines[start:]:
        if not line.startswith("  "):
            break
        found.append(line.strip())
    return found


@pytest.mark.parametrize("name", ["good", "running-statefulset", "running-daemonset", "complete-job"])
def test_what_runs_is_ready(name: str) -> None:
    assert state(name).ready


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("crash", "0 of 2 pods are available"),
        ("pull", "0 of 1 pods are available"),
        ("unready", "0 of 1 pods are available"),
        ("init", "its pod is available on 0 of 1 nodes"),
        ("forbidden", "0 of 1 pods are of the new version"),
    ],
)
def test_what_is_missing(name: str, missing: str) -> None:
    found = state(name)
    assert (found.missing, found.final) == (missing, False)


def test_a_failed_job_is_final() -> None:
    found = state("migrate")
    assert found.missing == "it has failed: BackoffLimitExceeded: Job has reached the specified backoff limit"
    assert found.final


def test_a_running_job_is_waited_for() -> None:
    found = state("complete-job", conditions=[], active=1, failed=2)
    assert (found.missing, found.final) == ("active pods: 1, failed: 2", False)


def test_an_object_that_is_not_there_may_still_come() -> None:
    found = kube_reason.state("Deployment", None)
    assert (found.missing, found.final) == ("it does not exist", False)


def test_a_status_of_before_the_change_counts_for_nothing() -> None:
    case = RECORDED["good"]["object"]
    changed = {**case, "metadata": {**case["metadata"], "generation": 7}}
    assert "has not seen the last change" in kube_reason.state("Deployment", changed).missing


@pytest.mark.parametrize(
    ("name", "status", "missing"),
    [
        ("good", {"replicas": 3}, "pods of the old version that still run: 2"),
        ("good", {"updatedReplicas": 0}, "0 of 1 pods are of the new version"),
        (
            "running-statefulset",
            {"updateRevision": "postgres-new", "updatedReplicas": 0},
            "0 of 1 pods are of the new version",
        ),
        ("running-daemonset", {"updatedNumberScheduled": 1}, "1 of 3 nodes run the new version"),
        ("running-daemonset", {"desiredNumberScheduled": 0}, "no node matches its selector and tolerations"),
    ],
)
def test_a_rollout_is_followed_to_its_end(name: str, status: dict[str, Any], missing: str) -> None:
    assert state(name, **status).missing == missing


def test_a_crashing_container_shows_its_last_words() -> None:
    lines = report("crash")
    assert (
        lines[0]
        == "Deployment crash in namespace slipway-trial is not rolled out after 120 s: 0 of 2 pods are available"
    )
    assert section(lines, "conditions:") == [
        "Available is False: MinimumReplicasUnavailable: Deployment does not have minimum availability."
    ]
    first, second = section(lines, "pods:")
    assert "container crash" in first
    assert "exit code 3" in first
    assert "restarts" in second
    assert section(lines, "last lines of container crash of crash-") == [
        "starting",
        "DATABASE_HOST: found nothing, wanted the address of Postgres",
    ]
    name = RECORDED["crash"]["pods"][0]["metadata"]["name"]
    assert lines[-1].startswith(f"next: kubectl --kubeconfig {KUBECONFIG} -n slipway-trial logs {name} -c crash")


def test_the_same_event_of_several_pods_is_said_once() -> None:
    [event] = section(report("crash"), "events:")
    assert "BackOff (x" in event
    [event] = section(report("forbidden"), "events:")
    assert "FailedCreate (x" in event
    assert 'violates PodSecurity "restricted:v1.36"' in event
    assert len(event) < 420


def test_a_missing_image_is_named() -> None:
    lines = report("pull")
    [pod] = section(lines, "pods:")
    assert 'ErrImageNeverPull (Container image "slipway.local/nothing:1.2.3" is not present' in pod
    assert " describe pod pull-" in lines[-1]
    assert not any(line.startswith("last lines") for line in lines)


def test_a_pod_without_a_node_says_why() -> None:
    [pod] = section(report("big"), "pods:")
    assert pod.startswith("big-")
    assert "Pending: Unschedulable: 0/3 nodes are available: 3 Insufficient memory." in pod


def test_a_failing_probe_is_shown_with_the_log_of_what_runs() -> None:
    lines = report("unready")
    assert section(lines, "pods:") == ["unready-0  Running on agent-2: container unready runs but is not ready"]
    assert any("Readiness probe failed: not yet" in event for event in section(lines, "events:"))
    assert section(lines, "last lines") == ["waiting for the leader"]


def test_the_init_container_is_to_blame_and_not_the_one_behind_it() -> None:
    lines = report("init")
    [pod] = section(lines, "pods:")
    assert "init container prepare" in pod
    assert "main" not in pod
    assert section(lines, "last lines of container prepare of init-") == ["no certificate"]


def test_a_pod_that_was_never_made_is_explained_by_its_owner() -> None:
    lines = report("forbidden")
    assert section(lines, "pods:") == ["none was created"]
    assert any(line.startswith("ReplicaFailure is True: FailedCreate") for line in section(lines, "conditions:"))
    assert lines[-1] == f"next: kubectl --kubeconfig {KUBECONFIG} -n cert-manager describe deployment forbidden"


def test_a_failed_job_shows_its_log_and_one_condition() -> None:
    lines = report("migrate")
    assert section(lines, "conditions:") == [
        "Failed is True: BackoffLimitExceeded: Job has reached the specified backoff limit"
    ]
    assert section(lines, "last lines") == ["migration 2 failed: syntax error"]


def test_events_of_others_are_left_out() -> None:
    stranger = {**RECORDED["crash"]["events"][0], "involvedObject": {"kind": "Pod", "name": "somebody-else"}}
    assert kube_reason.recent_events([stranger], ["crash"], AFTERWARDS) == []


def test_selector_of_a_pod_list() -> None:
    assert kube_reason.selector(RECORDED["crash"]["object"]) == "app=crash"
    assert kube_reason.selector({"spec": {}}) is None
