"""What the image service does, without HTTP.

An upload writes the bytes first and the row after them; a delete takes the row first and the bytes after it. So there
may be bytes without a row for a while, which is only waste, and never a row without its bytes.
"""

import uuid
from contextlib import AbstractAsyncContextManager

import structlog
from slipway_kit.capacity import Capacity
from slipway_kit.pagination import Cursor, page
from slipway_kit.problems import Problem
from slipway_kit.tokens import Principal

from slipway_image.formats import inspect
from slipway_image.metrics import ImageMetrics
from slipway_image.repository import ImageRepository, StoredImage
from slipway_image.schemas import Image, ImagePage, Stats
from slipway_image.storage import BlobNotFoundError, BlobStore, Chunks
from slipway_image.uploads import ReceivedFile

log = structlog.get_logger()


class ImageService:
    def __init__(
        self,
        images: ImageRepository,
        blobs: BlobStore,
        *,
        inspecting: Capacity,
        max_pixels: int,
        public_base: str,
        metrics: ImageMetrics,
    ) -> None:
        self._images = images
        self._blobs = blobs
        self._inspecting = inspecting
        self._max_pixels = max_pixels
        self._public_base = public_base
        self._metrics = metrics

    async def store(self, owner: Principal, received: ReceivedFile) -> Image:
        with self._metrics.stage("inspect"):
            found = await self._inspecting.run(inspect, received.file, received.size, self._max_pixels)
        id_ = uuid.uuid4()
        filename = f"{id_.hex}.{found.format.extension}"
        key = f"originals/{filename}"
        with self._metrics.stage("store"):
            await self._blobs.put(key, received.file, received.size, found.format.content_type)
        try:
            image = await self._images.create(
                id_=id_,
                owner_id=owner.user_id,
                filename=filename,
                object_key=key,
                sha256=received.sha256,
                size=received.size,
                content_type=found.format.content_type,
                width=found.width,
                height=found.height,
            )
        except Problem:
            await self._drop(key)
            raise
        self._metrics.stored.labels(image.content_type).inc()
        self._metrics.bytes.inc(image.size)
        log.info("image stored", filename=filename, size=image.size, content_type=image.content_type)
        return self._public(image)

    async def list(self, owner: Principal, cursor: str | None, limit: int) -> ImagePage:
        rows = await self._images.of_owner(owner.user_id, Cursor.read(cursor), limit + 1)
        items, next_cursor = page(rows, limit, lambda image: Cursor(image.created_at, image.id))
        return ImagePage(items=[self._public(image) for image in items], next_cursor=next_cursor)

    async def find(self, owner: Principal, filename: str) -> StoredImage:
        image = await self._images.find(owner.user_id, filename)
        if image is None:
            raise _not_found()
        return image

    def read(self, image: StoredImage) -> AbstractAsyncContextManager[Chunks]:
        return self._blobs.read(image.object_key)

    async def delete(self, owner: Principal, filename: str) -> None:
        key = await self._images.delete(owner.user_id, filename)
        if key is None:
            raise _not_found()
        self._metrics.deleted.inc()
        await self._drop(key)

    async def stats(self, owner: Principal) -> Stats:
        return await self._images.stats(owner.user_id)

    async def _drop(self, key: str) -> None:
        """The user's part is done by now: an object that cannot be removed is left to be swept up, and counted."""
        try:
            await self._blobs.delete(key)
        except (Problem, BlobNotFoundError):
            self._metrics.orphans.inc()
            log.warning("object left behind", key=key)

    def _public(self, image: StoredImage) -> Image:
        return Image(
            filename=image.filename,
            url=f"{self._public_base}/api/v1/images/{image.filename}",
            sha256=image.sha256,
            size=image.size,
            width=image.width,
            height=image.height,
            content_type=image.content_type,
            created_at=image.created_at,
        )


def _not_found() -> Problem:
    # The same for what is not there and for what is somebody else's: images are private.
    return Problem(404, "image-not-found", "There is no such image.")
