"""The application: what is created, in which order, and closed in the reverse one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypedDict

from fastapi import FastAPI
from slipway_kit.application import Runtime, build_app
from slipway_kit.capacity import Capacity, CapacityMetrics
from slipway_kit.database import Database
from slipway_kit.http_client import new_session
from slipway_kit.problems import Problem
from slipway_kit.redis import Redis
from slipway_kit.revocations import Revocations
from slipway_kit.service_tokens import ServiceCallers
from slipway_kit.tasks import background
from slipway_kit.tokens import JwksCache, Verifier

from slipway_image.bodies import Bodies
from slipway_image.endpoints import router
from slipway_image.formats import Limits
from slipway_image.metrics import ImageMetrics
from slipway_image.repository import ImageRepository, Usage
from slipway_image.service import ImageService
from slipway_image.settings import Settings
from slipway_image.storage import S3BlobStore
from slipway_image.uploads import OVERHEAD_BYTES, Receiver
from slipway_image.variants import Variants

# Pillow looks at headers for some microseconds, but AVIF and WebP files it reads as a whole.
INSPECTING = 1
# The longest that auth can be told to let access tokens live.
TOKEN_SECONDS = 3600
# Between two looks at how much there is altogether.
TOTALS_SECONDS = 30


class State(TypedDict):
    metrics: ImageMetrics
    images: ImageService
    receiver: Receiver
    verifier: Verifier
    callers: ServiceCallers


def create_app(settings: Settings) -> FastAPI:
    runtime = Runtime.new("image", settings)
    database = Database(settings, runtime.registry, "image")
    redis = Redis(settings, runtime.registry, "image")
    revocations = Revocations(redis, runtime.registry, keep_seconds=TOKEN_SECONDS)
    capacity = CapacityMetrics(runtime.registry)
    metrics = ImageMetrics(runtime.registry)
    blobs = S3BlobStore(settings, capacity)
    repository = ImageRepository(database)
    limits = Limits(settings.upload_max_pixels, settings.variant_memory_bytes)
    wait = settings.upload_wait_seconds
    variants = Variants(
        repository,
        blobs,
        # A page shows some dozens of pictures at a time, and browsers ask again.
        rendering=Capacity("render", settings.variant_rendering, 64, settings.variant_wait_seconds, capacity),
        limits=limits,
        metrics=metrics,
    )
    images = ImageService(
        repository,
        blobs,
        variants,
        inspecting=Capacity("inspect", INSPECTING, settings.upload_receiving, wait, capacity),
        limits=limits,
        quota=Usage(settings.quota_images, settings.quota_bytes),
        public_base=settings.public_base,
        metrics=metrics,
    )
    receiver = Receiver(
        # The bodies of those who wait stay where they are, in the client and the socket.
        Capacity("receive", settings.upload_receiving, settings.upload_receiving * 8, wait, capacity),
        Bodies(settings.upload_in_memory, settings.upload_max_bytes),
        metrics,
        max_bytes=settings.upload_max_bytes,
        seconds=settings.upload_receive_seconds,
    )
    runtime.health.add("database", database.ping, critical=True)
    # Lists, stats and deletes go on without the object store, and everything without Redis: degraded, not down.
    runtime.health.add("storage", blobs.ping)
    runtime.health.add("redis", redis.ping)

    async def totals() -> None:
        while True:
            await _count(repository, metrics)
            await asyncio.sleep(TOTALS_SECONDS)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(database.close)
            await database.open()
            stack.push_async_callback(redis.close)
            await redis.open()
            stack.push_async_callback(blobs.close)
            keys = JwksCache(await stack.enter_async_context(new_session(total=3)), str(settings.auth_jwks_url))
            runtime.health.add("keys", keys.probe)
            await stack.enter_async_context(background("revocations", revocations.run))
            await stack.enter_async_context(background("totals", totals))
            await stack.enter_async_context(variants.open())
            yield {
                "metrics": metrics,
                "images": images,
                "receiver": receiver,
                "verifier": Verifier(keys, settings.token_issuer, settings.token_audience, revocations),
                "callers": ServiceCallers(keys, settings.token_issuer, "image", settings.callers),
            }

    return build_app(
        runtime,
        title="slipway image",
        description="Images: uploaded, checked, hashed, and served with their thumbnails.",
        routers=[router],
        lifespan=lifespan,
        body_limit_exceptions=[("/upload", settings.upload_max_bytes + OVERHEAD_BYTES)],
    )


async def _count(images: ImageRepository, metrics: ImageMetrics) -> None:
    try:
        by_type, by_kind = await images.totals(), await images.stored_bytes()
    except Problem:
        # Logged where it happened; the numbers stay as they were.
        return
    # A type whose last image is gone has to go too.
    metrics.images.clear()
    for content_type, count in by_type.items():
        metrics.images.labels(content_type).set(count)
    for kind, size in by_kind.items():
        metrics.stored_bytes.labels(kind).set(size)
