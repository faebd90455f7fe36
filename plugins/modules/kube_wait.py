#!/usr/bin/python
"""Waits until workloads run, and says why when they do not."""

from __future__ import annotations

import json
import time
import traceback
from datetime import UTC, datetime
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.kube_reason import PATHS, State, failing_container, report, selector, state, unready

try:
    from kubernetes.client import ApiClient, ApiException
    from kubernetes.config import ConfigException, new_client_from_config
    from urllib3.exceptions import HTTPError
    from urllib3.exceptions import SSLError as CertificateError

    IMPORT_ERROR = ""
except ImportError:
    IMPORT_ERROR = traceback.format_exc()

DOCUMENTATION = r"""
module: kube_wait
short_description: Waits until workloads run, and says why when they do not
description:
  - Waits until every named Deployment, StatefulSet or DaemonSet is rolled out, every Job complete, every Pod ready.
  - A wait that fails prints the unready conditions, the pods with what they wait for, the last events, the last log
    lines of the failing container and the next command to type.
  - Changes nothing. In check mode it returns at once, because nothing that it would wait for was started.
options:
  kubeconfig:
    description: Kubeconfig of the cluster.
    type: path
    required: true
  kind:
    description: Kind of the object; with O(name) and O(namespace) the short form of O(resources).
    type: str
    choices: [Deployment, StatefulSet, DaemonSet, Job, Pod]
  name:
    description: Name of the object.
    type: str
  namespace:
    description: Namespace of the object.
    type: str
  resources:
    description: Several objects, waited for side by side.
    type: list
    elements: dict
    default: []
    suboptions:
      kind:
        description: Kind of the object.
        type: str
        required: true
        choices: [Deployment, StatefulSet, DaemonSet, Job, Pod]
      name:
        description: Name of the object.
        type: str
        required: true
      namespace:
        description: Namespace of the object.
        type: str
        required: true
      timeout:
        description: Seconds that this object may take; O(timeout) if not given.
        type: int
  timeout:
    description: Seconds that each object may take, counted from the start of the task.
    type: int
    default: 180
  log_lines:
    description: How many lines of the failing container's log to show.
    type: int
    default: 15
author:
  - slipway
"""

EXAMPLES = r"""
- name: Wait for the gateway
  kube_wait:
    kubeconfig: "{{ slipway_kubeconfig }}"
    kind: Deployment
    name: api
    namespace: api
    timeout: 120
"""

RETURN = r"""
waited:
  description: Seconds until the last object was ready.
  type: float
  returned: always
"""

INTERVAL = 1.0
REQUEST_TIMEOUT = 10
# A container without a readiness probe counts as ready in the moment between its start and its crash, so a rollout
# has to be seen several times in a row. What is complete stays complete.
LOOKS = {"Deployment": 3, "StatefulSet": 3, "DaemonSet": 3, "Job": 1, "Pod": 1}


