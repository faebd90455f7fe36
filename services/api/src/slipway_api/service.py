"""What the posts API does, without HTTP."""

import asyncio
import hashlib
import json
from contextlib import suppress
from uuid import UUID

from prometheus_client import CollectorRegistry, Counter
from slipway_kit.pagination import Cursor, page
from slipway_kit.problems import Problem
from slipway_kit.tokens import Principal

from slipway_api.cache import PostCache, Rendered
from slipway_api.repository import PostRepository
from slipway_api.schemas import Author, NewPost, Post, PostPage
from slipway_api.sharing import SharedReads

# Old idempotency keys no longer count; removing them is only tidiness.
FORGET_EVERY_SECONDS = 600
FORGET_AT_ONCE = 1000


def _position(post: Post) -> Cursor:
    return Cursor(post.created_at, post.id)


def _page(posts: list[Post], limit: int) -> PostPage:
    items, next_cursor = page(posts, limit, _position)
    return PostPage(items=list(items), next_cursor=next_cursor)


def request_hash(new: NewPost) -> bytes:
    """What makes two requests the same: what would be stored, not how it was written down."""
    return hashlib.sha256(json.dumps([new.title, new.content]).encode()).digest()


class PostService:
    def __init__(self, posts: PostRepository, cache: PostCache, registry: CollectorRegistry) -> None:
        self._posts = posts
        self._cache = cache
        self._first_pages = SharedReads(self._first_page)
        self._created = Counter("api_posts_created_total", "Posts created.", registry=registry)
        self._deleted = Counter("api_posts_deleted_total", "Posts deleted.", registry=registry)
        self._replayed = Counter(
            "api_posts_replayed_total", "Repeated requests that got the first one's answer.", registry=registry
        )

    async def create(self, author: Principal, new: NewPost, key: str | None) -> tuple[Post, bool]:
        """The post, and whether it was there already: created by a request with the same idempotency key."""
        if key is None:
            post = await self._posts.create(author.user_id, author.username, new.title, new.content)
        else:
            hash_ = request_hash(new)
            taken = await self._posts.create_once(author.user_id, author.username, new.title, new.content, key, hash_)
            if taken.request_hash != hash_:
                raise Problem(
                    422, "idempotency-key-reused", "The Idempotency-Key was used for another post in the last 24 hours."
                )
            post = Post(
                id=taken.post_id,
                title=new.title,
                content=new.content,
                # Names do not change: it is the one that the post was created with.
                author=Author(id=author.user_id, username=author.username),
                created_at=taken.created_at,
            )
            if not taken.fresh:
                self._replayed.inc()
                return post, True
        self._created.inc()
        await self._cache.created()
        return post, False

    async def newest(self, cursor: str | None, limit: int) -> Rendered:
        """A page of all posts. Only the first ones are hot, and cursors could be made up to fill the cache."""
        if cursor:
            return await self._read_newest(cursor, limit)
        return await self._first_pages.get(limit)

    async def _first_page(self, limit: int) -> Rendered:
        cached, generation = await self._cache.first_page(limit)
        if cached:
            return cached
        rendered = await self._read_newest(None, limit)
        await self._cache.keep_first_page(limit, generation, rendered)
        return rendered

    async def _read_newest(self, cursor: str | None, limit: int) -> Rendered:
        posts = await self._posts.newest(Cursor.read(cursor), limit + 1)
        return Rendered.of(_page(list(posts), limit).model_dump_json().encode())

    async def of_author(self, author: Principal, cursor: str | None, limit: int) -> PostPage:
        after = Cursor.read(cursor)
        return _page(list(await self._posts.of_author(author.user_id, after, limit + 1)), limit)

    async def one(self, post_id: UUID) -> Rendered:
        cached, worth_keeping = await self._cache.post(post_id)
        if cached:
            return cached
        post = await self._posts.one(post_id)
        if post is None:
            raise post_not_found()
        rendered = Rendered.of(post.model_dump_json().encode())
        if worth_keeping:
            await self._cache.keep_post(post_id, rendered)
        return rendered

    async def delete(self, user: Principal, post_id: UUID) -> None:
        if await self._posts.delete(post_id, user.user_id):
            self._deleted.inc()
            await self._cache.deleted(post_id)
            return
        # Posts are public, so that one exists is no secret: 403 says more than 404.
        if await self._posts.exists(post_id):
            raise Problem(403, "not-your-post", "Only its author can delete a post.")
        raise post_not_found()

    async def forget_keys(self) -> None:
        """Remove old idempotency keys, for ever: for `tasks.background`."""
        while True:
            # Without its database the service has other worries, and says so elsewhere.
            with suppress(Problem):
                while await self._posts.forget_keys(FORGET_AT_ONCE) == FORGET_AT_ONCE:
                    pass
            await asyncio.sleep(FORGET_EVERY_SECONDS)


def post_not_found() -> Problem:
    return Problem(404, "post-not-found", "There is no such post.")
