"""Images to order."""

import io
import struct
import zlib

from PIL import Image


def encoded(format_: str, width: int = 64, height: int = 48, **options: object) -> bytes:
    picture = Image.effect_noise((width, height), 40).convert("RGB")
    out = io.BytesIO()
    picture.save(out, format_, **options)
    return out.getvalue()


def jpeg(size: int | None = None, width: int = 64, height: int = 48) -> bytes:
    """A valid JPEG of exactly `size` bytes: comments fill it up, which a decoder skips and a hash does not."""
    picture = encoded("JPEG", width, height)
    if size is None:
        return picture
    missing = size - len(picture)
    filling = b""
    while missing:
        if missing < 4:
            raise ValueError("a comment takes at least 4 bytes")
        # A piece has at most 65535 bytes after its marker, and must not leave a rest that no comment fits into.
        piece = min(missing, 65537)
        if 0 < missing - piece < 4:
            piece -= 4
        filling += b"\xff\xfe" + struct.pack(">H", piece - 2) + b"x" * (piece - 4)
        missing -= piece
    return picture[:2] + filling + picture[2:]


def png_bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that claims to be huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(10_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
