"""What the posts API does, without HTTP."""

from uuid import UUID

from prometheus_client import CollectorRegistry, Counter
from slipway_kit.pagination import Cursor, page
from slipway_kit.problems import Problem
from slipway_kit.tokens import Principal

from slipway_api.repository import PostRepository
from slipway_api.schemas import NewPost, Post, PostPage


def _position(post: Post) -> Cursor:
    return Cursor(post.created_at, post.id)


class PostService:
    def __init__(self, posts: PostRepository, registry: CollectorRegistry) -> None:
        self._posts = posts
        self._created = Counter("api_posts_created_total", "Posts created.", registry=registry)
        self._deleted = Counter("api_posts_deleted_total", "Posts deleted.", registry=registry)

    async def create(self, author: Principal, new: NewPost) -> Post:
        post = await self._posts.create(author.user_id, author.username, new.title, new.content)
        self._created.inc()
        return post

    async def newest(self, cursor: str | None, limit: int) -> PostPage:
        after = Cursor.read(cursor)
        items, next_cursor = page(await self._posts.newest(after, limit + 1), limit, _position)
        return PostPage(items=list(items), next_cursor=next_cursor)

    async def of_author(self, author: Principal, cursor: str | None, limit: int) -> PostPage:
        after = Cursor.read(cursor)
        items, next_cursor = page(await self._posts.of_author(author.user_id, after, limit + 1), limit, _position)
        return PostPage(items=list(items), next_cursor=next_cursor)

    async def delete(self, user: Principal, post_id: UUID) -> None:
        if await self._posts.delete(post_id, user.user_id):
            self._deleted.inc()
            return
        # Posts are public, so that one exists is no secret: 403 says more than 404.
        if await self._posts.exists(post_id):
            raise Problem(403, "not-your-post", "Only its author can delete a post.")
        raise Problem(404, "post-not-found", "There is no such post.")
