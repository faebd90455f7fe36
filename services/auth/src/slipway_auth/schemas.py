"""What goes in and what comes out: different models, so that nothing is taken over that was not meant to be set."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, StringConstraints

from slipway_auth.service_keys import SERVICE_NAME

# Lower case only, so that no two accounts look alike. Names are public: they stand under posts.
USERNAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{1,30}[a-z0-9]$"
Username = Annotated[
    str,
    # Before the pattern: pydantic would lower only what has matched already.
    BeforeValidator(lambda value: value.strip().lower() if isinstance(value, str) else value),
    StringConstraints(pattern=USERNAME_PATTERN),
]
# Length, and not to be a common one, are the only rules (OWASP ASVS 6.2); the upper end bounds the work of hashing.
Password = Annotated[SecretStr, Field(min_length=8, max_length=256)]
# As lax as possible: what cannot be right is simply wrong.
OfferedPassword = Annotated[SecretStr, Field(max_length=256)]
OfferedRefreshToken = Annotated[SecretStr, Field(max_length=256)]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Registration(_In):
    username: Username = Field(examples=["ada"])
    password: Password


class Credentials(_In):
    username: str = Field(max_length=256, examples=["ada"])
    password: OfferedPassword
    refresh_token_in: Literal["body", "cookie"] = "body"  # noqa: S105 - a place


class RefreshToken(_In):
    """Without one the cookie counts."""

    refresh_token: OfferedRefreshToken | None = None


class PasswordChange(_In):
    current_password: OfferedPassword
    new_password: Password


class TokenToCheck(_In):
    token: str = Field(max_length=8192)


class ServiceTokenRequest(_In):
    audience: str = Field(
        pattern=f"^{SERVICE_NAME.pattern}$", description="The service that is to be called.", examples=["image"]
    )


class User(BaseModel):
    id: UUID
    username: str
    created_at: datetime


class Tokens(BaseModel):
    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - a word of RFC 6749
    expires_in: int
    refresh_token: str | None = Field(None, description="Not there when it is in the cookie.")
    refresh_expires_in: int


class Introspection(BaseModel):
    """RFC 7662: of a token that is not valid nothing but that is said."""

    active: bool
    sub: UUID | None = None
    username: str | None = None
    exp: int | None = None
    sid: UUID | None = None


class ServiceToken(BaseModel):
    token: str
    expires_in: int


class JsonWebKeySet(BaseModel):
    keys: list[dict[str, str]]
