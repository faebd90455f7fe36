"""What kind of image bytes are, judged by the bytes alone: neither the name nor the declared type is believed."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from PIL import AvifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from slipway_kit.problems import Problem

from slipway_image.completeness import is_complete

# Enough for every signature below.
HEAD_LENGTH = 64
# The longer side of the largest variant. JPEGs are decoded at a half, quarter or eighth of their size when that is
# still larger. (Encoding WebP with transparency takes 25 bytes per pixel: 61 MiB at this size.)
LARGEST_SIDE = 1600

# Above Pillow's own limit (89 megapixels) it only warns; ours are lower, this is for what they might overlook.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
# Texts in a PNG are unpacked as soon as it is opened: 64 MiB of them by default.
PngImagePlugin.MAX_TEXT_MEMORY = 4 * 1024 * 1024
# Each thread of the AV1 decoder has frames of its own; the pod has one core.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

# Pillow reports broken files in all of these ways.
BROKEN = (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, OverflowError)
BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)

# Bytes of memory per pixel while a variant is made, measured with Pillow 13; a test measures them again.
# Pillow keeps a colour pixel in 4 bytes; scaling adds up to 3.2 for the half-scaled copy and the result, and before
# that transparency takes 4 more for a copy with premultiplied colours.
_OPAQUE = 7.5
_TRANSPARENT = 12.5
# The decoder's canvas and the frame before it, the pixels as bytes, then as an image (see rendering.py).
_WEBP = 12.5
# Measured: 12 with 8 bits per colour. With 12 bits, all colours in full size, transparency and film grain: 8 for the
# frame, 8 for the one with grain, 4 for the pixels.
_AVIF = 20


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
BY_CONTENT_TYPE = {format_.content_type: format_ for format_ in (JPEG, PNG, GIF, WEBP, AVIF)}


@dataclass(frozen=True)
class Limits:
    """What an image may have: width times height, and bytes of memory while a variant is made of it."""

    pixels: int
    memory: int


@dataclass(frozen=True)
class Inspected:
    """Width and height are those that a viewer sees: after turning it as its EXIF orientation says."""

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
    accepted = ", ".join(BY_CONTENT_TYPE)
    return Problem(415, "unsupported-image", f"The file is none of {accepted}.", title="Unsupported image")


def damaged() -> Problem:
    return Problem(422, "damaged-image", "The file is damaged or not complete.")


def inspect(file: IO[bytes], size: int, limits: Limits) -> Inspected:
    """Header only, never decoded: 50 megapixels cost nothing to look at, and a bomb does not go off. Blocking.

    Problem 415 for what is no image of ours, 422 for a damaged one and for one that is too large to be decoded.
    """
    file.seek(0)
    format_ = sniff(file.read(HEAD_LENGTH))
    if format_ is None:
        raise unsupported()
    try:
        image = open_within(file, size, format_, limits)
        width, height = image.size
        if orientation(image) in TURNED:
            width, height = height, width
        image.verify()
    except BROKEN:
        raise damaged() from None
    if not is_complete(file, size, format_.pillow):
        raise damaged()
    return Inspected(format_, width, height)


def open_within(file: IO[bytes], size: int, format_: Format, limits: Limits) -> ImageFile:
    """Opened by the decoder of this one format: the others need not meet hostile input. Nothing is decoded yet.

    `size` is that of the file in bytes. Problem 422 above the limits; one of BROKEN for a broken file.
    """
    file.seek(0)
    try:
        image = Image.open(file, formats=[format_.pillow])
    except BOMBS:
        raise _too_many_pixels("It has far more than that.", limits) from None
    width, height = image.size
    if width < 1 or height < 1:
        raise damaged()
    if width * height > limits.pixels:
        raise _too_many_pixels(f"{width} x {height} are more.", limits)
    needed = _MEMORY[format_.pillow](image, size)
    if needed > limits.memory:
        mebibytes = f"{math.ceil(needed / 2**20)} MiB, more than {limits.memory // 2**20}"
        raise _too_many_pixels(f"To decode {width} x {height} as {format_.pillow} takes {mebibytes}.", limits)
    return image


# The EXIF orientations that exchange width and height.
TURNED = frozenset({5, 6, 7, 8})
_ORIENTATION = 0x0112


def orientation(image: Image.Image) -> int:
    """1 to 8 as in EXIF, from the header alone; 1 for what says nothing sensible."""
    # Pillow would decode a whole PNG to find its EXIF behind the pixels.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except BROKEN:
        return 1
    return found if found in range(1, 9) else 1


def jpeg_scale(longer_side: int, wanted_side: int) -> int:
    """By which of 8, 4, 2, 1 a JPEG can be divided while it is decoded, and is still as large as wanted."""
    return next((scale for scale in (8, 4, 2) if longer_side >= scale * wanted_side), 1)


def _jpeg_memory(image: ImageFile, size: int) -> float:
    width, height = image.size
    pixels = width * height / jpeg_scale(max(image.size), LARGEST_SIDE) ** 2
    coefficients = 0.0
    if isinstance(image, JpegImagePlugin.JpegImageFile) and "progressive" in image.info:
        # Each scan refines the whole picture: the coefficients of all of it are kept, 2 bytes each.
        sampling = [(across, down) for _, across, down, _ in image.layer]
        full = max(across for across, _ in sampling) * max(down for _, down in sampling)
        coefficients = 2.0 * width * height * sum(across * down for across, down in sampling) / full
    return max(_OPAQUE * pixels, 4.1 * pixels + coefficients)


def _unpacked_memory(image: ImageFile, size: int) -> float:
    return (_TRANSPARENT if image.mode == "P" or image.has_transparency_data else _OPAQUE) * _pixels(image)


def _webp_memory(image: ImageFile, size: int) -> float:
    return _WEBP * _pixels(image) + size


def _avif_memory(image: ImageFile, size: int) -> float:
    return _AVIF * _pixels(image) + size


def _pixels(image: ImageFile) -> int:
    return image.size[0] * image.size[1]


_MEMORY: dict[str, Callable[[ImageFile, int], float]] = {
    "JPEG": _jpeg_memory,
    "PNG": _unpacked_memory,
    "GIF": _unpacked_memory,
    "WEBP": _webp_memory,
    "AVIF": _avif_memory,
}


def _too_many_pixels(reason: str, limits: Limits) -> Problem:
    return Problem(422, "too-many-pixels", f"An image may have {limits.pixels} pixels at most. {reason}")
