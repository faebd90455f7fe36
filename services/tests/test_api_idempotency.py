"""Idempotency-Key: however often a request arrives, there is one post, and everybody hears of that one."""

import asyncio
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from prometheus_client import CollectorRegistry
from slipway_api.repository import PostRepository
from slipway_api.settings import Settings
from slipway_kit.database import Database
from slipway_testing.checks import assert_problem
from slipway_testing.platform import Platform, User

POSTS = "/api/v1/posts"
POST = {"title": "Once", "content": "and only once"}
# On a busy machine twenty that wait for one another may take longer than a user would.
PATIENT: dict[str, Any] = {"database_acquire_timeout": 30, "database_command_timeout": 30}


def send(api: httpx2.Client, user: User, key: str, body: object = None, **headers: str) -> httpx2.Response:
    return api.post(POSTS, json=body or POST, headers=user.headers | {"Idempotency-Key": key} | headers)


def rows(platform: Platform, user: User) -> list[Any]:
    return platform.postgres.query("api_db", "SELECT id, title FROM posts WHERE author_id = $1", uuid.UUID(user.id))


def test_the_same_again(api: httpx2.Client, platform: Platform, user: User) -> None:
    first = send(api, user, "key-1")
    assert first.status_code == 201
    assert "idempotency-replayed" not in first.headers
    for _ in range(2):
        again = send(api, user, "key-1")
        assert (again.status_code, again.content) == (201, first.content)
        assert again.headers["location"] == first.headers["location"]
        assert again.headers["idempotency-replayed"] == "true"
    assert len(rows(platform, user)) == 1
    assert api.get(first.headers["location"]).json() == first.json()


def test_how_it_is_written_does_not_matter(api: httpx2.Client, user: User) -> None:
    first = send(api, user, "key-1")
    body = '{ "content":"and only once"  , "title":"  \\u004fnce " }'
    headers = user.headers | {"Idempotency-Key": "key-1", "Content-Type": "application/json"}
    again = api.post(POSTS, content=body, headers=headers)
    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")


@pytest.mark.parametrize("change", [{"title": "Another"}, {"content": "another"}, {"title": "O", "content": "nce"}])
def test_another_post_with_the_same_key(
    api: httpx2.Client, platform: Platform, user: User, change: dict[str, str]
) -> None:
    first = send(api, user, "key-1")
    assert_problem(send(api, user, "key-1", POST | change), 422, "idempotency-key-reused")
    assert [str(row["id"]) for row in rows(platform, user)] == [first.json()["id"]]
    # And the first one's answer is still there.
    assert send(api, user, "key-1").json() == first.json()


def test_keys_are_those_of_a_user(api: httpx2.Client, user: User, other_user: User) -> None:
    mine, theirs = send(api, user, "shared"), send(api, other_user, "shared")
    assert mine.json()["id"] != theirs.json()["id"]
    assert theirs.json()["author"]["id"] == other_user.id
    assert "idempotency-replayed" not in theirs.headers


def test_without_a_key_everything_is_new(api: httpx2.Client, platform: Platform, user: User) -> None:
    for _ in range(2):
        assert api.post(POSTS, json=POST, headers=user.headers).status_code == 201
    assert len(rows(platform, user)) == 2


def test_the_answer_outlives_the_post(api: httpx2.Client, platform: Platform, user: User) -> None:
    """Whoever repeats a request that was lost must not bring back what was deleted since."""
    first = send(api, user, "key-1")
    assert api.delete(first.headers["location"], headers=user.headers).status_code == 204
    again = send(api, user, "key-1")
    assert (again.status_code, again.content) == (201, first.content)
    assert rows(platform, user) == []


def test_twenty_at_once_make_one_post(platform: Platform, user: User) -> None:
    """Through two gateways, as behind an ingress."""
    with platform.api(**PATIENT) as one, platform.api(**PATIENT) as other:

        def one_of(number: int) -> httpx2.Response:
            with httpx2.Client(base_url=(one, other)[number % 2].url, timeout=60) as client:
                return send(client, user, "at-once")

        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(one_of, range(20)))
        text = "".join(httpx2.get(f"{server.url}/metrics").text for server in (one, other))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert len(rows(platform, user)) == 1

    def total(name: str) -> float:
        return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))

    assert (total("api_posts_created_total"), total("api_posts_replayed_total")) == (1, 19)


