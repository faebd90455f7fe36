"""Posts over HTTP."""

import uuid
from collections.abc import Iterator
from datetime import datetime

import httpx2
import pytest
from slipway_testing.checks import assert_problem
from slipway_testing.platform import Platform, User
from slipway_testing.tokens import hostile, mint

POSTS = "/api/v1/posts"


def create(api: httpx2.Client, user: User, title: str = "Hello") -> dict[str, object]:
    answer = api.post(POSTS, json={"title": title, "content": "World"}, headers=user.headers)
    assert answer.status_code == 201, answer.text
    post: dict[str, object] = answer.json()
    return post


def test_create_read_delete(api: httpx2.Client, user: User) -> None:
    answer = api.post(POSTS, json={"title": " Hello ", "content": "Wörld 🌍"}, headers=user.headers)
    post = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"{POSTS}/{post['id']}"
    assert post == {
        "id": post["id"],
        "title": "Hello",
        "content": "Wörld 🌍",
        "author": {"id": user.id, "username": user.username},
        "created_at": post["created_at"],
    }
    assert datetime.fromisoformat(post["created_at"]).tzinfo is not None
    listed = api.get(POSTS)
    assert listed.status_code == 200
    assert post in listed.json()["items"]
    one = api.get(answer.headers["location"])
    assert (one.status_code, one.json(), one.headers["content-type"]) == (200, post, "application/json")
    assert api.get(f"{POSTS}/my", headers=user.headers).json() == {"items": [post], "next_cursor": None}
    deleted = api.delete(f"{POSTS}/{post['id']}", headers=user.headers)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert_problem(api.get(answer.headers["location"]), 404, "post-not-found")
    assert_problem(api.delete(f"{POSTS}/{post['id']}", headers=user.headers), 404, "post-not-found")
    assert api.get(f"{POSTS}/my", headers=user.headers).json()["items"] == []


def test_only_the_author_deletes(api: httpx2.Client, user: User, other_user: User) -> None:
    post = create(api, user)
    assert_problem(api.delete(f"{POSTS}/{post['id']}", headers=other_user.headers), 403, "not-your-post")
    assert api.get(f"{POSTS}/my", headers=user.headers).json()["items"] == [post]
    assert api.get(f"{POSTS}/my", headers=other_user.headers).json()["items"] == []


PROTECTED = [
    ("POST", POSTS),
    ("GET", f"{POSTS}/my"),
    ("DELETE", f"{POSTS}/{uuid.uuid4()}"),
    ("POST", "/api/v1/images"),
    ("GET", "/api/v1/images"),
    ("GET", "/api/v1/images/stats"),
    ("GET", f"/api/v1/images/{uuid.uuid4().hex}.jpg"),
    ("HEAD", f"/api/v1/images/{uuid.uuid4().hex}.jpg"),
    ("GET", f"/api/v1/images/{uuid.uuid4().hex}.jpg/480"),
    ("GET", f"/api/v1/images/{uuid.uuid4().hex}.jpg/metadata"),
    ("DELETE", f"/api/v1/images/{uuid.uuid4().hex}.jpg"),
]


