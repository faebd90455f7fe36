"""Certificates as those who ask for them and those who check them meet them; the ACME server is the tests' Pebble."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import kubernetes
import pytest
from acme import Acme, pebble
from cluster_client import Client, Pods
from confinement import confined, confinements
from controller import Inventory, apply_role
from cryptography import x509
from exposition import metrics
from https_client import ask, secure
from leaks import leaked

NAMESPACE, OWN, ACME = "cert-manager", "molecule-cert-manager-own", "molecule-cert-manager-acme"
PROGRAMS = ["cert-manager", "cert-manager-webhook", "cert-manager-cainjector"]
# A namespace whose Ingress objects are served, and a service in it.
SITE_NAMESPACE, SITE_SERVICE, SITE_PATH = "sre-app", "demo", "/api/status"
INGRESS, ISSUER = "molecule-cert-manager", "molecule-acme"
RENEWAL_SECONDS = 240

pytestmark = [pytest.mark.explain(NAMESPACE), pytest.mark.explain(ACME), pytest.mark.explain(SITE_NAMESPACE)]


class Kinds:
    """cert-manager's objects."""

    def __init__(self, pods: Pods) -> None:
        self.pods = pods
        self.api: Any = kubernetes.client.CustomObjectsApi(pods.api)

    def create(self, namespace: str, name: str, **spec: Any) -> None:
        """Ask for a certificate, of the platform's CA unless another issuer is named."""
        issuer = {"name": "platform-ca", "kind": "ClusterIssuer", "group": "cert-manager.io"}
        certificate = {
            "apiVersion": "cert-manager.io/v1",
            "kind": "Certificate",
            "metadata": {"name": name},
            "spec": {"secretName": name, "issuerRef": issuer, **spec},
        }
        self.api.create_namespaced_custom_object("cert-manager.io", "v1", namespace, "certificates", certificate)

    def certificate(self, namespace: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api.get_namespaced_custom_object(
            "cert-manager.io", "v1", namespace, "certificates", name
        )
        return found

    def ready(self, namespace: str, name: str) -> str:
        """Wait for a certificate; return True, or why there is none."""

        def look() -> str:
            with contextlib.suppress(kubernetes.client.ApiException):
                conditions = self.certificate(namespace, name).get("status", {}).get("conditions", [])
                for condition in conditions:
                    if condition["type"] == "Ready":
                        return "True" if condition["status"] == "True" else str(condition["message"])
            return "nobody has looked at it"

        return str(self.pods.eventually(look, "True"))

    def chain(self, namespace: str, name: str) -> list[x509.Certificate]:
        """Return what is in a certificate's Secret, the server's own first."""
        import base64

        secret = self.pods.core.read_namespaced_secret(name, namespace)
        return x509.load_pem_x509_certificates(base64.b64decode(secret.data["tls.crt"]))

    def renew(self, namespace: str, name: str) -> None:
        """Have a certificate made again now, as `cmctl renew` does."""
        found = self.certificate(namespace, name)
        condition = {
            "type": "Issuing",
            "status": "True",
            "reason": "ManuallyTriggered",
            "message": "a test asks for it",
            "lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        found["status"]["conditions"].append(condition)
        self.api.replace_namespaced_custom_object_status(
            "cert-manager.io", "v1", namespace, "certificates", name, found
        )


@pytest.fixture(scope="module")
def kinds(pods: Pods) -> Kinds:
    """Return the way to cert-manager's objects."""
    return Kinds(pods)


@pytest.fixture(scope="module")
def own(pods: Pods) -> Iterator[str]:
    """Return a namespace of the test's own."""
    with pods.namespace(OWN) as namespace:
        yield namespace


@pytest.fixture(scope="module")
def addresses(inventory: Inventory) -> list[str]:
    """Return the addresses of all nodes: the ingress listens on every one."""
    return [inventory.address(host) for host in inventory.hosts()]


@pytest.fixture(scope="module")
def issuers(state: Path, secrets: dict[str, Any]) -> dict[str, Any]:
    """Return what the playbook gives to the role's issuers."""
    return {
        "applied_tasks": "issuers",
        "cert_manager_kubeconfig": str(state / "kubeconfig"),
        "cert_manager_ca_certificate": secrets["cluster_ca_certificate"] + secrets["ca_certificate"],
        "cert_manager_ca_key": secrets["cluster_ca_key"],
    }


def forget_issuer(kinds: Kinds, name: str) -> None:
    """Remove an issuer and the key of its account."""
    with contextlib.suppress(kubernetes.client.ApiException):
        kinds.api.delete_cluster_custom_object("cert-manager.io", "v1", "clusterissuers", name)
    with contextlib.suppress(kubernetes.client.ApiException):
        kinds.pods.core.delete_namespaced_secret(f"acme-{name}", NAMESPACE)


@pytest.fixture(scope="module")
def acme(
    pods: Pods, kinds: Kinds, issuers: dict[str, Any], secrets: dict[str, Any], addresses: list[str]
) -> Iterator[Acme]:
    """Return an ACME server that the platform has an issuer for, applied by the role as an inventory would have it."""
    forget_issuer(kinds, ISSUER)  # a run that was broken off leaves the account of a server that is gone
    with pebble(pods, ACME, addresses) as server:
        wanted = {
            "name": ISSUER,
            "directory": server.directory,
            "email": "ops@slipway.test",
            "ca_bundle": server.ca,
        }
        try:
            run = apply_role("cert_manager", variables={**issuers, "cert_manager_acme_issuers": [wanted]})
            assert run.code == 0, run.output
            assert leaked(secrets, run.output) == []
            yield server
        finally:
            forget_issuer(kinds, ISSUER)


def fetch(url: str, ca: str) -> str:
    """In the cluster: the text behind a URL of a server with a certificate of a CA."""
    import ssl
    import urllib.request

    with urllib.request.urlopen(url, context=ssl.create_default_context(cadata=ca), timeout=10) as answer:
        return str(answer.read().decode())


@pytest.fixture(scope="module")
def acme_trust(client: Client, acme: Acme) -> ssl.SSLContext:
    """Return what a browser has that trusts the ACME server's root, and nothing else."""
    return ssl.create_default_context(cadata=client.call(fetch, url=acme.root, ca=acme.ca))


@pytest.fixture(scope="module")
def site(pods: Pods, acme: Acme, kinds: Kinds) -> Iterator[str]:
    """Return a site whose Ingress asks for a certificate of the ACME server."""
    networking: Any = kubernetes.client.NetworkingV1Api(pods.api)
    backend = {"service": {"name": SITE_SERVICE, "port": {"name": "http"}}}
    ingress = {
        "metadata": {"name": INGRESS, "annotations": {"cert-manager.io/cluster-issuer": ISSUER}},
        "spec": {
            "ingressClassName": "nginx",
            "tls": [{"hosts": [acme.site], "secretName": INGRESS}],
            "rules": [
                {"host": acme.site, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
            ],
        },
    }

    def forget() -> None:
        for remove in (networking.delete_namespaced_ingress, pods.core.delete_namespaced_secret):
            with contextlib.suppress(kubernetes.client.ApiException):
                remove(INGRESS, SITE_NAMESPACE)

    forget()
    networking.create_namespaced_ingress(SITE_NAMESPACE, ingress)
    try:
        yield acme.site
    finally:
        forget()


def serial(address: str, name: str, trust: ssl.SSLContext) -> int:
    """Return the number of the certificate that a node presents, once it is believed."""
    with secure(address, name, trust) as connection:
        return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"").serial_number


def serials(addresses: list[str], name: str, trust: ssl.SSLContext) -> set[int]:
    """Return the numbers of what all nodes present; 0 for one that is not believed yet."""
    found = set()
    for address in addresses:
        try:
            found.add(serial(address, name, trust))
        except ssl.SSLError:
            found.add(0)
    return found


# --- the platform's CA


def test_a_certificate_of_the_platforms_ca_is_trusted_by_who_trusts_its_root(
    kinds: Kinds, own: str, state: Path
) -> None:
    names = ["server.molecule.test", "*.molecule.test"]
    kinds.create(own, "server", dnsNames=names)
    assert kinds.ready(own, "server") == "True"
    leaf, *between = kinds.chain(own, "server")
    root = x509.load_pem_x509_certificate((state / "ca.crt").read_bytes())
    policy = x509.verification.PolicyBuilder().store(x509.verification.Store([root]))
    verified = policy.build_server_verifier(x509.DNSName("any.molecule.test")).verify(leaf, between)
    assert len(verified) == 3, "the cluster's CA stands between"
    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert found.get_values_for_type(x509.DNSName) == names


def test_the_roots_own_key_is_not_in_the_cluster(pods: Pods, secrets: dict[str, Any]) -> None:
    import base64

    found = [
        f"{secret.metadata.namespace}/{secret.metadata.name}"
        for secret in pods.core.list_secret_for_all_namespaces().items
        if secrets["ca_key"].strip().encode() in b"".join(map(base64.b64decode, (secret.data or {}).values()))
    ]
    assert found == []


def test_a_certificate_is_renewed_before_its_end_by_itself(kinds: Kinds, own: str) -> None:
    # Ten seconds after it was made, as others after two thirds of their life.
    kinds.create(own, "short", dnsNames=["short.molecule.test"], duration="1h", renewBefore="3590s")
    assert kinds.ready(own, "short") == "True"
    first = kinds.chain(own, "short")[0]
    renewed = kinds.pods.eventually(lambda: kinds.chain(own, "short")[0].serial_number != first.serial_number, True)
    second = kinds.chain(own, "short")[0]
    assert renewed
    assert second.not_valid_before_utc < first.not_valid_after_utc
    assert second.public_key() != first.public_key(), "with a new key"


def test_what_makes_no_sense_is_refused_at_once(kinds: Kinds, own: str) -> None:
    with pytest.raises(kubernetes.client.ApiException) as refusal:
        kinds.create(own, "nonsense", dnsNames=["nonsense.molecule.test"], duration="1h", renewBefore="2h")
    assert all(part in str(refusal.value.body) for part in ("admission webhook", "renewBefore"))


# --- ACME


def test_an_ingress_gets_its_certificate_by_http_01(
    kinds: Kinds, site: str, acme_trust: ssl.SSLContext, addresses: list[str]
) -> None:
    assert kinds.ready(SITE_NAMESPACE, INGRESS) == "True"
    mine = kinds.chain(SITE_NAMESPACE, INGRESS)[0].serial_number
    assert kinds.pods.eventually(lambda: serials(addresses, site, acme_trust), {mine}) == {mine}
    for address in addresses:
        assert ask(address, site, SITE_PATH, acme_trust).status == 200


def test_nothing_of_the_challenge_is_left(pods: Pods, kinds: Kinds, site: str) -> None:
    assert kinds.ready(SITE_NAMESPACE, INGRESS) == "True"
    networking: Any = kubernetes.client.NetworkingV1Api(pods.api)

    def left() -> list[str]:
        found = [
            *pods.core.list_namespaced_pod(SITE_NAMESPACE).items,
            *pods.core.list_namespaced_service(SITE_NAMESPACE).items,
            *networking.list_namespaced_ingress(SITE_NAMESPACE).items,
        ]
        return [one.metadata.name for one in found if one.metadata.name.startswith("cm-acme-http-solver-")]

    assert pods.eventually(left, []) == []


def test_renewal_loses_no_request(kinds: Kinds, site: str, acme_trust: ssl.SSLContext, addresses: list[str]) -> None:
    assert kinds.ready(SITE_NAMESPACE, INGRESS) == "True"
    before = kinds.chain(SITE_NAMESPACE, INGRESS)[0].serial_number
    assert kinds.pods.eventually(lambda: serials(addresses, site, acme_trust), {before}) == {before}
    with Load(lambda address: ask(address, site, SITE_PATH, acme_trust).status, addresses) as load:
        kinds.renew(SITE_NAMESPACE, INGRESS)
        limit = time.monotonic() + RENEWAL_SECONDS
        while (seen := serials(addresses, site, acme_trust)) & {0, before} or len(seen) != 1:
            assert time.monotonic() < limit, f"the nodes present {seen}, before {before}"
            time.sleep(1)
        time.sleep(10)  # as long with the new one as it may have taken to come
    assert set(load.answers) == {200}, load.answers
    assert load.answers[200] > 50
    print(f"renewed under load: {load.answers[200]} requests, each with a handshake of its own, 0 failed")


class Load:
    """Clients, one for each node, that ask as fast as they are answered, each time over a new connection."""

    def __init__(self, request: Callable[[str], int], addresses: list[str]) -> None:
        self.request = request
        self.answers: Counter[int | str] = Counter()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(address,)) for address in addresses]

    def _ask(self, address: str) -> None:
        while not self._ended.is_set():
            try:
                answer: int | str = self.request(address)
            except OSError as error:
                answer = f"{type(error).__name__}: {error}"
            self.answers[answer] += 1
            time.sleep(0.05)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


