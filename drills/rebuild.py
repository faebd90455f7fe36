"""The cluster lost with all its hosts, and rebuilt from the second site: is what users had stored there again?"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from cluster_access import Cluster, state_directory
from cluster_client import Pods
from controller import Inventory
from object_store import store
from postgres_installation import leader
from secret_store import Store
from smoke_check import Answer, Client, StepError, Target, jpeg, multipart

from bench.report import markdown
from drills import ROOT
from drills.drill import platform_trouble
from drills.installation import DrillError, wait

TITLE = "cluster lost, rebuilt from the second site"
AIM_SECONDS = 600
NAMESPACE, BUCKET = "infrastructure", "images"
# Left alone for a while before the loss; after them some more, right before it.
POSTS, IMAGES, LATE_POSTS = 200, 8, 10
IMAGE_BYTES = 4_000_000
COPIED_SECONDS = 120
# A line of the table at the end of a playbook: "   platform      1m50s".
PART = re.compile(r"^ {3}( {0,2}[a-z0-9_]+) +(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?$")


def parts_of(output: str) -> list[tuple[str, int]]:
    """The table of times that a playbook ends with; roles of a playbook begin with two spaces."""
    found = []
    for line in output.splitlines():
        if match := PART.match(line):
            name, hours, minutes, seconds = match.groups(default="0")
            found.append((name, int(hours) * 3600 + int(minutes) * 60 + int(seconds)))
    return found


@dataclass
class Stored:
    """What a user has stored and was told that it is."""

    posts: dict[str, str] = field(default_factory=dict)  # id -> content
    images: dict[str, str] = field(default_factory=dict)  # name -> SHA-256

    def __len__(self) -> int:
        return len(self.posts) + len(self.images)


@dataclass(frozen=True)
class Outcome:
    """What came back. `late` was stored seconds before the loss, and may be lost with it."""

    stored: int
    lost: Sequence[str]
    late: tuple[int, int]  # found, of
    versions: tuple[str, str]  # at the second site, before and after
    doubled: Sequence[str]  # objects that have more than one version there
    hosts_seconds: float
    rebuild_seconds: float
    parts: Sequence[tuple[str, int]]

    @property
    def good(self) -> bool:
        return self.stored > 0 and not self.lost and not self.doubled

    def receipt(self) -> dict[str, Any]:
        return {
            "fault": "rebuild",
            "good": self.good,
            "stored": self.stored,
            "lost": list(self.lost),
            "late": {"found": self.late[0], "of": self.late[1]},
            "versions_there": {"before": self.versions[0], "after": self.versions[1], "doubled": list(self.doubled)},
            "hosts_seconds": round(self.hosts_seconds, 1),
            "rebuild_seconds": round(self.rebuild_seconds, 1),
            "parts": list(self.parts),
        }

    def table(self) -> str:
        aim = f"<= {AIM_SECONDS} s" + ("" if self.rebuild_seconds <= AIM_SECONDS else ", MISSED")
        header = ("part", "took", "aim")
        rows = [(name.replace("  ", "- "), f"{seconds} s", "") for name, seconds in self.parts if name != "all"]
        return markdown(header, [*rows, ("**all**", f"**{self.rebuild_seconds:.0f} s**", aim)])

    def total(self) -> str:
        return (
            f"{self.stored} posts and images were stored a while before the loss: {len(self.lost)} are lost."
            f" Of {self.late[1]} posts of the last seconds {self.late[0]} are there."
            f" Objects with a second version at the second site: {len(self.doubled)}."
        )


class User:
    """Somebody with posts and images, over the public URL."""

    def __init__(self, target: Target) -> None:
        self.target, self.token = target, ""

    def request(self, method: str, path: str, wanted: int, **more: Any) -> Answer:
        with closing(Client(self.target)) as client:
            return client.request(method, path, wanted=wanted, hint="", token=self.token, **more)

    def register(self) -> None:
        self.request("POST", "/api/v1/auth/register", 201, content=self._account)

    @property
    def _account(self) -> dict[str, str]:
        return {"username": self.target.username, "password": self.target.password}

    def log_in(self) -> None:
        self.token = ""
        self.token = str(self.request("POST", "/api/v1/auth/login", 200, content=self._account).json()["access_token"])

    def post(self, stored: Stored) -> None:
        content = secrets.token_hex(20)
        answer = self.request("POST", "/api/v1/posts", 201, content={"title": "drill", "content": content})
        stored.posts[str(answer.json()["id"])] = content

    def upload(self, stored: Stored) -> None:
        picture = jpeg(IMAGE_BYTES)
        body, kind = multipart("file", "drill.jpg", "image/jpeg", picture)
        answer = self.request("POST", "/api/v1/images", 201, body=body, content_type=kind).json()
        stored.images[str(answer["filename"])] = hashlib.sha256(picture).hexdigest()

    def missing(self, stored: Stored) -> list[str]:
        """What is not there, or not as it was."""
        lost = []
        for name, content in stored.posts.items():
            found = self._found(f"/api/v1/posts/{name}")
            if not found or found.json().get("content") != content:
                lost.append(f"post {name}")
        for name, wanted in stored.images.items():
            found = self._found(f"/api/v1/images/{name}")
            kind = found.headers.get_content_type() if found else ""
            if not found or hashlib.sha256(found.body).hexdigest() != wanted or kind != "image/jpeg":
                lost.append(f"image {name}")
        return lost

    def _found(self, path: str) -> Answer | None:
        try:
            return self.request("GET", path, 200)
        except StepError as error:
            if " answered 404 " in error.problem:
                return None
            raise


@dataclass
class Lab:
    """The lab, before and after: its state, its hosts and what is left of them."""

    environment: str

    def __post_init__(self) -> None:
        self.state = state_directory(self.environment)
        inventory = Inventory(ROOT / "inventories" / self.environment)
        self.domain = str(inventory.variable("platform_domain"))
        self.addresses = tuple(inventory.address(host) for host in inventory.hosts())
        [site] = inventory.hosts("second_site")
        self.endpoint = f"{inventory.address(site)}:9000"
        kept = Store(self.state / "secrets.yml", self.state / "vault.key").read()
        if kept is None:
            raise DrillError(
                f"{self.state / 'secrets.yml'}: found no such file, wanted that of the lab (make up makes it)"
            )
        self.key = {"access_key": kept["second_site_root_user"], "secret_key": kept["second_site_root_password"]}
        self.ca = self.state / "ca.crt"

    def user(self) -> User:
        target = Target(
            url=f"https://{self.domain}",
            ca=self.ca,
            addresses=self.addresses,
            username=f"drill-{secrets.token_hex(6)}",
            password=secrets.token_urlsafe(24),
        )
        return User(target)

    def there(self, *steps: list[str]) -> list[str]:
        """Steps at the second site, as its root."""
        return store(self.endpoint, self.ca.read_text(encoding="utf-8"), self.key, list(steps))

    def wait_outside(self, stored: Stored) -> None:
        """Until all of it is at the second site: that is what a rebuild can bring back."""
        pods = Pods(self.state / "kubeconfig")
        member = leader(pods, NAMESPACE)
        flush = ["python3", "/usr/local/lib/postgres/backup.py", "flush"]
        ended = pods.execute(NAMESPACE, member, *flush, container="backup")
        if ended.code != 0:
            raise DrillError(f"flush in {NAMESPACE}/{member}: {ended.errors.strip()[-300:]}")

        def missing() -> str:
            answers = self.there(*(["stat", BUCKET, f"originals/{name}"] for name in stored.images))
            absent = answers.count("NoSuchKey")
            return f"{absent} of {len(answers)} objects are not at the second site" if absent else ""

        wait(missing, COPIED_SECONDS, "copying")

    def play(self, playbook: str) -> tuple[str, float]:
        """Its output, which is shown as it comes, and how long it took."""
        began, lines = time.monotonic(), []
        with subprocess.Popen(
            ["ansible-playbook", "--inventory", f"inventories/{self.environment}", playbook],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as running:
            for line in running.stdout or ():
                lines.append(line)
                if line.startswith(("==", "   ")):
                    print(line, end="", file=sys.stderr, flush=True)
        if running.returncode != 0:
            reasons = [line.strip() for line in lines if line.startswith(("[ERROR]", "fatal:"))]
            raise DrillError(f"{playbook}: {(reasons or [line.strip() for line in lines[-1:]])[0]}")
        return "".join(lines), time.monotonic() - began


def doubled(answers: Mapping[str, str]) -> list[str]:
    return [name for name, count in answers.items() if count != "1 objects, 0 marks"]


def run(environment: str) -> Outcome:
    """The whole drill. DrillError if the platform is not whole before it, or does not come back."""
    lab = Lab(environment)
    if trouble := platform_trouble(Cluster(lab.state / "kubeconfig")):
        raise DrillError(f"rebuild does not start: {trouble}")
    user, stored, late = lab.user(), Stored(), Stored()
    user.register()
    user.log_in()
    for _ in range(POSTS):
        user.post(stored)
    for _ in range(IMAGES):
        user.upload(stored)
    lab.wait_outside(stored)
    [before] = lab.there(["versions", BUCKET])
    for _ in range(LATE_POSTS):
        user.post(late)
    _, hosts_seconds = lab.play("molecule/default/lose.yml")
    output, rebuild_seconds = lab.play("playbooks/rebuild.yml")
    user.log_in()  # with the password of before
    lost, missing_late = user.missing(stored), user.missing(late)
    objects = [f"originals/{name}" for name in stored.images]
    counts = dict(zip(objects, lab.there(*(["versions", BUCKET, name] for name in objects)), strict=True))
    [after] = lab.there(["versions", BUCKET])
    return Outcome(
        len(stored),
        lost,
        (len(late) - len(missing_late), len(late)),
        (before, after),
        doubled(counts),
        hosts_seconds,
        rebuild_seconds,
        parts_of(output),
    )
