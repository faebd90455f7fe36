"""Every route that takes an id, tried by somebody else and by nobody (OWASP API1: object level authorisation).

The routes come from the OpenAPI documents. One that is not declared here fails, so that whoever adds a route has to say
who may use it.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from slipway_testing.images import jpeg
from slipway_testing.platform import Platform, User

SERVICES = ("auth", "api", "image")
# Everybody who is signed in sees images, but not their originals; posts are public.
SHARED, NOT_FOUND, FORBIDDEN, UNAUTHORIZED, PUBLIC = 200, 404, 403, 401, 200


@dataclass(frozen=True)
class Rule:
    """What a route answers, and to whom. `made` returns the values of the path's parameters for an object of a user."""

    made: Callable[[Platform, User], dict[str, str]]
    owner: int
    stranger: int
    nobody: int
    # The stranger's answer is not the owner's: same status, other bytes.
    differs: bool = False


def a_post(platform: Platform, owner: User) -> dict[str, str]:
    body = {"title": "Mine", "content": secrets.token_hex(8)}
    answer = httpx2.post(f"{platform.url('api')}/api/v1/posts", json=body, headers=owner.headers)
    return {"post_id": answer.json()["id"]}


def an_image(platform: Platform, owner: User, **more: str) -> dict[str, str]:
    files = {"file": ("mine.jpg", jpeg(width=640, height=480), "image/jpeg")}
    answer = httpx2.post(f"{platform.url('api')}/api/v1/images", files=files, headers=owner.headers, timeout=20)
    return {"filename": answer.json()["filename"]} | more


def a_thumbnail(platform: Platform, owner: User) -> dict[str, str]:
    return an_image(platform, owner, size="160")


IMAGES = {
    "GET {}/{filename}": Rule(an_image, 200, SHARED, UNAUTHORIZED, differs=True),
    "HEAD {}/{filename}": Rule(an_image, 200, SHARED, UNAUTHORIZED),
    "GET {}/{filename}/{size}": Rule(a_thumbnail, 200, SHARED, UNAUTHORIZED),
    "HEAD {}/{filename}/{size}": Rule(a_thumbnail, 200, SHARED, UNAUTHORIZED),
    # Hash and size of the original are its owner's; what everybody sees is in it.
    "GET {}/{filename}/metadata": Rule(an_image, 200, SHARED, UNAUTHORIZED, differs=True),
    "DELETE {}/{filename}": Rule(an_image, 204, NOT_FOUND, UNAUTHORIZED),
}
RULES = {
    "api GET /api/v1/posts/{post_id}": Rule(a_post, 200, PUBLIC, PUBLIC),
    "api HEAD /api/v1/posts/{post_id}": Rule(a_post, 200, PUBLIC, PUBLIC),
    "api DELETE /api/v1/posts/{post_id}": Rule(a_post, 204, FORBIDDEN, UNAUTHORIZED),
    **{f"api {route.replace('{}', '/api/v1/images')}": rule for route, rule in IMAGES.items()},
    **{f"image {route.replace('{}', '/images')}": rule for route, rule in IMAGES.items()},
}


def documented(platform: Platform) -> set[str]:
    """Every operation of every service whose path has a parameter."""
    found = set()
    for service in SERVICES:
        paths: dict[str, dict[str, Any]] = httpx2.get(f"{platform.url(service)}/openapi.json").json()["paths"]
        for path, methods in paths.items():
            if "{" in path:
                found |= {f"{service} {method.upper()} {path}" for method in methods if method != "parameters"}
    return found


def test_every_route_with_an_id_is_declared(platform: Platform) -> None:
    undeclared = documented(platform) - set(RULES)
    assert not undeclared, "a new route with an id: say in RULES what others get"
    gone = {route for route in set(RULES) - documented(platform) if route.split()[1] != "HEAD"}
    assert not gone, "declared here, but in no document"


@contextmanager
def asking(platform: Platform, service: str) -> Iterator[httpx2.Client]:
    headers = platform.service_headers("api", service) if service == "image" else {}
    with httpx2.Client(base_url=platform.url(service), headers=headers, timeout=20) as client:
        yield client


