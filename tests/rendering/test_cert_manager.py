"""cert-manager's issuers and settings, looked at before any cluster sees them."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import yaml

from tests.rendering.conftest import pick

ISSUER = {"name": "public", "directory": "letsencrypt", "email": "ops@mycompany.com"}


@pytest.mark.parametrize(
    ("directory", "server"),
    [
        ("letsencrypt", "https://acme-v02.api.letsencrypt.org/directory"),
        ("letsencrypt-staging", "https://acme-staging-v02.api.letsencrypt.org/directory"),
        ("https://acme.mycompany.com/dir", "https://acme.mycompany.com/dir"),
    ],
)
def test_an_acme_server_is_known_by_name_or_by_its_url(render: Any, directory: str, server: str) -> None:
    issuers = [{**ISSUER, "directory": directory}]
    documents = render("cert_manager", "issuers.yml.j2", cert_manager_acme_issuers=issuers)
    acme = pick(documents, "ClusterIssuer", "public")["spec"]["acme"]
    assert (acme["server"], acme["email"]) == (server, "ops@mycompany.com")
    assert acme["privateKeySecretRef"] == {"name": "acme-public"}
    assert acme["solvers"] == [{"http01": {"ingress": {"ingressClassName": "nginx", "serviceType": "ClusterIP"}}}]
    assert "caBundle" not in acme, "public servers are of public CAs"


def test_a_private_acme_server_is_believed_by_its_own_ca_alone(render: Any) -> None:
    issuers = [{**ISSUER, "ca_bundle": "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"}]
    documents = render("cert_manager", "issuers.yml.j2", cert_manager_acme_issuers=issuers)
    bundle = pick(documents, "ClusterIssuer", "public")["spec"]["acme"]["caBundle"]
    assert base64.b64decode(bundle).decode() == issuers[0]["ca_bundle"]


def test_the_platforms_ca_is_always_there(render: Any) -> None:
    [issuer] = render("cert_manager", "issuers.yml.j2")
    assert (issuer["metadata"]["name"], issuer["spec"]) == ("platform-ca", {"ca": {"secretName": "platform-ca"}})
    chain, key = "certificate of the CA\n", "its key\n"
    given = {"cert_manager_ca_certificate": chain, "cert_manager_ca_key": key}
    [secret] = render("cert_manager", "authority.yml.j2", **given)
    assert [base64.b64decode(secret["data"][name]).decode() for name in ("tls.crt", "tls.key")] == [chain, key]


def test_each_program_gets_the_file_that_it_names(render: Any) -> None:
    image = "slipway.local/cert-manager:1"
    documents = render("cert_manager", "config.yml.j2", "deployments.yml.j2", cert_manager_image=image)
    files = pick(documents, "ConfigMap", "cert-manager")["data"]
    for document in documents:
        if document["kind"] == "Deployment":
            [container] = document["spec"]["template"]["spec"]["containers"]
            [option] = container["args"]
            name = option.removeprefix("--config=/etc/cert-manager/")
            assert container["command"] == [f"/usr/local/bin/{name.removesuffix('.yaml')}"]
            assert yaml.safe_load(files[name])["kind"].lower().startswith(name.removesuffix(".yaml"))
    solver = yaml.safe_load(files["controller.yaml"])["acmeHTTP01Config"]["solverImage"]
    assert solver == image, "its entry point answers challenges"
