"""Hot public reads in Redis, as the bytes of the answer. Without Redis everything comes from Postgres.

What nobody may see is an old list after the answer to a new post. So lists carry a generation: a reader asks for the
generation and the list in one round trip and takes the list only if both agree; a writer sets a new generation after
its commit and before its answer. A reader that was on its way to Postgres meanwhile stores its list under the
generation that it had seen, where nobody finds it. A single post never changes; when it is deleted, a mark takes its
place that outlives every reader on its way.

When the writer cannot reach Redis, or Redis loses the marks, readers that still reach it may see what is old for at
most `seconds`.
"""

import hashlib
import secrets
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

import redis.asyncio
from prometheus_client import CollectorRegistry, Counter
from slipway_kit.redis import Redis

# The number is that of the form: a release that renders posts in another way takes another one.
_PREFIX = "api:1"
_GENERATION = f"{_PREFIX}:posts:generation"
_GENERATION_BYTES = 8
_NO_GENERATION = bytes(_GENERATION_BYTES)
_DIGEST_BYTES = 16
# A hundred long posts are a megabyte: not worth a place, and not worth the trip.
MAX_BYTES = 256 * 1024
# Longer than a query may take (database_command_timeout and the wait for a connection).
_DELETED_SECONDS = 60


@dataclass(frozen=True)
class Rendered:
    """The body of an answer and its digest, from which the ETag is made."""

    digest: bytes
    body: bytes

    @classmethod
    def of(cls, body: bytes) -> "Rendered":
        return cls(hashlib.sha256(body).digest()[:_DIGEST_BYTES], body)

    def pack(self) -> bytes:
        return self.digest + self.body

    @classmethod
    def unpack(cls, raw: bytes) -> "Rendered":
        return cls(raw[:_DIGEST_BYTES], raw[_DIGEST_BYTES:])


class PostCache:
    def __init__(self, redis: Redis, registry: CollectorRegistry, seconds: float) -> None:
        """`seconds`: how long an entry lives."""
        self._redis = redis
        self._milliseconds = round(seconds * 1000)
        reads = Counter("api_cache_reads_total", "Reads of the cache.", ["kind", "result"], registry=registry)
        self._pages = {result: reads.labels("page", result) for result in ("hit", "miss", "away")}
        self._posts = {result: reads.labels("post", result) for result in ("hit", "miss", "away")}

    async def first_page(self, limit: int) -> tuple[Rendered | None, bytes | None]:
        """The first page of that size, if it is known, and the generation under which to store it otherwise.

        The generation is None while Redis is away: there is nothing to store then.
        """
        found = await self._read("cache.page", _GENERATION, _page_key(limit))
        if found is None:
            self._pages["away"].inc()
            return None, None
        generation, page = found[0] or _NO_GENERATION, found[1]
        if page is None or not page.startswith(generation):
            self._pages["miss"].inc()
            return None, generation
        self._pages["hit"].inc()
        return Rendered.unpack(page[_GENERATION_BYTES:]), generation

    async def keep_first_page(self, limit: int, generation: bytes | None, page: Rendered) -> None:
        if generation is not None:
            # It may take the place of another one: its generation tells whether it counts.
            await self._keep("cache.keep_page", _page_key(limit), generation + page.pack(), replace=True)

    async def post(self, post_id: UUID) -> tuple[Rendered | None, bool]:
        """The post, if it is known, and whether it is worth to store it otherwise."""
        found = await self._read("cache.post", _post_key(post_id))
        if found is None:
            self._posts["away"].inc()
            return None, False
        # The mark of a deleted one is empty.
        self._posts["hit" if found[0] else "miss"].inc()
        return (Rendered.unpack(found[0]), False) if found[0] else (None, found[0] is None)

    async def keep_post(self, post_id: UUID, post: Rendered) -> None:
        # It must not take the place of the mark.
        await self._keep("cache.keep_post", _post_key(post_id), post.pack(), replace=False)

    async def created(self) -> None:
        """A post was created: no list is what it was."""

        def write(client: redis.asyncio.Redis) -> Awaitable[object]:
            return cast(Awaitable[object], client.set(_GENERATION, _new_generation()))

        await self._redis.attempt("cache.created", write, None)

    async def deleted(self, post_id: UUID) -> None:
        """A post was deleted: it is gone from the lists and by itself."""

        async def write(client: redis.asyncio.Redis) -> object:
            async with client.pipeline(transaction=True) as pipeline:
                pipeline.set(_post_key(post_id), b"", ex=_DELETED_SECONDS)
                pipeline.set(_GENERATION, _new_generation())
                return await pipeline.execute()

        await self._redis.attempt("cache.deleted", write, None)

    async def _read(self, operation: str, *keys: str) -> list[bytes | None] | None:
        """What is there for each key; None while Redis is away."""

        def read(client: redis.asyncio.Redis) -> Awaitable[list[bytes | None]]:
            # As a list of its own: redis-py's signature also speaks of decoded responses.
            return cast(Awaitable[list[bytes | None]], client.mget(*keys))

        return await self._redis.attempt(operation, read, None)

    async def _keep(self, operation: str, key: str, value: bytes, *, replace: bool) -> None:
        if len(value) > MAX_BYTES:
            return

        def write(client: redis.asyncio.Redis) -> Awaitable[Any]:
            return cast(Awaitable[Any], client.set(key, value, px=self._milliseconds, nx=not replace))

        await self._redis.attempt(operation, write, None)


def _page_key(limit: int) -> str:
    return f"{_PREFIX}:posts:first:{limit}"


def _post_key(post_id: UUID) -> str:
    return f"{_PREFIX}:post:{post_id}"


def _new_generation() -> bytes:
    """Chosen at random: a number would begin anew, and meet old pages, when Redis has lost it."""
    return secrets.token_bytes(_GENERATION_BYTES)
