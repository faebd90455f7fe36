"""Servers for a whole session, and what tests use most. Tests have users of their own: none needs a clean database."""

from collections.abc import Iterator

import httpx2
import pytest

from slipway_testing.minio import ObjectStore, running_minio
from slipway_testing.platform import Platform, User, running_platform
from slipway_testing.postgres import Postgres, running_postgres
from slipway_testing.redis import RedisServer, running_redis

__all__ = [
    "account",
    "api",
    "auth",
    "image",
    "minio",
    "other_user",
    "own_redis",
    "platform",
    "postgres",
    "redis_server",
    "user",
]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def minio() -> Iterator[ObjectStore]:
    with running_minio() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """For tests that stop it, or count what is in it."""
    with running_redis() as server:
        yield server


@pytest.fixture(scope="session")
def platform(postgres: Postgres, minio: ObjectStore, redis_server: RedisServer) -> Iterator[Platform]:
    with running_platform(postgres, minio, redis_server) as running:
        yield running


@pytest.fixture
def auth(platform: Platform) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=platform.url("auth")) as client:
        yield client


@pytest.fixture
def api(platform: Platform) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=platform.url("api"), timeout=20) as client:
        yield client


@pytest.fixture
def image(platform: Platform) -> Iterator[httpx2.Client]:
    """As the gateway calls it."""
    headers = platform.service_headers("api", "image")
    with httpx2.Client(base_url=platform.url("image"), headers=headers, timeout=20) as client:
        yield client


@pytest.fixture
def account(platform: Platform) -> User:
    """For tests of auth; everybody else is content with `user`."""
    return platform.new_account()


@pytest.fixture
def user(platform: Platform) -> User:
    return platform.new_user()


@pytest.fixture
def other_user(platform: Platform) -> User:
    return platform.new_user("other")
