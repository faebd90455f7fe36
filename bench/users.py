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
LOGINS = 10
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Prepared:
    """Requests by name, with the tokens they need."""

    token: str
    bare: Request
    posts: Request
    verify: Request
    # Straight to the image service, as the gateway asks it.
    metadata: Request
    demo: Request
    logins: list[Request]
    # Everyday work, through the gateway.
    mixed: list[Request]


def prepare(running: Running) -> Prepared:
    with (
        httpx2.Client(base_url=running.urls["auth"], timeout=20) as auth,
        httpx2.Client(base_url=running.urls["api"], timeout=20) as api,
    ):
        credentials = [_register(auth) for _ in range(LOGINS)]
        token = str(_checked(auth.post("/login", json=credentials[0])).json()["access_token"])
        bearer = {"Authorization": f"Bearer {token}"}
        for number in range(POSTS):
            _checked(api.post("/api/v1/posts", json=_post(number), headers=bearer))
        file = {"file": ("photo.jpg", jpeg(width=1200, height=900), "image/jpeg")}
        filename = str(_checked(api.post("/api/v1/images", files=file, headers=bearer)).json()["filename"])
        asked = auth.post("/service-tokens", json={"audience": "image"}, auth=("api", running.service_keys["api"]))
        service = {"X-Service-Token": str(_checked(asked).json()["token"])}
    posts = Request("GET", "/api/v1/posts")
    metadata = Request("GET", f"/images/{filename}/metadata", bearer | service)
    verify = Request("POST", "/verify", JSON, json.dumps({"token": token}))
    through = Request("GET", f"/api/v1{metadata.path}", bearer)
    return Prepared(
        token=token,
        bare=Request("GET", "/"),
        posts=posts,
        verify=verify,
        metadata=metadata,
        demo=Request("GET", "/api/data"),
        logins=[Request("POST", "/login", JSON, json.dumps(user)) for user in credentials],
        mixed=[
            posts,
            through,
            Request("GET", "/api/v1/posts/my", bearer),
            Request("POST", "/api/v1/auth/verify", JSON, verify.body),
            posts,
            through,
            Request("GET", "/api/v1/images", bearer),
            Request("POST", "/api/v1/posts", JSON | bearer, json.dumps(_post(0))),
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