def test_an_acme_server_that_cannot_be_reached_fails_the_run_and_says_so(
    kinds: Kinds, issuers: dict[str, Any], secrets: dict[str, Any]
) -> None:
    wanted = {"name": "molecule-nobody", "directory": "https://nobody.invalid/dir", "email": "ops@slipway.test"}
    variables = {**issuers, "cert_manager_acme_issuers": [wanted], "cert_manager_wait_timeout": 20}
    try:
        run = apply_role("cert_manager", variables=variables)
    finally:
        forget_issuer(kinds, "molecule-nobody")
    assert run.code != 0
    [said] = [line for line in run.output.splitlines() if "ClusterIssuer molecule-nobody: " in line and "ERROR" in line]
    assert "no such host" in said
    assert leaked(secrets, run.output) == []


# --- how it runs


@pytest.mark.parametrize("program", PROGRAMS)
def test_its_programs_are_confined(pods: Pods, hosts: dict[str, Any], program: str) -> None:
    found = confinements(pods, hosts, NAMESPACE, f"app.kubernetes.io/name={program}")
    assert found == dict.fromkeys(found, confined(65532))


def test_it_tells_prometheus_when_certificates_end(pods: Pods, kinds: Kinds, own: str, client: Client) -> None:
    kinds.create(own, "counted", dnsNames=["counted.molecule.test"])
    assert kinds.ready(own, "counted") == "True"
    end = kinds.chain(own, "counted")[0].not_valid_after_utc.timestamp()
    [name] = pods.names(NAMESPACE, "app.kubernetes.io/name=cert-manager")
    address = pods.core.read_namespaced_pod(name, NAMESPACE).status.pod_ip

    def told() -> list[float]:
        samples = client.call(metrics, address=address, port=9402)
        wanted = ("certmanager_certificate_expiration_timestamp_seconds{", 'name="counted"', f'namespace="{own}"')
        return [value for key, value in samples.items() if all(part in key for part in wanted)]

    assert pods.eventually(told, [end]) == [end]


@pytest.mark.parametrize("account", ["cert-manager-webhook", "cert-manager-cainjector"])
def test_who_signs_nothing_reads_secrets_of_its_own_namespace_alone(pods: Pods, account: str) -> None:
    may = partial(pods.may, f"{NAMESPACE}:{account}", "get", "secrets", name="cert-manager-webhook-ca")
    assert [n for n in ("infrastructure", "auth", "kube-system", "api") if may(n)] == []
    assert may(NAMESPACE)
