"""What schemathesis has to check besides its own checks. It loads this module as its hooks, in a process of its own."""

import os
from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, Response

# Says that no request carries a token that is worth anything.
NOBODY = "SLIPWAY_FUZZ_NOBODY"
# How an operation says that failing is its purpose.
FAILS_ON_PURPOSE = "x-fails-on-purpose"


@schemathesis.check
def failure_is_told(ctx: CheckContext, response: Response, case: "Case[Any]") -> None:
    """No 5xx but the 503 that says when to come again."""
    if response.status_code < 500 or case.operation.definition.raw.get(FAILS_ON_PURPOSE):
        return
    assert response.status_code == 503, f"{response.status_code}, wanted: no failure"
    (seconds,) = response.headers.get("retry-after", ["nothing"])
    assert seconds.isdecimal(), f"503 with Retry-After: {seconds}, wanted: seconds"


@schemathesis.check
def error_is_a_problem(ctx: CheckContext, response: Response, case: "Case[Any]") -> None:
    """RFC 9457 for every error, also for those of the framework (404, 405) that no operation announces."""
    if response.status_code < 400 or case.method.upper() == "HEAD":
        return
    kind = response.headers["content-type"][0]
    assert kind == "application/problem+json", f"{response.status_code} as {kind}"
    problem = response.json()
    assert problem["status"] == response.status_code
    assert problem["request_id"] == response.headers["x-request-id"][0]


@schemathesis.check
def nobody_gets_nothing(ctx: CheckContext, response: Response, case: "Case[Any]") -> None:
    """Without a token nothing succeeds that the document puts behind one."""
    security = case.operation.definition.raw.get("security", [])
    if NOBODY in os.environ and security and {} not in security:
        assert response.status_code >= 400, f"{response.status_code} without a token"
