"""RFC 9457 problem details: every error leaves as application/problem+json, whatever raised it."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from slipway_kit.metrics import METHODS

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:slipway:problem:"

log = structlog.get_logger()


class ProblemDocument(BaseModel):
    """The shape of every error response."""

    model_config = ConfigDict(extra="allow", title="Problem")

    type: str
    title: str
    status: int
    detail: str | None = None
    instance: str | None = None
    request_id: str | None = None


class Problem(HTTPException):
    """An answer that is an error. `code` is the stable, machine-readable part: the end of `type`.

    A subclass of HTTPException, because FastAPI lets only those pass while it reads a request body.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str | None = None,
        *,
        title: str | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(status_code=status, detail=detail, headers=dict(headers or {}))
        self.code = code
        self.title = title or code.replace("-", " ").capitalize()
        self.extra = dict(extra or {})


def unauthorized(detail: str, *, error: str | None = None) -> Problem:
    challenge = 'Bearer realm="slipway"' + (f', error="{error}"' if error else "")
    return Problem(
        401, error.replace("_", "-") if error else "token-required", detail, headers={"WWW-Authenticate": challenge}
    )


def unavailable(code: str, detail: str, *, retry_after: int = 2) -> Problem:
    return Problem(503, code, detail, headers={"Retry-After": str(retry_after)})


def problem_response(
    request: Request,
    status: int,
    *,
    type_: str = "about:blank",
    title: str | None = None,
    detail: str | None = None,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Response:
    body: dict[str, Any] = {
        "type": type_,
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        **({"detail": detail} if detail else {}),
        # Not request.url: that is built from the Host header, which may be one that cannot be parsed.
        "instance": request.scope["path"],
        **(extra or {}),
    }
    request_id = request.scope.get("request_id")
    if request_id:
        body["request_id"] = request_id
    return JSONResponse(body, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):  # Starlette's signature is wider than what it passes
        raise error
    if isinstance(error, Problem):
        return problem_response(
            request,
            error.status_code,
            type_=TYPE_PREFIX + error.code,
            title=error.title,
            detail=error.detail,
            headers=error.headers,
            extra=error.extra,
        )
    phrase = HTTPStatus(error.status_code).phrase
    detail = error.detail if error.detail != phrase else None
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_allowed_methods(request))
    return problem_response(request, error.status_code, detail=detail, headers=headers)


def _allowed_methods(request: Request) -> list[str]:
    """What `Allow` has to say (RFC 9110, 10.2.1): Starlette names the methods of the first route of a path only."""
    app: FastAPI = request.scope["app"]
    return [
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in app.router.routes)
    ]


async def _on_validation_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    mistakes = error.errors()
    if any(mistake["type"] == "json_invalid" for mistake in mistakes):
        return problem_response(
            request,
            400,
            type_=TYPE_PREFIX + "malformed-json",
            title="Malformed JSON",
            detail="The body is not valid JSON.",
        )
    # Never the input itself: it may be a password.
    errors = [_mistake(mistake) for mistake in mistakes]
    return problem_response(
        request,
        422,
        type_=TYPE_PREFIX + "invalid-request",
        title="Invalid request",
        detail=f"{len(errors)} field(s) do not have the required form.",
        extra={"errors": errors},
    )


def _mistake(mistake: Mapping[str, Any]) -> dict[str, str]:
    location: Sequence[Any] = mistake.get("loc", ())
    where, path = (str(location[0]), location[1:]) if location else ("body", ())
    message = str(mistake["msg"]).removeprefix("Value error, ")
    if where == "body":
        return {"detail": message, "pointer": "#/" + "/".join(str(part) for part in path)}
    return {"detail": message, "in": where, "name": ".".join(str(part) for part in path)}


def install_problem_handlers(app: FastAPI) -> None:
    """Own problems, Starlette's (404, 405, ...) and validation errors; the last resort is RequestMiddleware."""
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: what it may answer besides success, as problem+json.

    422 is always there: without it FastAPI would describe its own error shape.
    """
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in sorted({*statuses, 422, 500})
    }
