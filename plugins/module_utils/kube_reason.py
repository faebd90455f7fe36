"""Says in words why a Kubernetes workload does not run. Works on plain API objects (dicts) and knows no client."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Object = Mapping[str, Any]

# kind -> API path of its collection in a namespace
PATHS = {
    "Deployment": "/apis/apps/v1/namespaces/{namespace}/deployments",
    "StatefulSet": "/apis/apps/v1/namespaces/{namespace}/statefulsets",
    "DaemonSet": "/apis/apps/v1/namespaces/{namespace}/daemonsets",
    "Job": "/apis/batch/v1/namespaces/{namespace}/jobs",
    "Pod": "/api/v1/namespaces/{namespace}/pods",
}

_DONE = {"Job": "complete", "Pod": "ready"}
_SHOWN_PODS = 5
_SHOWN_EVENTS = 6
_SHOWN_CHARACTERS = 300
# Names that differ from pod to pod of the same workload: a hash or a number behind a dash, with what belongs to it.
_GENERATED = re.compile(r"[a-z0-9.]+(-[a-z0-9]+)+(_[a-z0-9-]+)?(\([0-9a-f-]+\))?")


@dataclass(frozen=True)
class State:
    """What keeps an object from being rolled out, or nothing. `final`: waiting longer will not help."""

    missing: str = ""
    final: bool = False

    @property
    def ready(self) -> bool:
        return not self.missing


@dataclass(frozen=True)
class Container:
    """The container to blame: where its log is and what became of it."""

    pod: str
    name: str
    state: str
    started: bool
    previous: bool


def wanted(kind: str) -> str:
    """What the object should be: the word for messages."""
    return _DONE.get(kind, "rolled out")


# --- is it there yet ------------------------------------------------------------------------------------------------


def state(kind: str, obj: Object | None) -> State:
    """Compares what the object asks for with what its controller reports."""
    if obj is None:
        return State("it does not exist")
    if obj["metadata"].get("deletionTimestamp"):
        return State("it is being deleted")
    if kind in ("Deployment", "StatefulSet", "DaemonSet"):
        generation = obj["metadata"].get("generation", 0)
        observed = _status(obj).get("observedGeneration", 0)
        if observed < generation:
            return State(f"its controller has not seen the last change (generation {generation}, observed {observed})")
    return _STATES[kind](obj)


def _deployment(obj: Object) -> State:
    replicas = obj["spec"].get("replicas", 1)
    status = _status(obj)
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    if updated < replicas:
        return State(f"{updated} of {replicas} pods are of the new version")
    if status.get("replicas", 0) > updated:
        return State(f"pods of the old version that still run: {status['replicas'] - updated}")
    if available < updated:
        return State(f"{available} of {replicas} pods are available")
    return State()


def _stateful_set(obj: Object) -> State:
    replicas = obj["spec"].get("replicas", 1)
    status = _status(obj)
    strategy = obj["spec"].get("updateStrategy", {})
    partition = strategy.get("rollingUpdate", {}).get("partition", 0)
    if strategy.get("type", "RollingUpdate") == "RollingUpdate" and partition < replicas:
        updated = status.get("updatedReplicas", 0)
        # updatedReplicas is dropped from the status of a set whose rollout is over.
        if status.get("currentRevision") != status.get("updateRevision") and updated < replicas - partition:
            return State(f"{updated} of {replicas - partition} pods are of the new version")
    available = status.get("availableReplicas", 0)
    if available < replicas:
        return State(f"{available} of {replicas} pods are available")
    return State()


def _daemon_set(obj: Object) -> State:
    status = _status(obj)
    desired = status.get("desiredNumberScheduled", 0)
    if desired == 0:
        return State("no node matches its selector and tolerations")
    if obj["spec"].get("updateStrategy", {}).get("type", "RollingUpdate") == "RollingUpdate":
        updated = status.get("updatedNumberScheduled", 0)
        if updated < desired:
            return State(f"{updated} of {desired} nodes run the new version")
    available = status.get("numberAvailable", 0)
    if available < desired:
        return State(f"its pod is available on {available} of {desired} nodes")
    return State()


def _job(obj: Object) -> State:
    status = _status(obj)
    for condition in status.get("conditions", []):
        if condition["status"] != "True":
            continue
        if condition["type"] == "Complete":
            return State()
        if condition["type"] == "Failed":
            return State(f"it has failed: {_because(condition)}", final=True)
    if obj["spec"].get("suspend"):
        return State("it is suspended")
    return State(f"active pods: {status.get('active', 0)}, failed: {status.get('failed', 0)}")


def _pod(obj: Object) -> State:
    status = _status(obj)
    phase = status.get("phase", "Pending")
    if phase == "Succeeded" or _condition(obj, "Ready").get("status") == "True":
        return State()
    return State(f"its phase is {phase}", final=phase == "Failed")


_STATES = {
    "Deployment": _deployment,
    "StatefulSet": _stateful_set,
    "DaemonSet": _daemon_set,
    "Job": _job,
    "Pod": _pod,
}


# --- why not --------------------------------------------------------------------------------------------------------


def selector(obj: Object) -> str | None:
    """Label selector of the object's pods, for a list call; nothing if it owns none by label."""
    found = obj.get("spec", {}).get("selector") or {}
    labels = dict(found.get("matchLabels") or {}) if isinstance(found, Mapping) else {}
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items())) or None


