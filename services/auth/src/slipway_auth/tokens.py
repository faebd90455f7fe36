"""Issuing tokens, and looking at access tokens on request."""

import time
import uuid
from typing import Any
from uuid import UUID

import jwt
from slipway_kit.service_tokens import LIFETIME_SECONDS, SERVICE_TOKEN_TYPE, audience_of
from slipway_kit.tokens import (
    ALGORITHM,
    REMEMBERED,
    TOKEN_TYPE,
    InvalidTokenError,
    Principal,
    Remembered,
    read_key_id,
    verify_with,
)

from slipway_auth.keys import KeyRing


class TokenIssuer:
    service_lifetime = LIFETIME_SECONDS

    def __init__(self, keys: KeyRing, issuer: str, audience: str, lifetime: int) -> None:
        self.keys = keys
        self._issuer = issuer
        self._audience = audience
        self.lifetime = lifetime
        self._remembered: Remembered[Principal] = Remembered(keys, REMEMBERED)

    def issue(self, user_id: UUID, username: str, session_id: UUID) -> str:
        """An access token (RFC 9068): who, and by which session, so that it can be revoked with it."""
        claims = {"sub": str(user_id), "preferred_username": username, "sid": str(session_id)}
        return self._sign(TOKEN_TYPE, self._audience, self.lifetime, claims)

    def issue_for_service(self, caller: str, callee: str) -> str:
        """For calls from one service to another. Its type and its audience keep it from passing for a user's."""
        return self._sign(SERVICE_TOKEN_TYPE, audience_of(callee), self.service_lifetime, {"sub": caller})

    async def verify(self, token: str) -> Principal:
        """Whose access token this is, by its signature and claims alone; InvalidTokenError says what is wrong."""
        remembered = await self._remembered.get(token)
        if remembered is not None:
            return remembered
        kid = read_key_id(token)
        key = await self.keys.get(kid)
        principal = verify_with(key, token, self._issuer, self._audience)
        try:
            UUID(principal.session_id)
        except ValueError:
            raise InvalidTokenError("sid is not that of a session") from None
        self._remembered.put(token, kid, key, principal.expires_at, principal)
        return principal

    def _sign(self, type_: str, audience: str, lifetime: int, claims: dict[str, Any]) -> str:
        now = int(time.time())
        common = {"iss": self._issuer, "aud": audience, "iat": now, "exp": now + lifetime, "jti": uuid.uuid4().hex}
        signing = self.keys.signing
        headers = {"typ": type_, "kid": signing.key_id}
        return jwt.encode({**common, **claims}, signing.private, algorithm=ALGORITHM, headers=headers)
