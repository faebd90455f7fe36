"""The object store, through one small port: anything that speaks S3 can stand behind it.

minio-py blocks, so every call runs in a thread under a limit. Its defaults do not fit a service: ten connections that
callers do not wait for, timeouts of five minutes, five tries, uploads in parts with threads of their own.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import IO, BinaryIO, Protocol, cast

import structlog
import urllib3
from minio import Minio
from minio.credentials.credentials import Credentials
from minio.credentials.providers import Provider
from minio.error import MinioException, S3Error
from slipway_kit.capacity import Capacity, CapacityMetrics
from slipway_kit.problems import unavailable
from urllib3.exceptions import HTTPError

from slipway_image.settings import Settings

CHUNK = 256 * 1024
# Health checks and deletes have connections of their own, so that uploads cannot starve them.
CONTROL_CONNECTIONS = 4
# What S3 takes in one part; minio-py refuses smaller ones, and only a smaller object is sent in one PUT.
MIN_PART_BYTES = 5 * 1024 * 1024

log = structlog.get_logger()


class BlobNotFoundError(Exception):
    pass


Chunks = AsyncIterator[bytes]


class BlobStore(Protocol):
    async def put(self, key: str, file: IO[bytes], size: int, content_type: str) -> None: ...

    def read(self, key: str) -> AbstractAsyncContextManager[Chunks]:
        """Fails on entry, before anything was answered to a client."""

    async def delete(self, key: str) -> None: ...

    async def ping(self) -> None: ...


class S3BlobStore:
    def __init__(self, settings: Settings, metrics: CapacityMetrics) -> None:
        self._bucket = settings.s3_bucket
        self._read_timeout = settings.s3_read_timeout
        # A pool for each kind of work, as large as the number of threads that may use it.
        self._uploads = _client(settings, settings.upload_storing)
        self._downloads = _client(settings, settings.downloads)
        self._control = _client(settings, CONTROL_CONNECTIONS)
        wait = settings.upload_wait_seconds
        self._upload_gate = Capacity("s3_upload", settings.upload_storing, settings.upload_receiving, wait, metrics)
        self._download_gate = Capacity("s3_download", settings.downloads, settings.downloads * 4, wait, metrics)
        self._control_gate = Capacity("s3_control", CONTROL_CONNECTIONS, 100, settings.s3_read_timeout, metrics)

    async def put(self, key: str, file: IO[bytes], size: int, content_type: str) -> None:
        async with _translated("put", key):
            await self._upload_gate.run(self._put, key, file, size, content_type)

    @asynccontextmanager
    async def read(self, key: str) -> AsyncIterator[Chunks]:
        async with self._download_gate.slot():
            async with _translated("get", key):
                answer = await self._download_gate.thread(self._downloads.get_object, self._bucket, key)
            try:
                yield self._chunks(key, answer)
            finally:
                # Read to its end, the connection goes back to the pool; else it is of no more use.
                answer.close()
                answer.release_conn()

    async def delete(self, key: str) -> None:
        """S3 answers the same whether the object was there or not."""
        async with _translated("delete", key):
            await self._control_gate.run(self._control.remove_object, self._bucket, key)

    async def ping(self) -> None:
        if not await self._control_gate.run(self._control.bucket_exists, self._bucket):
            raise ConnectionError(f"bucket {self._bucket} does not exist")

    def _put(self, key: str, file: IO[bytes], size: int, content_type: str) -> None:
        file.seek(0)
        # The object as one part: in one PUT it is there as a whole or not at all, and no threads are started for it.
        part_size = max(size, MIN_PART_BYTES)
        self._uploads.put_object(
            self._bucket,
            key,
            cast(BinaryIO, file),
            size,
            content_type=content_type,
            part_size=part_size,
            num_parallel_uploads=1,
        )

    async def _chunks(self, key: str, answer: urllib3.BaseHTTPResponse) -> Chunks:
        async with _translated("get", key):
            while chunk := await self._download_gate.thread(answer.read, CHUNK):
                yield chunk


def _client(settings: Settings, connections: int) -> Minio:
    endpoint = settings.s3_endpoint
    return Minio(
        f"{endpoint.host}:{endpoint.port}",
        secure=endpoint.scheme == "https",
        region=settings.s3_region,
        credentials=_MountedCredentials(settings),
        http_client=urllib3.PoolManager(
            maxsize=connections,
            block=True,
            timeout=urllib3.Timeout(connect=settings.s3_connect_timeout, read=settings.s3_read_timeout),
            # All calls here can be repeated: keys are never written twice with different content.
            retries=urllib3.Retry(total=2, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504)),
        ),
    )


class _MountedCredentials(Provider):
    """Read from the mounted files at each use, so that rotated keys need no restart."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def retrieve(self) -> Credentials:
        return Credentials(self._settings.secret("s3_access_key"), self._settings.secret("s3_secret_key"))


@asynccontextmanager
async def _translated(operation: str, key: str) -> AsyncIterator[None]:
    try:
        yield
    except (MinioException, HTTPError, OSError) as error:
        if isinstance(error, S3Error) and error.code == "NoSuchKey":
            raise BlobNotFoundError(key) from error
        log.warning("object store failed", operation=operation, key=key, error=f"{type(error).__name__}: {error}")
        raise unavailable("storage-unavailable", "Images cannot be stored or read at the moment.") from error
