"""Tokens that nobody may accept, at every door that takes one: api, image, auth; of users and of services."""

import base64
import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from slipway_auth.keys import SigningKey
from slipway_testing.checks import assert_problem
from slipway_testing.limits import UNLIMITED
from slipway_testing.platform import PASSWORD, Platform, User
from slipway_testing.servers import live_asgi
from slipway_testing.tokens import (
    claims,
    hostile,
    mint,
    mint_service_token,
    new_key,
    service_claims,
    sign,
)
from slipway_testing.upstreams import read_body

pytestmark = pytest.mark.slow

DOORS = ("api", "image", "auth")


@pytest.fixture(scope="module")
def doors(platform: Platform) -> Iterator[dict[str, Callable[[str], httpx2.Response]]]:
    """Name -> a request that only asks for a good access token."""
    service = {name.encode(): value.encode() for name, value in platform.service_headers("api", "image").items()}
    with (
        platform.auth(**UNLIMITED) as auth,
        httpx2.Client(timeout=20) as client,
    ):

        def bearer(token: str) -> dict[bytes, bytes]:
            # As bytes: some hostile tokens are no ASCII, and nobody who means harm minds.
            return {b"Authorization": b"Bearer " + token.encode("latin-1")}

        # Wrong on purpose: whoever gets past the token is told invalid-credentials, which is another 401.
        change = {"current_password": "not this one", "new_password": "never to be seen again"}
        yield {
            "api": lambda token: client.get(f"{platform.url('api')}/api/v1/posts/my", headers=bearer(token)),
            "image": lambda token: client.get(f"{platform.url('image')}/images", headers=bearer(token) | service),
            "auth": lambda token: client.post(f"{auth.url}/password", json=change, headers=bearer(token)),
        }


@contextmanager
def key_server(key: SigningKey) -> Iterator[tuple[str, list[str]]]:
    """Where an attacker would like his keys to be fetched from; tells who came."""
    asked: list[str] = []

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        await read_body(receive)
        body = json.dumps({"keys": [key.public_jwk]}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})

    with live_asgi(answer) as server:
        yield server.url, asked


def more_hostile(platform: Platform) -> dict[str, str]:
    """What `hostile` does not have: names of keys as ways to attack, and tokens of the other kind."""
    key, now = platform.key, int(time.time())
    other = new_key()
    certificate = base64.b64encode(b"not a certificate").decode()
    return {
        "x5u": sign(other, claims(), x5u="http://127.0.0.1:1/chain.pem", kid=other.key_id),
        "x5c": sign(other, claims(), x5c=[certificate], kid=other.key_id),
        "jwk instead of kid": sign(other, claims(), jwk=other.public_jwk, kid=other.key_id),
        "kid for SQL": sign(key, claims(), kid="' OR '1'='1"),
        "kid with a line": sign(key, claims(), kid=f"{key.key_id}\n"),
        "kid no text": raw_signed(key, {"alg": "ES256", "typ": "at+jwt", "kid": [key.key_id]}, claims()),
        "alg of another curve": raw_signed(key, {"alg": "ES384", "typ": "at+jwt", "kid": key.key_id}, claims()),
        "alg twice": raw_signed(key, {"alg": ["ES256"], "typ": "at+jwt", "kid": key.key_id}, claims()),
        "claims a list": raw_signed(key, {"alg": "ES256", "typ": "at+jwt", "kid": key.key_id}, [claims()]),
        "service token of api for image": mint_service_token(key, "api", "image"),
        "service token with the audience of users": mint_service_token(key, "api", "image", aud="slipway"),
        "service token with the claims of a user": sign(key, claims(), typ="st+jwt"),
        "expired this second": mint(key, exp=now - 31, iat=now - 900),
        "valid from in a minute": mint(key, nbf=now + 60),
        "no sid": mint(key, sid=None),
        "sid no text": raw_signed(key, {"alg": "ES256", "typ": "at+jwt", "kid": key.key_id}, claims() | {"sid": ["a"]}),
        "sid empty": raw_signed(key, {"alg": "ES256", "typ": "at+jwt", "kid": key.key_id}, claims() | {"sid": ""}),
        "aud none": mint(key, aud=""),
        "iss with a slash": mint(key, iss="slipway-auth/"),
        "nested": mint(key).replace(".", "..", 1),
        "two tokens": f"{mint(key)} {mint(key)}",
        "refresh token": "A" * 43,
    }


