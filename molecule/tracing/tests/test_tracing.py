"""Traces as those who look for them meet them: one request of a user is one trace, with its lines in Loki. What is
kept and what is not is shown by a second installation, in a namespace of its own."""

from __future__ import annotations

import secrets as random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_client import Client, Pods
from confinement import confined, confinements
from controller import Run, apply_role
from smoke_check import Check, Target, jpeg, multipart
from telemetry import Telemetry

NAMESPACE, OWN = "monitoring", "molecule-tracing-own"
JAEGER, SAMPLER = "app.kubernetes.io/name=jaeger", "app.kubernetes.io/name=otel-sampler"

pytestmark = [pytest.mark.explain(NAMESPACE), pytest.mark.explain(OWN)]


@pytest.fixture
def telemetry(client: Client) -> Telemetry:
    """Return the way to ask Jaeger and Loki."""
    return Telemetry(client)


# --- the platform's


@pytest.fixture(scope="module")
def uploaded(state: Path, domain: str, secrets: dict[str, Any], inventory: Any) -> str:
    """Return the id of a request that uploaded an image, as a user does."""
    addresses = tuple(inventory.address(host) for host in inventory.hosts())
    target = Target(f"https://{domain}", state / "ca.crt", addresses, password=secrets["smoke_password"])
    check = Check(target)
    check.log_in()
    body, kind = multipart("file", "molecule.jpg", "image/jpeg", jpeg())
    hint = "make logs SERVICE=image"
    answer = check.client.request(
        "POST", "/api/v1/images", wanted=201, hint=hint, token=check.token, body=body, content_type=kind
    )
    name = answer.json()["filename"]
    check.client.request("DELETE", f"/api/v1/images/{name}", wanted=204, hint=hint, token=check.token)
    check.client.close()
    return str(answer.headers["X-Request-Id"])


@pytest.fixture(scope="module")
def trace_id(uploaded: str, client: Client, pods: Pods) -> str:
    """Return the id of the trace that the lines of that request name."""
    telemetry = Telemetry(client)

    def named() -> set[str]:
        found = telemetry.lines(f'{{k8s_namespace_name="api"}} | request_id="{uploaded}"')
        return {labels.get("trace_id", "") for labels, _ in found}

    pods.eventually(lambda: len(named()), 1)
    [one] = named()
    assert len(one) == 32
    return one


@pytest.fixture(scope="module")
def spans(trace_id: str, client: Client, pods: Pods) -> list[dict[str, Any]]:
    """Return the spans of that trace, once all of its services have told."""
    telemetry = Telemetry(client)
    wanted = {"traefik", "api", "image"}
    pods.eventually(lambda: {span["service"] for span in telemetry.spans(trace_id)} >= wanted, True)
    # The batches of one service travel apart from those of another.
    time.sleep(3)
    return telemetry.spans(trace_id)


def test_an_upload_is_one_trace_from_the_ingress_to_the_stores(spans: list[dict[str, Any]]) -> None:
    # The gateway asks for a new service token now and then.
    assert {span["service"] for span in spans} - {"auth"} == {"traefik", "api", "image"}
    served = {(s["service"], s["name"]) for s in spans if s["tags"].get("span.kind") == "server"}
    assert {("api", "POST /api/v1/images"), ("image", "POST /upload")} <= served
    calls = [span["tags"] for span in spans if span["service"] == "image" and span["tags"].get("span.kind") == "client"]
    assert "postgresql" in {tags.get("db.system.name", tags.get("db.system")) for tags in calls}
    put = [tags["url.full"] for tags in calls if tags.get("http.request.method") == "PUT"]
    assert [url.rpartition("/")[0] for url in put] == ["https://minio.infrastructure.svc:9000/images/originals"]


def test_no_span_of_it_is_missing(spans: list[dict[str, Any]]) -> None:
    known = {span["id"] for span in spans}
    assert [span["service"] for span in spans if not span["parent"]] == ["traefik"]
    assert [span for span in spans if span["parent"] and span["parent"] not in known] == []


def test_a_span_says_which_pod_it_is_of(spans: list[dict[str, Any]], pods: Pods) -> None:
    running = {
        *pods.names("api", "app.kubernetes.io/name=api"),
        *pods.names("image-storage", "app.kubernetes.io/name=image"),
    }
    told = {span["process"].get("k8s.pod.name") for span in spans if span["service"] in ("api", "image")}
    assert told <= running
    assert len(told) == 2


def test_its_lines_are_found_by_the_same_id(trace_id: str, telemetry: Telemetry, pods: Pods) -> None:
    def services() -> set[str]:
        found = telemetry.lines(f'{{k8s_namespace_name=~".+"}} | trace_id="{trace_id}"')
        return {labels["service_name"] for labels, _ in found}

    wanted = {"traefik", "api", "image"}
    assert pods.eventually(lambda: services() >= wanted, True), services()


def test_both_are_confined(pods: Pods, hosts: dict[str, Any]) -> None:
    for selector, user in ((JAEGER, 10008), (SAMPLER, 10009)):
        found = confinements(pods, hosts, NAMESPACE, selector)
        assert found == dict.fromkeys(found, confined(user))