@pytest.mark.parametrize("route", sorted(RULES))
def test_who_may(platform: Platform, route: str) -> None:
    rule = RULES[route]
    service, method, template = route.split()
    owner, stranger = platform.new_user("owner"), platform.new_user("stranger")
    path = template.format(**rule.made(platform, owner))
    with asking(platform, service) as client:
        nobody = client.request(method, path)
        other = client.request(method, path, headers=stranger.headers)
        # Last: what others were refused has to be there still.
        mine = client.request(method, path, headers=owner.headers)
        assert (nobody.status_code, other.status_code, mine.status_code) == (rule.nobody, rule.stranger, rule.owner)
        if rule.nobody == UNAUTHORIZED:
            assert nobody.headers["www-authenticate"].startswith("Bearer")
        if rule.stranger == NOT_FOUND and method != "HEAD":
            # The same as for what never was: the answer does not tell that there is something.
            never = client.request(method, template.format(**never_was(path, template)), headers=stranger.headers)
            assert shape(other) == shape(never)
        if rule.differs:
            assert other.content != mine.content
            assert "etag" not in mine.headers or other.headers["etag"] != mine.headers["etag"]


def never_was(path: str, template: str) -> dict[str, str]:
    """Ids of the right form that nobody got."""
    names = {part.strip("{}"): path.split("/")[number] for number, part in enumerate(template.split("/"))}
    kind = names["filename"].rpartition(".")[2]
    return names | {"filename": f"{secrets.token_hex(16)}.{kind}"}


def shape(answer: httpx2.Response) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    return {name: value for name, value in problem.items() if name not in ("instance", "request_id", "trace_id")}


def test_lists_have_only_what_is_ones_own(platform: Platform) -> None:
    owner, stranger = platform.new_user("owner"), platform.new_user("stranger")
    post, image = a_post(platform, owner), an_image(platform, owner)
    for path, key, value in (
        ("/api/v1/posts/my", "id", post["post_id"]),
        ("/api/v1/images", "filename", image["filename"]),
    ):
        url = f"{platform.url('api')}{path}"
        assert [item[key] for item in httpx2.get(url, headers=owner.headers).json()["items"]] == [value]
        assert httpx2.get(url, headers=stranger.headers).json()["items"] == []
        assert httpx2.get(url).status_code == 401
    stats = httpx2.get(f"{platform.url('api')}/api/v1/images/stats", headers=stranger.headers).json()
    assert (stats["images"], stats["bytes"]) == (0, 0)


def test_others_do_not_learn_the_hash_of_an_original(platform: Platform) -> None:
    """Who has a picture could tell by it that somebody else has the same, and where it was first seen."""
    owner, stranger = platform.new_user("owner"), platform.new_user("stranger")
    url = f"{platform.url('api')}/api/v1/images/{an_image(platform, owner)['filename']}"
    mine = httpx2.get(f"{url}/metadata", headers=owner.headers).json()
    for path in ("", "/metadata", "/160"):
        seen = httpx2.get(f"{url}{path}", headers=stranger.headers)
        assert seen.status_code == 200
        assert mine["sha256"] not in seen.headers.get("etag", "") + str(seen.content)


def test_a_cursor_of_somebody_else_shows_nothing_of_theirs(platform: Platform) -> None:
    owner, stranger = platform.new_user("owner"), platform.new_user("stranger")
    for _ in range(2):
        an_image(platform, owner)
    url = f"{platform.url('api')}/api/v1/images"
    cursor = httpx2.get(url, headers=owner.headers, params={"limit": 1}).json()["next_cursor"]
    assert cursor
    page = httpx2.get(url, headers=stranger.headers, params={"limit": 1, "cursor": cursor}).json()
    assert page["items"] == []


@pytest.mark.parametrize("header", ["X-User-Id", "X-User-Name", "X-Forwarded-User", "X-Service-Token"])
def test_a_header_makes_nobody_somebody_else(platform: Platform, header: str) -> None:
    owner, stranger = platform.new_user("owner"), platform.new_user("stranger")
    image = an_image(platform, owner)
    path = f"{platform.url('api')}/api/v1/images/{image['filename']}"
    value = platform.service_headers("api", "image")["X-Service-Token"] if header == "X-Service-Token" else owner.id
    assert httpx2.delete(path, headers=stranger.headers | {header: value}).status_code == 404
    assert httpx2.delete(path, headers={header: value}).status_code == 401
    assert httpx2.get(path, headers=owner.headers).status_code == 200