def raw_signed(key: SigningKey, head: dict[str, Any], payload: object) -> str:
    """Signed as it should be, whatever the head says: no library would make these."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (head, payload)]
    r, s = decode_dss_signature(key.private.sign(b".".join(parts), ECDSA(SHA256())))
    signature = base64.urlsafe_b64encode(r.to_bytes(32, "big") + s.to_bytes(32, "big")).rstrip(b"=")
    return b".".join([*parts, signature]).decode()


@pytest.mark.parametrize("door", DOORS)
def test_refused_at_every_door(platform: Platform, doors: dict[str, Any], door: str) -> None:
    account = platform.new_account()
    assert doors[door](account.token).status_code in (200, 401)
    for name, token in (hostile(platform.key) | more_hostile(platform)).items():
        answer = doors[door](token)
        assert answer.status_code == 401, (door, name, answer.text)
        problem = assert_problem(answer, 401, "invalid-token")
        assert answer.headers["www-authenticate"].startswith('Bearer realm="slipway", error="invalid_token"'), name
        # One answer for all: it does not say how close it was.
        assert set(problem) <= {"type", "title", "status", "detail", "instance", "request_id", "trace_id"}


@pytest.mark.parametrize("door", DOORS)
def test_the_doors_do_open(platform: Platform, doors: dict[str, Any], door: str) -> None:
    """Or the test above would pass with a service that refuses everybody."""
    answer = doors[door](platform.new_account().token)
    if door == "auth":
        assert_problem(answer, 401, "invalid-credentials")
    else:
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("scheme", ["", "Basic {}", "bearer", "Bearer", "Token {}", "{}", "Bearer {}, Bearer {}"])
def test_other_ways_to_send_a_good_token(platform: Platform, scheme: str) -> None:
    headers = {"Authorization": scheme.replace("{}", platform.new_user().token)} if scheme else {}
    answer = httpx2.get(f"{platform.url('api')}/api/v1/posts/my", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("name", ["access_token", "token", "authorization"])
def test_a_token_in_the_query_string_is_none(platform: Platform, name: str) -> None:
    """Query strings end up in logs and histories."""
    token = platform.new_user().token
    assert httpx2.get(f"{platform.url('api')}/api/v1/posts/my", params={name: token}).status_code == 401
    assert httpx2.get(f"{platform.url('api')}/api/v1/posts/my", cookies={name: token}).status_code == 401


@pytest.mark.parametrize("header", ["jku", "x5u"])
@pytest.mark.parametrize("door", DOORS)
def test_keys_are_not_fetched_from_where_a_token_says(
    platform: Platform, doors: dict[str, Any], door: str, header: str
) -> None:
    other = new_key()
    with key_server(other) as (url, asked):
        token = sign(other, claims(), kid=other.key_id, **{header: f"{url}/jwks.json"})
        assert doors[door](token).status_code == 401
        time.sleep(0.2)
        assert asked == []


def test_introspection_says_what_the_doors_say(platform: Platform) -> None:
    with platform.auth(**UNLIMITED) as server, httpx2.Client(base_url=server.url) as client:
        for kind, token in (hostile(platform.key) | more_hostile(platform)).items():
            answer = client.post("/verify", json={"token": token})
            assert answer.status_code == 422 or answer.json() == {"active": False}, kind


# Tokens of services

IMAGE_PATHS = ("/images", "/stats", f"/images/{'0' * 32}.jpg")


def of_services(platform: Platform) -> dict[str, str]:
    """Name -> what image must not take for the gateway's word."""
    key, now = platform.key, int(time.time())
    other = new_key()
    good = mint_service_token(key, "api", "image")
    return {
        "an access token": mint(key),
        "an access token with the audience": mint(key, aud="slipway:image"),
        "typ of an access token": sign(key, service_claims("api", "image"), typ="at+jwt"),
        "no typ": jwt.encode(
            service_claims("api", "image"), key.private, algorithm="ES256", headers={"kid": key.key_id}
        ),
        "for another": mint_service_token(key, "api", "auth"),
        "for users": mint_service_token(key, "api", "image", aud="slipway"),
        "for many": mint_service_token(key, "api", "image", aud=["slipway:image", "slipway:auth"]),
        "for nobody": mint_service_token(key, "api", "image", aud=None),
        "of one who may not call": mint_service_token(key, "demo", "image"),
        "of itself": mint_service_token(key, "image", "image"),
        "of a user's id": mint_service_token(key, str(uuid.uuid4()), "image"),
        "of nobody": mint_service_token(key, "api", "image", sub=None),
        "of another issuer": mint_service_token(key, "api", "image", iss="somebody-else"),
        "expired": mint_service_token(key, "api", "image", iat=now - 1800, exp=now - 900),
        "without an end": mint_service_token(key, "api", "image", exp=None),
        "not yet valid": mint_service_token(key, "api", "image", nbf=now + 600),
        "of another key": mint_service_token(other, "api", "image"),
        "of another key by our name": sign(other, service_claims("api", "image"), typ="st+jwt", kid=key.key_id),
        "alg none": _unsigned(key),
        "cut": good[:-10],
        "nothing": "",
        "rubbish": "x.y.z",
    }


