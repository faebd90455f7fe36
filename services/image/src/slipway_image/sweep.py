"""`python -m slipway_image sweep`: removes objects that no row speaks of, and variants that no release needs any more.

They are left by uploads whose row could not be written, by deletes while the object store was away, by two replicas
that made the same variant. Nothing is removed that is younger than SWEEP_AGE_SECONDS: it may be an upload whose row
comes in a moment. Keys are never used twice, so what is an orphan once stays one.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import structlog
from prometheus_client import CollectorRegistry
from slipway_kit.capacity import CapacityMetrics
from slipway_kit.database import Database
from slipway_kit.problems import Problem

from slipway_image.rendering import RECIPE
from slipway_image.repository import ImageRepository
from slipway_image.settings import Settings
from slipway_image.storage import BlobStore, Entry, S3BlobStore

PREFIXES = ("originals/", "variants/")

log = structlog.get_logger()


@dataclass
class Swept:
    looked_at: int = 0
    removed: int = 0
    removed_bytes: int = 0
    fresh: int = 0
    old_variants: int = 0


async def sweep_command(settings: Settings) -> int:
    """The exit code: 0 when it is clean, or another sweep is at it; 1 when database or object store did not answer."""
    registry = CollectorRegistry()
    database = Database(settings, registry, "image sweep")
    blobs = S3BlobStore(settings, CapacityMetrics(registry))
    await database.open()
    try:
        # Held until the end; the lock goes with the connection, also when the process is killed.
        async with database.session("sweep.lock") as connection:
            if not await connection.fetchval("SELECT pg_try_advisory_lock(2, 0)"):
                log.info("another sweep is running")
                return 0
            swept = await sweep(ImageRepository(database), blobs, settings.sweep_age_seconds)
    except Problem as problem:
        log.error("sweep not finished", reason=problem.detail)
        return 1
    finally:
        await blobs.close()
        await database.close()
    log.info("swept", **asdict(swept))
    return 0


async def sweep(images: ImageRepository, blobs: BlobStore, age_seconds: int) -> Swept:
    """Problem 503 when one of them does not answer; what was done until then is done."""
    swept = Swept()
    for key in await images.drop_old_variants(RECIPE, age_seconds):
        await blobs.delete(key)
        swept.old_variants += 1
    before = datetime.now(UTC) - timedelta(seconds=age_seconds)
    for prefix in PREFIXES:
        async for page in blobs.list(prefix):
            await _sweep_page(images, blobs, page, before, swept)
    return swept


async def _sweep_page(
    images: ImageRepository, blobs: BlobStore, page: Sequence[Entry], before: datetime, swept: Swept
) -> None:
    old = [entry for entry in page if entry.modified <= before]
    swept.looked_at += len(page)
    swept.fresh += len(page) - len(old)
    known = await images.known_keys([entry.key for entry in old])
    for entry in old:
        if entry.key not in known:
            await blobs.delete(entry.key)
            log.info("orphan removed", key=entry.key, size=entry.size)
            swept.removed += 1
            swept.removed_bytes += entry.size
