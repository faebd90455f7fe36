"""What fits into the pod: the arithmetic of service.yml, measured."""

import http.client
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from PIL import Image
from slipway_image.settings import Settings
from slipway_testing.image_client import stored
from slipway_testing.images import jpeg
from slipway_testing.platform import Platform, User
from test_processes import Service, running

pytestmark = pytest.mark.slow

MEBIBYTE = 1024 * 1024
DEFINITION: dict[str, Any] = yaml.safe_load((Path(__file__).parents[1] / "image" / "service.yml").read_text())
POD = int(DEFINITION["resources"]["limits"]["memory"].removesuffix("Mi")) * MEBIBYTE
# What glibc is told there belongs to the measurement.
ENVIRONMENT: Mapping[str, str] = DEFINITION["environment"]
PICTURE: int = Settings.model_fields["variant_memory_bytes"].default
UPLOADS = 100
UPLOAD_BYTES = 10 * 1024 * 1024


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Neither small nor large when it is compressed, and quick to make."""
    small = Image.effect_noise((width // 8, height // 8), 60)
    bands = [small, small.transpose(Image.Transpose.FLIP_LEFT_RIGHT), small.transpose(Image.Transpose.ROTATE_180)]
    picture = Image.merge("RGB", bands)
    if mode == "RGBA":
        picture.putalpha(small)
    return picture.resize((width, height), Image.Resampling.BILINEAR)


def largest(kind: str) -> bytes:
    """A picture of this kind that only just is not refused."""
    mode = "RGBA" if "transparent" in kind else "RGB"
    # Width (height is three quarters of it), format, how it is written.
    kinds: dict[str, tuple[int, str, dict[str, Any]]] = {
        "jpeg": (3199, "JPEG", {"quality": 70}),
        "jpeg, square": (3199, "JPEG", {"quality": 70}),
        "jpeg, 48 megapixels": (8000, "JPEG", {"quality": 50}),
        "jpeg, progressive": (4530, "JPEG", {"quality": 50, "progressive": True, "subsampling": "4:4:4"}),
        "png": (4400, "PNG", {"compress_level": 1}),
        "png, transparent": (3400, "PNG", {"compress_level": 1}),
        "gif": (3400, "GIF", {}),
        "webp": (3350, "WEBP", {"quality": 70, "method": 0}),
        "webp, transparent": (3300, "WEBP", {"quality": 50, "method": 0}),
        "avif": (2670, "AVIF", {"quality": 50, "speed": 10, "subsampling": "4:4:4"}),
        "avif, transparent": (2670, "AVIF", {"quality": 50, "speed": 10, "subsampling": "4:4:4"}),
    }
    width, format_, options = kinds[kind]
    picture = noise(width, width if "square" in kind else width * 3 // 4, mode)
    out = io.BytesIO()
    (picture.quantize(255, kmeans=0) if format_ == "GIF" else picture).save(out, format_, **options)
    return out.getvalue()


KINDS = [
    "jpeg", "jpeg, square", "jpeg, 48 megapixels", "jpeg, progressive", "png", "png, transparent", "gif",
    "webp", "webp, transparent", "avif", "avif, transparent",
]  # fmt: skip
# In a process of its own: prints the peak of its memory above where it was before, in bytes.
_RENDER = """
import sys, io
from pathlib import Path
from slipway_image.formats import HEAD_LENGTH, LARGEST_SIDE, Limits, inspect, sniff
from slipway_image.rendering import render

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

