"""The settings of the ingress, each as both controllers read it.

ingress-nginx never runs here: what it is given is held against the names that its last release documents.
"""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.rendering.conftest import HERE, KUBERNETES, ROOT, pick

MIB = 1024 * 1024
OPTIONS = yaml.safe_load((HERE / "ingress_nginx_options.yml").read_text(encoding="utf-8"))
PREFIX = "nginx.ingress.kubernetes.io/"
IMAGE = f"registry.mycompany.com/ingress-nginx/controller@sha256:{64 * '0'}"
SHOP = {"name": "shop", "namespace": "shops", "port": 8080, "ingress": {"path": "/"}}
NGINX = ("certificate.yml.j2", "rbac.yml.j2", "config.yml.j2", "daemonset.yml.j2")
GIVEN = {
    "ingress_nginx_image": IMAGE,
    "ingress_nginx_certificate": "the certificate",
    "ingress_nginx_certificate_key": "its key",
}


def settings(render: Any, **variables: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the two files of Traefik's configuration."""
    data = pick(render("traefik", "config.yml.j2", **variables), "ConfigMap", "traefik")["data"]
    return yaml.safe_load(data["traefik.yml"]), yaml.safe_load(data["dynamic.yml"])


def nginx(render: Any, **variables: Any) -> dict[str, str]:
    """Return the options that ingress-nginx reads."""
    found: dict[str, str] = pick(
        render("ingress_nginx", "config.yml.j2", **variables), "ConfigMap", "ingress-nginx-controller"
    )["data"]
    return found


def asked(render: Any, ingress: dict[str, Any] | None = None, **variables: Any) -> dict[str, str]:
    """Return what the Ingress of a service says to its controller."""
    shop = {**SHOP, "ingress": {"path": "/", **(ingress or {})}}
    [document] = render(
        "service", "ingresses.yml.j2", service_definitions=[shop], service_domain="slipway.test", **variables
    )
    found = document["metadata"].get("annotations", {})
    return {name.removeprefix(PREFIX): value for name, value in found.items()}


def middlewares(static: dict[str, Any], entry: str = "websecure") -> list[str]:
    found: list[str] = static["entryPoints"][entry]["http"].get("middlewares", [])
    return found


# --- one list of settings, two controllers: what is set, what Traefik has of it, what ingress-nginx has of it


def at(tree: Any, path: str) -> Any:
    """Return what stands at a path of keys, None where there is nothing."""
    for key in path.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


RATE = "http.middlewares.rate.rateLimit"
BODY = "http.middlewares.body.buffering.maxRequestBodyBytes"
HSTS = "http.middlewares.secure.headers.stsSeconds"
REDIRECT = "entryPoints.web.http.redirections.entryPoint.scheme"
READ = "entryPoints.websecure.transport.respondingTimeouts.readTimeout"
RESPONSE = "serversTransport.forwardingTimeouts.responseHeaderTimeout"
BOTH = [
    ({"https_redirect": True}, {REDIRECT: "https"}, {"ssl-redirect": "true"}),
    ({"https_redirect": False}, {REDIRECT: None}, {"ssl-redirect": "false"}),
    (
        {"hsts_seconds": 300},
        {HSTS: 300, "http.middlewares.secure.headers.stsIncludeSubdomains": None},
        {"hsts": "true", "hsts-max-age": "300", "hsts-include-subdomains": "false", "hsts-preload": "false"},
    ),
    ({"hsts_seconds": 0}, {HSTS: None}, {"hsts": "false"}),
    ({"body_size": ""}, {BODY: None}, {"proxy-body-size": "0", "proxy-request-buffering": "off"}),
    ({"body_size": "64Ki"}, {BODY: 64 * 1024}, {"proxy-body-size": "64k"}),
    ({"body_size": "20Mi"}, {BODY: 20 * MIB}, {"proxy-body-size": "20m"}),
    ({"body_size": "2Gi"}, {BODY: 2048 * MIB}, {"proxy-body-size": "2g"}),
    ({"read_timeout": 600}, {READ: "600s"}, {"client-body-timeout": "600", "client-header-timeout": "60"}),
    ({"read_timeout": 11}, {READ: "11s"}, {"client-body-timeout": "11", "client-header-timeout": "11"}),
    ({"response_timeout": 12}, {RESPONSE: "12s"}, {"proxy-read-timeout": "12", "proxy-send-timeout": "12"}),
    # Not settings, and yet the same in both.
    (
        {},
        {"serversTransport.forwardingTimeouts.dialTimeout": "3s", "tls.options.default.minVersion": "VersionTLS12"},
        {"proxy-connect-timeout": "3", "ssl-protocols": "TLSv1.2 TLSv1.3"},
    ),
    (
        {},
        {"entryPoints.websecure.forwardedHeaders": None, "entryPoints.websecure.proxyProtocol": None},
        {"use-forwarded-headers": "false", "compute-full-forwarded-for": "false", "use-proxy-protocol": "false"},
    ),
]


@pytest.mark.parametrize(("values", "traefik", "wanted"), BOTH, ids=lambda value: " ".join(map(str, value.items())))
def test_a_setting_means_the_same_to_both(
    render: Any, values: dict[str, Any], traefik: dict[str, Any], wanted: dict[str, str]
) -> None:
    static, dynamic = settings(render, **{f"traefik_{name}": value for name, value in values.items()})
    assert {path: at(static | dynamic, path) for path in traefik} == traefik
    options = nginx(render, **{f"ingress_nginx_{name}": value for name, value in values.items()})
    assert {name: options.get(name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("rate", "burst", "multiplier"), [(20, 40, 2), (20, 41, 3), (20, 5, 1), (1, 100, 100), (100000, 100, 1)]
)
def test_a_limit_is_at_the_entry_of_one_and_in_each_ingress_of_the_other(
    render: Any, rate: int, burst: int, multiplier: int
) -> None:
    static, dynamic = settings(render, traefik_rate_limit=rate, traefik_rate_burst=burst)
    assert at(dynamic, RATE) == {"average": rate, "burst": burst}
    assert "rate@file" in middlewares(static)
    found = asked(render, service_rate_limit=rate, service_rate_burst=burst)
    assert found == {"limit-rps": str(rate), "limit-burst-multiplier": str(multiplier)}
    assert burst <= rate * multiplier < burst + rate
    assert nginx(render)["limit-req-status-code"] == "429", "as Traefik answers"


def test_ciphers_are_the_same_and_all_have_forward_secrecy(render: Any) -> None:
    _, dynamic = settings(render)

    def parts(name: str) -> tuple[str, ...]:
        """Two ways to write the same: ECDHE-RSA-AES128-GCM-SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256."""
        words = re.sub(r"^TLS_|WITH_|_SHA\d+$|-SHA\d+$", "", name).replace("_", "-").replace("AES-", "AES")
        return tuple(words.split("-"))

    known = [parts(name) for name in dynamic["tls"]["options"]["default"]["cipherSuites"]]
    found = [parts(name) for name in nginx(render)["ssl-ciphers"].split(":")]
    assert found == known
    assert {name[0] for name in found} == {"ECDHE"}


def test_every_setting_of_the_platform_reaches_both() -> None:
    """A setting that only one of them knew would be lost by whoever changes the controller."""
    schema = ROOT / "roles/preflight/files/schema"
    names = {
        topic: set(yaml.safe_load((schema / f"{topic}.yml").read_text(encoding="utf-8"))["properties"])
        for topic in ("platform", "traefik", "ingress_nginx", "service")
    }
    playbooks = "".join(
        (ROOT / f"playbooks/{name}.yml").read_text(encoding="utf-8") for name in ("platform", "services")
    )
    listed = {name.removeprefix("ingress_") for name in names["platform"] if name.startswith("ingress_")}
    for name in sorted(listed - {"controller"}):
        for role in ("traefik", "ingress_nginx"):
            # What it limits requests to stands in the Ingress objects.
            wanted = f"service_{name}" if role == "ingress_nginx" and name.startswith("rate_") else f"{role}_{name}"
            assert wanted in names[wanted.removesuffix(f"_{name}")]
            assert f'{wanted}: "{{{{ ingress_{name} ' in playbooks, wanted


# --- Traefik alone


def test_as_it_comes_it_redirects_and_has_browsers_stay_with_https(render: Any) -> None:
    static, dynamic = settings(render)
    assert middlewares(static) == ["secure@file"]
    assert dynamic["http"]["middlewares"] == {"secure": {"headers": {"stsSeconds": 31536000}}}


def test_limits_apply_in_their_order_and_name_what_is_defined(render: Any) -> None:
    static, dynamic = settings(
        render, traefik_rate_limit=20, traefik_rate_burst=40, traefik_body_size="20Mi", traefik_hsts_seconds=0
    )
    assert middlewares(static) == ["rate@file", "body@file"]
    assert set(dynamic["http"]["middlewares"]) == {"rate", "body"}


def test_without_any_setting_nothing_is_in_the_way(render: Any) -> None:
    static, dynamic = settings(render, traefik_hsts_seconds=0)
    assert middlewares(static) == []
    assert "http" not in dynamic


def test_without_the_redirect_http_has_the_same_limits(render: Any) -> None:
    static, _ = settings(render, traefik_https_redirect=False, traefik_rate_limit=20)
    assert middlewares(static, "web") == ["rate@file"], "HSTS says nothing over HTTP"


# --- ingress-nginx alone


EVERY = [
    {"https_redirect": redirect, "hsts_seconds": hsts, "body_size": body, "watched_namespaces": namespaces}
    for redirect, hsts, body, namespaces in product(
        (True, False), (0, 63072000), ("", "20Mi"), ([], ["api", "web"], ["*"])
    )
]


@pytest.mark.parametrize("values", EVERY, ids=lambda values: "-".join(str(value) for value in values.values()))
def test_whatever_is_set_the_api_would_take_it_and_the_controller_knows_it(render: Any, values: dict[str, Any]) -> None:
    variables = {f"ingress_nginx_{name}": value for name, value in values.items()}
    for document in render("ingress_nginx", *NGINX, **GIVEN, **variables):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    options = nginx(render, **variables)
    known = OPTIONS["configmap"]
    assert set(options) <= {name for names in known.values() for name in names}
    for name, value in options.items():
        assert isinstance(value, str), f"{name}: a ConfigMap holds text"
        assert name not in known["bool"] or value in ("true", "false"), f"{name}: {value}"
        assert name not in known["int"] or value.isdigit(), f"{name}: {value}"
    assert not any("snippet" in name for name in set(options) - {"allow-snippet-annotations"})


def test_its_arguments_are_documented_and_name_what_is_applied(render: Any) -> None:
    documents = render("ingress_nginx", *NGINX, **GIVEN, ingress_nginx_watched_namespaces=["web", "api"])
    [container] = pick(documents, "DaemonSet", "ingress-nginx")["spec"]["template"]["spec"]["containers"]
    program, *arguments = container["args"]
    assert program == "/nginx-ingress-controller"
    given = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
    assert set(given) <= set(OPTIONS["arguments"])
    assert given["watch-namespace-selector"] == "kubernetes.io/metadata.name in (api, ingress-nginx, web)"
    for argument, kind in (("configmap", "ConfigMap"), ("default-ssl-certificate", "Secret")):
        namespace, _, name = given[argument].partition("/")
        assert namespace == "$(POD_NAMESPACE)"
        assert pick(documents, kind, name)["metadata"]["namespace"] == "ingress-nginx"
    assert container["image"] == IMAGE
    assert "validating-webhook" not in given
    everywhere = render("ingress_nginx", "daemonset.yml.j2", **GIVEN, ingress_nginx_watched_namespaces=["*"])
    assert "watch-namespace-selector" not in str(everywhere)


def test_it_writes_nothing_but_events(render: Any) -> None:
    rules = [
        (resource, verb)
        for document in render("ingress_nginx", "rbac.yml.j2", ingress_nginx_watched_namespaces=["api"])
        for rule in document.get("rules", [])
        for resource, verb in product(rule["resources"], rule["verbs"])
    ]
    assert "*" not in {word for rule in rules for word in rule}
    assert {rule for rule in rules if rule[1] not in ("get", "list", "watch")} == {
        ("events", "create"),
        ("events", "patch"),
    }
    assert {resource for resource, verb in rules if verb == "get"} == {"pods", "configmaps"}


@pytest.mark.parametrize(
    ("limits", "workers"),
    [({"cpu": "2"}, "2"), ({"cpu": 4}, "4"), ({"cpu": "500m"}, "1"), ({"cpu": "2500m"}, "2"), ({}, "auto")],
)
def test_it_has_a_worker_for_each_cpu(render: Any, limits: dict[str, Any], workers: str) -> None:
    assert nginx(render, ingress_nginx_resources={"limits": limits})["worker-processes"] == workers


def test_what_is_logged_of_a_request_is_json(render: Any) -> None:
    import json

    line = json.loads(nginx(render)["log-format-upstream"])
    assert {"ClientHost", "RequestMethod", "RequestPath", "DownstreamStatus"} <= set(line)
    assert all(value.startswith("$") for value in line.values())


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARN", "ERROR"])
def test_levels_of_the_log_are_those_of_nginx(render: Any, level: str) -> None:
    found = nginx(render, ingress_nginx_log_level=level)["error-log-level"]
    assert found in ("debug", "info", "notice", "warn", "error")


# --- what both share


def common(render: Any, *templates: str, **variables: Any) -> list[dict[str, Any]]:
    given = {
        "ingress_common_name": "ingress-nginx",
        "ingress_common_namespace": "ingress-nginx",
        "ingress_common_certificate_names": ["slipway.test", "demo.slipway.test"],
        "ingress_common_certificate_issuer": "platform-ca",
    }
    found: list[dict[str, Any]] = render("ingress_common", *templates, **given | variables)
    for document in found:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    return found


@pytest.mark.parametrize(("issuer", "secret"), [("platform-ca", "public-certificate"), ("", None)])
def test_one_ingress_says_which_certificate_all_names_have(render: Any, issuer: str, secret: str | None) -> None:
    [ingress] = common(render, "public.yml.j2", ingress_common_certificate_issuer=issuer)
    hosts = ["slipway.test", "demo.slipway.test"]
    assert ingress["spec"]["rules"] == [{"host": host} for host in hosts], "it leads nowhere"
    assert ingress["spec"]["tls"] == [{"hosts": hosts} | ({"secretName": secret} if secret else {})]
    assert ("annotations" in ingress["metadata"]) is bool(issuer)


def test_an_image_is_tried_on_each_node_of_the_controller_that_gives_way(render: Any) -> None:
    pods = [{"spec": {"nodeName": name}} for name in ("agent-2", "agent-1", "agent-2")] + [{"spec": {}}]
    trial = {"image": IMAGE, "command": ["/nginx-ingress-controller", "--version"], "user": 101}
    jobs = common(
        render,
        "trial.yml.j2",
        __ingress_common_found={"resources": pods},
        ingress_common_trial=trial | {"capabilities": ["NET_BIND_SERVICE"]},
    )
    assert [job["spec"]["template"]["spec"]["nodeName"] for job in jobs] == ["agent-1", "agent-2"]
    assert len({job["metadata"]["name"] for job in jobs}) == 2
    for job in jobs:
        assert "app.kubernetes.io/component" not in job["spec"]["template"]["metadata"]["labels"], "it is no controller"
        [container] = job["spec"]["template"]["spec"]["containers"]
        assert (container["image"], container["command"]) == (IMAGE, trial["command"])


@pytest.mark.parametrize("role", ["traefik", "ingress_nginx"])
def test_who_gives_way_is_removed_whole_and_what_is_shared_is_not(render: Any, role: str) -> None:
    variables = {f"{role}_certificate": "the certificate", f"{role}_certificate_key": "its key", f"{role}_image": IMAGE}

    def names(*templates: str) -> set[tuple[str, str, str]]:
        found = render(role, *templates, **variables, **{f"{role}_watched_namespaces": ["api"]})
        return {(d["kind"], d["metadata"].get("namespace", ""), d["metadata"]["name"]) for d in found}

    applied = names("certificate.yml.j2", "rbac.yml.j2", "config.yml.j2", "daemonset.yml.j2")
    assert names("left.yml.j2", "rbac.yml.j2") == applied
    assert "IngressClass" not in {kind for kind, _, _ in applied}


# --- what a service asks of its ingress


@pytest.mark.parametrize(
    ("ingress", "wanted"),
    [
        ({}, {}),
        (
            {"sticky": True},
            {
                "affinity": "cookie",
                "session-cookie-name": "shop-pod",
                "session-cookie-secure": "true",
                "session-cookie-samesite": "Lax",
            },
        ),
        (
            {"cors_origins": ["https://a.test", "https://b.test"]},
            {
                "enable-cors": "true",
                "cors-allow-origin": "https://a.test,https://b.test",
                "cors-allow-credentials": "false",
            },
        ),
    ],
)
def test_what_a_service_asks_of_its_ingress(render: Any, ingress: dict[str, Any], wanted: dict[str, str]) -> None:
    found = asked(render, ingress)
    assert found == wanted
    known = OPTIONS["annotations"]
    assert set(found) <= {name for names in known.values() for name in names}
    assert all(value in ("true", "false") for name, value in found.items() if name in known["bool"])
