"""Who calls: a second, short-lived token beside the user's. auth gives it out for a key that only one service has.

A NetworkPolicy says which pods can connect; this says which service it is, wherever the packet came from. `aud` names
the callee, so that a token that one service received is worth nothing at another.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import aiohttp
import structlog
from fastapi import Depends, Request
from fastapi.openapi.models import APIKey
from fastapi.security.base import SecurityBase

from slipway_kit.problems import Problem, unavailable
from slipway_kit.tokens import InvalidTokenError, KeySource, Remembered, read_key_id, verified_claims

SERVICE_TOKEN_HEADER = "x-service-token"  # noqa: S105 - the name of a header
SERVICE_TOKEN_TYPE = "st+jwt"  # noqa: S105 - a media type
LIFETIME_SECONDS = 900
REQUIRED_CLAIMS = ["iss", "aud", "exp", "iat", "sub", "jti"]

# A token this near to its end may be refused where the clock is ahead.
_MARGIN = 30.0
# Between two tries after one has failed: in the background, and while requests wait for the first token.
_PAUSE_RENEWING = 5.0
_PAUSE_WITHOUT = 1.0
_REMEMBERED = 64

log = structlog.get_logger()


def audience_of(service: str) -> str:
    """The `aud` of tokens for calls to that service."""
    return f"slipway:{service}"


@dataclass
class _Held:
    """What is held for one audience. Times are those of time.monotonic()."""

    token: str = ""
    renew_at: float = 0.0
    expires_at: float = 0.0
    tried_at: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    renewal: asyncio.Task[None] | None = None


class ServiceTokens:
    """The caller's side. Renewal begins at a third of a token's life, so auth may be away for the other two."""

    def __init__(self, session: aiohttp.ClientSession, url: str, service: str, key: Callable[[], str]) -> None:
        self._session = session
        self._url = url
        self._service = service
        # Asked for each time: the file is replaced when the key is rotated.
        self._key = key
        self._held: dict[str, _Held] = {}

    async def get(self, audience: str) -> str:
        """A token for calls to the service of that name; Problem 503 when there is none and auth is away."""
        held = self._held.setdefault(audience, _Held())
        now = time.monotonic()
        if now < held.renew_at:
            return held.token
        if now < held.expires_at:
            if held.renewal is None and now - held.tried_at > _PAUSE_RENEWING:
                held.renewal = asyncio.create_task(self._renew_beside(audience, held))
            return held.token
        # A moment after a failure nobody waits for the next one.
        if now - held.tried_at > _PAUSE_WITHOUT or held.lock.locked():
            async with held.lock:
                # Whoever waited for the lock uses what its holder got.
                if held.tried_at <= now:
                    await self._fetch(audience, held)
        if time.monotonic() < held.expires_at:
            return held.token
        raise unavailable("service-token-unavailable", "This service cannot identify itself to others at the moment.")

    async def _renew_beside(self, audience: str, held: _Held) -> None:
        try:
            async with held.lock:
                await self._fetch(audience, held)
        finally:
            held.renewal = None

    async def _fetch(self, audience: str, held: _Held) -> None:
        try:
            async with self._session.post(
                self._url,
                json={"audience": audience},
                headers={
                    "Content-Type": "application/json",
                    "Accept": "application/json",
                    "Authorization": aiohttp.encode_basic_auth(self._service, self._key(), "utf-8"),
                },
                allow_redirects=False,
            ) as response:
                response.raise_for_status()
                answer = await response.json(content_type=None)
            token, lifetime = _read(answer)
            now = time.monotonic()
            held.token = token
            held.renew_at = now + lifetime / 3
            held.expires_at = now + max(lifetime - _MARGIN, lifetime / 2)
        except (aiohttp.ClientError, TimeoutError, ValueError, RuntimeError) as error:
            # Not the exception's text: that of a refused request holds its headers.
            reason = f"status {error.status}" if isinstance(error, aiohttp.ClientResponseError) else repr(error)
            log.warning("no service credential", audience=audience, url=self._url, reason=reason)
        finally:
            held.tried_at = time.monotonic()


def _read(answer: Any) -> tuple[str, float]:
    token = answer.get("token") if isinstance(answer, dict) else None
    lifetime = answer.get("expires_in") if isinstance(answer, dict) else None
    if not isinstance(token, str) or not token or not isinstance(lifetime, int | float) or lifetime <= 0:
        raise ValueError("the answer of auth has no token and expires_in")
    return token, float(lifetime)


class ServiceCallers:
    """The callee's side. Without any `callers` nobody is asked for a service token."""

    def __init__(self, keys: KeySource, issuer: str, service: str, callers: frozenset[str]) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience_of(service)
        self.callers = callers
        self._remembered: Remembered[str] = Remembered(keys, _REMEMBERED)

    async def verify(self, token: str) -> str:
        """The name of the calling service; InvalidTokenError says why the token does not count."""
        caller = await self._remembered.get(token)
        if caller is None:
            kid = read_key_id(token, SERVICE_TOKEN_TYPE)
            key = await self._keys.get(kid)
            claims = verified_claims(key, token, self._issuer, self._audience, REQUIRED_CLAIMS)
            caller = str(claims["sub"])
            self._remembered.put(token, kid, key, float(claims["exp"]), caller)
        if caller not in self.callers:
            raise InvalidTokenError(f"{caller!r} is not a declared caller")
        return caller


class ServiceToken(SecurityBase):
    """The dependency that says which service calls, by `request.state.callers`, and its security scheme in OpenAPI.

    None where `callers` asks nobody; 401 for everybody who is not one of them.
    """

    model = APIKey.model_validate({"in": "header", "name": "X-Service-Token"})
    scheme_name = "ServiceToken"

    async def __call__(self, request: Request) -> str | None:
        callers: ServiceCallers = request.state.callers
        if not callers.callers:
            return None
        token = request.headers.get(SERVICE_TOKEN_HEADER)
        if not token:
            raise _refused("service-token-required", "A service token is required: only services call this one.")
        try:
            return await callers.verify(token)
        except InvalidTokenError as error:
            log.info("service call refused", reason=str(error))
            raise _refused("invalid-service-token", "The service token is not valid or has expired.") from None


calling_service = ServiceToken()


def _refused(code: str, detail: str) -> Problem:
    return Problem(401, code, detail, headers={"WWW-Authenticate": 'ServiceToken realm="slipway"'})


CallingService = Annotated[str | None, Depends(calling_service)]
