"""Service tokens: the caller has one at hand, auth may be away, and the callee takes only those meant for it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import jwt
import pytest
from aiohttp import encode_basic_auth, web
from fastapi import APIRouter, FastAPI
from slipway_auth.keys import SigningKey
from slipway_kit import service_tokens
from slipway_kit.application import Runtime, build_app
from slipway_kit.http_client import new_session
from slipway_kit.problems import Problem
from slipway_kit.service_tokens import CallingService, ServiceCallers, ServiceTokens, audience_of
from slipway_kit.settings import ServiceSettings, ServiceTokenSettings, SettingsError
from slipway_kit.tokens import InvalidTokenError
from slipway_testing.checks import assert_problem
from slipway_testing.servers import live
from slipway_testing.settings import settings_of
from slipway_testing.tokens import AUDIENCE, ISSUER, hostile, mint, mint_service_token, new_key, service_claims, sign


class FakeAuth:
    """Gives out tokens for the right key, counts, and can be away."""

    def __init__(self) -> None:
        self.key = "key-of-api"
        self.asked: list[str] = []
        self.lifetime: Any = 900
        self.away = False
        self.delay = 0.0
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append((await request.json())["audience"])
        await asyncio.sleep(self.delay)
        if self.away:
            return web.Response(status=503)
        if request.headers.get("Authorization") != encode_basic_auth("api", self.key):
            return web.Response(status=401)
        return web.json_response({"token": f"token-{len(self.asked)}", "expires_in": self.lifetime})


@asynccontextmanager
async def caller(auth: FakeAuth, key: Callable[[], str] | None = None) -> AsyncIterator[ServiceTokens]:
    application = web.Application()
    application.router.add_post("/service-tokens", auth.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    auth.url = f"http://127.0.0.1:{runner.addresses[0][1]}/service-tokens"
    try:
        async with new_session(total=2) as session:
            yield ServiceTokens(session, auth.url, "api", key or (lambda: auth.key))
    finally:
        await runner.cleanup()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Adds seconds to the time that tokens are measured by."""
    offset = [0.0]
    real = time.monotonic

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return real() + offset[0]

        @staticmethod
        def time() -> float:
            return time.time() + offset[0]

    monkeypatch.setattr(service_tokens, "time", Clock)
    return offset


