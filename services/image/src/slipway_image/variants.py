"""Variants of images: made when somebody first asks for one, then kept in the bucket. Few are ever looked at.

A variant belongs to the bytes, not to the image: images of the same bytes share it.
"""

import asyncio
import hashlib
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO

import structlog
from slipway_kit.capacity import Capacity
from slipway_kit.problems import Problem

from slipway_image.formats import BY_CONTENT_TYPE, LARGEST_SIDE, Limits
from slipway_image.metrics import ImageMetrics
from slipway_image.rendering import RECIPE, render
from slipway_image.repository import ImageRepository, NewVariant, StoredImage, StoredVariant
from slipway_image.storage import CHUNK, BlobNotFoundError, BlobStore

THUMBNAILS = (160, 480, 1200)
# What others than the owner get as the image itself.
SHARED = "shared"
SIDES: Mapping[str, int] = {**{str(side): side for side in THUMBNAILS}, SHARED: LARGEST_SIDE}

log = structlog.get_logger()


@dataclass(frozen=True)
class _Made:
    size: int
    sha256: str
    content_type: str


class Variants:
    def __init__(
        self,
        images: ImageRepository,
        blobs: BlobStore,
        *,
        rendering: Capacity,
        limits: Limits,
        metrics: ImageMetrics,
    ) -> None:
        self._images = images
        self._blobs = blobs
        self._rendering = rendering
        self._limits = limits
        self._metrics = metrics
        self._making: dict[tuple[str, str], asyncio.Task[StoredVariant]] = {}

    async def get(self, image: StoredImage, name: str) -> StoredVariant:
        """The variant of that name (one of SIDES), made now if it is not there.

        Problem 404 when the image is deleted meanwhile, 422 when it cannot be decoded, 503 when too many are waiting.
        """
        found = await self._images.variant(image.sha256, name, RECIPE)
        return found or await self._make_once(image, name)

    async def replace(self, image: StoredImage, name: str, lost: StoredVariant) -> StoredVariant:
        """Another one for a variant whose object is not there any more."""
        log.error("variant without its object", filename=image.filename, key=lost.object_key)
        await self._images.drop_variant(lost.object_key)
        return await self.get(image, name)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """At the end, what is being made is given up: nobody waits for it any more."""
        try:
            yield
        finally:
            making = list(self._making.values())
            for task in making:
                task.cancel()
            await asyncio.gather(*making, return_exceptions=True)

    async def _make_once(self, image: StoredImage, name: str) -> StoredVariant:
        """Many may ask for the same at the same time: a page that shows it. The first to leave spoils it for nobody."""
        key = (image.sha256, name)
        task = self._making.get(key)
        if task is None:
            task = asyncio.create_task(self._make(image, name))
            self._making[key] = task
            task.add_done_callback(lambda _: self._making.pop(key))
        return await asyncio.shield(task)

    async def _make(self, image: StoredImage, name: str) -> StoredVariant:
        with tempfile.TemporaryFile() as out:
            async with self._rendering.slot():
                started = time.perf_counter()
                made = await self._render(image, name, out)
            key = f"variants/{image.sha256}/{name}-{uuid.uuid4().hex}"
            await self._blobs.put(key, out, made.size, made.content_type, made.sha256)
        seconds = time.perf_counter() - started
        new = NewVariant(key, made.sha256, made.size, made.content_type, milliseconds=round(seconds * 1000))
        kept = await self._images.add_variant(image.sha256, name, RECIPE, new)
        if kept is None or kept.object_key != key:
            await self.drop(key)
        if kept is None:
            raise not_found()
        self._metrics.variant_seconds.labels(name).observe(seconds)
        log.info("variant made", filename=image.filename, variant=name, size=made.size, seconds=round(seconds, 3))
        return kept

    async def _render(self, image: StoredImage, name: str, out: IO[bytes]) -> _Made:
        with tempfile.TemporaryFile() as source:
            try:
                await self._blobs.fetch(image.object_key, source)
            except BlobNotFoundError:
                raise lost(image) from None
            return await self._rendering.thread(self._render_blocking, image, name, source, out)

    def _render_blocking(self, image: StoredImage, name: str, source: IO[bytes], out: IO[bytes]) -> _Made:
        format_ = BY_CONTENT_TYPE[image.content_type]
        rendered = render(source, image.size, format_, self._limits, SIDES[name], out)
        size = out.tell()
        out.seek(0)
        digest = hashlib.sha256()
        while piece := out.read(CHUNK):
            digest.update(piece)
        return _Made(size, digest.hexdigest(), rendered.format.content_type)

    async def drop(self, *keys: str) -> None:
        """The user's part is done by now: an object that cannot be removed is left to be swept up, and counted."""
        for key in keys:
            try:
                await self._blobs.delete(key)
            except Problem:
                self._metrics.orphans.inc()
                log.warning("object left behind", key=key)


def not_found() -> Problem:
    # The same for what is not there and for what is somebody else's to delete.
    return Problem(404, "image-not-found", "There is no such image.")


def lost(image: StoredImage) -> Problem:
    log.error("row without its object", filename=image.filename, key=image.object_key)
    return Problem(500, "image-lost", "The image is registered, but its bytes are missing.")
