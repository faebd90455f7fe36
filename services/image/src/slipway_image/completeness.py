"""Is the file all there? Pillow's verify() sees that for PNG only, and decoding would cost a hundred times as much."""

import struct
from collections.abc import Callable
from typing import IO

# After the last scan of a JPEG follows nothing but this. Bytes after it (some cameras append a film) do not matter.
_JPEG_END = b"\xff\xd9"
_JPEG_SCAN = 0xDA
_WINDOW = 256 * 1024


def is_complete(file: IO[bytes], size: int, pillow_format: str) -> bool:
    check = _CHECKS.get(pillow_format)
    try:
        return check is None or check(file, size)
    except (struct.error, OSError):
        return False


def _jpeg(file: IO[bytes], size: int) -> bool:
    start = _first_scan(file, size)
    # Within a scan 0xFF is always followed by a stuffed zero or a restart marker, so this cannot be pixels. It is
    # searched from the end, where it is unless something was appended. A thumbnail's lies before the first scan.
    end = size
    while end > start:
        begin = max(start, end - _WINDOW)
        file.seek(begin)
        # One byte over, for a marker across the edge of two windows.
        if _JPEG_END in file.read(end - begin + 1):
            return True
        end = begin
    return False


def _first_scan(file: IO[bytes], size: int) -> int:
    """Where the segments end and the first scan begins."""
    position = 2
    while position + 4 <= size:
        file.seek(position)
        prefix, marker, length = _segment(file.read(4))
        if prefix != 0xFF:
            raise struct.error("no marker where one has to be")
        if marker == 0xFF:
            # Any number of fill bytes may stand before a marker.
            position += 1
            continue
        position += 2 + length
        if marker == _JPEG_SCAN:
            return position
    return size


def _segment(head: bytes) -> tuple[int, int, int]:
    prefix, marker, length = struct.unpack(">BBH", head)
    return prefix, marker, length


def _gif(file: IO[bytes], size: int) -> bool:
    file.seek(max(0, size - 1024))
    return b"\x3b" in file.read().rstrip(b"\x00")[-1:]


def _webp(file: IO[bytes], size: int) -> bool:
    file.seek(4)
    (length,) = struct.unpack("<I", file.read(4))
    return bool(size >= length + 8)


def _avif(file: IO[bytes], size: int) -> bool:
    position = 0
    while position < size:
        file.seek(position)
        length, _ = struct.unpack(">I4s", file.read(8))
        if length == 1:
            (length,) = struct.unpack(">Q", file.read(8))
        elif length == 0:
            return True
        if length < 8:
            return False
        position += length
    return position == size


_CHECKS: dict[str, Callable[[IO[bytes], int], bool]] = {"JPEG": _jpeg, "GIF": _gif, "WEBP": _webp, "AVIF": _avif}
