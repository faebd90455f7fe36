"""All SQL of posts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from slipway_kit.database import Database, Row
from slipway_kit.pagination import Cursor

from slipway_api.schemas import Author, Post

_CREATE = """
INSERT INTO posts (author_id, author_name, title, content) VALUES ($1, $2, $3, $4)
RETURNING id, author_id, author_name, title, content, created_at
"""
# One statement, and so one transaction: the key is taken and the post is there, or neither. Whoever comes with the
# same key at the same time waits for the first one at the index, and then sees what it left. A key that is too old
# counts as a new one, whether it was removed yet or not.
_CREATE_ONCE = """
WITH taken AS (
    INSERT INTO idempotency_keys AS known (user_id, key, request_hash, post_id) VALUES ($1, $5, $6, $7)
    ON CONFLICT (user_id, key) DO UPDATE SET
        (request_hash, post_id, created_at) = (
            SELECT excluded.request_hash, excluded.post_id, excluded.created_at
            WHERE known.created_at < now() - interval '24 hours'
            UNION ALL
            SELECT known.request_hash, known.post_id, known.created_at
            WHERE known.created_at >= now() - interval '24 hours'
        )
    RETURNING request_hash, post_id, created_at
), created AS (
    INSERT INTO posts (id, author_id, author_name, title, content, created_at)
    SELECT post_id, $1, $2, $3, $4, created_at FROM taken WHERE post_id = $7
)
SELECT request_hash, post_id, created_at FROM taken
"""
_FORGET = """
DELETE FROM idempotency_keys WHERE (user_id, key) IN (
    SELECT user_id, key FROM idempotency_keys WHERE created_at < now() - interval '24 hours'
    LIMIT $1 FOR UPDATE SKIP LOCKED
)
"""
_NEWEST = """
SELECT id, author_id, author_name, title, content, created_at FROM posts
WHERE (created_at, id) < ($1, $2)
ORDER BY created_at DESC, id DESC LIMIT $3
"""
_OF_AUTHOR = """
SELECT id, author_id, author_name, title, content, created_at FROM posts
WHERE author_id = $4 AND (created_at, id) < ($1, $2)
ORDER BY created_at DESC, id DESC LIMIT $3
"""
_ONE = "SELECT id, author_id, author_name, title, content, created_at FROM posts WHERE id = $1"


@dataclass(frozen=True)
class Taken:
    """What an idempotency key stands for: the request that came with it first, and the post that came of that."""

    request_hash: bytes
    post_id: UUID
    created_at: datetime
    # Created by this call, not by one before.
    fresh: bool


def _post(row: Row) -> Post:
    author = Author(id=row["author_id"], username=row["author_name"])
    return Post(id=row["id"], title=row["title"], content=row["content"], author=author, created_at=row["created_at"])


class PostRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, author_id: UUID, author_name: str, title: str, content: str) -> Post:
        (row,) = await self._database.fetch("posts.create", _CREATE, author_id, author_name, title, content)
        return _post(row)

    async def create_once(
        self, author_id: UUID, author_name: str, title: str, content: str, key: str, request_hash: bytes
    ) -> Taken:
        """Create the post unless the author's key was used in the last 24 hours; what the key stands for either way."""
        post_id = uuid4()
        (row,) = await self._database.fetch(
            "posts.create_once", _CREATE_ONCE, author_id, author_name, title, content, key, request_hash, post_id
        )
        return Taken(row["request_hash"], row["post_id"], row["created_at"], fresh=row["post_id"] == post_id)

    async def forget_keys(self, count: int) -> int:
        """Remove at most `count` keys that are older than 24 hours; how many there were."""
        return await self._database.execute("posts.forget_keys", _FORGET, count)

    async def newest(self, after: Cursor, count: int) -> Sequence[Post]:
        rows = await self._database.fetch("posts.newest", _NEWEST, after.created_at, after.id, count)
        return [_post(row) for row in rows]

    async def of_author(self, author_id: UUID, after: Cursor, count: int) -> Sequence[Post]:
        rows = await self._database.fetch("posts.of_author", _OF_AUTHOR, after.created_at, after.id, count, author_id)
        return [_post(row) for row in rows]

    async def one(self, post_id: UUID) -> Post | None:
        row = await self._database.fetchrow("posts.one", _ONE, post_id)
        return None if row is None else _post(row)

    async def exists(self, post_id: UUID) -> bool:
        row = await self._database.fetchrow("posts.exists", "SELECT 1 FROM posts WHERE id = $1", post_id)
        return row is not None

    async def delete(self, post_id: UUID, author_id: UUID) -> bool:
        """The owner is part of the statement: no check that could be forgotten, no gap between check and act."""
        count = await self._database.execute(
            "posts.delete", "DELETE FROM posts WHERE id = $1 AND author_id = $2", post_id, author_id
        )
        return count == 1
