"""Access tokens, verified locally (RFC 8725, RFC 9068): no call to auth per request, and work goes on without it."""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Protocol, TypeVar
from uuid import UUID

import aiohttp
import jwt
import structlog
from fastapi import Depends, Request
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase

from slipway_kit.problems import Problem, unauthorized, unavailable
from slipway_kit.revocations import Revocations

# One algorithm, chosen here and not by the token: `none`, or HS256 with our public key as the secret, never get in.
ALGORITHM = "ES256"
TOKEN_TYPE = "at+jwt"  # noqa: S105 - a media type
LEEWAY_SECONDS = 10
MAX_TOKEN_LENGTH = 4096
# Some 1.5 KiB each.
REMEMBERED = 2048
REQUIRED_CLAIMS = ["iss", "aud", "exp", "iat", "sub", "jti", "sid", "preferred_username"]

T = TypeVar("T")
log = structlog.get_logger()


class InvalidTokenError(Exception):
    """Why, for the log; the client learns only that it is not valid."""


@dataclass(frozen=True)
class Principal:
    user_id: UUID
    username: str
    token_id: str
    expires_at: int
    # What a sign-in began: all tokens of one session are revoked together.
    session_id: str


class KeySource(Protocol):
    """Where public keys come from."""

    async def get(self, kid: str) -> jwt.PyJWK:
        """The key with this id; InvalidTokenError when there is none."""


def read_key_id(token: str, type_: str = TOKEN_TYPE) -> str:
    """The `kid` of a token of the right form. Nothing else of the header is ever followed (`jku`, `x5u`, `jwk`)."""
    if len(token) > MAX_TOKEN_LENGTH:
        raise InvalidTokenError("too long")
    try:
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError as error:
        raise InvalidTokenError(str(error)) from None
    if header.get("alg") != ALGORITHM:
        raise InvalidTokenError("alg is not the one in use")
    if str(header.get("typ", "")).lower().removeprefix("application/") != type_:
        raise InvalidTokenError(f"typ is not {type_}")
    kid = header.get("kid")
    if not isinstance(kid, str) or not kid:
        raise InvalidTokenError("kid is missing")
    return kid


def verified_claims(key: jwt.PyJWK, token: str, issuer: str, audience: str, required: list[str]) -> dict[str, Any]:
    """The claims of a token that is signed, in time, and meant for us; InvalidTokenError says why it is not."""
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[ALGORITHM],
            audience=audience,
            issuer=issuer,
            leeway=LEEWAY_SECONDS,
            options={"require": required, "strict_aud": True},
        )
    except (jwt.InvalidTokenError, ValueError) as error:
        raise InvalidTokenError(str(error) or type(error).__name__) from None
    return claims


def verify_with(key: jwt.PyJWK, token: str, issuer: str, audience: str) -> Principal:
    claims = verified_claims(key, token, issuer, audience, REQUIRED_CLAIMS)
    if not isinstance(claims["sid"], str) or not claims["sid"]:
        # A session without a name could never be revoked.
        raise InvalidTokenError("sid is not the name of a session")
    try:
        return Principal(
            user_id=UUID(claims["sub"]),
            username=str(claims["preferred_username"]),
            token_id=str(claims["jti"]),
            expires_at=int(claims["exp"]),
            session_id=claims["sid"],
        )
    except ValueError as error:
        raise InvalidTokenError(str(error)) from None