@pytest.mark.parametrize(("method", "path"), PROTECTED)
def test_a_token_is_required(api: httpx2.Client, method: str, path: str) -> None:
    for headers in ({}, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer"}):
        answer = api.request(method, path, headers=headers)
        if method != "HEAD":
            assert_problem(answer, 401, "token-required")
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="slipway"'


@pytest.mark.parametrize(("method", "path"), PROTECTED)
def test_a_wrong_token_is_refused(api: httpx2.Client, platform: Platform, method: str, path: str) -> None:
    token = mint(platform.key, aud="somebody-else")
    answer = api.request(method, path, headers={"Authorization": f"Bearer {token}"})
    if method != "HEAD":
        assert_problem(answer, 401, "invalid-token")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="slipway", error="invalid_token"'


def test_every_hostile_token_is_refused(api: httpx2.Client, platform: Platform) -> None:
    for name, token in hostile(platform.key).items():
        answer = api.get(f"{POSTS}/my", headers={b"Authorization": f"Bearer {token}".encode()})
        assert answer.status_code == 401, name


def test_pages_are_complete_and_free_of_doubles(api: httpx2.Client, user: User, other_user: User) -> None:
    expected = [create(api, user, f"post {number}") for number in range(7)][::-1]
    seen: list[dict[str, object]] = []
    cursor = None
    while True:
        parameters = {"limit": "3"} | ({"cursor": cursor} if cursor else {})
        body = api.get(f"{POSTS}/my", params=parameters, headers=user.headers).json()
        seen += body["items"]
        assert len(body["items"]) <= 3
        cursor = body["next_cursor"]
        if cursor is None:
            break
        # Newer posts while somebody reads do not shift what is still to come.
        create(api, user, "newer")
        create(api, other_user, "somebody else's")
    assert seen == expected


def test_posts_of_the_same_moment_are_all_read(api: httpx2.Client, platform: Platform, user: User) -> None:
    sql = """
        INSERT INTO posts (author_id, author_name, title, content, created_at)
        SELECT $1, 'twins', 'same moment', 'x', '2020-02-02' FROM generate_series(1, 5) RETURNING id
    """
    created = {str(row["id"]) for row in platform.postgres.query("api_db", sql, uuid.UUID(user.id))}
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        body = api.get(f"{POSTS}/my", params={"limit": 2, "cursor": cursor}, headers=user.headers).json()
        seen += [post["id"] for post in body["items"]]
        cursor = body["next_cursor"]
    assert len(seen) == 5
    assert set(seen) == created


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "cursor=x", "cursor=" + "A" * 34, "cursor=" + "A" * 200]
)
def test_wrong_parameters(api: httpx2.Client, query: str) -> None:
    assert_problem(
        api.get(f"{POSTS}?{query}"),
        422,
        "invalid-cursor" if query.startswith("cursor=") and len(query) < 60 else "invalid-request",
    )


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "#/title"),
        ({"title": "", "content": "x"}, "#/title"),
        ({"title": "   ", "content": "x"}, "#/title"),
        ({"title": "x" * 201, "content": "x"}, "#/title"),
        ({"title": "x", "content": "x" * 10_001}, "#/content"),
        ({"title": "a\x00b", "content": "x"}, "#/title"),
        ({"title": "x", "content": 5}, "#/content"),
        ({"title": "x", "content": "x", "author_id": str(uuid.uuid4())}, "#/author_id"),
        ([], "#/"),
    ],
)
def test_wrong_posts(api: httpx2.Client, user: User, body: object, pointer: str) -> None:
    problem = assert_problem(api.post(POSTS, json=body, headers=user.headers), 422, "invalid-request")
    assert problem["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize("body", [b"{", b'{"title": "\xff"}', b"\xff\xfe", b'{"title": "\\ud800", "content": "x"}'])
def test_what_is_not_json(api: httpx2.Client, user: User, body: bytes) -> None:
    answer = api.post(POSTS, content=body, headers=user.headers | {"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_form_is_not_json(api: httpx2.Client, user: User) -> None:
    assert_problem(api.post(POSTS, data={"title": "x", "content": "y"}, headers=user.headers), 422, "invalid-request")


def test_a_body_above_the_limit(api: httpx2.Client, user: User) -> None:
    body = {"title": "x", "content": "x" * 70_000}
    assert_problem(api.post(POSTS, json=body, headers=user.headers), 413, "body-too-large")

    def chunked() -> Iterator[bytes]:
        yield from (b"x" * 10_000 for _ in range(10))

    headers = user.headers | {"Content-Type": "application/json"}
    assert_problem(api.post(POSTS, content=chunked(), headers=headers), 413, "body-too-large")


def test_paths_and_methods_that_do_not_exist(api: httpx2.Client, user: User) -> None:
    assert_problem(api.get("/api/v1/nothing"), 404)
    assert_problem(api.put(POSTS, headers=user.headers), 405)
    assert_problem(api.delete(f"{POSTS}/no-id", headers=user.headers), 422, "invalid-request")
    assert_problem(api.get(f"{POSTS}/no-id"), 422, "invalid-request")
    for path in ("/api/v1/auth/metrics", "/api/v1/auth/health", "/api/v1/images/../metrics", "/docs"):
        assert api.get(path, headers=user.headers).status_code in (404, 422)


def test_sql_and_markup_are_only_text(api: httpx2.Client, user: User) -> None:
    title = "'; DROP TABLE posts; -- <script>"
    assert create(api, user, title)["title"] == title
    assert api.get(POSTS).status_code == 200
