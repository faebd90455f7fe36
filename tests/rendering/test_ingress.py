"""The settings of the ingress, each as the controller reads it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.rendering.conftest import pick

MIB = 1024 * 1024


def settings(render: Any, **variables: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the two files of Traefik's configuration."""
    data = pick(render("traefik", "config.yml.j2", **variables), "ConfigMap", "traefik")["data"]
    return yaml.safe_load(data["traefik.yml"]), yaml.safe_load(data["dynamic.yml"])


def middlewares(static: dict[str, Any], entry: str = "websecure") -> list[str]:
    found: list[str] = static["entryPoints"][entry]["http"].get("middlewares", [])
    return found


def test_as_it_comes_it_redirects_and_has_browsers_stay_with_https(render: Any) -> None:
    static, dynamic = settings(render)
    assert static["entryPoints"]["web"]["http"]["redirections"]["entryPoint"]["scheme"] == "https"
    assert middlewares(static) == ["secure@file"]
    assert dynamic["http"]["middlewares"] == {"secure": {"headers": {"stsSeconds": 31536000}}}
    assert dynamic["tls"]["options"]["default"]["minVersion"] == "VersionTLS12"


def test_limits_apply_in_their_order_and_name_what_is_defined(render: Any) -> None:
    static, dynamic = settings(
        render, traefik_rate_limit=20, traefik_rate_burst=40, traefik_body_size="20Mi", traefik_hsts_seconds=0
    )
    assert middlewares(static) == ["rate@file", "body@file"]
    defined = dynamic["http"]["middlewares"]
    assert defined["rate"] == {"rateLimit": {"average": 20, "burst": 40}}
    assert defined["body"]["buffering"]["maxRequestBodyBytes"] == 20 * MIB
    assert set(defined) == {"rate", "body"}


def test_without_any_setting_nothing_is_in_the_way(render: Any) -> None:
    static, dynamic = settings(render, traefik_hsts_seconds=0)
    assert middlewares(static) == []
    assert "http" not in dynamic


def test_without_the_redirect_http_has_the_same_limits(render: Any) -> None:
    static, _ = settings(render, traefik_https_redirect=False, traefik_rate_limit=20)
    assert "redirections" not in static["entryPoints"]["web"]["http"]
    assert middlewares(static, "web") == ["rate@file"], "HSTS says nothing over HTTP"


def test_timeouts(render: Any) -> None:
    static, _ = settings(render, traefik_read_timeout=11, traefik_response_timeout=12)
    assert static["entryPoints"]["websecure"]["transport"]["respondingTimeouts"]["readTimeout"] == "11s"
    assert static["serversTransport"]["forwardingTimeouts"]["responseHeaderTimeout"] == "12s"


SHOP = {"name": "shop", "namespace": "shops", "port": 8080, "ingress": {"path": "/"}}


@pytest.mark.parametrize(
    ("ingress", "redirect", "wanted"),
    [
        ({}, True, {}),
        ({}, False, {"ssl-redirect": "false"}),
        (
            {"sticky": True},
            True,
            {
                "affinity": "cookie",
                "session-cookie-name": "shop-pod",
                "session-cookie-secure": "true",
                "session-cookie-samesite": "Lax",
            },
        ),
        (
            {"cors_origins": ["https://a.test", "https://b.test"]},
            True,
            {
                "enable-cors": "true",
                "cors-allow-origin": "https://a.test,https://b.test",
                "cors-allow-credentials": "false",
            },
        ),
    ],
)
def test_what_a_service_asks_of_its_ingress(
    render: Any, ingress: dict[str, Any], redirect: bool, wanted: dict[str, str]
) -> None:
    shop = {**SHOP, "ingress": {"path": "/", **ingress}}
    [document] = render(
        "service",
        "ingresses.yml.j2",
        service_definitions=[shop],
        service_domain="slipway.test",
        service_https_redirect=redirect,
    )
    prefix = "nginx.ingress.kubernetes.io/"
    assert document["metadata"].get("annotations", {}) == {prefix + name: value for name, value in wanted.items()}
