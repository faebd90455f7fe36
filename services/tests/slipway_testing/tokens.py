"""Access tokens to order: good ones, and every kind that has to be refused."""

import base64
import hashlib
import hmac
import json
import time
import uuid
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from slipway_auth.keys import SigningKey, load_signing_key

ISSUER = "slipway-auth"
AUDIENCE = "slipway"


def new_pem() -> str:
    key = generate_private_key(SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def new_key() -> SigningKey:
    return load_signing_key(new_pem())


def claims(**changes: Any) -> dict[str, Any]:
    """Those of a good token; a change to None removes one."""
    now = int(time.time())
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": str(uuid.uuid4()),
        "preferred_username": "tester",
        "iat": now,
        "exp": now + 300,
        "jti": uuid.uuid4().hex,
        "sid": uuid.uuid4().hex,
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def sign(key: SigningKey, payload: dict[str, Any], **headers: Any) -> str:
    fields = {"typ": "at+jwt", "kid": key.key_id} | headers
    return jwt.encode(payload, key.private, algorithm="ES256", headers=fields)


def mint(key: SigningKey, **changes: Any) -> str:
    return sign(key, claims(**changes))


def service_claims(caller: str, callee: str, **changes: Any) -> dict[str, Any]:
    """Those of a good service token; a change to None removes one."""
    now = int(time.time())
    good = {
        "iss": ISSUER,
        "aud": f"slipway:{callee}",
        "sub": caller,
        "iat": now,
        "exp": now + 900,
        "jti": uuid.uuid4().hex,
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def mint_service_token(key: SigningKey, caller: str, callee: str, **changes: Any) -> str:
    return sign(key, service_claims(caller, callee, **changes), typ="st+jwt")


def hostile(key: SigningKey) -> dict[str, str]:
    """Name -> token that nobody may accept, although most are signed with the right key."""
    now = int(time.time())
    good = mint(key)
    head, body, signature = good.split(".")
    other = new_key()
    return {
        "alg none": _raw({"alg": "none", "typ": "at+jwt", "kid": key.key_id}, claims(), b""),
        "alg none in capitals": _raw({"alg": "NONE", "typ": "at+jwt", "kid": key.key_id}, claims(), b""),
        "HS256 with the public key (PEM)": _hs256(key, _public_pem(key.private)),
        "HS256 with the public key (JWK)": _hs256(key, json.dumps(key.public_jwk).encode()),
        "wrong aud": mint(key, aud="somebody-else"),
        "aud a list with others": mint(key, aud=[AUDIENCE, "somebody-else"]),
        "no aud": mint(key, aud=None),
        "wrong iss": mint(key, iss="somebody-else"),
        "no iss": mint(key, iss=None),
        "expired": mint(key, exp=now - 60, iat=now - 600),
        "no exp": mint(key, exp=None),
        "exp not a number": mint(key, exp="never"),
        "not yet valid": mint(key, nbf=now + 600),
        "issued in the future": mint(key, iat=now + 600),
        "no sub": mint(key, sub=None),
        "sub not an id": mint(key, sub="admin"),
        "no jti": mint(key, jti=None),
        "no sid": mint(key, sid=None),
        "a service token": mint_service_token(key, "api", "image", aud=AUDIENCE),
        "wrong typ": sign(key, claims(), typ="JWT"),
        "typ of an id token": sign(key, claims(), typ="id+jwt"),
        "unknown kid": sign(key, claims(), kid="somebody-else"),
        "no kid": jwt.encode(claims(), key.private, algorithm="ES256", headers={"typ": "at+jwt"}),
        "kid a path": sign(key, claims(), kid="../../etc/passwd"),
        "kid of ours, key of others": sign(other, claims(), kid=key.key_id),
        "own key in the header": sign(other, claims(), jwk=other.public_jwk, kid=key.key_id),
        "jku": sign(other, claims(), jku="http://127.0.0.1:1/jwks.json", kid=other.key_id),
        "unknown crit": sign(key, claims(), crit=["exp-hard"], **{"exp-hard": True}),
        "signature cut off": f"{head}.{body}.",
        "signature of another": f"{head}.{body}.{mint(other).split('.')[2]}",
        "signature of zeros": f"{head}.{body}.{_base64(bytes(64))}",
        "other claims, same signature": f"{head}.{_base64(json.dumps(claims()).encode())}.{signature}",
        "not a token": "not-a-token",
        "three dots": "...",
        "not base64": "ä.ö.ü".encode().decode("latin-1"),
        "very long": good + "A" * 10_000,
    }


def _public_pem(private: EllipticCurvePrivateKey) -> bytes:
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _hs256(key: SigningKey, secret: bytes) -> str:
    """By hand: PyJWT refuses to use a public key as a secret, an attacker does not."""
    head = {"alg": "HS256", "typ": "at+jwt", "kid": key.key_id}
    signed = f"{_base64(json.dumps(head).encode())}.{_base64(json.dumps(claims()).encode())}"
    return f"{signed}.{_base64(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"


def _raw(head: dict[str, Any], payload: dict[str, Any], signature: bytes) -> str:
    return ".".join(_base64(part) for part in (json.dumps(head).encode(), json.dumps(payload).encode(), signature))


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
