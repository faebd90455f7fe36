"""What kind of image bytes are, judged by the bytes alone: neither the name nor the declared type is believed."""

from dataclasses import dataclass
from typing import IO

from PIL import Image, UnidentifiedImageError
from slipway_kit.problems import Problem

from slipway_image.completeness import is_complete

# Enough for every signature below.
HEAD_LENGTH = 64


@dataclass(frozen=True)
class Format:
    pillow: str
    content_type: str
    extension: str


JPEG = Format("JPEG", "image/jpeg", "jpg")
PNG = Format("PNG", "image/png", "png")
GIF = Format("GIF", "image/gif", "gif")
WEBP = Format("WEBP", "image/webp", "webp")
AVIF = Format("AVIF", "image/avif", "avif")


@dataclass(frozen=True)
class Inspected:
    format: Format
    width: int
    height: int


def sniff(head: bytes) -> Format | None:
    """By signature. SVG is not among them: it is a program, not a picture."""
    if head.startswith(b"\xff\xd8\xff"):
        return JPEG
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return GIF
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WEBP
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"):
        return AVIF
    return None


def unsupported() -> Problem:
    accepted = ", ".join(format_.content_type for format_ in (JPEG, PNG, GIF, WEBP, AVIF))
    return Problem(415, "unsupported-image", f"The file is none of {accepted}.", title="Unsupported image")


def damaged() -> Problem:
    return Problem(422, "damaged-image", "The file is damaged or not complete.")


def inspect(file: IO[bytes], size: int, max_pixels: int) -> Inspected:
    """Header only, never decoded: 50 megapixels cost nothing to look at, and a bomb does not go off. Blocking."""
    file.seek(0)
    format_ = sniff(file.read(HEAD_LENGTH))
    if format_ is None:
        raise unsupported()
    file.seek(0)
    try:
        # Only the decoder of the signature's format: the others need not meet hostile input.
        image = Image.open(file, formats=[format_.pillow])
        width, height = image.size
        if width * height > max_pixels:
            raise _too_many_pixels(width, height, max_pixels)
        image.verify()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(None, None, max_pixels) from None
    except Problem:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, OverflowError):
        # Pillow reports broken files in all of these ways.
        raise damaged() from None
    if width < 1 or height < 1 or not is_complete(file, size, format_.pillow):
        raise damaged()
    return Inspected(format_, width, height)


def _too_many_pixels(width: int | None, height: int | None, limit: int) -> Problem:
    found = f"{width} x {height} pixels are" if width else "The image has"
    return Problem(422, "too-many-pixels", f"{found} more than {limit} pixels.")