class Cluster:
    """Plain JSON from the API: the typed models would cost more than all that this module asks for."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def _read(self, path: str, query: dict[str, Any]) -> bytes:
        request = self._client.param_serialize(
            "GET",
            path,
            query_params=list(query.items()),
            header_params={"Accept": "application/json, */*"},
            auth_settings=["BearerToken"],
        )
        answer = self._client.call_api(*request, _request_timeout=REQUEST_TIMEOUT)
        body: bytes = answer.read()  # type: ignore[no-untyped-call]
        if answer.status >= 400:
            raise ApiException(status=answer.status, reason=body.decode(errors="replace"))
        return body

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self._read(path, query))
        return result

    def find(self, kind: str, name: str, namespace: str) -> dict[str, Any] | None:
        try:
            return self.get(f"{PATHS[kind].format(namespace=namespace)}/{name}")
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    def pods(self, kind: str, obj: dict[str, Any]) -> list[dict[str, Any]]:
        if kind == "Pod":
            return [obj]
        labels = selector(obj)
        if not labels:
            return []
        path = PATHS["Pod"].format(namespace=obj["metadata"]["namespace"])
        return list(self.get(path, labelSelector=labels).get("items", []))

    def log(self, namespace: str, pod: str, container: str, lines: int, previous: bool) -> list[str]:
        path = f"{PATHS['Pod'].format(namespace=namespace)}/{pod}/log"
        query = {"container": container, "tailLines": lines}
        try:
            text = self._read(path, query | {"previous": "true"} if previous else query)
        except ApiException:
            # The earlier run's log may be gone already; the kubelet may not answer at all.
            return self.log(namespace, pod, container, lines, previous=False) if previous else []
        return text.decode(errors="replace").splitlines()


def explain(cluster: Cluster, target: dict[str, Any], found: State, waited: float, options: dict[str, Any]) -> str:
    kind, name, namespace = target["kind"], target["name"], target["namespace"]
    obj = cluster.find(kind, name, namespace)
    pods = cluster.pods(kind, obj) if obj else []
    container = failing_container(unready(pods))
    log = (
        cluster.log(namespace, container.pod, container.name, options["log_lines"], container.previous)
        if container and container.started
        else []
    )
    text: str = report(
        kind,
        name,
        namespace,
        kubeconfig=options["kubeconfig"],
        waited=waited,
        found=found,
        obj=obj,
        pods=pods,
        events=cluster.get(f"/api/v1/namespaces/{namespace}/events", limit=1000).get("items", []),
        log=log,
        now=datetime.now(UTC),
    )
    return text


def wait(cluster: Cluster, targets: list[dict[str, Any]], options: dict[str, Any]) -> tuple[float, str]:
    """Returns how long it took and, if it failed, what is wrong."""
    start = time.monotonic()
    waiting = [(target, 0) for target in targets]
    while True:
        waited = time.monotonic() - start
        problems, still = [], []
        for target, seen in waiting:
            try:
                found = state(target["kind"], cluster.find(target["kind"], target["name"], target["namespace"]))
            except (ApiException, HTTPError, OSError) as error:
                # An API server that restarts is one of the things that a wait has to outlive; a refusal is not.
                cause = getattr(error, "reason", None)
                refused = getattr(error, "status", None) in (401, 403) or isinstance(cause, CertificateError)
                found = State(f"the API server does not answer: {one_line(error)}", final=refused)
            if found.ready:
                if seen + 1 < LOOKS[target["kind"]]:
                    still.append((target, seen + 1))
                continue
            late = waited >= (target.get("timeout") or options["timeout"])
            if found.final or late:
                problems.append((target, found))
            else:
                still.append((target, 0))
        if problems:
            return waited, "\n\n".join(safely(cluster, target, found, waited, options) for target, found in problems)
        if not still:
            return waited, ""
        waiting = still
        time.sleep(INTERVAL)


def safely(cluster: Cluster, target: dict[str, Any], found: State, waited: float, options: dict[str, Any]) -> str:
    """The explanation needs the API, which may be the thing that is gone."""
    try:
        return explain(cluster, target, found, waited, options)
    except (ApiException, HTTPError, OSError):
        where = f"{target['kind']} {target['name']} in namespace {target['namespace']}"
        command = f"kubectl --kubeconfig {options['kubeconfig']} get --raw /readyz"
        return f"{where} is not ready after {waited:.0f} s: {found.missing}\nnext: {command}"


def one_line(error: BaseException) -> str:
    text = getattr(error, "reason", None) or error
    return " ".join(str(text).split())[:300]


def main() -> None:
    kinds = sorted(PATHS)
    target: dict[str, dict[str, Any]] = {
        "kind": {"type": "str", "choices": kinds},
        "name": {"type": "str"},
        "namespace": {"type": "str"},
    }
    module = AnsibleModule(
        argument_spec={
            **target,
            "kubeconfig": {"type": "path", "required": True},
            "resources": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    **{key: {**value, "required": True} for key, value in target.items()},
                    "timeout": {"type": "int"},
                },
            },
            "timeout": {"type": "int", "default": 180},
            "log_lines": {"type": "int", "default": 15},
        },
        required_together=[("kind", "name", "namespace")],
        required_one_of=[("kind", "resources")],
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False, waited=0.0)
    if IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("kubernetes"), exception=IMPORT_ERROR)

    options = module.params
    targets = list(options["resources"])
    if options["kind"]:
        targets.append({key: options[key] for key in target})
    try:
        client = new_client_from_config(config_file=options["kubeconfig"])  # type: ignore[no-untyped-call]
    except (ConfigException, OSError) as error:
        module.fail_json(msg=f"{options['kubeconfig']}: {one_line(error)}")
    # The wait decides for itself how long to try.
    client.configuration.retries = False
    waited, problem = wait(Cluster(client), targets, options)
    if problem:
        module.fail_json(msg=problem, waited=round(waited, 1))
    module.exit_json(changed=False, waited=round(waited, 1))


if __name__ == "__main__":
    main()