path, memory = Path(sys.argv[1]), int(sys.argv[2])
limits = Limits(50_000_000, memory)
with path.open("rb") as file, open("/dev/null", "r+b") as out:
    inspect(file, path.stat().st_size, limits)
    file.seek(0)
    format_ = sniff(file.read(HEAD_LENGTH))
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    render(file, path.stat().st_size, format_, limits, LARGEST_SIDE, io.BytesIO())
    print(status("VmHWM") - before, status("VmRSS") - before)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_pictures_take_what_they_may(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "picture"
    file.write_bytes(largest(kind))
    python = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", _RENDER, str(file), str(PICTURE)],
        env=python | dict(ENVIRONMENT),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    peak, left = map(int, done.stdout.split())
    print(f"{kind}: {peak / MEBIBYTE:.0f} MiB, afterwards {left / MEBIBYTE:.0f}")
    # 2 MiB for the encoder's output and what Python itself does meanwhile.
    assert peak <= PICTURE + 2 * MEBIBYTE
    # Not far too careful either: all but AVIF, whose depth of colour is not known before, and JPEG, for which the limit
    # of pixels comes first.
    assert kind.startswith(("avif", "jpeg")) or peak >= 0.5 * PICTURE
    # And it goes back to the system.
    assert left <= 16 * MEBIBYTE


def resident(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


@contextmanager
def image_process(platform: Platform, tmp_path: Path) -> Iterator[tuple[Service, httpx2.Client]]:
    headers = platform.service_headers("api", "image")
    settings = platform.image_settings | {"quota_bytes": 1024**4}
    # Nobody reads what it writes: a full pipe would stop it.
    quiet = {"LOG_LEVEL": "error"}
    with (
        running("slipway_image", settings, tmp_path / "secrets", **ENVIRONMENT, **quiet) as service,
        httpx2.Client(base_url=service.url, headers=headers, timeout=60) as client,
    ):
        yield service, client


def send(service: Service, headers: Mapping[str, str], number: int, body: memoryview) -> tuple[int, str | None]:
    """One upload; no two are the same picture, or they would be stored once."""
    before = (
        b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
        + bytes(body[:6])
        + number.to_bytes(8, "big")
    )
    pieces: list[bytes | memoryview] = [
        before,
        *(body[start : start + 256 * 1024] for start in range(14, len(body), 256 * 1024)),
        b"\r\n--cut--\r\n",
    ]
    connection = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=300)
    try:
        length = {"Content-Length": str(sum(map(len, pieces)))}
        kind = {"Content-Type": "multipart/form-data; boundary=cut"}
        connection.request("POST", "/upload", body=iter(pieces), headers=dict(headers) | kind | length)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("Retry-After")
    finally:
        connection.close()


def test_a_hundred_uploads_while_the_largest_pictures_are_shown(platform: Platform, user: User, tmp_path: Path) -> None:
    """Nobody is refused without being told when to come again, and the process stays inside of its pod."""
    picture = memoryview(jpeg(UPLOAD_BYTES, 4000, 3000))
    stop = threading.Event()
    with image_process(platform, tmp_path) as (service, client):
        headers = user.headers | platform.service_headers("api", "image")
        names = [
            stored(client, user, largest(kind))["filename"] for kind in ("jpeg, square", "webp", "avif, transparent")
        ]
        idle = resident(service.process.pid, "VmRSS")

        def show() -> int:
            made = 0
            while not stop.is_set():
                for name in names:
                    for size in ("1200", "480"):
                        answer = client.get(f"/images/{name}/{size}", headers=user.headers)
                        assert answer.status_code in (200, 503), answer.text
                        made += answer.status_code == 200
                    platform.postgres.query("image_db", "DELETE FROM variants")
            return made

        with ThreadPoolExecutor(1) as viewers, ThreadPoolExecutor(UPLOADS) as pool:
            shown = viewers.submit(show)
            answers = list(pool.map(lambda number: send(service, headers, number, picture), range(UPLOADS)))
            stop.set()
            made = shown.result()
        peak = resident(service.process.pid, "VmHWM")
        after = resident(service.process.pid, "VmRSS")
        assert service.process.poll() is None
    statuses = [status for status, _ in answers]
    print(
        f"{UPLOADS} uploads: {statuses.count(201)} stored, {statuses.count(503)} told to come again, {made} variants; "
        f"memory idle {idle // MEBIBYTE} MiB, peak {peak // MEBIBYTE}, afterwards {after // MEBIBYTE}"
    )
    assert set(statuses) <= {201, 503}
    assert all(retry for status, retry in answers if status == 503)
    assert statuses.count(201) >= UPLOADS // 2
    assert made > 0
    assert peak < POD
