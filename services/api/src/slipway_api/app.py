"""The application: what is created, in which order, and closed in the reverse one."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypedDict

from fastapi import FastAPI
from slipway_kit.application import Runtime, build_app
from slipway_kit.database import Database
from slipway_kit.http_client import new_session
from slipway_kit.tokens import JwksCache, Verifier

from slipway_api import endpoints, routes
from slipway_api.relay import Relay, RelayMetrics, RelayTimeouts
from slipway_api.repository import PostRepository
from slipway_api.service import PostService
from slipway_api.settings import Settings

# For health checks; requests of users bring their own.
HEALTH_TIMEOUT = 2


class State(TypedDict):
    posts: PostService
    verifier: Verifier
    auth: Relay
    image: Relay


def create_app(settings: Settings) -> FastAPI:
    runtime = Runtime.new("api", settings)
    database = Database(settings, runtime.registry, "api")
    runtime.health.add("database", database.ping, critical=True)
    posts = PostService(PostRepository(database), runtime.registry)
    metrics = RelayMetrics(runtime.registry)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(database.close)
            await database.open()
            keys = JwksCache(await stack.enter_async_context(new_session(total=3)), str(settings.auth_jwks_url))
            timeouts = RelayTimeouts(
                connect=settings.relay_connect_timeout,
                read=settings.relay_read_timeout,
                head=settings.relay_head_timeout,
                upload=settings.relay_upload_timeout,
            )

            async def relay(name: str, url: str) -> Relay:
                # A pool of connections for each: a slow upstream must not use up those of the other.
                session = new_session(total=HEALTH_TIMEOUT, limit=settings.relay_connections)
                return Relay(name, url, await stack.enter_async_context(session), timeouts, metrics)

            auth = await relay("auth", str(settings.auth_url))
            image = await relay("image", str(settings.image_url))
            # Reads of posts go on without either: degraded, not down.
            runtime.health.add("auth", auth.probe)
            runtime.health.add("image", image.probe)
            yield {
                "posts": posts,
                "verifier": Verifier(keys, settings.token_issuer, settings.token_audience),
                "auth": auth,
                "image": image,
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
