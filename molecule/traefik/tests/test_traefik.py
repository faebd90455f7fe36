"""The ingress as a browser meets it, on every node."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import ssl
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import kubernetes
import pytest
from cluster_client import Pods
from confinement import confined, confinements
from controller import playbook
from cryptography import x509
from https_client import ask, secure

pytestmark = pytest.mark.explain("ingress-nginx")

NODES = ["server-1", "agent-1", "agent-2"]
UNTRUSTED = ssl._create_unverified_context


@pytest.fixture(params=NODES)
def address(request: pytest.FixtureRequest, inventory: Any) -> str:
    """Return the address of each node in turn: the ingress listens on every one."""
    return str(inventory.address(request.param))


def legacy(minimum: ssl.TLSVersion, maximum: ssl.TLSVersion, ciphers: str = "ALL:@SECLEVEL=0") -> ssl.SSLContext:
    """Return a client of bygone days, that would agree to anything within these bounds."""
    context = UNTRUSTED()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version, context.maximum_version = minimum, maximum
    context.set_ciphers(ciphers)
    return context


def test_its_certificate_is_the_platforms(address: str, domain: str, trust: ssl.SSLContext) -> None:
    for name in (domain, f"www.{domain}"):
        with secure(address, name, trust) as connection:
            assert connection.version() == "TLSv1.3"


def test_who_does_not_know_the_ca_is_warned(address: str, domain: str) -> None:
    with pytest.raises(ssl.SSLCertVerificationError), secure(address, domain, ssl.create_default_context()):
        pass


def presented(address: str, name: str) -> x509.Certificate:
    """Return the certificate that a node presents for a name, believed or not."""
    with secure(address, name, UNTRUSTED()) as connection:
        return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")


def test_it_presents_the_certificate_that_its_issuer_made(
    address: str, domain: str, pods: Pods, secrets: dict[str, Any]
) -> None:
    made = pods.core.read_namespaced_secret("public-certificate", "ingress-nginx").data["tls.crt"]
    for name in (domain, f"demo.{domain}"):
        assert presented(address, name) == x509.load_pem_x509_certificates(base64.b64decode(made))[0], name
    # For what has none of its own, and until the issuer has made one, it has that of the secrets.
    default = x509.load_pem_x509_certificates(secrets["ingress_certificate"].encode())[0]
    assert presented(address, f"nobody.{domain}") == default


def test_http_leads_to_https(address: str, domain: str) -> None:
    connection = http.client.HTTPConnection(address, 80, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/api/v1/posts?limit=1", headers={"Host": domain})
        response = connection.getresponse()
        assert response.status in (301, 308)
        assert response.headers["Location"] == f"https://{domain}/api/v1/posts?limit=1"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1], ids=["1.0", "1.1"])
def test_old_tls_is_refused_by_the_server(address: str, domain: str, version: ssl.TLSVersion) -> None:
    refused = pytest.raises(ssl.SSLError, match=r"(?i)alert protocol version")
    with refused, secure(address, domain, legacy(version, version)):
        pass


def test_tls_1_2_is_served_with_forward_secrecy_only(address: str, domain: str) -> None:
    version = ssl.TLSVersion.TLSv1_2
    with secure(address, domain, legacy(version, version)) as connection:
        cipher = connection.cipher()
    assert cipher and cipher[0].startswith("ECDHE-")
    assert "GCM" in cipher[0] or "CHACHA20" in cipher[0]
    for weak in ("kRSA", "AES128-SHA:AES256-SHA", "ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA"):
        refused = pytest.raises(ssl.SSLError, match=r"(?i)handshake failure")
        with refused, secure(address, domain, legacy(version, version, f"{weak}:@SECLEVEL=0")):
            pass


def test_http_2_is_spoken(address: str, domain: str, state: Path) -> None:
    context = ssl.create_default_context(cafile=str(state / "ca.crt"))
    context.set_alpn_protocols(["h2", "http/1.1"])
    with secure(address, domain, context) as connection:
        assert connection.selected_alpn_protocol() == "h2"


def test_browsers_are_told_to_stay_with_https(address: str, domain: str, trust: ssl.SSLContext) -> None:
    for name in (domain, f"demo.{domain}"):
        assert ask(address, name, "/", trust).headers["Strict-Transport-Security"] == "max-age=31536000", name


def test_an_unknown_site_is_not_found(address: str, domain: str, trust: ssl.SSLContext) -> None:
    answer = ask(address, f"nobody.{domain}", "/", trust)
    assert answer.status == 404
    assert "server" not in {name.lower() for name in answer.headers}, "it tells what it is"
    assert b"traefik" not in answer.body.lower()


def test_the_api_the_page_and_demo_are_behind_it_and_nothing_else(
    address: str, domain: str, trust: ssl.SSLContext
) -> None:
    assert "items" in ask(address, domain, "/api/v1/posts", trust).json()
    assert ask(address, f"demo.{domain}", "/api/status", trust).status == 200
    # What is none of the API's is the page, also where Traefik itself has something of that name.
    for path in ("/", "/dashboard/", "/ping", "/apix", "/posts"):
        answer = ask(address, domain, path, trust)
        assert (answer.status, answer.headers["Content-Type"].split(";")[0]) == (200, "text/html"), path
        assert b'<div id="root">' in answer.body, path


def test_metrics_stay_inside(address: str, domain: str, trust: ssl.SSLContext) -> None:
    for path in ("/metrics", "/api/metrics", "/api/v1/metrics"):
        answer = ask(address, domain, path, trust)
        assert answer.status == 404, path
        assert b"# HELP" not in answer.body


@pytest.mark.parametrize("port", [8000, 8080, 8443])
def test_its_own_ports_are_not_the_hosts(address: str, port: int) -> None:
    with pytest.raises(OSError):
        socket.create_connection((address, port), timeout=3).close()


def test_one_runs_on_every_node(pods: Pods) -> None:
    found = pods.core.list_namespaced_pod("ingress-nginx", label_selector="app.kubernetes.io/name=traefik").items
    assert sorted(pod.spec.node_name for pod in found) == sorted(NODES)


def test_it_is_confined(pods: Pods, hosts: dict[str, Any]) -> None:
    found = confinements(pods, hosts, "ingress-nginx", "app.kubernetes.io/name=traefik")
    assert found == dict.fromkeys(found, confined(10001))


def test_it_knows_the_clients_own_address(pods: Pods, inventory: Any, domain: str, trust: ssl.SSLContext) -> None:
    node = inventory.address("agent-1")
    mark = f"/molecule-{time.time_ns()}"
    with secure(node, domain, trust) as connection:
        mine = connection.getsockname()[0]
    ask(node, domain, mark, trust)
    [name] = [
        pod.metadata.name
        for pod in pods.core.list_namespaced_pod("ingress-nginx", label_selector="app.kubernetes.io/name=traefik").items
        if pod.spec.node_name == "agent-1"
    ]

    def logged() -> list[str]:
        log = pods.core.read_namespaced_pod_log(name, "ingress-nginx", since_seconds=600)
        return [json.loads(line)["ClientHost"] for line in log.splitlines() if mark in line]

    assert pods.eventually(logged, [mine]) == [mine]


def test_it_may_read_no_secret_of_the_data_stores(pods: Pods) -> None:
    may = partial(pods.may, "ingress-nginx:traefik", "get")
    assert [n for n in ("infrastructure", "auth", "image-storage", "kube-system") if may("secrets", n)] == []
    assert may("services", "api")


@pytest.fixture
def asking(pods: Pods) -> Iterator[Any]:
    """Return a function that makes an Ingress to `demo` with annotations that a service.yml can ask for."""
    networking: Any = kubernetes.client.NetworkingV1Api(pods.api)
    backend = {"service": {"name": "demo", "port": {"name": "http"}}}

    def forget() -> None:
        with contextlib.suppress(kubernetes.client.ApiException):
            networking.delete_namespaced_ingress("molecule-traefik", "sre-app")

    def make(host: str, **annotations: str) -> None:
        named = {f"nginx.ingress.kubernetes.io/{name.replace('_', '-')}": value for name, value in annotations.items()}
        rule = {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
        ingress = {
            "metadata": {"name": "molecule-traefik", "annotations": named},
            "spec": {"ingressClassName": "nginx", "tls": [{"hosts": [host]}], "rules": [rule]},
        }
        networking.create_namespaced_ingress("sre-app", ingress)

    forget()
    yield make
    forget()


def test_a_service_can_have_clients_come_back_to_their_pod(
    asking: Any, pods: Pods, inventory: Any, domain: str, trust: ssl.SSLContext
) -> None:
    host, node = f"sticky.{domain}", inventory.address("agent-1")
    asking(host, affinity="cookie", session_cookie_name="demo-pod", session_cookie_secure="true")
    assert pods.eventually(lambda: ask(node, host, "/api/status", trust).status, 200) == 200
    cookie = ask(node, host, "/api/status", trust).headers["Set-Cookie"]
    assert cookie.startswith("demo-pod=")
    assert "secure" in cookie.lower()


def test_a_service_can_let_pages_of_other_sites_ask_it(
    asking: Any, pods: Pods, inventory: Any, domain: str, trust: ssl.SSLContext
) -> None:
    host, node = f"cors.{domain}", inventory.address("agent-1")
    asking(host, enable_cors="true", cors_allow_origin="https://a.test,https://b.test", cors_allow_credentials="false")
    assert pods.eventually(lambda: ask(node, host, "/api/status", trust).status, 200) == 200

    def allowed(origin: str) -> tuple[str | None, str | None]:
        headers = ask(node, host, "/api/status", trust, headers={"Origin": origin}).headers
        return headers.get("Access-Control-Allow-Origin"), headers.get("Access-Control-Allow-Credentials")

    assert allowed("https://b.test") == ("https://b.test", None)
    assert allowed("https://c.test") == (None, None)


def test_limits_are_set_for_all_services_at_once(
    pods: Pods, inventory: Any, domain: str, trust: ssl.SSLContext
) -> None:
    node, host = inventory.address("agent-1"), f"demo.{domain}"
    limits = {"ingress_rate_limit": 5, "ingress_rate_burst": 10, "ingress_body_size": "64Ki"}
    try:
        run = playbook("site.yml", "--tags", "traefik", variables=limits)
        assert run.code == 0, run.output
        burst = Counter(ask(node, host, "/api/status", trust).status for _ in range(60))
        assert set(burst) == {200, 429}
        assert burst[200] >= 10
        # Another node counts by itself.
        other = inventory.address("agent-2")
        large, small = ({"filler": "x" * size} for size in (128 * 1024, 1024))
        assert ask(other, host, "/api/status", trust, content=large).status == 413
        assert ask(other, host, "/api/status", trust, content=small).status not in (413, 429)
    finally:
        run = playbook("site.yml", "--tags", "traefik")
    assert run.code == 0, run.output
    assert {ask(node, host, "/api/status", trust).status for _ in range(60)} == {200}
