"""All SQL of images."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from slipway_kit.database import Database, Row
from slipway_kit.pagination import Cursor

from slipway_image.schemas import Stats, TypeStats

_CREATE = """
INSERT INTO images (id, owner_id, filename, object_key, sha256, size, content_type, width, height)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
RETURNING id, owner_id, filename, object_key, sha256, size, content_type, width, height, created_at
"""
_OF_OWNER = """
SELECT id, owner_id, filename, object_key, sha256, size, content_type, width, height, created_at
FROM images
WHERE owner_id = $4 AND (created_at, id) < ($1, $2)
ORDER BY created_at DESC, id DESC LIMIT $3
"""
_FIND = """
SELECT id, owner_id, filename, object_key, sha256, size, content_type, width, height, created_at
FROM images WHERE filename = $1 AND owner_id = $2
"""
_DELETE = "DELETE FROM images WHERE filename = $1 AND owner_id = $2 RETURNING object_key"
_STATS = """
SELECT content_type, count(*) AS images, sum(size)::bigint AS bytes FROM images
WHERE owner_id = $1 GROUP BY content_type ORDER BY content_type
"""


@dataclass(frozen=True)
class StoredImage:
    id: UUID
    owner_id: UUID
    filename: str
    object_key: str
    sha256: str
    size: int
    content_type: str
    width: int
    height: int
    created_at: datetime


def _image(row: Row) -> StoredImage:
    return StoredImage(
        id=row["id"],
        owner_id=row["owner_id"],
        filename=row["filename"],
        object_key=row["object_key"],
        sha256=row["sha256"],
        size=row["size"],
        content_type=row["content_type"],
        width=row["width"],
        height=row["height"],
        created_at=row["created_at"],
    )


class ImageRepository:
    """The owner is part of every statement: no check that could be forgotten."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        *,
        id_: UUID,
        owner_id: UUID,
        filename: str,
        object_key: str,
        sha256: str,
        size: int,
        content_type: str,
        width: int,
        height: int,
    ) -> StoredImage:
        (row,) = await self._database.fetch(
            "images.create", _CREATE, id_, owner_id, filename, object_key, sha256, size, content_type, width, height
        )
        return _image(row)

    async def of_owner(self, owner_id: UUID, after: Cursor, count: int) -> Sequence[StoredImage]:
        rows = await self._database.fetch("images.of_owner", _OF_OWNER, after.created_at, after.id, count, owner_id)
        return [_image(row) for row in rows]

    async def find(self, owner_id: UUID, filename: str) -> StoredImage | None:
        row = await self._database.fetchrow("images.find", _FIND, filename, owner_id)
        return _image(row) if row else None

    async def delete(self, owner_id: UUID, filename: str) -> str | None:
        """The key of the object that has no row any more."""
        row = await self._database.fetchrow("images.delete", _DELETE, filename, owner_id)
        return row["object_key"] if row else None

    async def stats(self, owner_id: UUID) -> Stats:
        rows = await self._database.fetch("images.stats", _STATS, owner_id)
        by_type = {row["content_type"]: TypeStats(images=row["images"], bytes=row["bytes"]) for row in rows}
        return Stats(
            images=sum(entry.images for entry in by_type.values()),
            bytes=sum(entry.bytes for entry in by_type.values()),
            by_type=by_type,
        )
