"""Verification against JWKS: what gets in, what does not, and what happens when auth is away."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import httpx2
import jwt
import pytest
import structlog
from aiohttp import web
from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry
from slipway_auth.keys import SigningKey
from slipway_kit import tokens
from slipway_kit.application import Runtime, build_app
from slipway_kit.http_client import new_session
from slipway_kit.problems import Problem
from slipway_kit.redis import Redis
from slipway_kit.revocations import REVOKED_SESSIONS, Revocations
from slipway_kit.settings import RedisSettings, ServiceSettings
from slipway_kit.tokens import CurrentUser, InvalidTokenError, JwksCache, Verifier, parse_jwks
from slipway_testing.checks import assert_problem
from slipway_testing.redis import RedisServer
from slipway_testing.servers import live
from slipway_testing.settings import settings_of
from slipway_testing.tokens import AUDIENCE, ISSUER, hostile, mint, new_key


class FakeAuth:
    """Serves a JWKS, counts how often it is asked, and can be away."""

    def __init__(self, *keys: dict[str, Any]) -> None:
        self.keys = list(keys)
        self.asked = 0
        self.away = False
        self.hangs = False
        self.url = ""

    async def answer(self, _: web.Request) -> web.Response:
        self.asked += 1
        if self.hangs:
            await asyncio.sleep(1)
        if self.away:
            return web.Response(status=503)
        return web.json_response({"keys": self.keys})


@asynccontextmanager
async def serving(auth: FakeAuth) -> AsyncIterator[FakeAuth]:
    application = web.Application()
    application.router.add_get("/jwks", auth.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    auth.url = f"http://127.0.0.1:{runner.addresses[0][1]}/jwks"
    try:
        yield auth
    finally:
        await runner.cleanup()


@asynccontextmanager
async def verifying(auth: FakeAuth, **options: float) -> AsyncIterator[Verifier]:
    async with serving(auth), new_session(total=2) as session:
        yield Verifier(JwksCache(session, auth.url, **options), ISSUER, AUDIENCE)


async def settled(verifier: Verifier) -> None:
    """Nobody is asking auth any more."""
    if verifier.keys._renewal is not None:
        await verifier.keys._renewal


async def test_a_good_token_gets_in() -> None:
    key = new_key()
    async with verifying(FakeAuth(key.public_jwk)) as verifier:
        principal = await verifier.verify(mint(key, preferred_username="ada"))
        assert principal.username == "ada"


async def test_hostile_tokens_do_not() -> None:
    key = new_key()
    async with verifying(FakeAuth(key.public_jwk), cooldown=60) as verifier:
        for name, token in hostile(key).items():
            with pytest.raises(InvalidTokenError):
                await verifier.verify(token)
                pytest.fail(name)


async def test_tokens_of_an_ended_session_do_not(redis_server: RedisServer) -> None:
    key = new_key()
    auth = FakeAuth(key.public_jwk)
    registry = CollectorRegistry()
    redis = Redis(settings_of(RedisSettings, **redis_server.settings("api")), registry, "probe")
    revocations = Revocations(redis, registry, keep_seconds=900)
    ended, other = uuid.uuid4().hex, uuid.uuid4().hex
    async with serving(auth), new_session(total=2) as session:
        verifier = Verifier(JwksCache(session, auth.url), ISSUER, AUDIENCE, revocations)
        token = mint(key, sid=ended)
        assert (await verifier.verify(token)).session_id == ended
        with redis_server.admin() as admin:
            admin.zadd(REVOKED_SESSIONS, {ended: time.time()})
        await revocations.look()
        with pytest.raises(InvalidTokenError, match="session"):
            await verifier.verify(token)
        await verifier.verify(mint(key, sid=other))
    await redis.close()


async def test_keys_are_fetched_once_for_many() -> None:
    key = new_key()
    auth = FakeAuth(key.public_jwk)
    async with verifying(auth) as verifier:
        await asyncio.gather(*(verifier.verify(mint(key)) for _ in range(20)))
        assert auth.asked == 1


async def test_invented_key_ids_do_not_become_requests() -> None:
    key = new_key()
    auth = FakeAuth(key.public_jwk)
    async with verifying(auth) as verifier:
        await verifier.verify(mint(key))
        for _ in range(20):
            with pytest.raises(InvalidTokenError):
                await verifier.verify(mint(new_key()))
        assert auth.asked == 1


async def test_a_new_key_is_found_when_its_first_token_comes() -> None:
    old, new = new_key(), new_key()
    auth = FakeAuth(old.public_jwk)
    async with verifying(auth, cooldown=0) as verifier:
        await verifier.verify(mint(old))
        auth.keys = [old.public_jwk, new.public_jwk]
        await verifier.verify(mint(new))
        await verifier.verify(mint(old))
        assert auth.asked == 2


async def test_known_keys_serve_on_while_auth_is_away() -> None:
    key = new_key()
    auth = FakeAuth(key.public_jwk)
    # Aged at once, so that each use would like newer ones.
    async with verifying(auth, max_age=0, cooldown=0) as verifier:
        await verifier.verify(mint(key))
        auth.away = True
        await verifier.verify(mint(key))
        await verifier.keys.probe()
        await settled(verifier)
        assert auth.asked == 2
        # The failure cost nothing: they are still there.
        await verifier.verify(mint(key))
        await settled(verifier)


async def test_nobody_waits_for_newer_keys() -> None:
    key = new_key()
    auth = FakeAuth(key.public_jwk)
    async with verifying(auth, max_age=0, cooldown=0) as verifier:
        await verifier.verify(mint(key))
        auth.hangs = True
        started = time.monotonic()
        for _ in range(10):
            await verifier.verify(mint(key))
        assert time.monotonic() - started < 0.9
        # One asks for all of them.
        await settled(verifier)
        assert auth.asked == 2


async def test_a_key_that_was_withdrawn_falls_with_the_next_look() -> None:
    old, new = new_key(), new_key()
    auth = FakeAuth(old.public_jwk)
    async with verifying(auth, max_age=0, cooldown=0) as verifier:
        await verifier.verify(mint(old))
        auth.keys = [new.public_jwk]
        await verifier.verify(mint(old))
        await settled(verifier)
        with pytest.raises(InvalidTokenError):
            await verifier.verify(mint(old))


async def test_without_any_key_the_answer_is_503_and_recovers() -> None:
    key = new_key()
    auth = FakeAuth(key.public_jwk)
    auth.away = True
    async with verifying(auth) as verifier:
        with pytest.raises(Problem) as error:
            await verifier.verify(mint(key))
        assert error.value.status_code == 503
        assert error.value.headers == {"Retry-After": "2"}
        with pytest.raises(ConnectionError):
            await verifier.keys.probe()
        auth.away = False
        await verifier.verify(mint(key))


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"keys": None},
        {"keys": ["x"]},
        {"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "a"}]},
        {"keys": [{"kty": "EC", "crv": "P-256", "x": "!", "y": "!", "kid": "a"}]},
        {"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "a"}]},
        {"keys": [{key: value for key, value in new_key().public_jwk.items() if key != "kid"}]},
    ],
)
def test_documents_without_a_usable_key(document: object) -> None:
    with pytest.raises(ValueError, match="no usable key"):
        parse_jwks(document)


def test_keys_of_other_kinds_are_passed_over() -> None:
    key = new_key().public_jwk
    assert list(parse_jwks({"keys": [{"kty": "RSA", "kid": "a"}, key]})) == [key["kid"]]


@pytest.fixture
def signing_key() -> SigningKey:
    return new_key()


@pytest.fixture
def client(signing_key: SigningKey, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx2.Client]:
    verifier = verifier_with(CountedKeys(signing_key, monkeypatch))
    router = APIRouter()

    @router.get("/me")
    async def me(user: CurrentUser) -> dict[str, Any]:
        return {"name": user.username, "context": structlog.contextvars.get_contextvars()}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        yield {"verifier": verifier}

    runtime = Runtime.new("probe", settings_of(ServiceSettings))
    app = build_app(runtime, title="t", description="d", routers=[router], lifespan=lifespan)
    with live(app) as server, httpx2.Client(base_url=server.url) as client:
        yield client


def test_the_dependency(signing_key: SigningKey, client: httpx2.Client) -> None:
    token = mint(signing_key, preferred_username="ada", sub="5a3d9a0e-3a4c-4b8e-9a57-0f4b1a0d7c11")
    for scheme in ("Bearer", "bearer", "BEARER", "Bearer "):
        answer = client.get("/me", headers={"Authorization": f"{scheme} {token}"}).json()
        assert answer["name"] == "ada"
        # For every line that is logged from here on.
        assert answer["context"]["user_id"] == "5a3d9a0e-3a4c-4b8e-9a57-0f4b1a0d7c11"
    for wrong in (None, "", "Bearer", token, f"Basic {token}", f"DPoP {token}"):
        refused = client.get("/me", headers={} if wrong is None else {"Authorization": wrong})
        assert_problem(refused, 401, "token-required")
        assert refused.headers["www-authenticate"] == 'Bearer realm="slipway"'
    for wrong in ("x", f"{token} {token}", f"{token}, Bearer {token}"):
        refused = client.get("/me", headers={"Authorization": f"Bearer {wrong}"})
        assert_problem(refused, 401, "invalid-token")
        assert refused.headers["www-authenticate"] == 'Bearer realm="slipway", error="invalid_token"'
    schemes = client.get("/openapi.json").json()["components"]["securitySchemes"]
    assert schemes == {"AccessToken": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}


class CountedKeys:
    """Keys of a test, and a count of the signatures that were checked with them."""

    def __init__(self, key: SigningKey, monkeypatch: pytest.MonkeyPatch) -> None:
        self.key = jwt.PyJWK(key.public_jwk, algorithm="ES256")
        self.checked = 0
        real = tokens.verified_claims

        def counting(*arguments: Any) -> dict[str, Any]:
            self.checked += 1
            return real(*arguments)

        monkeypatch.setattr(tokens, "verified_claims", counting)

    async def get(self, kid: str) -> jwt.PyJWK:
        return self.key


def verifier_with(keys: CountedKeys) -> Verifier:
    return Verifier(keys, ISSUER, AUDIENCE)  # type: ignore[arg-type]


async def test_a_signature_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    key = new_key()
    keys = CountedKeys(key, monkeypatch)
    verifier = verifier_with(keys)
    token = mint(key)
    found = [await verifier.verify(token) for _ in range(5)]
    assert len(set(found)) == 1
    assert keys.checked == 1
    # One letter more, less or other is another token.
    for wrong in (token[:-4] + "AAAA", token + "A", token.replace(".", "..", 1)):
        with pytest.raises(InvalidTokenError):
            await verifier.verify(wrong)


async def test_a_remembered_token_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    key = new_key()
    verifier = verifier_with(CountedKeys(key, monkeypatch))
    now = time.time()
    token = mint(key, exp=int(now) + 300)
    await verifier.verify(token)
    monkeypatch.setattr(time, "time", lambda: now + 299)
    await verifier.verify(token)

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Later":
            return cls.fromtimestamp(now + 320, tz)

    monkeypatch.setattr(time, "time", lambda: now + 320)
    monkeypatch.setattr(jwt.api_jwt, "datetime", Later)
    with pytest.raises(InvalidTokenError):
        await verifier.verify(token)
    assert len(verifier._remembered) == 0


async def test_a_remembered_token_falls_with_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    key = new_key()
    keys = CountedKeys(key, monkeypatch)
    verifier = verifier_with(keys)
    token = mint(key)
    await verifier.verify(token)
    keys.key = jwt.PyJWK(new_key().public_jwk, algorithm="ES256")
    with pytest.raises(InvalidTokenError):
        await verifier.verify(token)


async def test_the_least_used_tokens_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "REMEMBERED", 3)
    key = new_key()
    keys = CountedKeys(key, monkeypatch)
    verifier = verifier_with(keys)
    first = mint(key)
    for token in [first] + [mint(key) for _ in range(5)]:
        await verifier.verify(token)
        await verifier.verify(first)
    assert keys.checked == 6
    assert len(verifier._remembered) == 3
