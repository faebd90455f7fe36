"""The three services as they run together, with their own databases, users and bucket."""

import asyncio
import importlib
import json
import secrets
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
from fastapi import FastAPI
from slipway_auth.keys import SigningKey, load_signing_key
from slipway_kit.migrations import migrate
from slipway_kit.settings import DatabaseSettings

from slipway_testing.minio import ObjectStore
from slipway_testing.postgres import Postgres
from slipway_testing.redis import RedisServer
from slipway_testing.servers import LiveServer, listen, live, url_of
from slipway_testing.tokens import mint, mint_service_token, new_pem

PUBLIC_URL = "https://slipway.test"
BUCKET = "images"
PASSWORD = "correct horse battery"
# Everybody in the tests comes from one address; tests of the limits set their own.
ONE_ADDRESS = dict.fromkeys(
    (
        "limit_login_address",
        "limit_login_all",
        "limit_register_address",
        "limit_register_all",
        "limit_password_address",
        "limit_refresh_address",
        "limit_service_tokens_address",
    ),
    "",
)


@dataclass
class User:
    id: str
    username: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@dataclass
class Platform:
    """Settings of all services, from which a test can start its own variant of one; and the shared running ones."""

    postgres: Postgres
    store: ObjectStore
    redis: RedisServer
    key: SigningKey
    service_keys: dict[str, str]
    auth_settings: dict[str, Any]
    api_settings: dict[str, Any]
    image_settings: dict[str, Any]
    servers: dict[str, LiveServer] = field(default_factory=dict)

    @contextmanager
    def auth(self, sock: socket.socket | None = None, **changes: Any) -> Iterator[LiveServer]:
        with live(_app("auth", self.auth_settings | changes), sock) as server:
            yield server

    @contextmanager
    def api(self, sock: socket.socket | None = None, **changes: Any) -> Iterator[LiveServer]:
        with live(_app("api", self.api_settings | changes), sock) as server:
            yield server

    @contextmanager
    def image(self, sock: socket.socket | None = None, **changes: Any) -> Iterator[LiveServer]:
        with live(_app("image", self.image_settings | changes), sock) as server:
            yield server

    def url(self, service: str) -> str:
        return self.servers[service].url

    def service_headers(self, caller: str, callee: str, **changes: Any) -> dict[str, str]:
        """What one service sends to another to say who it is; `changes` are those of claims."""
        return {"X-Service-Token": mint_service_token(self.key, caller, callee, **changes)}

    def new_user(self, name: str = "user") -> User:
        """Somebody that all but auth take for a user: a good token is all they ask for. Costs no password hash."""
        user_id, username = str(uuid.uuid4()), f"{name}-{secrets.token_hex(6)}"
        return User(user_id, username, mint(self.key, sub=user_id, preferred_username=username))

    def new_account(self, name: str = "account") -> User:
        """Somebody who registered and logged in."""
        username = f"{name}-{secrets.token_hex(6)}"
        credentials = {"username": username, "password": PASSWORD}
        with httpx2.Client(base_url=self.url("auth")) as client:
            created = client.post("/register", json=credentials)
            created.raise_for_status()
            token = client.post("/login", json=credentials).json()["access_token"]
        return User(created.json()["id"], username, token)


def prepared_platform(postgres: Postgres, store: ObjectStore, redis: RedisServer, urls: Mapping[str, str]) -> Platform:
    """Databases, schemas, bucket, keys, and the settings of services that will be at the given URLs. Nothing serves."""
    pem = new_pem()
    databases = {
        name: postgres.create_database(f"{name}_db", f"{name}_user", secrets.token_hex(16))
        for name in ("auth", "api", "image")
    }
    store.client.make_bucket(BUCKET)
    common = {"public_url": PUBLIC_URL, "shutdown_delay_seconds": 0}
    service_keys = {name: secrets.token_hex(32) for name in databases}
    verifying = common | {
        "auth_jwks_url": f"{urls['auth']}/.well-known/jwks.json",
        "service_tokens_url": f"{urls['auth']}/service-tokens",
    }

    def own(name: str) -> dict[str, Any]:
        return databases[name] | redis.settings(name) | {"service_key": service_keys[name]}

    platform = Platform(
        postgres=postgres,
        store=store,
        redis=redis,
        key=load_signing_key(pem),
        service_keys=service_keys,
        auth_settings=common
        | own("auth")
        | ONE_ADDRESS
        | {"auth_signing_key": pem, "service_keys": json.dumps(service_keys)},
        api_settings=verifying | own("api") | {"auth_url": urls["auth"], "image_url": urls["image"]},
        image_settings=verifying
        | own("image")
        | {
            "service_callers": "api",
            "s3_endpoint": store.url,
            "s3_bucket": BUCKET,
            "s3_access_key": store.access_key,
            "s3_secret_key": store.secret_key,
        }
        | ({"platform_ca_file": store.ca} if store.ca else {}),
    )
    for name in databases:
        asyncio.run(migrate(_settings(name, getattr(platform, f"{name}_settings")), f"slipway_{name}"))
    return platform


def _settings(name: str, values: dict[str, Any]) -> DatabaseSettings:
    """Services are imported when they are started: tests of the kit need none of them."""
    settings: DatabaseSettings = importlib.import_module(f"slipway_{name}.settings").Settings(**values)
    return settings


def _app(name: str, values: dict[str, Any]) -> FastAPI:
    app: FastAPI = importlib.import_module(f"slipway_{name}.app").create_app(_settings(name, values))
    return app


@contextmanager
def running_platform(postgres: Postgres, store: ObjectStore, redis: RedisServer) -> Iterator[Platform]:
    sockets = {name: listen() for name in ("auth", "api", "image")}
    platform = prepared_platform(postgres, store, redis, {name: url_of(sock) for name, sock in sockets.items()})
    with ExitStack() as stack:
        for name, start in (("auth", platform.auth), ("image", platform.image), ("api", platform.api)):
            platform.servers[name] = stack.enter_context(start(sockets[name]))
        yield platform
