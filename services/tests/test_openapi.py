"""What the OpenAPI documents promise."""

from typing import Any

import httpx2
import pytest
from slipway_testing.platform import Platform

SERVICES = ("auth", "api", "image")
PROBLEM = {"schema": {"$ref": "#/components/schemas/Problem"}}


def operations(platform: Platform, service: str) -> dict[str, dict[str, Any]]:
    document = httpx2.get(f"{platform.url(service)}/openapi.json").json()
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


@pytest.mark.parametrize("service", SERVICES)
def test_every_error_is_a_problem(platform: Platform, service: str) -> None:
    for name, operation in operations(platform, service).items():
        errors = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        assert {"422", "500"} <= set(errors), name
        for status, answer in errors.items():
            assert answer["content"] == {"application/problem+json": PROBLEM}, (name, status)


@pytest.mark.parametrize("service", SERVICES)
def test_what_needs_a_token_says_so(platform: Platform, service: str) -> None:
    public = {
        "auth": {
            "POST /register",
            "POST /login",
            "POST /refresh",
            "POST /logout",
            "POST /verify",
            "GET /.well-known/jwks.json",
        },
        "api": {
            "GET /api/v1/posts",
            "GET /api/v1/posts/{post_id}",
            "POST /api/v1/auth/register",
            "POST /api/v1/auth/login",
            "POST /api/v1/auth/refresh",
            "POST /api/v1/auth/logout",
            "POST /api/v1/auth/password",
            "POST /api/v1/auth/verify",
            "GET /api/v1/auth/.well-known/jwks.json",
        },
        "image": set(),
    }
    for name, operation in operations(platform, service).items():
        assert ("security" not in operation) == (name in public[service]), name
        # Logging in is public and may still be refused.
        assert "401" in operation["responses"] or name in public[service], name


def test_the_paths(platform: Platform) -> None:
    """The contract itself: whoever removes or renames one of these breaks clients."""
    assert set(operations(platform, "auth")) == {
        "POST /register",
        "POST /login",
        "POST /refresh",
        "POST /logout",
        "POST /password",
        "POST /service-tokens",
        "POST /verify",
        "GET /.well-known/jwks.json",
    }
    assert set(operations(platform, "api")) == {
        "GET /api/v1/posts",
        "POST /api/v1/posts",
        "GET /api/v1/posts/my",
        "GET /api/v1/posts/{post_id}",
        "DELETE /api/v1/posts/{post_id}",
        "POST /api/v1/auth/register",
        "POST /api/v1/auth/login",
        "POST /api/v1/auth/refresh",
        "POST /api/v1/auth/logout",
        "POST /api/v1/auth/password",
        "POST /api/v1/auth/verify",
        "GET /api/v1/auth/.well-known/jwks.json",
        "GET /api/v1/images",
        "POST /api/v1/images",
        "GET /api/v1/images/stats",
        "GET /api/v1/images/{filename}",
        "GET /api/v1/images/{filename}/metadata",
        "GET /api/v1/images/{filename}/{size}",
        "DELETE /api/v1/images/{filename}",
    }
    assert set(operations(platform, "image")) == {
        "POST /upload",
        "GET /images",
        "GET /images/{filename}",
        "GET /images/{filename}/{size}",
        "GET /images/{filename}/metadata",
        "DELETE /images/{filename}",
        "GET /stats",
    }
