"""Redis, as something that makes work cheaper and is never needed: whoever asks says what to do without an answer."""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import redis.asyncio
import structlog
from prometheus_client import CollectorRegistry, Counter
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import DataError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from slipway_kit.settings import RedisSettings

# A Redis that is away is asked once in this time, by one request; all others go on without it at once.
PAUSE_SECONDS = 1.0
CONNECTIONS = 50

T = TypeVar("T")
D = TypeVar("D")
log = structlog.get_logger()


class _Credentials(CredentialProvider):
    """Asked for each new connection, so that a rotated password needs no restart."""

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings

    def get_credentials(self) -> tuple[str, str]:
        return self._settings.redis_user, self._settings.secret("redis_password")

    async def get_credentials_async(self) -> tuple[str, str]:
        return self.get_credentials()


class _TlsConnection(redis.asyncio.SSLConnection):
    """With a context of ours: redis-py's own would believe all CAs of the system too, and read them per connection."""

    def __init__(self, *, context: ssl.SSLContext, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context.context = context


class Redis:
    """One pool of connections. `client` is for libraries that want one; everything else goes through `attempt`."""

    def __init__(self, settings: RedisSettings, registry: CollectorRegistry, application: str) -> None:
        self._timeout = settings.redis_timeout
        self._try_at = 0.0
        self._away = False
        self._unavailable = Counter(
            "redis_unavailable_total", "Operations done without Redis.", ["operation"], registry=registry
        )
        tls: dict[str, Any] = (
            {"connection_class": _TlsConnection, "context": settings.trust()} if settings.redis_tls else {}
        )
        pool = redis.asyncio.BlockingConnectionPool(
            host=settings.redis_host,
            port=settings.redis_port,
            credential_provider=_Credentials(settings),
            client_name=application,
            max_connections=CONNECTIONS,
            timeout=self._timeout,
            socket_timeout=self._timeout,
            socket_connect_timeout=self._timeout,
            # Not even one more try: the default is three, with pauses, in the middle of somebody's request.
            retry=Retry(NoBackoff(), 0),
            decode_responses=False,
            **tls,
        )
        self.client: redis.asyncio.Redis = redis.asyncio.Redis.from_pool(pool)

    async def attempt(
        self, operation: str, command: Callable[[redis.asyncio.Redis], Awaitable[T]], default: D
    ) -> T | D:
        """What `command` returns, or `default` when Redis does not answer within `redis_timeout` or refuses.

        `operation` is a label of redis_unavailable_total, and so a word of the code and never of a request. After a
        failure to connect nothing is tried for PAUSE_SECONDS, and then by one caller at a time: a dead Redis costs
        nothing.
        """
        now = time.monotonic()
        if now < self._try_at:
            self._unavailable.labels(operation).inc()
            return default
        if self._away:
            self._try_at = now + PAUSE_SECONDS
        try:
            async with asyncio.timeout(self._timeout):
                result = await command(self.client)
        except DataError:
            # Nothing was sent: a mistake in the program.
            raise
        except (RedisConnectionError, RedisTimeoutError, TimeoutError, OSError) as error:
            self._went_away(operation, error)
            return default
        except RedisError as error:
            # It answers, but not this: out of memory, no permission, read-only.
            self._unavailable.labels(operation).inc()
            log.warning("redis refused", operation=operation, error=f"{type(error).__name__}: {error}")
            return default
        if self._away:
            self._away = False
            self._try_at = 0.0
            log.info("redis is back", operation=operation)
        return result

    def _went_away(self, operation: str, error: Exception) -> None:
        self._unavailable.labels(operation).inc()
        self._try_at = time.monotonic() + PAUSE_SECONDS
        if not self._away:
            # Once, not per request.
            log.warning("redis is away", operation=operation, error=f"{type(error).__name__}: {error}")
        self._away = True

    async def ping(self) -> None:
        """For /health: raises what is wrong."""
        async with asyncio.timeout(self._timeout):
            await self.client.ping()

    async def open(self) -> None:
        """Connects nowhere yet: a service starts without its Redis."""

    async def close(self) -> None:
        await self.client.aclose()
        await self.client.connection_pool.disconnect()
