"""Uploads of 10 MB: the same client, the same pieces, once to the gateway and once straight to the object store."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import aiohttp
from slipway_testing.images import jpeg
from slipway_testing.minio import ObjectStore

from bench.arithmetic import percentile

SIZE = 10 * 1024**2
PIECE = 256 * 1024
BUCKET = "bench"
# Of all uploads of a phase together: a hanging one must not hang the bench.
TIMEOUT = 90
# The object store says 200, the gateway 201.
STORED = (200, 201)
_BOUNDARY = "slipway-bench-boundary"


class Picture:
    """A photo of 12 megapixels and 10 MiB. No two are the same: one that is known already would not be stored again."""

    def __init__(self, size: int = SIZE, width: int = 4000, height: int = 3000) -> None:
        content = jpeg(size, width, height)
        # After the start marker, a comment: its marker and length (4 bytes), then what nobody reads.
        self._head, self._tail = content[:6], memoryview(content)[6 + 32 :]
        self.size = size

    async def pieces(self, before: bytes = b"", after: bytes = b"") -> AsyncIterator[bytes | memoryview]:
        yield before + self._head + secrets.token_hex(16).encode()
        for start in range(0, len(self._tail), PIECE):
            yield self._tail[start : start + PIECE]
        if after:
            yield after


@dataclass
class Uploads:
    """What came of some uploads that ran together."""

    bytes_each: int
    seconds: float
    latencies: list[float] = field(default_factory=list)
    # Status -> how often; 0 stands for no answer at all.
    statuses: dict[int, int] = field(default_factory=dict)

    def told(self, *statuses: int) -> int:
        """How many got one of these answers."""
        return sum(self.statuses.get(status, 0) for status in statuses)

    @property
    def stored(self) -> int:
        return self.told(*STORED)

    @property
    def mb_per_second(self) -> float:
        """Megabytes (10^6 bytes) of what was stored."""
        return self.stored * self.bytes_each / 1e6 / self.seconds

    def percentile(self, share: float) -> float:
        """Seconds, of those that were stored."""
        return percentile(self.latencies, share) if self.latencies else float("nan")


Send = Callable[[aiohttp.ClientSession], "aiohttp.client._RequestContextManager"]


def to_gateway(picture: Picture, url: str, token: str) -> Send:
    """Multipart, as a browser does it."""
    before = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="photo.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    ).encode()
    after = f"\r\n--{_BOUNDARY}--\r\n".encode()
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": f"multipart/form-data; boundary={_BOUNDARY}",
        "Content-Length": str(len(before) + picture.size + len(after)),
    }
    return lambda session: session.post(
        f"{url}/api/v1/images", data=picture.pieces(before, after), headers=headers, allow_redirects=False
    )


def to_store(picture: Picture, store: ObjectStore, folder: str) -> Send:
    """One PUT to a signed address, without multipart and without anybody between."""

    def send(session: aiohttp.ClientSession) -> "aiohttp.client._RequestContextManager":
        name = f"{folder}/{secrets.token_hex(16)}.jpg"
        address = store.client.presigned_put_object(BUCKET, name, expires=timedelta(minutes=10))
        headers = {"Content-Type": "image/jpeg", "Content-Length": str(picture.size)}
        return session.put(
            address, data=picture.pieces(), headers=headers, allow_redirects=False, ssl=store.trust or True
        )

    return send


async def upload(sends: Sequence[Send], *, at_a_time: int, bytes_each: int) -> Uploads:
    """Each of `sends` once, `at_a_time` of them together."""
    done = Uploads(bytes_each, 0)
    waiting = list(sends)

    async def client(session: aiohttp.ClientSession) -> None:
        while waiting:
            send = waiting.pop()
            started = time.perf_counter()
            try:
                async with send(session) as answer:
                    await answer.read()
                    status = answer.status
            except (aiohttp.ClientError, TimeoutError):
                status = 0
            done.statuses[status] = done.told(status) + 1
            if status in STORED:
                done.latencies.append(time.perf_counter() - started)

    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        started = time.perf_counter()
        await asyncio.gather(*(client(session) for _ in range(at_a_time)))
        done.seconds = time.perf_counter() - started
    return done
