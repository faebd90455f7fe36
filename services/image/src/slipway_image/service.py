"""What the image service does, without HTTP.

An upload writes the bytes first and the row after them; a delete takes the row first and the bytes after it. So there
may be bytes without a row for a while, which is only waste, and never a row without its bytes.
"""

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
from slipway_kit.capacity import Capacity
from slipway_kit.pagination import Cursor, page
from slipway_kit.problems import Problem
from slipway_kit.tokens import Principal

from slipway_image.formats import BY_CONTENT_TYPE, Inspected, Limits, inspect
from slipway_image.metrics import ImageMetrics, UploadResult
from slipway_image.repository import (
    ImageRepository,
    NewImage,
    ProcessingTime,
    QuotaExceededError,
    StoredImage,
    StoredVariant,
    Usage,
)
from slipway_image.schemas import Image, ImageMetadata, ImagePage, Processing, Quota, Stats, Timing, TypeStats
from slipway_image.storage import BlobNotFoundError, BlobStore, Chunks
from slipway_image.uploads import ReceivedFile
from slipway_image.variants import SHARED, THUMBNAILS, Variants, lost, not_found

log = structlog.get_logger()


@dataclass(frozen=True)
class Content:
    """Bytes to send: an original, or a variant of it."""

    image: StoredImage
    name: str | None
    bytes: StoredVariant

    @property
    def filename(self) -> str:
        if self.name is None:
            return self.image.filename
        return f"{self.image.id.hex}-{self.name}.{BY_CONTENT_TYPE[self.bytes.content_type].extension}"


