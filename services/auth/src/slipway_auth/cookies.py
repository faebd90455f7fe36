"""The refresh token as a cookie: out of the reach of scripts, sent to nothing but auth, never from another site."""

from fastapi import Response

COOKIE = "slipway_refresh"
# As browsers see it: behind the gateway.
PATH = "/api/v1/auth"


def set_refresh_cookie(response: Response, token: str, max_age: int) -> None:
    response.set_cookie(COOKIE, token, max_age=max_age, path=PATH, secure=True, httponly=True, samesite="strict")


def clear_refresh_cookie(response: Response) -> None:
    response.delete_cookie(COOKIE, path=PATH, secure=True, httponly=True, samesite="strict")


def clearing_header() -> dict[str, str]:
    """For answers that are raised: what `clear_refresh_cookie` would send."""
    response = Response()
    clear_refresh_cookie(response)
    return {"Set-Cookie": response.headers["set-cookie"]}
