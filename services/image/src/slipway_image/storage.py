"""The object store, through one small port: anything that speaks S3 can stand behind it.

minio-py blocks, so every call runs in a thread under a limit. Its defaults do not fit a service: ten connections that
callers do not wait for, timeouts of five minutes, five tries. And it holds a whole object in memory to send it, so
that is done here: its signature, our file.
"""

import itertools
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

import structlog
import urllib3
from minio import Minio
from minio.credentials.credentials import Credentials
from minio.credentials.providers import Provider
from minio.datatypes import Object
from minio.error import MinioException, S3Error, ServerError
from minio.signer import sign_v4_s3
from minio.time import to_amz_date
from slipway_kit.capacity import Capacity, CapacityMetrics
from slipway_kit.problems import unavailable
from urllib3.exceptions import HTTPError

from slipway_image.settings import Settings

CHUNK = 256 * 1024
# What S3 wants in the place of a hash, when there is none.
UNSIGNED = "UNSIGNED-PAYLOAD"
# Health checks, deletes and lists have connections of their own, so that uploads cannot starve them.
CONTROL_CONNECTIONS = 4
# What S3 gives in one answer.
LIST_PAGE = 1000

log = structlog.get_logger()


class BlobNotFoundError(Exception):
    pass


Chunks = AsyncIterator[bytes]


@dataclass(frozen=True)
class Entry:
    """An object as a list shows it."""

    key: str
    size: int
    modified: datetime


class BlobStore(Protocol):
    """Problem 503 when the store does not answer; BlobNotFoundError for a key that it does not have."""

    async def put(self, key: str, file: IO[bytes], size: int, content_type: str, sha256: str) -> None:
        """The object is there as a whole or not at all, and its bytes are those of `sha256` (hex)."""

    def read(self, key: str, offset: int, length: int) -> AbstractAsyncContextManager[Chunks]:
        """`length` bytes from `offset` on. Fails on entry, before anything was answered to a client."""

    async def fetch(self, key: str, file: IO[bytes]) -> None:
        """All of it, appended to `file`."""

    async def delete(self, key: str) -> None:
        """The same whether it was there or not."""

    def list(self, prefix: str) -> AsyncIterator[Sequence[Entry]]:
        """Page by page."""

    async def ping(self) -> None:
        """Raises what is wrong."""

    async def close(self) -> None:
        """No call may follow."""


