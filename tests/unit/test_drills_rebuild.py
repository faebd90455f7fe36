"""The checker of the rebuild: what is missing afterwards is seen, and what a run took is read from its own table."""

from __future__ import annotations

from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any, cast

import pytest
from smoke_check import Answer, StepError, Target

import drills.__main__ as main
from drills import rebuild

OUTPUT = """
== 24 of 24 · Verify · 3m58s so far
   Platform      https://slipway.test
== done after 4m05s
   preflight                      9s
   platform                    1m50s
     k3s                         28s
     postgres                    45s
   services                     2m00s
   all                         1h02m
"""


def outcome(**changed: Any) -> rebuild.Outcome:
    found: dict[str, Any] = {
        "stored": 208,
        "lost": [],
        "late": (7, 10),
        "versions": ("9 objects, 1 marks", "10 objects, 2 marks"),
        "doubled": [],
        "hosts_seconds": 20.0,
        "rebuild_seconds": 245.04,
        "parts": rebuild.parts_of(OUTPUT),
    }
    return rebuild.Outcome(**(found | changed))


def test_what_a_run_took_is_read_from_its_table() -> None:
    assert rebuild.parts_of(OUTPUT) == [
        ("preflight", 9),
        ("platform", 110),
        ("  k3s", 28),
        ("  postgres", 45),
        ("services", 120),
        ("all", 3720),
    ]


def test_posts_of_the_last_seconds_may_be_missing_and_nothing_else_may() -> None:
    assert outcome().good
    assert outcome(late=(0, 10)).good
    assert not outcome(lost=["post 7"]).good
    assert not outcome(doubled=["originals/a.jpg"]).good
    assert not outcome(stored=0).good


def test_a_missed_aim_is_said_and_is_no_error() -> None:
    slow = outcome(rebuild_seconds=601.0)
    assert slow.good
    assert "<= 600 s, MISSED" in slow.table()
    assert "MISSED" not in outcome().table()
    assert "| - postgres | 45 s" in outcome().table()


def test_the_receipt_says_what_was_found() -> None:
    found = outcome(lost=["image a.jpg"]).receipt()
    assert (found["good"], found["lost"], found["late"]) == (False, ["image a.jpg"], {"found": 7, "of": 10})
    assert found["rebuild_seconds"] == 245.0


def test_an_object_with_another_version_at_the_second_site_came_back_twice() -> None:
    answers = {"a": "1 objects, 0 marks", "b": "2 objects, 0 marks", "c": "1 objects, 1 marks"}
    assert rebuild.doubled(answers) == ["b", "c"]


def answering(bodies: dict[str, tuple[bytes, str]]) -> Callable[..., Answer]:
    def request(method: str, path: str, wanted: int, **more: Any) -> Answer:
        if path not in bodies:
            raise StepError(f"GET {path} answered 404 (Not found), wanted 200", "")
        headers = Message()
        headers["Content-Type"] = bodies[path][1]
        return Answer(200, cast(Any, headers), bodies[path][0])

    return request


def test_what_is_missing_or_another_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    user = rebuild.User(Target(url="https://slipway.test", ca=Path("ca.crt")))
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    bodies = {
        "/api/v1/posts/1": (b'{"content": "one"}', "application/json"),
        "/api/v1/posts/2": (b'{"content": "other"}', "application/json"),
        "/api/v1/images/a.jpg": (b"", "image/jpeg"),
        "/api/v1/images/b.jpg": (b"x", "image/jpeg"),
        "/api/v1/images/c.jpg": (b"", "application/octet-stream"),
    }
    monkeypatch.setattr(user, "request", answering(bodies))
    stored = rebuild.Stored({"1": "one", "2": "two", "3": "three"}, dict.fromkeys(("a.jpg", "b.jpg", "c.jpg"), empty))
    assert user.missing(stored) == ["post 2", "post 3", "image b.jpg", "image c.jpg"]


def test_the_rebuild_has_a_page_of_its_own() -> None:
    assert main.arguments_of(["--only", "rebuild", "--write-docs"]).write_docs
    with pytest.raises(SystemExit):
        main.arguments_of(["--only", "rebuild", "--only", "crash", "--write-docs"])
