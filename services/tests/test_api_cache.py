"""The cache of hot reads: right for everybody while Redis is there, and not missed when it is away."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator

import httpx2
import pytest
from prometheus_client import CollectorRegistry
from slipway_api.cache import MAX_BYTES, PostCache, Rendered
from slipway_api.settings import Settings
from slipway_kit.redis import Redis
from slipway_testing.checks import assert_problem
from slipway_testing.platform import Platform, User
from slipway_testing.redis import RedisServer

pytestmark = pytest.mark.slow

POSTS = "/api/v1/posts"
POST = {"title": "Hot", "content": "read often"}


@pytest.fixture
def two(platform: Platform, own_redis: RedisServer) -> Iterator[tuple[httpx2.Client, httpx2.Client]]:
    """Two gateways that share a Redis of their own."""
    redis = own_redis.settings("api")
    with (
        platform.api(**redis) as one,
        platform.api(**redis) as other,
        httpx2.Client(base_url=one.url) as first,
        httpx2.Client(base_url=other.url) as second,
    ):
        yield first, second


def reads(client: httpx2.Client, kind: str, result: str) -> float:
    wanted = f'api_cache_reads_total{{kind="{kind}",result="{result}"}} '
    (line,) = [line for line in client.get("/metrics").text.splitlines() if line.startswith(wanted)]
    return float(line.removeprefix(wanted))


def queries(client: httpx2.Client, name: str) -> float:
    wanted = f'db_query_duration_seconds_count{{query="{name}"}} '
    found = [line for line in client.get("/metrics").text.splitlines() if line.startswith(wanted)]
    return float(found[0].removeprefix(wanted)) if found else 0


def create(client: httpx2.Client, user: User) -> dict[str, object]:
    answer = client.post(POSTS, json=POST, headers=user.headers)
    assert answer.status_code == 201
    post: dict[str, object] = answer.json()
    return post


def test_the_second_reader_costs_no_query(two: tuple[httpx2.Client, httpx2.Client], user: User) -> None:
    one, other = two
    post = create(one, user)
    first = one.get(POSTS, params={"limit": 3})
    again = other.get(POSTS, params={"limit": 3})
    assert first.content == again.content
    assert first.json()["items"][0] == post
    assert (queries(one, "posts.newest"), queries(other, "posts.newest")) == (1, 0)
    assert (reads(one, "page", "miss"), reads(other, "page", "hit")) == (1, 1)
    # Another size is another page.
    assert len(one.get(POSTS, params={"limit": 1}).json()["items"]) == 1


def test_what_one_changes_the_other_shows(two: tuple[httpx2.Client, httpx2.Client], user: User) -> None:
    one, other = two
    for writer, reader in ((one, other), (other, one)):
        reader.get(POSTS)
        post = create(writer, user)
        for client in two:
            assert client.get(POSTS).json()["items"][0] == post
            assert client.get(f"{POSTS}/{post['id']}").json() == post
        assert writer.delete(f"{POSTS}/{post['id']}", headers=user.headers).status_code == 204
        for client in two:
            assert post not in client.get(POSTS).json()["items"]
            assert_problem(client.get(f"{POSTS}/{post['id']}"), 404, "post-not-found")


def test_one_post_is_cached(two: tuple[httpx2.Client, httpx2.Client], user: User) -> None:
    one, other = two
    post = create(one, user)
    assert one.get(f"{POSTS}/{post['id']}").content == other.get(f"{POSTS}/{post['id']}").content
    assert (queries(one, "posts.one"), queries(other, "posts.one")) == (1, 0)
    assert reads(other, "post", "hit") == 1


def test_made_up_ids_and_cursors_take_no_place(
    two: tuple[httpx2.Client, httpx2.Client], own_redis: RedisServer, user: User
) -> None:
    one, _ = two
    create(one, user), create(one, user)
    cursor = one.get(POSTS, params={"limit": 1}).json()["next_cursor"]
    with own_redis.admin() as redis:
        before = set(redis.keys("*"))
        for _ in range(5):
            assert_problem(one.get(f"{POSTS}/{uuid.uuid4()}"), 404, "post-not-found")
            assert one.get(POSTS, params={"limit": 1, "cursor": cursor}).status_code == 200
        assert set(redis.keys("*")) == before
        # And what is there goes by itself, but for the one generation.
        lasting = {key for key in redis.keys("*") if redis.ttl(key) < 0}
        assert lasting == {"api:1:posts:generation"}


def test_without_redis_everything_goes_on(
    two: tuple[httpx2.Client, httpx2.Client], own_redis: RedisServer, user: User
) -> None:
    one, other = two
    old = create(one, user)
    assert one.get("/health").json()["status"] == "ok"
    own_redis.stop()
    post = create(one, user)
    for client in two:
        assert client.get(POSTS).json()["items"][:2] == [post, old]
        assert client.get(f"{POSTS}/{post['id']}").json() == post
    assert one.delete(f"{POSTS}/{post['id']}", headers=user.headers).status_code == 204
    for client in two:
        assert client.get(POSTS).json()["items"][0] == old
        assert_problem(client.get(f"{POSTS}/{post['id']}"), 404, "post-not-found")
        assert reads(client, "page", "away") >= 2
    time.sleep(1.1)
    health = one.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "degraded")
    assert health.json()["checks"]["redis"]["status"] == "down"
    assert one.get("/health/ready").status_code == 200
    own_redis.start()
    time.sleep(1.1)
    hits = reads(other, "page", "hit")
    other.get(POSTS), other.get(POSTS), other.get(POSTS)
    assert reads(other, "page", "hit") > hits
    assert one.get("/health").json()["status"] == "ok"


def test_a_redis_that_does_not_answer(platform: Platform, own_redis: RedisServer, user: User) -> None:
    """Hanging is worse than away: the deadline is what helps."""
    with platform.api(**own_redis.settings("api")) as server, httpx2.Client(base_url=server.url) as client:
        post = create(client, user)
        assert own_redis.process is not None
        own_redis.process.send_signal(19)  # SIGSTOP
        try:
            started = time.monotonic()
            for _ in range(20):
                assert client.get(POSTS).json()["items"][0] == post
            # Each of them may take a quarter of a second; nearly all know already that there is no answer.
            assert time.monotonic() - started < 20 * 0.25
        finally:
            own_redis.process.send_signal(18)  # SIGCONT


@pytest.fixture
async def cache(own_redis: RedisServer, platform: Platform) -> AsyncIterator[PostCache]:
    settings = Settings(**platform.api_settings | own_redis.settings("api"))
    redis = Redis(settings, CollectorRegistry(), "test")
    yield PostCache(redis, CollectorRegistry(), seconds=0.3)
    await redis.close()


PAGE, NEWER = Rendered.of(b"page"), Rendered.of(b"newer page")


async def test_a_reader_that_was_overtaken_leaves_nothing_old(cache: PostCache) -> None:
    """It asked Postgres before the change and stores after it: the classic way to an old page that stays."""
    _, before = await cache.first_page(20)
    await cache.created()
    await cache.keep_first_page(20, before, PAGE)
    found, generation = await cache.first_page(20)
    assert found is None
    await cache.keep_first_page(20, generation, NEWER)
    # Nor does it take the place of what is right.
    assert (await cache.first_page(20))[0] == NEWER
    await cache.keep_first_page(20, before, PAGE)
    assert (await cache.first_page(20))[0] is None


async def test_a_reader_that_was_overtaken_by_a_deletion_leaves_nothing(cache: PostCache) -> None:
    post_id = uuid.uuid4()
    assert await cache.post(post_id) == (None, True)
    await cache.deleted(post_id)
    await cache.keep_post(post_id, PAGE)
    assert await cache.post(post_id) == (None, False)


async def test_a_lost_generation_makes_old_pages_unknown(cache: PostCache, own_redis: RedisServer) -> None:
    await cache.created()
    _, generation = await cache.first_page(20)
    await cache.keep_first_page(20, generation, PAGE)
    assert (await cache.first_page(20))[0] == PAGE
    with own_redis.admin() as redis:
        redis.delete("api:1:posts:generation")
    found, generation = await cache.first_page(20)
    assert found is None
    await cache.keep_first_page(20, generation, NEWER)
    assert (await cache.first_page(20))[0] == NEWER
    await cache.created()
    assert (await cache.first_page(20))[0] is None


async def test_entries_end(cache: PostCache) -> None:
    """So that what was missed while Redis was away is not seen for ever."""
    post_id = uuid.uuid4()
    _, generation = await cache.first_page(20)
    await cache.keep_first_page(20, generation, PAGE)
    await cache.keep_post(post_id, PAGE)
    assert (await cache.first_page(20))[0] == PAGE == (await cache.post(post_id))[0]
    await asyncio.sleep(0.35)
    assert (await cache.first_page(20))[0] is None
    assert await cache.post(post_id) == (None, True)


async def test_large_answers_are_not_kept(cache: PostCache) -> None:
    _, generation = await cache.first_page(100)
    await cache.keep_first_page(100, generation, Rendered.of(bytes(MAX_BYTES)))
    assert (await cache.first_page(100))[0] is None


async def test_away_is_not_a_miss(cache: PostCache, own_redis: RedisServer) -> None:
    own_redis.stop()
    assert await cache.first_page(20) == (None, None)
    await cache.keep_first_page(20, None, PAGE)
    assert await cache.post(uuid.uuid4()) == (None, False)
    await cache.created()
    await cache.deleted(uuid.uuid4())


def etag(client: httpx2.Client, path: str) -> str:
    return str(client.get(path).headers["etag"])


def test_what_a_reader_still_has_is_not_sent_again(api: httpx2.Client, user: User) -> None:
    post = create(api, user)
    path = f"{POSTS}/{post['id']}"
    tag = etag(api, path)
    for known in (tag, f"W/{tag}", f'"other", {tag}', f'"a,b",W/{tag} , "c"', "*"):
        answer = api.get(path, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content) == (304, b""), known
        assert answer.headers["etag"] == tag
        assert answer.headers["cache-control"] == "no-cache"
        assert "content-type" not in answer.headers
    for unknown in ('"other"', tag.strip('"'), '""', "", tag[:-2] + '"', "nonsense, **"):
        assert api.get(path, headers={"If-None-Match": unknown}).status_code == 200, unknown


def test_a_list_has_a_tag_that_changes_with_it(two: tuple[httpx2.Client, httpx2.Client], user: User) -> None:
    one, other = two
    create(one, user)
    tag = etag(one, POSTS)
    assert etag(other, POSTS) == tag
    assert other.get(POSTS, headers={"If-None-Match": tag}).status_code == 304
    post = create(one, user)
    answer = other.get(POSTS, headers={"If-None-Match": tag})
    assert (answer.status_code, answer.json()["items"][0]) == (200, post)
    assert answer.headers["etag"] != tag


def test_head_is_get_without_a_body(api: httpx2.Client, user: User) -> None:
    post = create(api, user)
    for path in (POSTS, f"{POSTS}/{post['id']}"):
        get, head = api.get(path), api.head(path)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("etag", "content-type", "content-length", "cache-control"):
            assert head.headers[name] == get.headers[name]
    assert api.head(f"{POSTS}/{uuid.uuid4()}").status_code == 404
