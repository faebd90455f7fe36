"""The application: what is created, in which order, and closed in the reverse one."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import TypedDict

from fastapi import FastAPI
from slipway_kit.application import Runtime, build_app
from slipway_kit.capacity import Capacity, CapacityMetrics
from slipway_kit.database import Database
from slipway_kit.redis import Redis
from slipway_kit.service_tokens import ServiceCallers
from slipway_kit.tasks import background

from slipway_auth.cleanup import Cleanup
from slipway_auth.clients import Clients
from slipway_auth.common_passwords import common_passwords
from slipway_auth.endpoints import router
from slipway_auth.keys import KeyRing
from slipway_auth.limits import RateLimits, Rules
from slipway_auth.passwords import Passwords
from slipway_auth.repository import SessionRepository, UserRepository
from slipway_auth.revocations import RevocationPublisher
from slipway_auth.secret_files import ReloadMetrics, watch
from slipway_auth.service import AccountService
from slipway_auth.service_keys import ServiceKeys
from slipway_auth.service_tokens import ServiceTokenService
from slipway_auth.sessions import Sessions
from slipway_auth.settings import Settings, parse_rate
from slipway_auth.tokens import TokenIssuer

# Who passes requests of users on, and may say whose they are.
GATEWAY = "api"


class State(TypedDict):
    accounts: AccountService
    verifier: Sessions
    tokens: TokenIssuer
    service_tokens: ServiceTokenService
    clients: Clients


def create_app(settings: Settings) -> FastAPI:
    runtime = Runtime.new("auth", settings)
    registry = runtime.registry
    database = Database(settings, registry, "auth")
    redis = Redis(settings, registry, "auth")
    runtime.health.add("database", database.ping, critical=True)
    runtime.health.add("redis", redis.ping)
    reloads = ReloadMetrics(registry)
    keys, service_keys = KeyRing(settings.secret, reloads), ServiceKeys(settings.secret, reloads)
    tokens = TokenIssuer(keys, settings.token_issuer, settings.token_audience, settings.token_lifetime_seconds)
    limits = RateLimits(redis, registry, rules(settings))
    stored = SessionRepository(
        database,
        timedelta(seconds=settings.refresh_lifetime_seconds),
        timedelta(seconds=settings.session_lifetime_seconds),
    )
    publisher = RevocationPublisher(
        redis,
        stored,
        registry,
        token_lifetime=settings.token_lifetime_seconds,
        interval=settings.revocations_interval_seconds,
    )
    sessions = Sessions(stored, tokens, publisher, limits, registry)
    accounts = AccountService(
        UserRepository(database), stored, _passwords(settings, runtime), sessions, limits, registry
    )
    cleanup = Cleanup(stored, registry, settings.cleanup_interval_seconds)
    gateway = ServiceCallers(keys, settings.token_issuer, "auth", frozenset({GATEWAY}))
    state: State = {
        "accounts": accounts,
        "verifier": sessions,
        "tokens": tokens,
        "service_tokens": ServiceTokenService(service_keys, tokens, limits, registry),
        "clients": Clients(gateway),
    }
    # Read now: the first registration should not wait for it, and a package without it should not start.
    common_passwords()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            await database.open()
            stack.push_async_callback(database.close)
            await redis.open()
            stack.push_async_callback(redis.close)
            watching = partial(watch, (keys, service_keys), settings.keys_reload_seconds)
            for name, loop in (("keys", watching), ("revocations", publisher.run), ("cleanup", cleanup.run)):
                await stack.enter_async_context(background(name, loop))
            yield state

    return build_app(
        runtime,
        title="slipway auth",
        description="Accounts, sessions and tokens.",
        routers=[router],
        lifespan=lifespan,
    )


def rules(settings: Settings) -> Rules:
    return {
        "login": {
            "address": parse_rate(settings.limit_login_address),
            "user": parse_rate(settings.limit_login_user),
            "all": parse_rate(settings.limit_login_all),
        },
        "register": {
            "address": parse_rate(settings.limit_register_address),
            "all": parse_rate(settings.limit_register_all),
        },
        "password": {
            "address": parse_rate(settings.limit_password_address),
            "user": parse_rate(settings.limit_password_user),
        },
        "refresh": {"address": parse_rate(settings.limit_refresh_address)},
        "service_tokens": {"address": parse_rate(settings.limit_service_tokens_address)},
    }


def _passwords(settings: Settings, runtime: Runtime) -> Passwords:
    gate = Capacity(
        "hash",
        settings.hash_concurrency,
        settings.hash_queue,
        settings.hash_wait_seconds,
        CapacityMetrics(runtime.registry),
    )
    return Passwords.with_cost(
        memory_kib=settings.hash_memory_kib,
        passes=settings.hash_passes,
        lanes=settings.hash_lanes,
        gate=gate,
        registry=runtime.registry,
    )
