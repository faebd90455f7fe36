"""All SQL of images, and of the blobs and variants behind them.

An image is a name that somebody has for a blob. The row of a blob is the lock: who adds an image to it holds it for
key share, who takes one away for update. So the last image and the blob go together, and never does a new image come
in between.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from slipway_kit.database import Database, Row
from slipway_kit.pagination import Cursor

# One user's uploads add up one after the other; with other keys of other locks it cannot collide: two numbers.
_LOCK_OWNER = "SELECT pg_advisory_xact_lock(1, hashtext($1::uuid::text))"
_USAGE = "SELECT count(*) AS images, coalesce(sum(size), 0)::bigint AS bytes FROM images WHERE owner_id = $1"
_ADD_BLOB = "INSERT INTO blobs (sha256, object_key, size) VALUES ($1, $2, $3) ON CONFLICT (sha256) DO NOTHING"
_LOOK = """
SELECT count(*) AS images, coalesce(sum(size), 0)::bigint AS bytes,
    EXISTS (SELECT FROM blobs WHERE sha256 = $2) AS known
FROM images WHERE owner_id = $1
"""
_USE_BLOB = "SELECT object_key FROM blobs WHERE sha256 = $1 FOR KEY SHARE"
_CREATE = """
INSERT INTO images (id, owner_id, filename, object_key, sha256, size, content_type, width, height, processing_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
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
FROM images WHERE filename = $1
"""
_LOCK_BLOB = """
SELECT sha256, object_key FROM blobs
WHERE sha256 = (SELECT sha256 FROM images WHERE filename = $1 AND owner_id = $2) FOR UPDATE
"""
# For the trigger that keeps the release before the blobs from deleting what others need.
_KNOWS_BLOBS = "SET LOCAL slipway_image.knows_blobs = 'yes'"
_DELETE = "DELETE FROM images WHERE filename = $1 AND owner_id = $2 RETURNING id"
_VARIANTS_OF = "SELECT object_key FROM variants WHERE blob = $1"
_DELETE_BLOB = """
DELETE FROM blobs WHERE sha256 = $1 AND NOT EXISTS (SELECT FROM images WHERE images.sha256 = $1) RETURNING object_key
"""
_BY_TYPE = """
SELECT content_type, count(*) AS images, sum(size)::bigint AS bytes FROM images
WHERE owner_id = $1 GROUP BY content_type ORDER BY content_type
"""
_PROCESSING = """
SELECT 'uploads' AS kind, count(processing_ms) AS count, coalesce(avg(processing_ms), 0)::float8 AS average_ms,
       coalesce(max(processing_ms), 0) AS max_ms
FROM images WHERE owner_id = $1
UNION ALL
SELECT 'variants', count(*), coalesce(avg(milliseconds), 0)::float8, coalesce(max(milliseconds), 0)
FROM variants WHERE blob IN (SELECT sha256 FROM images WHERE owner_id = $1)
"""
_VARIANT = """
SELECT object_key, sha256, size, content_type FROM variants WHERE blob = $1 AND name = $2 AND recipe = $3
"""
_ADD_VARIANT = """
INSERT INTO variants (blob, name, recipe, object_key, sha256, size, content_type, milliseconds)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (blob, name, recipe) DO NOTHING
"""
_DROP_VARIANT = "DELETE FROM variants WHERE object_key = $1"
_TOTALS = "SELECT content_type, count(*) AS images FROM images GROUP BY content_type"
_STORED_BYTES = """
SELECT (SELECT coalesce(sum(size), 0)::bigint FROM blobs) AS originals,
       (SELECT coalesce(sum(size), 0)::bigint FROM variants) AS variants
"""
_KNOWN_KEYS = """
SELECT object_key FROM blobs WHERE object_key = ANY($1) UNION ALL
SELECT object_key FROM variants WHERE object_key = ANY($1)
"""
_DROP_OLD_VARIANTS = """
DELETE FROM variants WHERE recipe < $1 AND created_at < now() - make_interval(secs => $2) RETURNING object_key
"""


@dataclass(frozen=True)
class NewImage:
    id: UUID
    owner_id: UUID
    filename: str
    sha256: str
    size: int
    content_type: str
    width: int
    height: int
    processing_ms: int


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


@dataclass(frozen=True)
class StoredVariant:
    """`sha256` is that of the variant's own bytes."""

    object_key: str
    sha256: str
    size: int
    content_type: str


@dataclass(frozen=True)
class NewVariant(StoredVariant):
    milliseconds: int


@dataclass(frozen=True)
class Usage:
    images: int
    bytes: int

    def leaves_room_for(self, size: int, quota: "Usage") -> bool:
        """Whether one image more of this size is still within the quota."""
        return self.images + 1 <= quota.images and self.bytes + size <= quota.bytes


class QuotaExceededError(Exception):
    def __init__(self, usage: Usage) -> None:
        super().__init__(usage)
        self.usage = usage


@dataclass(frozen=True)
class ProcessingTime:
    count: int
    average_ms: float
    max_ms: int


def _image(row: Row) -> StoredImage:
    return StoredImage(**{name: row[name] for name in StoredImage.__dataclass_fields__})


class ImageRepository:
    """What only owners may do has the owner in its statement: no check that could be forgotten."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def usage(self, owner_id: UUID) -> Usage:
        (row,) = await self._database.fetch("images.usage", _USAGE, owner_id)
        return Usage(**row)

    async def create(self, new: NewImage, quota: Usage, object_key: str | None) -> StoredImage | None:
        """The image, of the blob that is there, or of a new one at `object_key`.

        None when there is no blob and no key was given. The key is not used when there is one: compare. Raises
        QuotaExceededError; uploads of one user wait for each other here, so that none slips past.
        """
        async with self._database.transaction("images.create") as connection:
            await connection.execute(_LOCK_OWNER, new.owner_id)
            usage = Usage(**await connection.fetchrow(_USAGE, new.owner_id))
            if not usage.leaves_room_for(new.size, quota):
                raise QuotaExceededError(usage)
            used_key = await self._use_blob(connection, new, object_key)
            if used_key is None:
                return None
            return _image(
                await connection.fetchrow(
                    _CREATE,
                    new.id,
                    new.owner_id,
                    new.filename,
                    used_key,
                    new.sha256,
                    new.size,
                    new.content_type,
                    new.width,
                    new.height,
                    new.processing_ms,
                )
            )

    @staticmethod
    async def _use_blob(connection: Any, new: NewImage, object_key: str | None) -> str | None:
        """The key of the blob, which nobody can delete before this transaction ends."""
        while True:
            found: str | None = await connection.fetchval(_USE_BLOB, new.sha256)
            if found is not None or object_key is None:
                return found
            # Does nothing when somebody else's is there meanwhile; that one may even be gone again.
            await connection.execute(_ADD_BLOB, new.sha256, object_key, new.size)

    async def look(self, owner_id: UUID, sha256: str) -> tuple[Usage, bool]:
        """What the owner has, and whether there is a blob of these bytes. Either may change the next moment."""
        (row,) = await self._database.fetch("images.look", _LOOK, owner_id, sha256)
        return Usage(row["images"], row["bytes"]), row["known"]

    async def of_owner(self, owner_id: UUID, after: Cursor, count: int) -> Sequence[StoredImage]:
        rows = await self._database.fetch("images.of_owner", _OF_OWNER, after.created_at, after.id, count, owner_id)
        return [_image(row) for row in rows]

    async def find(self, filename: str) -> StoredImage | None:
        """Anybody's: what the caller may see of it is the service's decision."""
        row = await self._database.fetchrow("images.find", _FIND, filename)
        return _image(row) if row else None

    async def delete(self, owner_id: UUID, filename: str) -> Sequence[str] | None:
        """The keys of the objects that nobody needs any more: none while others have the same bytes.

        None when the owner has no such image.
        """
        async with self._database.transaction("images.delete") as connection:
            blob = await connection.fetchrow(_LOCK_BLOB, filename, owner_id)
            if blob is None:
                return None
            await connection.execute(_KNOWS_BLOBS)
            if await connection.fetchrow(_DELETE, filename, owner_id) is None:
                # Somebody was faster while this waited for the lock.
                return None
            variants = await connection.fetch(_VARIANTS_OF, blob["sha256"])
            key = await connection.fetchval(_DELETE_BLOB, blob["sha256"])
            return [] if key is None else [key, *(row["object_key"] for row in variants)]

    async def by_type(self, owner_id: UUID) -> dict[str, Usage]:
        rows = await self._database.fetch("images.by_type", _BY_TYPE, owner_id)
        return {row["content_type"]: Usage(row["images"], row["bytes"]) for row in rows}

    async def processing(self, owner_id: UUID) -> dict[str, ProcessingTime]:
        """By `uploads` and `variants`."""
        rows = await self._database.fetch("images.processing", _PROCESSING, owner_id)
        return {row["kind"]: ProcessingTime(row["count"], row["average_ms"], row["max_ms"]) for row in rows}

    async def variant(self, blob: str, name: str, recipe: int) -> StoredVariant | None:
        row = await self._database.fetchrow("variants.find", _VARIANT, blob, name, recipe)
        return StoredVariant(**row) if row else None

    async def add_variant(self, blob: str, name: str, recipe: int, new: NewVariant) -> StoredVariant | None:
        """The variant that counts, which is another replica's when that was faster; None when the blob is gone."""
        async with self._database.transaction("variants.create") as connection:
            if await connection.fetchval(_USE_BLOB, blob) is None:
                return None
            await connection.execute(
                _ADD_VARIANT,
                blob,
                name,
                recipe,
                new.object_key,
                new.sha256,
                new.size,
                new.content_type,
                new.milliseconds,
            )
            return StoredVariant(**await connection.fetchrow(_VARIANT, blob, name, recipe))

    async def drop_variant(self, object_key: str) -> None:
        await self._database.execute("variants.drop", _DROP_VARIANT, object_key)

    async def totals(self) -> dict[str, int]:
        """Images of all users by content type."""
        rows = await self._database.fetch("images.totals", _TOTALS)
        return {row["content_type"]: row["images"] for row in rows}

    async def stored_bytes(self) -> dict[str, int]:
        """Bytes in the bucket by kind: `originals`, each once, and `variants`."""
        (row,) = await self._database.fetch("images.stored_bytes", _STORED_BYTES)
        return dict(row)

    async def known_keys(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys that some row has."""
        rows = await self._database.fetch("sweep.known_keys", _KNOWN_KEYS, keys)
        return {row["object_key"] for row in rows}

    async def drop_old_variants(self, recipe: int, age_seconds: float) -> Sequence[str]:
        """The keys of variants that no release needs any more: of older recipes, and older than that."""
        rows = await self._database.fetch("sweep.old_variants", _DROP_OLD_VARIANTS, recipe, age_seconds)
        return [row["object_key"] for row in rows]
