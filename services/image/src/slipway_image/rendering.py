"""Makes variants: decoded, turned upright, scaled down, and encoded anew without anything but pixels.

Blocking and expensive. Pillow lets go of the interpreter meanwhile, so a thread is enough.
"""

import io
from dataclasses import dataclass
from typing import IO

from PIL import AvifImagePlugin, Image, ImageCms, WebPImagePlugin
from PIL.ImageFile import ImageFile

from slipway_image.formats import (
    BOMBS,
    BROKEN,
    JPEG,
    WEBP,
    Format,
    Limits,
    damaged,
    jpeg_scale,
    open_within,
    orientation,
)

# Raised when something below changes what comes out: variants of other recipes are then made anew.
RECIPE = 1
JPEG_QUALITY = 82
WEBP_QUALITY = 80
# 0 (fast) to 6 (small). More takes several times as long, and memory: 25 bytes per pixel are 37 with 4.
WEBP_METHOD = 0

# By EXIF: how the picture has to be turned to stand upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@dataclass(frozen=True)
class Rendered:
    format: Format
    width: int
    height: int


def render(source: IO[bytes], size: int, format_: Format, limits: Limits, side: int, out: IO[bytes]) -> Rendered:
    """Write the picture in `source` (`size` bytes) to `out`, at most `side` pixels on its longer side.

    Of animations the first frame. JPEG, or WebP where there is transparency. Problem 422 for a picture that cannot be
    decoded or is above the limits.
    """
    try:
        image = open_within(source, size, format_, limits)
        turn = _UPRIGHT.get(orientation(image))
        profile = image.info.get("icc_profile")
        picture = _simple_mode(_decoded(image, side))
        del image
    except (*BROKEN, *BOMBS):
        raise damaged() from None
    transparent = picture.mode == "RGBA"
    picture.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=None)
    if turn is not None:
        picture = picture.transpose(turn)
    picture = _in_srgb(picture, profile)
    # Comments, EXIF, XMP and profiles are here, and some encoders would write them again.
    picture.info.clear()
    if transparent:
        picture.save(out, "WEBP", quality=WEBP_QUALITY, method=WEBP_METHOD)
    else:
        picture.save(out, "JPEG", quality=JPEG_QUALITY)
    return Rendered(WEBP if transparent else JPEG, picture.width, picture.height)


def _decoded(image: ImageFile, side: int) -> Image.Image:
    if isinstance(image, WebPImagePlugin.WebPImageFile | AvifImagePlugin.AvifImageFile):
        return _decoded_at_once(image)
    # JPEG only: decoded at a part of its size, which takes that much less memory and time.
    scale = jpeg_scale(max(image.size), side)
    image.draft("", (max(1, image.width // scale), max(1, image.height // scale)))
    image.load()
    return image


def _decoded_at_once(image: WebPImagePlugin.WebPImageFile | AvifImagePlugin.AvifImageFile) -> Image.Image:
    """As load(), which keeps the decoder and its canvas while it copies the pixels: a third more memory."""
    if isinstance(image, WebPImagePlugin.WebPImageFile):
        raw_mode, frame = image.rawmode, image._decoder.get_next()
    else:
        raw_mode, frame = image.mode, image._decoder.get_frame(0)
    if frame is None:
        raise EOFError("no first frame")
    pixels = frame[0]
    del image._decoder, frame
    return Image.frombytes(image.mode, image.size, pixels, "raw", raw_mode)


def _simple_mode(image: Image.Image) -> Image.Image:
    """One that can be scaled and encoded: L, RGB, RGBA, or CMYK, which its profile will turn into colours."""
    if image.mode.startswith("I;16"):
        # 16 bits of grey; convert() alone would cut off what is above 255.
        return image.point(lambda value: value * (1 / 256)).convert("L")
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        # Screenshots have a channel for it in which everything is opaque.
        opaque = image.getchannel("A").getextrema() == (255, 255)
        return image.convert("RGB") if opaque else image
    if image.mode in ("L", "RGB", "CMYK"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Phones take pictures in wider colour spaces; without their profile these would look pale."""
    wanted = "RGB" if image.mode == "CMYK" else image.mode
    if profile:
        try:
            found = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, found, _SRGB, outputMode=wanted)
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            # Broken, or made for pictures of another kind: the pixels are all there is.
            pass
    return image.convert(wanted)