def conditions(obj: Object) -> list[str]:
    """Conditions that speak of trouble: the False ones, and those whose True is bad."""
    bad_if_true = {"ReplicaFailure", "Failed", "DisruptionTarget"}
    lines = []
    for condition in _status(obj).get("conditions", []):
        bad = condition["status"] == "True" if condition["type"] in bad_if_true else condition["status"] != "True"
        if bad and condition["type"] not in ("Complete", "FailureTarget", "SuccessCriteriaMet", "Suspended"):
            lines.append(f"{condition['type']} is {condition['status']}: {_because(condition)}")
    return lines


def unready(pods: Iterable[Object]) -> list[Object]:
    """The pods that do not serve, the youngest first: that is the one that the last change made."""
    waiting = [pod for pod in pods if not _pod(pod).ready]
    return sorted(waiting, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True)


def describe_pod(pod: Object) -> str:
    """One line: where the pod is and what each container that does not run is waiting for."""
    status = _status(pod)
    node = pod.get("spec", {}).get("nodeName")
    phase = "Terminating" if pod["metadata"].get("deletionTimestamp") else status.get("phase", "Pending")
    line = f"{pod['metadata']['name']}  {phase}" + (f" on {node}" if node else "")
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return f"{line}: {_because(scheduled)}"
    troubles = [text for _, text in _container_troubles(pod)]
    if not troubles and status.get("reason"):
        troubles = [f"{status['reason']}: {status.get('message', '')}".rstrip(": ")]
    return line + (": " + "; ".join(troubles) if troubles else "")


def failing_container(pods: Sequence[Object]) -> Container | None:
    """The first container with trouble in the youngest pods that are not ready."""
    for pod in pods:
        for status, text in _container_troubles(pod):
            current = status.get("state", {})
            restarted = status.get("restartCount", 0) > 0
            return Container(
                pod=pod["metadata"]["name"],
                name=status["name"],
                state=text,
                started=restarted or "running" in current or "terminated" in current,
                previous=restarted and "waiting" in current,
            )
    return None


def recent_events(events: Iterable[Object], names: Iterable[str], now: datetime) -> list[str]:
    """The last events about the named objects, warnings if there are any, oldest first, the same thing said once."""
    about = set(names)
    related = [event for event in events if _is_about(event.get("involvedObject", {}), about)]
    warnings = [event for event in related if event.get("type") == "Warning"]
    last: dict[tuple[str, str], Object] = {}
    times: dict[tuple[str, str], int] = {}
    for event in sorted(warnings or related, key=_event_time):
        message = str(event.get("message", "")).removeprefix("(combined from similar events): ")
        key = (str(event.get("reason")), _GENERATED.sub("*", message))
        last[key] = event
        times[key] = times.get(key, 0) + _event_count(event)
    chosen = sorted(last.items(), key=lambda item: _event_time(item[1]))[-_SHOWN_EVENTS:]
    return [_event_line(event, times[key], now) for key, event in chosen]


def next_command(kind: str, name: str, namespace: str, kubeconfig: str, bad: Sequence[Object]) -> str:
    """What to type to see more of what is wrong."""
    kubectl = f"kubectl --kubeconfig {kubeconfig} -n {namespace}"
    container = failing_container(bad)
    if container and container.started:
        previous = " --previous" if container.previous else ""
        return f"{kubectl} logs {container.pod} -c {container.name}{previous}"
    if bad:
        return f"{kubectl} describe pod {bad[0]['metadata']['name']}"
    return f"{kubectl} describe {kind.lower()} {name}"


