"""Header hygiene: what services behind believe comes from the gateway alone."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import jwt
import pytest
from slipway_testing import upstreams
from slipway_testing.gateways import gateway
from slipway_testing.platform import Platform, User
from slipway_testing.processes import free_port
from slipway_testing.servers import live_asgi
from starlette.types import Receive, Scope, Send

FORGED = {
    "X-User-Id": "admin",
    "X-User-Roles": "root",
    "X_User_Id": "admin",
    "X-Service-Token": "forged",
    "X_Service_Token": "forged",
    "X-Forwarded-For": "203.0.113.66",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-User": "admin",
    "X_Forwarded_For": "203.0.113.66",
    "Forwarded": "for=203.0.113.66",
    "X-Real-IP": "203.0.113.66",
    "X-Client-IP": "203.0.113.66",
    "True-Client-IP": "203.0.113.66",
}
PATHS = {"auth": "/api/v1/auth/.well-known/jwks.json", "image": "/api/v1/images/stats"}


@pytest.fixture(scope="module")
def echo(platform: Platform) -> Iterator[httpx2.Client]:
    with (
        live_asgi(upstreams.echo) as upstream,
        platform.api(auth_url=upstream.url, image_url=upstream.url) as server,
        httpx2.Client(base_url=server.url) as client,
    ):
        yield client


def seen_by(client: httpx2.Client, path: str, headers: dict[str, str]) -> dict[str, list[str]]:
    seen: dict[str, list[str]] = {}
    for name, value in client.get(path, headers=headers).json()["headers"]:
        seen.setdefault(name, []).append(value)
    return seen


@pytest.mark.parametrize("upstream", PATHS)
def test_nothing_forged_arrives(echo: httpx2.Client, platform: Platform, user: User, upstream: str) -> None:
    seen = seen_by(echo, PATHS[upstream], user.headers | FORGED)
    ours = {"x-service-token", "x-forwarded-for"}
    assert not ({name.lower() for name in FORGED} - ours) & set(seen)
    assert seen["x-forwarded-for"] == ["127.0.0.1"]
    # Exactly one, ours, for this callee and no other.
    (token,) = seen["x-service-token"]
    claims = jwt.decode(
        token,
        platform.key.private.public_key(),
        algorithms=["ES256"],
        audience=f"slipway:{upstream}",
        issuer="slipway-auth",
    )
    assert claims["sub"] == "api"
    assert seen["authorization"] == [f"Bearer {user.token}"]


@pytest.mark.parametrize("nominated", ["X-Service-Token", "X-Forwarded-For", "X-Request-Id"])
def test_a_client_cannot_have_our_headers_dropped(echo: httpx2.Client, user: User, nominated: str) -> None:
    seen = seen_by(echo, PATHS["auth"], user.headers | {"Connection": f"close, {nominated}"})
    assert nominated.lower() in seen


def test_cookies_are_for_auth_alone(echo: httpx2.Client, user: User) -> None:
    cookie = {"Cookie": "slipway_refresh=x; other=y"}
    assert seen_by(echo, PATHS["auth"], cookie)["cookie"] == ["slipway_refresh=x; other=y"]
    assert "cookie" not in seen_by(echo, PATHS["image"], user.headers | cookie)
    assert echo.get(PATHS["auth"]).headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert "set-cookie" not in echo.get(PATHS["image"], headers=user.headers).headers


@pytest.mark.parametrize(
    ("header", "client"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("198.51.100.1, 203.0.113.7", "203.0.113.7"),
        ("203.0.113.7, 127.0.0.3", "203.0.113.7"),
        ("nonsense", "127.0.0.1"),
        ("nonsense, 203.0.113.7", "203.0.113.7"),
    ],
)
def test_the_address_that_our_proxies_tell(platform: Platform, header: str, client: str) -> None:
    with (
        live_asgi(upstreams.echo) as upstream,
        platform.api(auth_url=upstream.url, trusted_proxies="127.0.0.0/8") as server,
        httpx2.Client(base_url=server.url) as behind_proxy,
    ):
        seen = seen_by(behind_proxy, PATHS["auth"], {"X-Forwarded-For": header})
    assert seen["x-forwarded-for"] == [client]


def test_names_and_values_beyond_ascii(echo: httpx2.Client) -> None:
    answer = echo.get(PATHS["auth"], headers=[(b"X-Note", "grüße".encode())])
    (note,) = [value for name, value in answer.json()["headers"] if name == "x-note"]
    assert note.encode("latin-1").decode() == "grüße"


def test_several_headers_of_a_name_stay_several(echo: httpx2.Client) -> None:
    answer = echo.get(PATHS["auth"], headers=[("Accept-Language", "de"), ("Accept-Language", "en")])
    assert [value for name, value in answer.json()["headers"] if name == "accept-language"] == ["de", "en"]


async def collecting(scope: Scope, receive: Receive, send: Send) -> None:
    """A collector that takes everything and keeps nothing."""
    await upstreams.read_body(receive)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_a_trace_goes_on_behind_the_gateway(platform: Platform, tmp_path: Path) -> None:
    """With tracing on the gateway's own call is the parent of what follows; off, the client's header goes along."""
    sent = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    with live_asgi(upstreams.echo) as upstream, live_asgi(collecting) as collector:
        for endpoint in ({}, {"otel_exporter_otlp_endpoint": collector.url}):
            with (
                gateway(platform, tmp_path, auth_url=upstream.url, **endpoint) as (url, _),
                httpx2.Client(base_url=url) as client,
            ):
                (parent,) = seen_by(client, PATHS["auth"], sent)["traceparent"]
            _, trace, span, _ = parent.split("-")
            assert trace == TRACE
            assert (span == "b7ad6b7169203331") == (not endpoint)


def test_nothing_of_it_is_in_the_log(platform: Platform, user: User, tmp_path: Path) -> None:
    """Neither what clients prove themselves with nor what the gateway does, whether the call succeeds or not."""
    secrets = {"Cookie": "slipway_refresh=hidden-cookie", "Idempotency-Key": "hidden-key"} | user.headers
    body = {"username": "somebody", "password": "hidden-password"}
    with live_asgi(upstreams.echo) as upstream:
        changes = {"auth_url": upstream.url, "image_url": f"http://127.0.0.1:{free_port()}", "log_level": "debug"}
        with gateway(platform, tmp_path, **changes) as (url, _), httpx2.Client(base_url=url, headers=secrets) as client:
            told = client.post("/api/v1/auth/login?hidden=query", json=body).json()
            assert client.get("/api/v1/images/stats").status_code == 503
            assert client.post("/api/v1/posts", json={"title": "x", "content": "y"}).status_code == 201
            assert client.get("/api/v1/posts/my", headers={"Authorization": "Bearer hidden"}).status_code == 401
    (service_token,) = [value for name, value in told["headers"] if name == "x-service-token"]
    log = (tmp_path / "log").read_text()
    assert {"upstream failed", "token refused", "request"} <= {json.loads(line)["event"] for line in log.splitlines()}
    own = [platform.api_settings[name] for name in ("database_password", "redis_password", "service_key")]
    for secret in ("hidden", user.token, service_token, *own):
        assert secret not in log