def test_traces_are_kept_as_long_as_the_inventory_says(cluster: Any, inventory: Any) -> None:
    """Jaeger has no API that tells; this is what it was started with."""
    settings = cluster.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/jaeger")["data"]["jaeger.yml"]
    days = int(str(inventory.variable("tracing_retention")).removesuffix("d"))
    assert f"spans: {days * 24}h" in settings


# --- one of the test's own


class Installation:
    """A second Jaeger and sampler, which keeps nothing but what failed or was slow."""

    def __init__(self, state: Path, images: dict[str, str], client: Client) -> None:
        self.telemetry = Telemetry(client, jaeger=f"http://jaeger.{OWN}.svc:16686")
        self.variables = {
            "tracing_kubeconfig": str(state / "kubeconfig"),
            "tracing_image": images["jaeger"],
            "tracing_sampler_image": images["otel-sampler"],
            "tracing_namespace": OWN,
            "tracing_kept_percent": 0,
            "tracing_slow_seconds": 0.5,
            "tracing_decision_seconds": 2,
            "tracing_storage_size": "1Gi",
        }

    def apply(self, *arguments: str, **variables: Any) -> Run:
        run = apply_role("tracing", *arguments, variables=self.variables | variables)
        assert run.code == 0, run.output
        return run

    def send(self, pods: Pods, seconds: float, failed: bool) -> str:
        """Give the sampler a trace of two spans, of two services; return its id."""
        [pod] = pods.names(OWN, SAMPLER)
        address = pods.core.read_namespaced_pod(pod, OWN).status.pod_ip
        trace, first, second, now = random.token_hex(16), random.token_hex(8), random.token_hex(8), time.time_ns()
        for service, span, parent, status in (("front", first, "", 0), ("back", second, first, 2 if failed else 0)):
            made = {
                "traceId": trace,
                "spanId": span,
                "parentSpanId": parent,
                "name": "GET /",
                "kind": 2,
                "startTimeUnixNano": str(now - int(seconds * 1e9)),
                "endTimeUnixNano": str(now),
                "status": {"code": status},
            }
            resource = {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]}
            content = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [made]}]}]}
            code, text = self.telemetry.ask(f"http://{address}:4318/v1/traces", "POST", content)
            assert code == 200, text
        return trace

    def kept(self, trace: str) -> list[str]:
        """Return the services of the spans of a trace that are kept."""
        return sorted(span["service"] for span in self.telemetry.spans(trace))


@pytest.fixture(scope="module")
def own(pods: Pods, state: Path, client: Client) -> Iterator[Installation]:
    """Return a second installation, made from nothing."""
    images = {
        name: pods.core.list_namespaced_pod(NAMESPACE, label_selector=f"app.kubernetes.io/name={name}")
        .items[0]
        .spec.containers[0]
        .image
        for name in ("jaeger", "otel-sampler")
    }
    with pods.namespace(OWN):
        installation = Installation(state, images, client)
        installation.apply("--check")
        assert pods.core.list_namespaced_service(OWN).items == []
        installation.apply()
        yield installation


def test_a_second_run_changes_nothing(own: Installation) -> None:
    assert own.apply().changed == 0


def test_what_failed_or_was_slow_is_kept_whole_and_the_rest_by_its_share(own: Installation, pods: Pods) -> None:
    failed, slow = own.send(pods, 0.01, failed=True), own.send(pods, 0.6, failed=False)
    quick = [own.send(pods, 0.01, failed=False) for _ in range(3)]
    last = own.send(pods, 0.01, failed=True)
    wanted = [["back", "front"]] * 3
    assert pods.eventually(lambda: [own.kept(trace) for trace in (failed, slow, last)], wanted) == wanted
    # They were decided about before the last one was.
    assert [own.kept(trace) for trace in quick] == [[], [], []]


def test_traces_outlive_the_pod(own: Installation, pods: Pods) -> None:
    trace = own.send(pods, 0.01, failed=True)
    assert pods.eventually(lambda: own.kept(trace), ["back", "front"]) == ["back", "front"]
    killed = pods.core.read_namespaced_pod("jaeger-0", OWN).metadata.uid
    pods.core.delete_namespaced_pod("jaeger-0", OWN)
    pods.wait_ready(OWN, "jaeger-0", other_than=killed)
    assert pods.eventually(lambda: own.kept(trace), ["back", "front"]) == ["back", "front"]


def test_traces_wait_while_jaeger_is_away(own: Installation, pods: Pods) -> None:
    killed = pods.core.read_namespaced_pod("jaeger-0", OWN).metadata.uid
    pods.core.delete_namespaced_pod("jaeger-0", OWN)
    trace = own.send(pods, 0.01, failed=True)
    pods.wait_ready(OWN, "jaeger-0", other_than=killed)
    assert pods.eventually(lambda: own.kept(trace), ["back", "front"]) == ["back", "front"]


def test_uninstalled_with_its_data_nothing_is_left(own: Installation, pods: Pods) -> None:
    own.apply(applied_tasks="uninstall", tracing_uninstall_data=True)
    assert pods.core.list_namespaced_pod(OWN).items == []
    assert pods.core.list_namespaced_persistent_volume_claim(OWN).items == []
    assert pods.core.list_namespaced_service(OWN).items == []
