"""What is there before anything is measured: accounts, posts, an image, and the requests that ask for them."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import httpx2
from slipway_testing.images import jpeg

from bench.load import Request
from bench.platform import Running

POSTS = 60
USERS = 10
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Prepared:
    """Requests by name, with the tokens they need. Where tokens count there is one request for each user."""

    token: str
    bare: list[Request]
    posts: list[Request]
    # The page after the first is not cached: it comes from the database each time.
    next_posts: list[Request]
    verify: list[Request]
    # Straight to the image service, as the gateway asks it.
    metadata: list[Request]
    demo: list[Request]
    logins: list[Request]
    # Everyday work, through the gateway.
    mixed: list[Request]


def prepare(running: Running) -> Prepared:
    with (
        httpx2.Client(base_url=running.urls["auth"], timeout=20) as auth,
        httpx2.Client(base_url=running.urls["api"], timeout=20) as api,
    ):
        credentials = [_register(auth) for _ in range(USERS)]
        tokens = [str(_checked(auth.post("/login", json=user)).json()["access_token"]) for user in credentials]
        bearers = [{"Authorization": f"Bearer {token}"} for token in tokens]
        for number in range(POSTS):
            _checked(api.post("/api/v1/posts", json=_post(number), headers=bearers[0]))
        cursor = str(_checked(api.get("/api/v1/posts")).json()["next_cursor"])
        file = {"file": ("photo.jpg", jpeg(width=1200, height=900), "image/jpeg")}
        filename = str(_checked(api.post("/api/v1/images", files=file, headers=bearers[0])).json()["filename"])
        asked = auth.post("/service-tokens", json={"audience": "image"}, auth=("api", running.service_keys["api"]))
        service = {"X-Service-Token": str(_checked(asked).json()["token"])}
    posts = Request("GET", "/api/v1/posts")
    path = f"/images/{filename}/metadata"
    verify = [Request("POST", "/verify", JSON, json.dumps({"token": token})) for token in tokens]
    return Prepared(
        token=tokens[0],
        bare=[Request("GET", "/")],
        posts=[posts],
        next_posts=[Request("GET", f"/api/v1/posts?cursor={cursor}")],
        verify=verify,
        metadata=[Request("GET", path, bearer | service) for bearer in bearers],
        demo=[Request("GET", "/api/data")],
        logins=[Request("POST", "/login", JSON, json.dumps(user)) for user in credentials],
        mixed=[
            request
            for bearer, check in zip(bearers, verify, strict=True)
            for request in (
                posts,
                Request("GET", f"/api/v1{path}", bearer),
                Request("GET", "/api/v1/posts/my", bearer),
                Request("POST", "/api/v1/auth/verify", JSON, check.body),
                posts,
                Request("GET", f"/api/v1{path}", bearer),
                Request("GET", "/api/v1/images", bearer),
                Request("POST", "/api/v1/posts", JSON | bearer, json.dumps(_post(0))),
            )
        ],
    )


def _register(auth: httpx2.Client) -> dict[str, str]:
    user = {"username": f"bench-{secrets.token_hex(6)}", "password": secrets.token_urlsafe(16)}
    _checked(auth.post("/register", json=user))
    return user


def _post(number: int) -> Mapping[str, str]:
    words = "what somebody wrote on a quiet afternoon, and nobody has answered yet "
    return {"title": f"Post {number}", "content": (words * 4)[:280]}


def _checked(answer: httpx2.Response) -> httpx2.Response:
    if answer.is_error:
        raise RuntimeError(
            f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text[:300]}"
        )
    return answer
