"""Issuing access tokens, and looking at them on request."""

import time
import uuid
from uuid import UUID

import jwt
from slipway_kit.tokens import ALGORITHM, TOKEN_TYPE, InvalidTokenError, Principal, read_key_id, verify_with

from slipway_auth.keys import SigningKey


class TokenIssuer:
    def __init__(self, key: SigningKey, issuer: str, audience: str, lifetime: int) -> None:
        self._key = key
        self._issuer = issuer
        self._audience = audience
        self.lifetime = lifetime
        self._public = jwt.PyJWK(key.public_jwk, algorithm=ALGORITHM)

    def issue(self, user_id: UUID, username: str) -> str:
        now = int(time.time())
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(user_id),
            "preferred_username": username,
            "iat": now,
            "exp": now + self.lifetime,
            "jti": uuid.uuid4().hex,
        }
        headers = {"typ": TOKEN_TYPE, "kid": self._key.key_id}
        return jwt.encode(claims, self._key.private, algorithm=ALGORITHM, headers=headers)

    def verify(self, token: str) -> Principal:
        if read_key_id(token) != self._key.key_id:
            raise InvalidTokenError("kid is not known")
        return verify_with(self._public, token, self._issuer, self._audience)

    @property
    def jwks(self) -> dict[str, list[dict[str, str]]]:
        return {"keys": [self._key.public_jwk]}
