"""What a variant is: the picture upright, scaled down, in sRGB, and not a byte of anything else."""

import io
import struct
from typing import Any

import pytest
from PIL import Image, ImageCms
from slipway_image.formats import Limits, inspect, sniff
from slipway_image.rendering import render
from slipway_kit.problems import Problem
from slipway_testing.images import encoded

LIMITS = Limits(50_000_000, 104 * 1024 * 1024)
ORIENTATION, MAKE, GPS = 0x0112, 0x010F, 0x8825
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def rendered(content: bytes, side: int = 1600, limits: Limits = LIMITS) -> Image.Image:
    """The variant of a file, opened; its bytes are in `info["bytes"]`."""
    format_ = sniff(content[:64])
    assert format_ is not None
    out = io.BytesIO()
    result = render(io.BytesIO(content), len(content), format_, limits, side, out)
    picture = Image.open(io.BytesIO(out.getvalue()))
    assert (picture.format, picture.size) == (result.format.pillow, (result.width, result.height))
    picture.load()
    picture.info["bytes"] = out.getvalue()
    return picture


def saved(picture: Image.Image, format_: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, format_, **options)
    return out.getvalue()


def quarters(width: int = 64, height: int = 32) -> Image.Image:
    """Red and green above blue and white: each way to turn it looks different."""
    picture = Image.new("RGB", (2, 2))
    picture.putdata([RED, GREEN, BLUE, WHITE])
    return picture.resize((width, height), Image.Resampling.NEAREST)