def _unsigned(key: SigningKey) -> str:
    head = {"alg": "none", "typ": "st+jwt", "kid": key.key_id}
    parts = (json.dumps(head).encode(), json.dumps(service_claims("api", "image")).encode(), b"")
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@pytest.mark.parametrize("path", IMAGE_PATHS)
def test_image_answers_its_callers_only(platform: Platform, user: User, path: str) -> None:
    url = f"{platform.url('image')}{path}"
    good = httpx2.get(url, headers=user.headers | platform.service_headers("api", "image"))
    assert good.status_code in (200, 404)
    assert_problem(httpx2.get(url, headers=user.headers), 401, "service-token-required")
    for name, token in of_services(platform).items():
        answer = httpx2.get(url, headers=user.headers | {"X-Service-Token": token})
        assert answer.status_code == 401, (name, answer.text)
        code = answer.json()["type"].rpartition(":")[2]
        assert code == ("service-token-required" if name == "nothing" else "invalid-service-token"), name


def test_a_service_token_alone_is_nobody(platform: Platform) -> None:
    answer = httpx2.get(f"{platform.url('image')}/images", headers=platform.service_headers("api", "image"))
    assert_problem(answer, 401, "token-required")


def test_hostile_service_tokens_do_not_upload(platform: Platform, user: User) -> None:
    """The door that costs most when it is open."""
    for name, token in of_services(platform).items():
        answer = httpx2.post(
            f"{platform.url('image')}/upload",
            files={"file": ("a.jpg", b"x", "image/jpeg")},
            headers=user.headers | {"X-Service-Token": token},
        )
        assert answer.status_code == 401, name


