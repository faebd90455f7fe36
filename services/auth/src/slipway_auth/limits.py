"""How often something may be tried, counted in Redis for all replicas together.

Counted are tries, before they cost anything, and not failures: then parallel tries cannot slip through between the
question and the count. The windows slide (the one before counts by its share), so there is no double burst where two
windows meet. Without Redis everything is let through and counted as such: a dead cache must not lock everybody out, and
what protects the pods themselves, the gate before the hash, needs no Redis.
"""

import hashlib
import math
import time
from collections.abc import Mapping
from ipaddress import ip_address, ip_network

import redis.asyncio
from limits import RateLimitItem
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from prometheus_client import CollectorRegistry, Counter
from slipway_kit.problems import Problem
from slipway_kit.redis import Redis

from slipway_auth.audit import audit

KEY_PREFIX = "auth:limits"

# Operation -> scope -> limit, in the order in which they are asked: what one client does has to be refused before it
# counts against all.
Rules = Mapping[str, Mapping[str, RateLimitItem | None]]


class _Storage(RedisStorage):
    def __init__(self, client: redis.asyncio.Redis) -> None:
        # The address is never used: connections come from the pool that everything else uses too.
        super().__init__(
            "async+redis://",
            implementation="redispy",
            key_prefix=KEY_PREFIX,
            connection_pool=client.connection_pool,  # type: ignore[arg-type]  # declared too narrowly
        )
        self._client = client

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Both windows in one command: every right password brings this along."""
        windows = self._previous_window_key(key), self._current_window_key(key)
        await self._client.delete(*map(self.bridge.prefixed_key, windows))


class RateLimits:
    def __init__(self, redis: Redis, registry: CollectorRegistry, rules: Rules) -> None:
        self._redis = redis
        self._rules = {
            operation: {scope: rate for scope, rate in scopes.items() if rate is not None}
            for operation, scopes in rules.items()
        }
        self._limiter = SlidingWindowCounterRateLimiter(_Storage(redis.client))
        self._limited = Counter(
            "auth_rate_limited_total", "Requests refused by a rate limit.", ["operation", "scope"], registry=registry
        )
        self._skipped = Counter(
            "auth_rate_limits_skipped_total",
            "Requests let through unchecked because Redis was away.",
            ["operation"],
            registry=registry,
        )
        for operation, limited in self._rules.items():
            self._skipped.labels(operation)
            for scope in limited:
                self._limited.labels(operation, scope)

    async def check(self, operation: str, **identities: str) -> None:
        """Count a try; Problem 429 with Retry-After (seconds) when it is one too many.

        `identities` names who tries in each scope but `all`: an address, or a name of any form.
        """
        for scope, rate in self._rules[operation].items():
            key = (operation, scope, identities.get(scope, ""))
            allowed = await self._hit(rate, key)
            if allowed is None:
                self._skipped.labels(operation).inc()
                return
            if not allowed:
                self._limited.labels(operation, scope).inc()
                audit("rate limited", operation=operation, scope=scope)
                raise await self._refusal(rate, key)

    async def forget(self, operation: str, scope: str, identity: str) -> None:
        """Start counting anew, after a proof that it was not somebody guessing."""
        rate = self._rules[operation].get(scope)
        if rate is not None:
            await self._redis.attempt("limits", lambda _: self._limiter.clear(rate, operation, scope, identity), None)

    async def _hit(self, rate: RateLimitItem, key: tuple[str, ...]) -> bool | None:
        """None: nobody knows."""
        return await self._redis.attempt("limits", lambda _: self._limiter.hit(rate, *key), None)

    async def _refusal(self, rate: RateLimitItem, key: tuple[str, ...]) -> Problem:
        window = await self._redis.attempt("limits", lambda _: self._limiter.get_window_stats(rate, *key), None)
        seconds = window.reset_time - time.time() if window else rate.get_expiry()
        wait = min(max(1, math.ceil(seconds)), rate.get_expiry())
        return Problem(429, "rate-limited", "Too many tries. Wait a little.", headers={"Retry-After": str(wait)})


def name_identity(name: str) -> str:
    """A name of any form and length as a part of a key; and Redis has no list of who logs in."""
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:32]


def address_identity(address: str) -> str:
    """An IPv6 client has at least a /64 to itself, so that counts as one; an empty address is one as well."""
    try:
        version = ip_address(address).version
    except ValueError:
        return "unknown"
    return str(ip_network(f"{address}/64", strict=False).network_address) if version == 6 else address
