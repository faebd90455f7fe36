"""The numbers that say how uploads are doing."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Histogram
from slipway_kit.metrics import BUCKETS


class ImageMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.stored = Counter("image_uploads_total", "Images stored.", ["content_type"], registry=registry)
        self.bytes = Counter("image_upload_bytes_total", "Bytes of images stored.", registry=registry)
        self.deleted = Counter("image_deletes_total", "Images deleted.", registry=registry)
        self.orphans = Counter("image_orphans_total", "Objects left behind without a row.", registry=registry)
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