class JwksCache:
    """The public keys of auth. Fetched when needed, kept when auth is away, asked for again when a new `kid` comes.

    Once there are keys, only tokens with an unknown `kid` wait for auth: known ones are renewed beside the requests.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, *, max_age: float = 600, cooldown: float = 10) -> None:
        self._session = session
        self._url = url
        self._max_age = max_age
        # Tokens with invented key ids must not become requests to auth.
        self._cooldown = cooldown
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._lock = asyncio.Lock()
        self._renewal: asyncio.Task[None] | None = None

    async def get(self, kid: str) -> jwt.PyJWK:
        key = self._keys.get(kid)
        if key is not None:
            if time.monotonic() - self._fetched_at >= self._max_age and self._renewal is None:
                self._renewal = asyncio.create_task(self._renew())
            return key
        await self._refresh()
        if kid in self._keys:
            return self._keys[kid]
        if not self._keys:
            raise unavailable("keys-unavailable", "Tokens cannot be checked at the moment.")
        raise InvalidTokenError("kid is not known")

    async def probe(self) -> None:
        """For /health: are there keys, whatever their age."""
        if not self._keys:
            await self._refresh()
        if not self._keys:
            raise ConnectionError("no keys yet")

    async def _renew(self) -> None:
        try:
            await self._refresh()
        finally:
            self._renewal = None

    async def _refresh(self) -> None:
        asked_at = time.monotonic()
        async with self._lock:
            # Whoever waited for the lock uses what its holder fetched.
            if self._tried_at > asked_at:
                return
            # Without any key each request may try: there is nothing to lose.
            if self._keys and asked_at - self._tried_at < self._cooldown:
                return
            try:
                async with self._session.get(self._url, allow_redirects=False) as response:
                    response.raise_for_status()
                    document = await response.json(content_type=None)
                self._keys = parse_jwks(document)
                self._fetched_at = time.monotonic()
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                log.warning("keys not fetched", url=self._url, reason=f"{type(error).__name__}: {error}")
            finally:
                self._tried_at = time.monotonic()


def parse_jwks(document: Any) -> dict[str, jwt.PyJWK]:
    """Only what can sign our tokens: a key of another kind in the document is not a key for us."""
    keys: dict[str, jwt.PyJWK] = {}
    entries = document.get("keys") if isinstance(document, dict) else None
    for entry in entries or []:
        if not isinstance(entry, dict) or entry.get("kty") != "EC" or entry.get("crv") != "P-256":
            continue
        try:
            key = jwt.PyJWK(entry, algorithm=ALGORITHM)
        except jwt.PyJWTError:
            continue
        if key.key_id:
            keys[key.key_id] = key
    if not keys:
        raise ValueError("no usable key in the document")
    return keys


class Remembered(Generic[T]):
    """What was found in tokens whose signature was checked, which costs 140 us: they come again and again.

    A token is looked at anew when it has expired, and when its key is not the one any more that it was checked with.
    The least recently used ones are forgotten first, so that other people's tokens cannot use up the memory.
    """

    def __init__(self, keys: KeySource, size: int) -> None:
        self._keys = keys
        self._size = size
        self._known: OrderedDict[str, tuple[str, jwt.PyJWK, float, T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    async def get(self, token: str) -> T | None:
        known = self._known.get(token)
        if known is None:
            return None
        kid, key, expires_at, found = known
        if time.time() < expires_at and await self._keys.get(kid) is key:
            self._known.move_to_end(token)
            return found
        self._known.pop(token, None)
        return None

    def put(self, token: str, kid: str, key: jwt.PyJWK, expires_at: float, found: T) -> None:
        self._known[token] = (kid, key, expires_at, found)
        while len(self._known) > self._size:
            self._known.popitem(last=False)


class Verifier:
    """Says who sent a request. With `revocations`, tokens of sessions that were ended do not count any more."""

    def __init__(self, keys: JwksCache, issuer: str, audience: str, revocations: Revocations | None = None) -> None:
        self.keys = keys
        self._issuer = issuer
        self._audience = audience
        self._revocations = revocations
        self._remembered: Remembered[Principal] = Remembered(keys, REMEMBERED)

    async def verify(self, token: str) -> Principal:
        principal = await self._remembered.get(token)
        if principal is None:
            kid = read_key_id(token)
            key = await self.keys.get(kid)
            principal = verify_with(key, token, self._issuer, self._audience)
            self._remembered.put(token, kid, key, principal.expires_at, principal)
        if self._revocations is not None and self._revocations.revoked(principal.session_id):
            raise InvalidTokenError("its session was ended")
        return principal


class AccessToken(SecurityBase):
    """The dependency that says who sent a request, and the security scheme of it in OpenAPI.

    Both in one: FastAPI's HTTPBearer would be a second dependency, and each costs its share of every request. Async,
    although it rarely waits: a plain function would cost a hop to a thread.
    """

    model = HTTPBearer(bearerFormat="JWT")
    scheme_name = "AccessToken"

    async def __call__(self, request: Request) -> Principal:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise unauthorized("An access token is required: `Authorization: Bearer <token>`.")
        verifier: Verifier = request.state.verifier
        try:
            principal = await verifier.verify(token)
        except InvalidTokenError as error:
            log.info("token refused", reason=str(error))
            raise invalid_token() from None
        structlog.contextvars.bind_contextvars(user_id=str(principal.user_id))
        return principal


current_user = AccessToken()


def invalid_token() -> Problem:
    return unauthorized("The access token is not valid or has expired.", error="invalid_token")


CurrentUser = Annotated[Principal, Depends(current_user)]
