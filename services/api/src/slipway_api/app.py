"""The application: what is created, in which order, and closed in the reverse one."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypedDict

import aiohttp
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from slipway_kit.application import Runtime, build_app
from slipway_kit.capacity import Capacity, CapacityMetrics
from slipway_kit.database import Database
from slipway_kit.http_client import new_session
from slipway_kit.redis import Redis
from slipway_kit.revocations import Revocations
from slipway_kit.service_tokens import ServiceTokens
from slipway_kit.tasks import background
from slipway_kit.tokens import JwksCache, Verifier

from slipway_api import endpoints, routes
from slipway_api.breaker import Breaker, BreakerMetrics
from slipway_api.cache import PostCache
from slipway_api.relay import Relay, RelayTimeouts, Slots
from slipway_api.relay_metrics import RelayMetrics
from slipway_api.repository import PostRepository
from slipway_api.service import PostService
from slipway_api.settings import Settings

# For health checks; requests of users bring their own.
HEALTH_TIMEOUT = 2
# Of the connections to an upstream; the rest is for what is quick.
UPLOADS_SHARE = 0.75
# The longest that auth can be told to let access tokens live.
TOKEN_SECONDS = 3600
# Health checks do not wait for one of the connections that requests of users have to share.
SPARE_CONNECTIONS = 4


class _Relays:
    """Makes relays: what they share, and what each has for itself, because one upstream must not use up what is there
    for the other.
    """

    def __init__(self, settings: Settings, registry: CollectorRegistry) -> None:
        self._settings = settings
        self._metrics = RelayMetrics(registry)
        self._breakers = BreakerMetrics(registry)
        self._capacity = CapacityMetrics(registry)
        self._timeouts = RelayTimeouts(
            connect=settings.relay_connect_timeout,
            read=settings.relay_read_timeout,
            head=settings.relay_head_timeout,
            upload=settings.relay_upload_timeout,
            stall=settings.relay_stall_timeout,
        )

    def session(self) -> aiohttp.ClientSession:
        session = new_session(total=HEALTH_TIMEOUT, limit=self._settings.relay_connections + SPARE_CONNECTIONS)
        # aiohttp repeats by itself what an old connection swallowed, DELETE too, and would do so below our own retry.
        session._retry_connection = False
        return session

    def new(self, name: str, url: str, session: aiohttp.ClientSession, tokens: ServiceTokens) -> Relay:
        settings = self._settings
        connections = settings.relay_connections
        return Relay(
            name,
            url,
            session,
            tokens=tokens,
            trusted=settings.trusted_networks,
            timeouts=self._timeouts,
            slots=Slots(
                all=self._slots(f"relay-{name}", connections),
                uploads=self._slots(f"relay-{name}-uploads", round(connections * UPLOADS_SHARE)),
            ),
            breaker=Breaker(name, settings.breaker_failures, settings.breaker_open_seconds, self._breakers),
            metrics=self._metrics,
            # The refresh token may be in one. Nobody else has to see it, or to set another.
            cookies=name == "auth",
        )

    def _slots(self, name: str, size: int) -> Capacity:
        return Capacity(name, size, size, self._settings.relay_connect_timeout, self._capacity)


class State(TypedDict):
    posts: PostService
    verifier: Verifier
    auth: Relay
    image: Relay


def create_app(settings: Settings) -> FastAPI:
    runtime = Runtime.new("api", settings)
    registry = runtime.registry
    database = Database(settings, registry, "api")
    redis = Redis(settings, registry, "api")
    revocations = Revocations(redis, registry, keep_seconds=TOKEN_SECONDS)
    posts = PostService(PostRepository(database), PostCache(redis, registry, settings.cache_seconds), registry)
    relays = _Relays(settings, registry)
    runtime.health.add("database", database.ping, critical=True)
    # Reads of posts go on without any of the others: degraded, not down.
    runtime.health.add("redis", redis.ping)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(database.close)
            await database.open()
            stack.push_async_callback(redis.close)
            await redis.open()
            calls = await stack.enter_async_context(new_session(total=3))
            keys = JwksCache(calls, str(settings.auth_jwks_url))
            tokens = ServiceTokens(
                calls, str(settings.service_tokens_url), "api", lambda: settings.secret("service_key")
            )
            behind = {}
            for name, url in (("auth", settings.auth_url), ("image", settings.image_url)):
                session = await stack.enter_async_context(relays.session())
                behind[name] = relays.new(name, str(url), session, tokens)
                runtime.health.add(name, behind[name].probe)
            await stack.enter_async_context(background("revocations", revocations.run))
            await stack.enter_async_context(background("idempotency-keys", posts.forget_keys))
            yield {
                "posts": posts,
                "verifier": Verifier(keys, settings.token_issuer, settings.token_audience, revocations),
                "auth": behind["auth"],
                "image": behind["image"],
            }

    return build_app(
        runtime,
        title="slipway api",
        description="Posts, accounts and images: everything that the platform offers to the outside.",
        routers=[endpoints.router, routes.auth, routes.images],
        lifespan=lifespan,
        # Image limits its uploads itself; a stream that is passed on costs no memory here.
        body_limit_exceptions=[("/api/v1/images", None)],
    )
