"""The numbers that say how images are doing."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from slipway_kit.metrics import BUCKETS
from slipway_kit.problems import Problem
from starlette.requests import ClientDisconnect


class ImageMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._uploads = Counter(
            "image_uploads_total",
            "Uploads by result: stored, duplicate (stored, its bytes were there), or why not.",
            ["result"],
            registry=registry,
        )
        self.stored = Counter("image_stored_total", "Images stored.", ["content_type"], registry=registry)
        self.bytes = Counter("image_upload_bytes_total", "Bytes of images stored.", registry=registry)
        self.deleted = Counter("image_deletes_total", "Images deleted.", registry=registry)
        self.orphans = Counter("image_orphans_total", "Objects left behind without a row.", registry=registry)
        self.variant_seconds = Histogram(
            "image_variant_seconds",
            "Time to make a variant, from reading the original to storing the result.",
            ["variant"],
            buckets=BUCKETS,
            registry=registry,
        )
        # Of the whole platform, as the database says: every replica shows the same. Not to be added up.
        self.images = Gauge("images_stored", "Images there are, by type.", ["content_type"], registry=registry)
        self.stored_bytes = Gauge("images_stored_bytes", "Bytes in the bucket, by kind.", ["kind"], registry=registry)
        self._seconds = Histogram(
            "image_upload_stage_seconds", "Time per stage of an upload.", ["stage"], buckets=BUCKETS, registry=registry
        )

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds.labels(name).observe(time.perf_counter() - started)

    @contextmanager
    def upload(self) -> Iterator["UploadResult"]:
        """Counts the upload in its body by how it ended."""
        result = UploadResult()
        try:
            yield result
        except Problem as problem:
            result.name = problem.code
            raise
        except ClientDisconnect:
            result.name = "client-left"
            raise
        finally:
            self._uploads.labels(result.name).inc()


class UploadResult:
    """`error` for what nobody foresaw."""

    name = "error"
