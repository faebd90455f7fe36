"""The application: what is created, in which order, and closed in the reverse one."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypedDict

from fastapi import FastAPI
from slipway_kit.application import Runtime, build_app
from slipway_kit.capacity import Capacity, CapacityMetrics
from slipway_kit.database import Database
from slipway_kit.http_client import new_session
from slipway_kit.tokens import JwksCache, Verifier

from slipway_image.endpoints import router
from slipway_image.metrics import ImageMetrics
from slipway_image.repository import ImageRepository
from slipway_image.service import ImageService
from slipway_image.settings import Settings
from slipway_image.storage import S3BlobStore
from slipway_image.uploads import OVERHEAD_BYTES, Receiver

# Pillow looks at headers for some microseconds, but AVIF and WebP files it reads as a whole.
INSPECTING = 2


class State(TypedDict):
    images: ImageService
    receiver: Receiver
    verifier: Verifier


def create_app(settings: Settings) -> FastAPI:
    runtime = Runtime.new("image", settings)
    database = Database(settings, runtime.registry, "image")
    capacity = CapacityMetrics(runtime.registry)
    metrics = ImageMetrics(runtime.registry)
    blobs = S3BlobStore(settings, capacity)
    wait = settings.upload_wait_seconds
    images = ImageService(
        ImageRepository(database),
        blobs,
        inspecting=Capacity("inspect", INSPECTING, settings.upload_receiving, wait, capacity),
        max_pixels=settings.upload_max_pixels,
        public_base=settings.public_base,
        metrics=metrics,
    )
    receiver = Receiver(
        # The bodies of those who wait stay where they are, in the client and the socket.
        Capacity("receive", settings.upload_receiving, settings.upload_receiving * 8, wait, capacity),
        metrics,
        max_bytes=settings.upload_max_bytes,
        seconds=settings.upload_receive_seconds,
    )
    runtime.health.add("database", database.ping, critical=True)
    # Lists, stats and deletes go on without the object store: degraded, not down.
    runtime.health.add("storage", blobs.ping)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(database.close)
            await database.open()
            keys = JwksCache(await stack.enter_async_context(new_session(total=3)), str(settings.auth_jwks_url))
            runtime.health.add("keys", keys.probe)
            verifier = Verifier(keys, settings.token_issuer, settings.token_audience)
            yield {"images": images, "receiver": receiver, "verifier": verifier}

    return build_app(
        runtime,
        title="slipway image",
        description="Images: uploaded, checked, hashed and served to their owner.",
        routers=[router],
        lifespan=lifespan,
        body_limit_exceptions=[("/upload", settings.upload_max_bytes + OVERHEAD_BYTES)],
    )
