"""Where a body waits between its arrival and the object store: a few in memory that is used again and again, all others
in temporary files. Each is hashed on the way.

A file costs two copies of every byte, new pages each time, and a hop into a thread for every few chunks, because a disk
may let one wait. Memory that a body has had before costs one copy.
"""

import hashlib
import io
import mmap
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Protocol

import anyio
import anyio.to_thread

# Below this a temporary file is only in memory.
IN_MEMORY_BYTES = 128 * 1024
# Written to a file when so much has come: enough to be worth the hop, little enough for many at a time.
WRITE_BYTES = 256 * 1024
# Hashed, of what is in memory, when so much has come.
HASH_BYTES = 2 * 1024 * 1024
# More threads would only wait for the same disk, and each brings a heap of its own.
THREADS = 2


class Body(Protocol):
    """What has come so far of a body."""

    file: IO[bytes]

    async def add(self, pieces: Sequence[memoryview]) -> None:
        """The next pieces. OSError when the disk is full."""

    async def finish(self) -> str:
        """The SHA-256 (hex) of all of it, which is in `file` now. OSError when the disk is full."""


class Bodies:
    """Room for bodies of up to `max_bytes`; for `in_memory` of them it is memory, taken when first wanted and kept."""

    def __init__(self, in_memory: int, max_bytes: int) -> None:
        self._left = in_memory
        self._max_bytes = max_bytes
        self._idle: list[mmap.mmap] = []
        self._threads = anyio.CapacityLimiter(THREADS)

    @contextmanager
    def body(self) -> Iterator[Body]:
        """Its file is gone with the block."""
        slab = self._take()
        if slab is None:
            with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES) as file:
                yield _OnDisk(file, self._threads)
            return
        memory = Memory(slab)
        try:
            yield _InMemory(memory, self._threads)
        finally:
            memory.close()
            self._idle.append(slab)

    def _take(self) -> mmap.mmap | None:
        if self._idle:
            # The one that was used last: its pages are the most likely to be in the processor's cache.
            return self._idle.pop()
        if self._left:
            self._left -= 1
            return mmap.mmap(-1, self._max_bytes)
        return None


class _OnDisk:
    def __init__(self, file: IO[bytes], threads: anyio.CapacityLimiter) -> None:
        self.file = file
        self._threads = threads
        self._digest = hashlib.sha256()
        self._waiting: list[memoryview] = []

    async def add(self, pieces: Sequence[memoryview]) -> None:
        self._waiting += pieces
        if sum(map(len, self._waiting)) >= WRITE_BYTES:
            await self._write()

    async def finish(self) -> str:
        await self._write()
        return self._digest.hexdigest()

    async def _write(self) -> None:
        pieces, self._waiting = self._waiting, []

        def write() -> None:
            for piece in pieces:
                self.file.write(piece)
                self._digest.update(piece)

        await anyio.to_thread.run_sync(write, limiter=self._threads)


class _InMemory:
    def __init__(self, memory: "Memory", threads: anyio.CapacityLimiter) -> None:
        self.file: IO[bytes] = memory  # type: ignore[assignment]  # typing.IO has methods that no file of io has
        self._memory = memory
        self._threads = threads
        self._digest = hashlib.sha256()
        self._hashed = 0

    async def add(self, pieces: Sequence[memoryview]) -> None:
        for piece in pieces:
            self._memory.write(piece)
        if self._memory.tell() - self._hashed >= HASH_BYTES:
            await self._hash()

    async def finish(self) -> str:
        await self._hash()
        return self._digest.hexdigest()

    async def _hash(self) -> None:
        end = self._memory.tell()
        self._memory.seek(self._hashed)
        news = self._memory.view(end - self._hashed)
        self._hashed = end
        with news:
            await anyio.to_thread.run_sync(self._digest.update, news, limiter=self._threads)


class Memory(io.RawIOBase):
    """A file in a piece of memory. What others left behind its end cannot be read."""

    def __init__(self, slab: mmap.mmap) -> None:
        self._slab = memoryview(slab)
        self._position = self._end = 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, data: memoryview | bytes, /) -> int:  # type: ignore[override]
        if self._position > self._end:
            raise ValueError("no holes: they would show what others left there")
        after = self._position + len(data)
        if after > len(self._slab):
            raise ValueError(f"found {after} bytes for {len(self._slab)} bytes of memory")
        self._slab[self._position : after] = data
        self._position, self._end = after, max(self._end, after)
        return len(data)

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        length = max(0, min(len(buffer), self._end - self._position))
        memoryview(buffer).cast("B")[:length] = self._slab[self._position : self._position + length]
        self._position += length
        return length

    def readall(self) -> bytes:
        return bytes(self.view(max(0, self._end - self._position)))

    def view(self, size: int) -> memoryview:
        """The next `size` bytes, or those that are left, without a copy; valid until the file is closed."""
        found = self._slab[self._position : min(self._position + size, self._end)]
        self._position += len(found)
        return found.toreadonly()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._end}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        if not self.closed:
            self._slab.release()
        super().close()