def report(
    kind: str,
    name: str,
    namespace: str,
    *,
    kubeconfig: str,
    waited: float,
    found: State,
    obj: Object | None,
    pods: Sequence[Object],
    events: Sequence[Object],
    log: Sequence[str],
    now: datetime,
) -> str:
    """The whole block that a person reads when a wait has failed."""
    bad = unready(pods)
    container = failing_container(bad)
    head = f"{kind} {name} in namespace {namespace} is not {wanted(kind)} after {waited:.0f} s: {found.missing}"
    lines = [head]
    lines += _section("conditions", conditions(obj) if obj else [])
    shown = [describe_pod(pod) for pod in bad[:_SHOWN_PODS]]
    if len(bad) > _SHOWN_PODS:
        shown.append(f"and {len(bad) - _SHOWN_PODS} more")
    if obj and not pods and kind != "Pod":
        shown = ["none was created"]
    lines += _section("pods", shown)
    names = [name, *(pod["metadata"]["name"] for pod in bad)]
    lines += _section("events", recent_events(events, names, now))
    if container and log:
        lines += _section(f"last lines of container {container.name} of {container.pod}", list(log))
    lines.append(f"next: {next_command(kind, name, namespace, kubeconfig, bad)}")
    return "\n".join(lines)


# --- details --------------------------------------------------------------------------------------------------------


def _section(title: str, lines: list[str]) -> list[str]:
    return [f"{title}:", *(f"  {line}" for line in lines)] if lines else []


def _status(obj: Object) -> Mapping[str, Any]:
    return obj.get("status") or {}


def _condition(obj: Object, kind: str) -> Mapping[str, Any]:
    for condition in _status(obj).get("conditions", []):
        if condition["type"] == kind:
            return dict(condition)
    return {}


def _because(condition: Mapping[str, Any]) -> str:
    parts = [str(part) for part in (condition.get("reason"), condition.get("message")) if part]
    return _shorten(": ".join(parts)) or "no reason given"


def _container_troubles(pod: Object) -> list[tuple[Mapping[str, Any], str]]:
    status = _status(pod)
    troubles = []
    # A later container waits for the init containers; only the first one in trouble says something.
    for container in status.get("initContainerStatuses", []):
        current = container.get("state", {})
        if current.get("terminated", {}).get("exitCode") == 0 or container.get("started"):
            continue
        troubles.append((container, f"init container {container['name']} {_container_state(container)}"))
        return troubles
    for container in status.get("containerStatuses", []):
        if not container.get("ready"):
            troubles.append((container, f"container {container['name']} {_container_state(container)}"))
    return troubles


def _container_state(status: Mapping[str, Any]) -> str:
    current = status.get("state", {})
    if "waiting" in current:
        waiting = current["waiting"]
        text = f"waits: {waiting.get('reason', 'no reason given')}"
        message = str(waiting.get("message", ""))
        # The back-off message repeats pod and container; everything else in it is a cause.
        if message and not message.startswith("back-off"):
            text += f" ({_shorten(message)})"
    elif "terminated" in current:
        text = f"ended: {_exit(current['terminated'])}"
    else:
        text = "runs but is not ready"
    count = status.get("restartCount", 0)
    if count:
        last = status.get("lastState", {}).get("terminated")
        text += f", {count} restart{'s' if count > 1 else ''}" + (f", last {_exit(last)}" if last else "")
    return text


def _exit(terminated: Mapping[str, Any]) -> str:
    text = f"exit code {terminated.get('exitCode')}"
    if terminated.get("reason") not in (None, "Error", "Completed"):
        text += f" ({terminated['reason']})"
    return text


def _is_about(involved: Mapping[str, Any], names: set[str]) -> bool:
    name = str(involved.get("name", ""))
    if name in names:
        return True
    # The pods of a Deployment fail to come in the name of its ReplicaSet, those of a StatefulSet in that of a claim.
    if involved.get("kind") == "ReplicaSet":
        return name.rpartition("-")[0] in names
    return involved.get("kind") == "PersistentVolumeClaim" and any(name.endswith(f"-{owner}") for owner in names)


def _event_time(event: Object) -> str:
    series = event.get("series") or {}
    candidates = (
        series.get("lastObservedTime"),
        event.get("lastTimestamp"),
        event.get("eventTime"),
        event.get("firstTimestamp"),
        event["metadata"].get("creationTimestamp"),
    )
    return next((str(value) for value in candidates if value), "")


def _event_count(event: Object) -> int:
    return int((event.get("series") or {}).get("count") or event.get("count") or 1)


def _event_line(event: Object, count: int, now: datetime) -> str:
    involved = event.get("involvedObject", {})
    times = f" (x{count})" if count > 1 else ""
    message = _shorten(str(event.get("message", "")))
    what = f"{event.get('reason', '')}{times} {involved.get('kind', '')}/{involved.get('name', '')}: {message}"
    return f"{_age(_event_time(event), now)}  {what}"


def _shorten(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _SHOWN_CHARACTERS else words[:_SHOWN_CHARACTERS].rsplit(" ", 1)[0] + " ..."


def _age(when: str, now: datetime) -> str:
    try:
        moment = datetime.fromisoformat(when.replace("Z", "+00:00"))
    except ValueError:
        return "at an unknown time"
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return f"{max(0, int((now - moment).total_seconds()))} s ago"
