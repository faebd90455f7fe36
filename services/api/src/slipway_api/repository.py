"""All SQL of posts."""

from collections.abc import Sequence
from uuid import UUID

from slipway_kit.database import Database, Row
from slipway_kit.pagination import Cursor

from slipway_api.schemas import Author, Post

_CREATE = """
INSERT INTO posts (author_id, author_name, title, content) VALUES ($1, $2, $3, $4)
RETURNING id, author_id, author_name, title, content, created_at
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


def _post(row: Row) -> Post:
    author = Author(id=row["author_id"], username=row["author_name"])
    return Post(id=row["id"], title=row["title"], content=row["content"], author=author, created_at=row["created_at"])


class PostRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, author_id: UUID, author_name: str, title: str, content: str) -> Post:
        (row,) = await self._database.fetch("posts.create", _CREATE, author_id, author_name, title, content)
        return _post(row)

    async def newest(self, after: Cursor, count: int) -> Sequence[Post]:
        rows = await self._database.fetch("posts.newest", _NEWEST, after.created_at, after.id, count)
        return [_post(row) for row in rows]

    async def of_author(self, author_id: UUID, after: Cursor, count: int) -> Sequence[Post]:
        rows = await self._database.fetch("posts.of_author", _OF_AUTHOR, after.created_at, after.id, count, author_id)
        return [_post(row) for row in rows]

    async def exists(self, post_id: UUID) -> bool:
        row = await self._database.fetchrow("posts.exists", "SELECT 1 FROM posts WHERE id = $1", post_id)
        return row is not None

    async def delete(self, post_id: UUID, author_id: UUID) -> bool:
        """The owner is part of the statement: no check that could be forgotten, no gap between check and act."""
        count = await self._database.execute(
            "posts.delete", "DELETE FROM posts WHERE id = $1 AND author_id = $2", post_id, author_id
        )
        return count == 1
