"""The application: what is created, in which order, and closed in the reverse one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from fastapi import FastAPI
from slipway_kit.application import Runtime, build_app
from slipway_kit.capacity import Capacity, CapacityMetrics
from slipway_kit.database import Database

from slipway_auth.endpoints import router
from slipway_auth.keys import load_signing_key
from slipway_auth.passwords import Passwords
from slipway_auth.repository import UserRepository
from slipway_auth.service import AccountService
from slipway_auth.settings import Settings
from slipway_auth.tokens import TokenIssuer


class State(TypedDict):
    accounts: AccountService
    tokens: TokenIssuer


def create_app(settings: Settings) -> FastAPI:
    runtime = Runtime.new("auth", settings)
    database = Database(settings, runtime.registry, "auth")
    runtime.health.add("database", database.ping, critical=True)
    gate = Capacity(
        "hash",
        settings.hash_concurrency,
        settings.hash_queue,
        settings.hash_wait_seconds,
        CapacityMetrics(runtime.registry),
    )
    tokens = TokenIssuer(
        load_signing_key(settings.auth_signing_key.get_secret_value()),
        settings.token_issuer,
        settings.token_audience,
        settings.token_lifetime_seconds,
    )
    passwords = Passwords.with_cost(
        memory_kib=settings.hash_memory_kib, passes=settings.hash_passes, lanes=settings.hash_lanes, gate=gate
    )
    accounts = AccountService(UserRepository(database), passwords, tokens, runtime.registry)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        await database.open()
        try:
            yield {"accounts": accounts, "tokens": tokens}
        finally:
            await database.close()

    return build_app(
        runtime,
        title="slipway auth",
        description="Accounts and access tokens.",
        routers=[router],
        lifespan=lifespan,
    )