def corners(picture: Image.Image) -> list[tuple[int, ...]]:
    """The nearest of the four colours in each quarter, from above left to below right."""
    width, height = picture.size
    points = [(width // 4 + x * width // 2, height // 4 + y * height // 2) for y in (0, 1) for x in (0, 1)]
    flat = picture.convert("RGB")
    seen: list[Any] = [flat.getpixel(point) for point in points]
    return [
        min((RED, GREEN, BLUE, WHITE), key=lambda wanted: sum((a - b) ** 2 for a, b in zip(wanted, found, strict=True)))
        for found in seen
    ]


def camera_exif(orientation: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[MAKE] = "SECRET-CAMERA"
    exif.get_ifd(GPS).update({1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0), 27: b"SECRET-PLACE"})
    return exif


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "AVIF", "GIF"])
def test_nothing_but_the_picture_is_left(format_: str) -> None:
    options: dict[str, Any] = {"comment": b"SECRET-COMMENT"}
    if format_ != "GIF":
        options |= {"exif": camera_exif(), "xmp": b"<x:xmpmeta>SECRET-XMP</x:xmpmeta>"}
        options |= {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}
    content = saved(quarters(), format_, **options) + b"SECRET-APPENDIX"
    if format_ != "GIF":
        assert b"SECRET-CAMERA" in content
        assert b"SECRET-PLACE" in content
        assert dict(Image.open(io.BytesIO(content)).getexif().get_ifd(GPS))[2] == (52.0, 31.0, 12.0)
    picture = rendered(content if format_ != "AVIF" else content.removesuffix(b"SECRET-APPENDIX"))
    written = picture.info.pop("bytes")
    assert b"SECRET" not in written
    assert dict(picture.getexif()) == {}
    assert set(picture.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert markers(written) <= {"SOI", "APP0", "DQT", "SOF", "DHT", "SOS"}
    assert corners(picture) == [RED, GREEN, BLUE, WHITE]


def markers(jpeg: bytes) -> set[str]:
    """The kinds of segments: a variant has none of those that carry metadata."""
    names = {0xD8: "SOI", 0xE0: "APP0", 0xDB: "DQT", 0xC0: "SOF", 0xC4: "DHT", 0xDA: "SOS"}
    position, found = 2, {"SOI"}
    while jpeg[position + 1] != 0xDA:
        found.add(names.get(jpeg[position + 1], hex(jpeg[position + 1])))
        position += 2 + int(struct.unpack(">H", jpeg[position + 2 : position + 4])[0])
    return found | {"SOS"}


def test_transparent_ones_carry_no_metadata_either() -> None:
    picture = quarters().convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    content = saved(picture, "WEBP", exif=camera_exif(), xmp=b"SECRET-XMP", lossless=True)
    variant = rendered(content)
    written = variant.info.pop("bytes")
    assert b"SECRET" not in written
    # A bare file: no extended header, and so no place for anything but the picture and its transparency.
    assert {written[12:16], *(name for name in (b"EXIF", b"XMP ", b"ICCP") if name in written)} == {b"VP8X"}
    assert (variant.format, variant.mode) == ("WEBP", "RGBA")
    assert [transparency(variant, y) for y in (0, 31)] == [0, 4]


def transparency(picture: Image.Image, y: int) -> int:
    """Of the first pixel in a row: 0 (transparent) to 4 (opaque)."""
    value = picture.getchannel("A").getpixel((0, y))
    assert isinstance(value, int)
    return round(value / 64)


# How a camera turns what it sees, by the orientation that it writes: the opposite of what a viewer has to do.
TURNED_BY_CAMERA = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", TURNED_BY_CAMERA)
def test_the_picture_stands_upright(format_: str, orientation: int) -> None:
    seen, turn = quarters(80, 40), TURNED_BY_CAMERA[orientation]
    content = saved(seen.transpose(turn) if turn is not None else seen, format_, exif=camera_exif(orientation))
    for side, size in ((1600, (80, 40)), (40, (40, 20))):
        picture = rendered(content, side)
        assert picture.size == size
        assert corners(picture) == [RED, GREEN, BLUE, WHITE]
    found = inspect(io.BytesIO(content), len(content), LIMITS)
    assert (found.width, found.height) == (80, 40)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\x00\x00rubbish", b"Exif\x00\x00II*\x00\xff\xff\xff\xff", b""])
def test_an_orientation_that_cannot_be_read(exif: bytes) -> None:
    content = saved(quarters(), "JPEG", exif=exif)
    assert corners(rendered(content)) == [RED, GREEN, BLUE, WHITE]
    wrong = Image.Exif()
    wrong[ORIENTATION] = 99
    assert corners(rendered(saved(quarters(), "JPEG", exif=wrong))) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize(
    ("mode", "format_", "kind"),
    [
        ("1", "PNG", "L"),
        ("L", "PNG", "L"),
        ("LA", "PNG", "RGBA"),
        ("P", "PNG", "RGB"),
        ("RGB", "PNG", "RGB"),
        ("RGBA", "PNG", "RGBA"),
        ("I;16", "PNG", "L"),
        ("L", "JPEG", "L"),
        ("CMYK", "JPEG", "RGB"),
        ("P", "GIF", "RGB"),
        ("RGB", "WEBP", "RGB"),
        ("L", "AVIF", "L"),
        ("RGB", "AVIF", "RGB"),
        ("RGBA", "AVIF", "RGBA"),
    ],
)
def test_every_kind_of_pixel(mode: str, format_: str, kind: str) -> None:
    """A gradient from black to white is one afterwards, and transparency is kept where there was some."""
    grey = Image.linear_gradient("L").rotate(90).resize((300, 200))
    if mode == "I;16":
        values = b"".join(struct.pack("<H", value * 257) for value in grey.tobytes())
        picture = Image.frombytes("I;16", grey.size, values)
    else:
        picture = grey.convert("LA" if mode == "LA" else "RGB").convert(mode)
    if mode in ("LA", "RGBA"):
        # Opaque in the middle, where the test looks.
        picture.putalpha(Image.radial_gradient("L").point(lambda value: 255 - value // 8).resize(picture.size))
    content = saved(picture, format_)
    for side in (1600, 160):
        variant = rendered(content, side)
        assert variant.mode == kind
        assert max(variant.size) == min(side, 300)
        seen = variant.convert("L")
        left, right = seen.getpixel((4, seen.height // 2)), seen.getpixel((seen.width - 5, seen.height // 2))
        assert isinstance(left, float | int)
        assert isinstance(right, float | int)
        assert {round(left / 64), round(right / 64)} == {0, 4}


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "AVIF"])
def test_where_everything_is_opaque_a_jpeg_will_do(format_: str) -> None:
    picture = rendered(saved(quarters().convert("RGBA"), format_))
    assert (picture.format, picture.mode) == ("JPEG", "RGB")
    assert corners(picture) == [RED, GREEN, BLUE, WHITE]


def test_transparency_in_a_palette() -> None:
    picture = quarters().quantize(4)
    content = saved(picture, "GIF", transparency=picture.getpixel((0, 0)))
    variant = rendered(content)
    assert variant.mode == "RGBA"
    assert [transparency(variant, y) for y in (0, 31)] == [0, 4]


def test_colours_of_another_space() -> None:
    """sRGB with red and green exchanged: its red is our green. Without the profile it would stay red."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ") + 4, profile.index(b"gXYZ") + 4
    profile[red : red + 8], profile[green : green + 8] = profile[green : green + 8], profile[red : red + 8]
    content = saved(quarters(), "PNG", icc_profile=bytes(profile))
    assert corners(rendered(content)) == [GREEN, RED, BLUE, WHITE]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("profile", ["rubbish", "of another kind"])
def test_a_profile_that_does_not_fit_is_left_out(mode: str, profile: str) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    content = saved(quarters().convert(mode), "JPEG", icc_profile=b"rubbish" if profile == "rubbish" else lab)
    assert rendered(content).mode == ("L" if mode == "L" else "RGB")


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG", "AVIF"])
def test_of_animations_the_first_frame(format_: str) -> None:
    frames = [Image.new("RGB", (64, 48), colour) for colour in (RED, GREEN, BLUE)]
    content = saved(frames[0], format_, save_all=True, append_images=frames[1:], duration=100)
    picture = rendered(content)
    assert getattr(picture, "n_frames", 1) == 1
    assert corners(picture) == [RED] * 4


def test_several_pictures_in_one_jpeg() -> None:
    """Phones append others (depth, a brighter one). Only the first is what was taken."""
    content = saved(quarters(), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 32), BLUE)])
    found = inspect(io.BytesIO(content), len(content), LIMITS)
    assert (found.format.content_type, found.width, found.height) == ("image/jpeg", 64, 32)
    assert corners(rendered(content)) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "GIF", "WEBP", "AVIF"])
@pytest.mark.parametrize(("size", "side", "expected"), [
    ((64, 48), 160, (64, 48)),
    ((640, 480), 160, (160, 120)),
    ((480, 640), 160, (120, 160)),
    ((900, 3), 160, (160, 1)),
    ((1, 700), 160, (1, 160)),
])  # fmt: skip
def test_sizes(format_: str, size: tuple[int, int], side: int, expected: tuple[int, int]) -> None:
    assert rendered(encoded(format_, *size), side).size == expected


def test_a_progressive_jpeg() -> None:
    content = saved(quarters(640, 480), "JPEG", progressive=True)
    assert corners(rendered(content, 160)) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "GIF", "WEBP", "AVIF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_what_cannot_be_decoded(format_: str, share: float) -> None:
    """The upload would not let these in. Should one be there all the same, that is all that happens."""
    content = encoded(format_, 400, 300)
    with pytest.raises(Problem) as error:
        rendered(content[: int(len(content) * share)])
    assert (error.value.status_code, error.value.code) == (422, "damaged-image")


def test_the_limits_hold_here_too() -> None:
    content = encoded("PNG", 400, 300)
    for limits in (Limits(100_000, LIMITS.memory), Limits(LIMITS.pixels, 500_000)):
        with pytest.raises(Problem) as error:
            rendered(content, limits=limits)
        assert (error.value.status_code, error.value.code) == (422, "too-many-pixels")