class S3BlobStore:
    def __init__(self, settings: Settings, metrics: CapacityMetrics) -> None:
        self._bucket = settings.s3_bucket
        self._region = settings.s3_region
        self._base = f"{str(settings.s3_endpoint).rstrip('/')}/{settings.s3_bucket}"
        self._credentials = _MountedCredentials(settings)
        # The system's CAs are read once for all of them.
        trust = settings.trust_public()
        # A pool for each kind of work, as large as the number of threads that may use it.
        self._pools = [
            _pool(settings, connections, trust)
            for connections in (settings.upload_storing, settings.downloads, CONTROL_CONNECTIONS)
        ]
        self._uploads = self._pools[0]
        self._downloads = self._client(settings, self._pools[1])
        self._control = self._client(settings, self._pools[2])
        wait = settings.upload_wait_seconds
        self._upload_gate = Capacity("s3_upload", settings.upload_storing, settings.upload_receiving, wait, metrics)
        self._download_gate = Capacity("s3_download", settings.downloads, settings.downloads * 4, wait, metrics)
        self._control_gate = Capacity("s3_control", CONTROL_CONNECTIONS, 100, settings.s3_read_timeout, metrics)

    async def put(self, key: str, file: IO[bytes], size: int, content_type: str, sha256: str) -> None:
        async with _translated("put", key):
            await self._upload_gate.run(self._put, key, file, size, content_type, sha256)

    @asynccontextmanager
    async def read(self, key: str, offset: int, length: int) -> AsyncIterator[Chunks]:
        async with self._download_gate.slot():
            async with _translated("get", key):
                answer = await self._download_gate.thread(self._downloads.get_object, self._bucket, key, offset, length)
            try:
                yield self._chunks(key, answer)
            finally:
                # Read to its end, the connection goes back to the pool; else it is of no more use.
                answer.close()
                answer.release_conn()

    async def fetch(self, key: str, file: IO[bytes]) -> None:
        async with _translated("get", key):
            await self._download_gate.run(self._fetch, key, file)

    async def delete(self, key: str) -> None:
        async with _translated("delete", key):
            await self._control_gate.run(self._control.remove_object, self._bucket, key)

    async def list(self, prefix: str) -> AsyncIterator[Sequence[Entry]]:
        objects: Iterator[Object] = self._control.list_objects(self._bucket, prefix=prefix, recursive=True)
        while True:
            async with _translated("list", prefix):
                page = await self._control_gate.run(_page, objects)
            if not page:
                return
            yield page

    async def ping(self) -> None:
        if not await self._control_gate.run(self._control.bucket_exists, self._bucket):
            raise ConnectionError(f"bucket {self._bucket} does not exist")

    async def close(self) -> None:
        for pool in self._pools:
            pool.clear()

    def _put(self, key: str, file: IO[bytes], size: int, content_type: str, sha256: str) -> None:
        url = urlsplit(f"{self._base}/{key}")
        now = datetime.now(UTC)
        # What TLS brings has not changed on its way. Otherwise the store hashes it once more, and refuses what differs.
        content = sha256 if url.scheme == "http" else UNSIGNED
        signed = sign_v4_s3(
            method="PUT",
            url=url,
            region=self._region,
            headers={
                "Host": url.netloc,
                "Content-Length": str(size),
                "Content-Type": content_type,
                "x-amz-content-sha256": content,
                "x-amz-date": to_amz_date(now),
            },
            credentials=self._credentials.retrieve(),
            content_sha256=content,
            date=now,
        )
        headers = {name: str(value) for name, value in signed.items()}
        file.seek(0)
        body: Any = _Reused(file)
        answer = self._uploads.request("PUT", url.geturl(), body=body, headers=headers)
        if answer.status != 200:
            raise ServerError(f"PUT was answered with {answer.status}: {answer.data[:500]!r}", answer.status)

    def _fetch(self, key: str, file: IO[bytes]) -> None:
        answer = self._downloads.get_object(self._bucket, key)
        try:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
        finally:
            answer.close()
            answer.release_conn()

    async def _chunks(self, key: str, answer: urllib3.BaseHTTPResponse) -> Chunks:
        async with _translated("get", key):
            while chunk := await self._download_gate.thread(answer.read, CHUNK):
                yield chunk

    def _client(self, settings: Settings, pool: urllib3.PoolManager) -> Minio:
        endpoint = settings.s3_endpoint
        return Minio(
            f"{endpoint.host}:{endpoint.port}",
            secure=endpoint.scheme == "https",
            region=settings.s3_region,
            credentials=self._credentials,
            http_client=pool,
        )


def _pool(settings: Settings, connections: int, trust: ssl.SSLContext) -> urllib3.PoolManager:
    return urllib3.PoolManager(
        maxsize=connections,
        block=True,
        blocksize=CHUNK,
        ssl_context=trust,
        timeout=urllib3.Timeout(connect=settings.s3_connect_timeout, read=settings.s3_read_timeout),
        # All calls here can be repeated: keys are never written twice with different content. Once more after a
        # broken connection, which may just have been an old one; a store that hangs is not waited for any longer.
        retries=urllib3.Retry(
            total=2, read=1, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504), raise_on_status=False
        ),
    )


def _page(objects: Iterator[Object]) -> list[Entry]:
    return [
        Entry(str(found.object_name), found.size or 0, found.last_modified or datetime.now(UTC))
        for found in itertools.islice(objects, LIST_PAGE)
    ]


class _Reused:
    """A file whose pieces all come in the same memory: to fault in new pages for each costs more than to send it.

    Those of one that is in memory come from there.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._view: Callable[[int], memoryview] | None = getattr(file, "view", None)
        self._buffer = bytearray(0 if self._view else CHUNK)

    def read(self, size: int) -> memoryview:
        """Valid until the next call; empty at the end."""
        if self._view is not None:
            return self._view(size)
        window = memoryview(self._buffer)[:size]
        return window[: self._file.readinto(window)]  # type: ignore[attr-defined]  # every binary file has it

    def tell(self) -> int:
        """Where urllib3 goes back to when it has to send the file again."""
        return self._file.tell()

    def seek(self, position: int) -> int:
        return self._file.seek(position)


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
