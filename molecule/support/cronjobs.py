"""Runs now what a CronJob does at fixed times."""

from __future__ import annotations

import contextlib
from typing import Any

from cluster_client import Pods
from kubernetes.client import ApiException, BatchV1Api


def run_now(pods: Pods, cronjob: Any, seconds: float = 120) -> str:
    """Run the command of a CronJob in a Job of the test's own, wait until it has succeeded; return what it printed."""
    batch: Any = BatchV1Api(pods.api)
    namespace, name = cronjob.metadata.namespace, f"molecule-{cronjob.metadata.name}"

    def succeeded() -> list[int]:
        jobs = batch.list_namespaced_job(namespace, field_selector=f"metadata.name={name}").items
        return [job.status.succeeded or 0 for job in jobs]

    def printed() -> str:
        made = pods.core.list_namespaced_pod(namespace, label_selector=f"batch.kubernetes.io/job-name={name}").items
        return "".join(pods.core.read_namespaced_pod_log(pod.metadata.name, namespace) for pod in made)

    def remove() -> None:
        with contextlib.suppress(ApiException):
            batch.delete_namespaced_job(name, namespace, propagation_policy="Background")
        assert pods.eventually(succeeded, []) == []

    remove()  # what a run that was broken off has left
    batch.create_namespaced_job(namespace, {"metadata": {"name": name}, "spec": cronjob.spec.job_template.spec})
    try:
        assert pods.eventually(succeeded, [1], seconds) == [1], printed()
        return printed()
    finally:
        remove()