@pytest.mark.parametrize("audience", ["image", "auth"])
def test_who_gets_a_service_token(platform: Platform, audience: str) -> None:
    with platform.auth(**UNLIMITED) as server, httpx2.Client(base_url=server.url) as client:
        good = client.post("/service-tokens", json={"audience": audience}, auth=("api", platform.service_keys["api"]))
        assert good.status_code == 200, good.text
        token = good.json()["token"]
        assert good.headers["cache-control"] == "no-store"
        assert jwt.get_unverified_header(token)["typ"] == "st+jwt"
        said = jwt.decode(
            token, platform.key.private.public_key(), algorithms=["ES256"], audience=f"slipway:{audience}"
        )
        assert (said["sub"], said["iss"]) == ("api", "slipway-auth")
        assert said["exp"] - said["iat"] == good.json()["expires_in"] == 900
        for name, key in (
            ("api", platform.service_keys["image"]),
            ("api", ""),
            ("", ""),
            ("nobody", platform.service_keys["api"]),
            ("API", platform.service_keys["api"]),
            ("api", platform.service_keys["api"] + "\x00"),
        ):
            assert client.post("/service-tokens", json={"audience": audience}, auth=(name, key)).status_code == 401
        assert client.post("/service-tokens", json={"audience": audience}).status_code == 401
        user = platform.new_account().headers
        assert client.post("/service-tokens", json={"audience": audience}, headers=user).status_code == 401


@pytest.mark.parametrize("audience", ["", "../image", "image slipway:auth", "x" * 500, None, ["image"], 5])
def test_audiences_that_are_none(platform: Platform, audience: object) -> None:
    """ASVS 9.2.4: whoever chooses an audience must not be able to make it that of users."""
    with platform.auth(**UNLIMITED) as server:
        key = ("api", platform.service_keys["api"])
        answer = httpx2.post(f"{server.url}/service-tokens", json={"audience": audience}, auth=key)
        assert answer.status_code == 422, answer.text


def test_no_audience_makes_it_a_token_of_users(platform: Platform, doors: dict[str, Any]) -> None:
    """The name of the users' audience, asked for as that of a service."""
    with platform.auth(**UNLIMITED) as server:
        key = ("api", platform.service_keys["api"])
        for audience in ("slipway", "image", "api", "auth"):
            answer = httpx2.post(f"{server.url}/service-tokens", json={"audience": audience}, auth=key)
            token = answer.json().get("token")
            assert answer.status_code in (200, 422)
            if token:
                assert all(not accepted(doors[door](token)) for door in DOORS)


def test_no_way_through_the_gateway_to_service_tokens(platform: Platform) -> None:
    for path in (
        "/api/v1/auth/service-tokens",
        "/service-tokens",
        "/api/v1/auth/../service-tokens",
        "/api/v1/auth/%2e%2e/service-tokens",
        "/api/v1/auth/verify/../service-tokens",
        "/api/v1/auth//service-tokens",
        "/api/v1/auth/login%2f..%2fservice-tokens",
    ):
        key = ("api", platform.service_keys["api"])
        answer = httpx2.post(f"{platform.url('api')}{path}", json={"audience": "image"}, auth=key)
        assert answer.status_code in (404, 405), (path, answer.text)


# Sessions that are over


def test_the_token_of_a_session_that_is_over(platform: Platform, doors: dict[str, Any]) -> None:
    """auth says so at once, the others within some seconds; a session of the same user that goes on is not touched."""
    account = platform.new_account()
    again = log_in(platform, account)
    for door in DOORS:
        assert accepted(doors[door](account.token)), door
    assert httpx2.post(f"{platform.url('auth')}/logout", json={}, headers=account.headers).status_code == 204
    answer = doors["auth"](account.token)
    assert answer.status_code == 401
    assert not accepted(answer)
    deadline = time.monotonic() + 5
    while any(accepted(doors[door](account.token)) for door in DOORS):
        assert time.monotonic() < deadline, "still accepted five seconds after the logout"
        time.sleep(0.1)
    for door in DOORS:
        assert accepted(doors[door](again)), door


def accepted(answer: httpx2.Response) -> bool:
    """Whether the token was: the door of auth then complains about the password."""
    return answer.status_code == 200 or answer.json()["type"].endswith(":invalid-credentials")


def log_in(platform: Platform, account: User) -> str:
    credentials = {"username": account.username, "password": PASSWORD}
    token: str = httpx2.post(f"{platform.url('auth')}/login", json=credentials).json()["access_token"]
    return token