async def settled() -> None:
    """Everything that was begun in the background has ended."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    renewals = [task for task in others if "_renew_beside" in repr(task.get_coro())]
    await asyncio.gather(*renewals)


async def test_a_token_is_fetched_once_for_many_and_per_audience() -> None:
    auth = FakeAuth()
    async with caller(auth) as tokens:
        assert set(await asyncio.gather(*(tokens.get("image") for _ in range(20)))) == {"token-1"}
        assert await tokens.get("auth") == "token-2"
        assert await tokens.get("image") == "token-1"
    assert auth.asked == ["image", "auth"]


async def test_renewal_happens_beside_requests_and_survives_an_absence(clock: list[float]) -> None:
    auth = FakeAuth()
    async with caller(auth) as tokens:
        assert await tokens.get("image") == "token-1"
        clock[0] = 299
        assert await tokens.get("image") == "token-1"
        assert len(auth.asked) == 1
        clock[0] = 301
        auth.away = True
        # Nobody waits for the renewal, and its failure hurts nobody.
        assert [await tokens.get("image") for _ in range(5)] == ["token-1"] * 5
        await settled()
        assert len(auth.asked) == 2
        assert await tokens.get("image") == "token-1"
        await settled()
        # Not with every request while auth is away.
        assert len(auth.asked) == 2
        auth.away = False
        clock[0] = 860
        assert await tokens.get("image") == "token-1"
        await settled()
        assert await tokens.get("image") == "token-3"


async def test_an_expired_token_is_not_sent(clock: list[float]) -> None:
    auth = FakeAuth()
    async with caller(auth) as tokens:
        await tokens.get("image")
        clock[0] = 880
        auth.away = True
        with pytest.raises(Problem) as error:
            await tokens.get("image")
        assert (error.value.status_code, error.value.code) == (503, "service-token-unavailable")
        assert error.value.headers is not None
        assert "Retry-After" in error.value.headers
        auth.away = False
        clock[0] += 2
        assert await tokens.get("image") == "token-3"


async def test_without_auth_requests_fail_fast_and_recover(clock: list[float]) -> None:
    auth = FakeAuth()
    auth.away = True
    auth.delay = 0.1
    async with caller(auth) as tokens:
        results = await asyncio.gather(*(tokens.get("image") for _ in range(20)), return_exceptions=True)
        assert all(isinstance(result, Problem) for result in results)
        with pytest.raises(Problem):
            await tokens.get("image")
        assert len(auth.asked) == 1
        auth.away = False
        clock[0] = 1.2
        assert await tokens.get("image") == "token-2"


async def test_a_rotated_key_is_used() -> None:
    auth = FakeAuth()
    keys = ["wrong"]
    async with caller(auth, lambda: keys[0]) as tokens:
        with pytest.raises(Problem):
            await tokens.get("image")
        keys[0] = auth.key
        await asyncio.sleep(1.05)
        assert await tokens.get("image") == "token-2"


@pytest.mark.parametrize("lifetime", [0, -1, "900", None, []])
async def test_an_answer_that_is_none(lifetime: Any) -> None:
    auth = FakeAuth()
    auth.lifetime = lifetime
    async with caller(auth) as tokens:
        with pytest.raises(Problem):
            await tokens.get("image")


async def test_a_server_that_is_not_there() -> None:
    async with new_session(total=1) as session:
        with pytest.raises(Problem):
            await ServiceTokens(session, "http://127.0.0.1:9/service-tokens", "api", lambda: "key").get("image")


# The callee.


class Keys:
    """The public keys, and how often they were asked for."""

    def __init__(self, *keys: SigningKey) -> None:
        self.keys = {key.key_id: jwt.PyJWK(key.public_jwk, algorithm="ES256") for key in keys}
        self.asked = 0

    async def get(self, kid: str) -> jwt.PyJWK:
        self.asked += 1
        if kid not in self.keys:
            raise InvalidTokenError("kid is not known")
        return self.keys[kid]


def callers_of(*keys: SigningKey, callers: frozenset[str] = frozenset({"api"})) -> ServiceCallers:
    return ServiceCallers(Keys(*keys), ISSUER, "image", callers)


async def test_a_declared_caller_gets_in() -> None:
    key = new_key()
    callers = callers_of(key)
    token = mint_service_token(key, "api", "image")
    assert [await callers.verify(token) for _ in range(3)] == ["api"] * 3


async def test_hostile_service_tokens_do_not() -> None:
    key, other = new_key(), new_key()
    callers = callers_of(key)
    now = int(time.time())
    tokens = hostile(key) | {
        "an access token": mint(key),
        "an access token with our audience": mint(key, aud=audience_of("image"), sub="api"),
        "for another service": mint_service_token(key, "api", "auth"),
        "for users": mint_service_token(key, "api", "image", aud=AUDIENCE),
        "for many": mint_service_token(key, "api", "image", aud=[audience_of("image"), AUDIENCE]),
        "an undeclared caller": mint_service_token(key, "web", "image"),
        "no caller": mint_service_token(key, "api", "image", sub=None),
        "expired": mint_service_token(key, "api", "image", exp=now - 60),
        "endless": mint_service_token(key, "api", "image", exp=None),
        "of another issuer": mint_service_token(key, "api", "image", iss="somebody"),
        "no id": mint_service_token(key, "api", "image", jti=None),
        "signed by others": sign(other, service_claims("api", "image"), typ="st+jwt", kid=key.key_id),
        "empty": "",
    }
    for name, token in tokens.items():
        with pytest.raises(InvalidTokenError):
            await callers.verify(token)
            pytest.fail(name)


async def test_only_so_many_are_remembered() -> None:
    key = new_key()
    callers = callers_of(key)
    for _ in range(service_tokens._REMEMBERED + 5):
        await callers.verify(mint_service_token(key, "api", "image"))
    assert len(callers._remembered) == service_tokens._REMEMBERED


@pytest.fixture
def key() -> SigningKey:
    return new_key()


def app_with(callers: ServiceCallers) -> FastAPI:
    router = APIRouter()

    @router.get("/who")
    async def who(caller: CallingService) -> dict[str, str | None]:
        return {"caller": caller}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        yield {"callers": callers}

    runtime = Runtime.new("image", settings_of(ServiceSettings))
    return build_app(runtime, title="t", description="d", routers=[router], lifespan=lifespan)


@pytest.fixture
def client(key: SigningKey) -> Iterator[httpx2.Client]:
    with live(app_with(callers_of(key))) as server, httpx2.Client(base_url=server.url) as client:
        yield client


def test_the_dependency(key: SigningKey, client: httpx2.Client) -> None:
    missing = client.get("/who")
    assert_problem(missing, 401, "service-token-required")
    assert missing.headers["www-authenticate"].startswith("ServiceToken ")
    for token in ("x", mint(key), mint_service_token(key, "web", "image")):
        assert_problem(client.get("/who", headers={"X-Service-Token": token}), 401, "invalid-service-token")
    good = mint_service_token(key, "api", "image")
    assert client.get("/who", headers={"X-Service-Token": good}).json() == {"caller": "api"}
    # A bearer token is the user's and nobody else's.
    assert_problem(client.get("/who", headers={"Authorization": f"Bearer {good}"}), 401, "service-token-required")
    schemes = client.get("/openapi.json").json()["components"]["securitySchemes"]
    assert schemes["ServiceToken"] == {"type": "apiKey", "in": "header", "name": "X-Service-Token"}


def test_without_callers_nobody_is_asked(key: SigningKey) -> None:
    with live(app_with(callers_of(key, callers=frozenset()))) as server:
        assert httpx2.get(f"{server.url}/who").json() == {"caller": None}
        assert httpx2.get(f"{server.url}/who", headers={"X-Service-Token": "x"}).json() == {"caller": None}


def test_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBLIC_URL", "https://slipway.test")
    monkeypatch.setenv("PORT", "1")
    monkeypatch.setenv("SERVICE_TOKENS_URL", "auth:3001")
    with pytest.raises(SettingsError) as error:
        ServiceTokenSettings.load()
    text = "\n".join(error.value.lines)
    assert "SERVICE_TOKENS_URL: found 'auth:3001', wanted where this service gets the tokens" in text
    assert "SERVICE_KEY (or the file " in text
