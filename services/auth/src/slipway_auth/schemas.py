"""What goes in and what comes out: different models, so that nothing is taken over that was not meant to be set."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, StringConstraints

# Lower case only, so that no two accounts look alike. Names are public: they stand under posts.
USERNAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{1,30}[a-z0-9]$"
Username = Annotated[
    str,
    # Before the pattern: pydantic would lower only what has matched already.
    BeforeValidator(lambda value: value.strip().lower() if isinstance(value, str) else value),
    StringConstraints(pattern=USERNAME_PATTERN),
]
# Length is the only rule (OWASP ASVS 6.2); the upper end bounds the work of hashing.
Password = Annotated[SecretStr, Field(min_length=8, max_length=256)]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Registration(_In):
    username: Username = Field(examples=["ada"])
    password: Password


class Credentials(_In):
    # As lax as possible: a name that cannot exist is simply a wrong one.
    username: str = Field(max_length=256, examples=["ada"])
    password: Annotated[SecretStr, Field(max_length=256)]


class TokenToCheck(_In):
    token: str = Field(max_length=8192)


class User(BaseModel):
    id: UUID
    username: str
    created_at: datetime


class AccessToken(BaseModel):
    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - a word of RFC 6749
    expires_in: int


class Introspection(BaseModel):
    """RFC 7662: of a token that is not valid nothing but that is said."""

    active: bool
    sub: UUID | None = None
    username: str | None = None
    exp: int | None = None


class JsonWebKeySet(BaseModel):
    keys: list[dict[str, str]]
