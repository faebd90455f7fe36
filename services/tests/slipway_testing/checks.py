"""Assertions that many tests share."""

from typing import Any

import httpx2


def assert_problem(answer: httpx2.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """The answer is the expected problem, in the form of RFC 9457."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["type"] == (f"urn:slipway:problem:{code}" if code else "about:blank")
    assert problem["status"] == status
    assert problem["title"]
    assert problem["instance"] == answer.request.url.path
    assert problem["request_id"] == answer.headers["x-request-id"]
    return problem