def test_twenty_at_once_that_differ_make_one_post(platform: Platform, user: User) -> None:
    with (
        platform.api(**PATIENT) as server,
        httpx2.Client(base_url=server.url, timeout=60) as client,
        ThreadPoolExecutor(20) as pool,
    ):
        answers = list(pool.map(lambda number: send(client, user, "key-1", POST | {"title": f"t{number}"}), range(20)))
    assert sorted(answer.status_code for answer in answers) == [201] + [422] * 19
    (won,) = [answer.json()["title"] for answer in answers if answer.status_code == 201]
    assert [row["title"] for row in rows(platform, user)] == [won]


def test_a_refused_request_takes_no_key(api: httpx2.Client, user: User) -> None:
    assert_problem(send(api, user, "key-1", {"title": ""}), 422, "invalid-request")
    assert "idempotency-replayed" not in send(api, user, "key-1").headers


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "ü"])
def test_wrong_keys(api: httpx2.Client, user: User, key: str) -> None:
    headers = [
        (b"Authorization", user.headers["Authorization"].encode()),
        (b"Idempotency-Key", key.encode("latin-1")),
    ]
    assert_problem(api.post(POSTS, json=POST, headers=headers), 422, "invalid-request")


def test_a_key_is_only_text(api: httpx2.Client, user: User) -> None:
    for key in ("'; DROP TABLE posts; --".replace(" ", ""), '"quoted"', "x" * 255, "%00"):
        assert send(api, user, key).status_code == 201
        assert send(api, user, key).headers["idempotency-replayed"] == "true"


def age(platform: Platform, user: User, hours: float) -> None:
    sql = "UPDATE idempotency_keys SET created_at = created_at - make_interval(secs => $2) WHERE user_id = $1"
    platform.postgres.query("api_db", sql, uuid.UUID(user.id), hours * 3600)


def test_a_key_counts_for_a_day(api: httpx2.Client, platform: Platform, user: User) -> None:
    first = send(api, user, "key-1")
    age(platform, user, 23.9)
    # The post's own time is not touched by the ageing of its key here, but it is what the key says.
    assert send(api, user, "key-1").json()["id"] == first.json()["id"]
    age(platform, user, 0.2)
    fresh = send(api, user, "key-1", POST | {"title": "A day later"})
    assert (fresh.status_code, fresh.json()["title"]) == (201, "A day later")
    assert "idempotency-replayed" not in fresh.headers
    assert fresh.json()["created_at"] > first.json()["created_at"]
    assert api.get(fresh.headers["location"]).json() == fresh.json()
    assert send(api, user, "key-1", POST | {"title": "A day later"}).content == fresh.content
    assert len(rows(platform, user)) == 2


def test_old_keys_are_removed_and_young_ones_stay(
    api: httpx2.Client, platform: Platform, user: User, other_user: User
) -> None:
    for number in range(5):
        send(api, user, f"key-{number}")
    age(platform, user, 25)
    send(api, other_user, "young")

    async def forget(count: int) -> int:
        settings = Settings(**platform.api_settings)
        database = Database(settings, CollectorRegistry(), "test")
        await database.open()
        try:
            return await PostRepository(database).forget_keys(count)
        finally:
            await database.close()

    assert asyncio.run(forget(3)) == 3
    assert asyncio.run(forget(100)) >= 2
    left = platform.postgres.query(
        "api_db",
        "SELECT key FROM idempotency_keys WHERE user_id = any($1::uuid[])",
        [uuid.UUID(user.id), uuid.UUID(other_user.id)],
    )
    assert [row["key"] for row in left] == ["young"]


def test_a_gateway_removes_old_keys_by_itself(api: httpx2.Client, platform: Platform, user: User) -> None:
    send(api, user, "key-1")
    age(platform, user, 25)
    with platform.api():
        for _ in range(100):
            sql = "SELECT 1 FROM idempotency_keys WHERE user_id = $1"
            if not platform.postgres.query("api_db", sql, uuid.UUID(user.id)):
                return
            asyncio.run(asyncio.sleep(0.05))
    raise AssertionError("the key is still there")
