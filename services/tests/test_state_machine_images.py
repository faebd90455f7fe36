"""The life of images against a model of a few lines: two users, pictures that they share or not, a quota, a sweep.

The model is a list of rows. From it follows everything that can be seen: lists, sums, who gets which bytes, and that
the store has each picture once for as long as somebody has it. The real one runs with its Postgres and its MinIO.
"""

import asyncio
import hashlib
import io
import secrets
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from PIL import Image
from slipway_image.settings import Settings
from slipway_image.sweep import sweep_command
from slipway_testing.platform import BUCKET, Platform, User
from slipway_testing.settings import settings_of

pytestmark = pytest.mark.slow

SIZES = ("160", "480", "1200")
# Told apart by their size; the quota takes each once, or four of the first.
PICTURE_SIZES = (20_000, 25_000, 33_000)
QUOTA_BYTES = 80_000
SECRET = b"GPS 52.5200 N 13.4050 E"


@dataclass(frozen=True)
class Picture:
    content: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def etag_in_store(self) -> str:
        """How S3 knows an object that was put in one piece, whatever its name."""
        return hashlib.md5(self.content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Row:
    filename: str
    owner: User
    picture: Picture


def picture(size: int) -> Picture:
    """A new one, 300 x 200, whose metadata tells where it was taken."""
    exif = Image.Exif()
    exif[0x010E] = SECRET.decode() + secrets.token_hex(8)
    out = io.BytesIO()
    Image.effect_noise((300, 200), 40).convert("RGB").save(out, "JPEG", quality=30, exif=exif)
    made = out.getvalue()
    # A comment fills it up to its size, and is as private as the rest.
    comment = SECRET.ljust(size - len(made) - 4, b".")
    return Picture(made[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + made[2:])


class Images(RuleBasedStateMachine):
    platform: Platform
    client: httpx2.Client
    settings: Settings

    def __init__(self) -> None:
        super().__init__()
        # New ones for each run of rules: nothing is left over from the one before.
        self.users = [self.platform.new_user(f"model{number}") for number in range(2)]
        self.pictures = [picture(size) for size in PICTURE_SIZES]
        self.rows: list[Row] = []

    def of(self, owner: User) -> list[Row]:
        return [row for row in self.rows if row.owner is owner]

    def get(self, row: Row, who: User, what: str = "", **headers: str) -> httpx2.Response:
        return self.client.get(f"/images/{row.filename}{what}", headers=who.headers | headers)

    def other(self, user: User) -> User:
        return next(each for each in self.users if each is not user)

    # Rules

    @rule(who=st.integers(0, 1), which=st.integers(0, 2))
    def upload(self, who: int, which: int) -> None:
        owner, wanted = self.users[who], self.pictures[which]
        used = sum(len(row.picture.content) for row in self.of(owner))
        answer = self.send(owner, wanted)
        if used + len(wanted.content) > QUOTA_BYTES:
            assert answer.status_code == 403, answer.text
            problem = answer.json()
            assert problem["type"] == "urn:slipway:problem:quota-exceeded"
            return
        assert answer.status_code == 201, answer.text
        self.registered(answer, owner, wanted)

    def registered(self, answer: httpx2.Response, owner: User, wanted: Picture) -> None:
        stored = answer.json()
        assert (stored["sha256"], stored["size"]) == (wanted.sha256, len(wanted.content))
        assert (stored["width"], stored["height"], stored["content_type"]) == (300, 200, "image/jpeg")
        assert set(stored["thumbnails"]) == set(SIZES)
        assert stored["filename"] not in {row.filename for row in self.rows}
        self.rows.append(Row(stored["filename"], owner, wanted))

    def send(self, owner: User, wanted: Picture) -> httpx2.Response:
        files = {"file": ("holiday.jpg", wanted.content, "image/jpeg")}
        return self.client.post("/upload", files=files, headers=owner.headers)

    @precondition(lambda self: not self.rows)
    @rule(which=st.integers(0, 2))
    def both_upload_the_same_at_once(self, which: int) -> None:
        """The first of a picture by two at a time: one blob, two rows."""
        wanted = self.pictures[which]
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda owner: self.send(owner, wanted), self.users))
        for owner, answer in zip(self.users, answers, strict=True):
            assert answer.status_code == 201, answer.text
            self.registered(answer, owner, wanted)

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def the_owner_gets_it_back(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(self.rows))
        answer = self.get(row, row.owner)
        assert answer.content == row.picture.content
        assert answer.headers["etag"] == f'"{row.picture.sha256}"'
        assert self.get(row, row.owner, **{"If-None-Match": answer.headers["etag"]}).status_code == 304

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def others_get_a_copy_without_what_is_private(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(self.rows))
        answer = self.get(row, self.other(row.owner))
        self.is_a_clean_picture(answer)
        assert Image.open(io.BytesIO(answer.content)).size == (300, 200)
        # Whoever was given the original must not be told that the copy is the same.
        assert answer.headers["etag"] != self.get(row, row.owner).headers["etag"]

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), size=st.sampled_from(SIZES), who=st.integers(0, 1))
    def thumbnails(self, data: st.DataObject, size: str, who: int) -> None:
        row = data.draw(st.sampled_from(self.rows))
        answer = self.get(row, self.users[who], f"/{size}")
        self.is_a_clean_picture(answer)
        width, height = Image.open(io.BytesIO(answer.content)).size
        # Never made larger than it was.
        assert max(width, height) == min(int(size), 300)

    def is_a_clean_picture(self, answer: httpx2.Response) -> None:
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("image/")
        assert SECRET not in answer.content
        shown = Image.open(io.BytesIO(answer.content))
        shown.load()
        assert not shown.getexif()

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(self.rows))
        self.deleted(row)
        for path in ("", "/160", "/metadata"):
            assert self.get(row, row.owner, path).status_code == 404

    def deleted(self, row: Row) -> None:
        answer = self.client.delete(f"/images/{row.filename}", headers=row.owner.headers)
        assert answer.status_code == 204, answer.text
        self.rows.remove(row)
        assert self.client.delete(f"/images/{row.filename}", headers=row.owner.headers).status_code == 404

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def others_cannot_delete(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(self.rows))
        stranger = self.other(row.owner)
        assert self.client.delete(f"/images/{row.filename}", headers=stranger.headers).status_code == 404

    @precondition(lambda self: any(len(self.of(user)) for user in self.users))
    @rule(data=st.data())
    def delete_while_the_other_uploads_the_same(self, data: st.DataObject) -> None:
        """The last row goes while a new one comes: the blob has to be there for the new one."""
        row = data.draw(st.sampled_from(self.rows))
        newcomer = self.other(row.owner)
        used = sum(len(each.picture.content) for each in self.of(newcomer))
        if used + len(row.picture.content) > QUOTA_BYTES:
            return
        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(self.send, newcomer, row.picture)
            self.deleted(row)
        assert sent.result().status_code == 201
        self.registered(sent.result(), newcomer, row.picture)
        self.the_bytes_are_there(self.rows[-1])

    @rule()
    def sweep(self) -> None:
        """What somebody has is no orphan, however old; what nobody has is gone when it is old enough."""
        stray = f"originals/stray-{secrets.token_hex(8)}"
        self.platform.store.client.put_object(BUCKET, stray, io.BytesIO(b"stray"), 5)
        assert asyncio.run(sweep_command(self.settings)) == 0
        assert stray not in self.platform.store.keys(BUCKET)

    # What is always so

    @invariant()
    def lists_and_sums(self) -> None:
        for user in self.users:
            mine = self.of(user)
            listed = self.client.get("/images", headers=user.headers, params={"limit": 100}).json()["items"]
            assert [each["filename"] for each in listed] == [row.filename for row in reversed(mine)]
            stats = self.client.get("/stats", headers=user.headers).json()
            assert (stats["images"], stats["bytes"]) == (len(mine), sum(len(row.picture.content) for row in mine))

    @invariant()
    def each_picture_is_stored_once(self) -> None:
        stored = [str(each.etag) for each in self.platform.store.client.list_objects(BUCKET, recursive=True)]
        for each in self.pictures:
            wanted = any(row.picture is each for row in self.rows)
            assert stored.count(each.etag_in_store) == wanted

    def teardown(self) -> None:
        for row in list(self.rows):
            self.the_bytes_are_there(row)
            self.deleted(row)

    def the_bytes_are_there(self, row: Row) -> None:
        assert self.get(row, row.owner).content == row.picture.content


@contextmanager
def machine(platform: Platform) -> Iterator[type[Images]]:
    headers = platform.service_headers("api", "image")
    with (
        platform.image(quota_bytes=QUOTA_BYTES) as server,
        httpx2.Client(base_url=server.url, headers=headers, timeout=20) as client,
    ):
        # In the sweep of the tests everything is old enough.
        old = settings_of(Settings, **(platform.image_settings | {"sweep_age_seconds": 0}))
        yield type("BoundImages", (Images,), {"platform": platform, "client": client, "settings": old})


def test_images(platform: Platform) -> None:
    with machine(platform) as bound:
        run_state_machine_as_test(
            bound,
            settings=settings(
                max_examples=15,
                stateful_step_count=20,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            ),
        )