class ImageService:
    def __init__(
        self,
        images: ImageRepository,
        blobs: BlobStore,
        variants: Variants,
        *,
        inspecting: Capacity,
        limits: Limits,
        quota: Usage,
        public_base: str,
        metrics: ImageMetrics,
    ) -> None:
        self._images = images
        self._blobs = blobs
        self._variants = variants
        self._inspecting = inspecting
        self._limits = limits
        self._quota = quota
        self._public_base = public_base
        self._metrics = metrics

    async def check_quota(self, owner: Principal) -> None:
        """Before a body is received for nothing; what counts is the check when the row is written."""
        usage = await self._images.usage(owner.user_id)
        if not usage.leaves_room_for(1, self._quota):
            raise self._quota_exceeded(usage)

    async def store(self, owner: Principal, received: ReceivedFile, result: UploadResult) -> Image:
        """Problem 403 above the quota, 415 and 422 for what is no image, 503 when it cannot be stored now."""
        started = time.perf_counter()
        with self._metrics.stage("inspect"):
            found = await self._inspecting.run(inspect, received.file, received.size, self._limits)
        with self._metrics.stage("store"):
            image, duplicate = await self._store(owner, received, found, started)
        result.name = "duplicate" if duplicate else "stored"
        self._metrics.stored.labels(image.content_type).inc()
        self._metrics.bytes.inc(image.size)
        log.info("image stored", filename=image.filename, size=image.size, content_type=image.content_type)
        return self._public(image)

    async def _store(
        self, owner: Principal, received: ReceivedFile, found: Inspected, started: float
    ) -> tuple[StoredImage, bool]:
        """The image, and whether its bytes were there already."""
        id_ = uuid.uuid4()

        def new() -> NewImage:
            return NewImage(
                id=id_,
                owner_id=owner.user_id,
                filename=f"{id_.hex}.{found.format.extension}",
                sha256=received.sha256,
                size=received.size,
                content_type=found.format.content_type,
                width=found.width,
                height=found.height,
                processing_ms=round((time.perf_counter() - started) * 1000),
            )

        key = f"originals/{id_.hex}.{found.format.extension}"
        try:
            # What counts is said by the transactions below; this saves most uploads a transaction and a useless object.
            usage, known = await self._images.look(owner.user_id, received.sha256)
            if not usage.leaves_room_for(received.size, self._quota):
                raise QuotaExceededError(usage)
            if known:
                image = await self._images.create(new(), self._quota, None)
                if image is not None:
                    return image, True
            await self._blobs.put(key, received.file, received.size, found.format.content_type, received.sha256)
            image = await self._images.create(new(), self._quota, key)
        except QuotaExceededError as error:
            await self._variants.drop(key)
            raise self._quota_exceeded(error.usage) from None
        # When the database is lost at this moment, nobody knows whether the row was written: the object stays, and
        # the sweep will know.
        if image is None:
            raise RuntimeError("a row with a key was not written")
        if image.object_key != key:
            # The same bytes came twice at the same time, and the others were faster.
            await self._variants.drop(key)
        return image, image.object_key != key

    async def list(self, owner: Principal, cursor: str | None, limit: int) -> ImagePage:
        rows = await self._images.of_owner(owner.user_id, Cursor.read(cursor), limit + 1)
        items, next_cursor = page(rows, limit, lambda image: Cursor(image.created_at, image.id))
        return ImagePage(items=[self._public(image) for image in items], next_cursor=next_cursor)

    async def metadata(self, user: Principal, filename: str) -> ImageMetadata:
        image = await self._find(filename)
        owned = image.owner_id == user.user_id
        public = self._public(image).model_dump()
        private = {} if owned else {"sha256": None, "size": None}
        return ImageMetadata(**(public | private), owned=owned)

    async def content(self, user: Principal, filename: str, thumbnail: str | None = None) -> Content:
        """The original for its owner, a variant for all others; or the thumbnail of that size."""
        image = await self._find(filename)
        if thumbnail is None and image.owner_id == user.user_id:
            return Content(image, None, StoredVariant(image.object_key, image.sha256, image.size, image.content_type))
        name = thumbnail or SHARED
        return Content(image, name, await self._variants.get(image, name))

    @asynccontextmanager
    async def read(self, content: Content, offset: int, length: int) -> AsyncIterator[Chunks]:
        """Problem 500 when the bytes are lost; a lost variant is made again."""
        try:
            async with self._blobs.read(content.bytes.object_key, offset, length) as chunks:
                yield chunks
            return
        except BlobNotFoundError:
            if content.name is None:
                raise lost(content.image) from None
        again = await self._variants.replace(content.image, content.name, content.bytes)
        if again.sha256 != content.bytes.sha256:
            # The head that is being sent speaks of other bytes. The next request finds these.
            raise lost(content.image)
        async with self._blobs.read(again.object_key, offset, length) as chunks:
            yield chunks

    async def delete(self, owner: Principal, filename: str) -> None:
        keys = await self._images.delete(owner.user_id, filename)
        if keys is None:
            raise not_found()
        self._metrics.deleted.inc()
        await self._variants.drop(*keys)

    async def stats(self, owner: Principal) -> Stats:
        by_type = await self._images.by_type(owner.user_id)
        processing = await self._images.processing(owner.user_id)
        return Stats(
            images=sum(usage.images for usage in by_type.values()),
            bytes=sum(usage.bytes for usage in by_type.values()),
            by_type={name: TypeStats(images=usage.images, bytes=usage.bytes) for name, usage in by_type.items()},
            quota=Quota(images=self._quota.images, bytes=self._quota.bytes),
            processing=Processing(uploads=_timing(processing["uploads"]), variants=_timing(processing["variants"])),
        )

    async def _find(self, filename: str) -> StoredImage:
        image = await self._images.find(filename)
        if image is None:
            raise not_found()
        return image

    def _quota_exceeded(self, usage: Usage) -> Problem:
        return Problem(
            403,
            "quota-exceeded",
            "With this image you would have more than you may keep. Delete some first.",
            extra={
                "used": {"images": usage.images, "bytes": usage.bytes},
                "limit": {"images": self._quota.images, "bytes": self._quota.bytes},
            },
        )

    def _public(self, image: StoredImage) -> Image:
        url = f"{self._public_base}/api/v1/images/{image.filename}"
        return Image(
            filename=image.filename,
            url=url,
            sha256=image.sha256,
            size=image.size,
            width=image.width,
            height=image.height,
            content_type=image.content_type,
            created_at=image.created_at,
            thumbnails={str(side): f"{url}/{side}" for side in THUMBNAILS},
        )


def _timing(time_: ProcessingTime) -> Timing:
    return Timing(count=time_.count, average_ms=round(time_.average_ms, 1), max_ms=time_.max_ms)
