"""Settings of auth."""

from typing import Annotated

from limits import RateLimitItem, parse
from pydantic import AfterValidator, Field, SecretStr, field_validator
from slipway_kit.settings import DatabaseSettings, Port, RedisSettings, Seconds

from slipway_auth.keys import load_signing_key, load_verification_keys
from slipway_auth.service_keys import load_service_keys

DAY = 24 * 3600


def parse_rate(text: str) -> RateLimitItem | None:
    """`10/5minutes` as a limit, an empty text as none; ValueError for anything else."""
    if not text:
        return None
    try:
        rate = parse(text)
    except ValueError:
        rate = None
    if rate is None or rate.amount < 1 or any(separator in text for separator in ",;|"):
        raise ValueError("a number, a slash and a time, or nothing for no limit")
    return rate


def _checked_rate(text: str) -> str:
    parse_rate(text)
    return text


Rate = Annotated[str, AfterValidator(_checked_rate)]


class Settings(DatabaseSettings, RedisSettings):
    port: Port = Field(3001, description="a port between 1 and 65535", examples=["3001"])

    # All three files are read again when they change: keys are rotated without a restart.
    auth_signing_key: SecretStr = Field(description="a private key in PEM form on the curve P-256")
    # No secret, but it has to change together with the one above, so it is a file of the same mount.
    auth_verification_keys: SecretStr = Field(
        SecretStr(""), description="public keys in PEM form on the curve P-256, one after the other, or nothing"
    )
    service_keys: SecretStr = Field(
        SecretStr("{}"),
        description="a JSON object of service names and their keys of at least 16 characters",
        examples=['{"api": "..."}'],
    )
    keys_reload_seconds: Seconds = Field(5, description="seconds, above 0, at most 600", examples=["5"])

    token_issuer: str = Field("slipway-auth", min_length=1, description="the `iss` of access tokens")
    token_audience: str = Field("slipway", min_length=1, description="the `aud` of access tokens")
    token_lifetime_seconds: int = Field(900, ge=30, le=3600, description="seconds, 30 to 3600", examples=["900"])
    refresh_lifetime_seconds: int = Field(
        7 * DAY, ge=60, le=90 * DAY, description="seconds, 60 to 7776000, that a session may lie idle"
    )
    session_lifetime_seconds: int = Field(
        30 * DAY, ge=60, le=365 * DAY, description="seconds, 60 to 31536000, after which to log in again"
    )

    # The floor that OWASP gives for argon2id is 19 MiB, 2 passes, 1 lane: below it the settings are refused.
    hash_memory_kib: int = Field(
        19 * 1024, ge=19 * 1024, le=1024 * 1024, description="KiB, 19456 to 1048576", examples=["19456"]
    )
    hash_passes: int = Field(2, ge=2, le=20, description="passes, 2 to 20", examples=["2"])
    hash_lanes: int = Field(1, ge=1, le=8, description="lanes, 1 to 8", examples=["1"])
    # About the CPU limit; each takes hash_memory_kib, so this number times that has to fit into the pod.
    hash_concurrency: int = Field(2, ge=1, le=64, description="hashes at a time, 1 to 64", examples=["2"])
    hash_queue: int = Field(
        32, ge=0, le=1000, description="requests that may wait for a hash, 0 to 1000", examples=["32"]
    )
    hash_wait_seconds: Seconds = Field(3, description="seconds, above 0, at most 600", examples=["3"])

    # Per name: few enough that guessing is hopeless; a right password sets it back. Per address: an office behind one.
    # In all: below what two replicas can hash, so that even then registrations and password changes get their turn.
    limit_login_user: Rate = Field("10/5minutes", examples=["10/5minutes"])
    limit_login_address: Rate = Field("60/5minutes", examples=["60/5minutes"])
    limit_login_all: Rate = Field("1000/minute", examples=["1000/minute"])
    limit_register_address: Rate = Field("30/5minutes", examples=["30/5minutes"])
    limit_register_all: Rate = Field("300/minute", examples=["300/minute"])
    limit_password_user: Rate = Field("10/5minutes", examples=["10/5minutes"])
    limit_password_address: Rate = Field("60/5minutes", examples=["60/5minutes"])
    limit_refresh_address: Rate = Field("300/5minutes", examples=["300/5minutes"])
    limit_service_tokens_address: Rate = Field("120/minute", examples=["120/minute"])

    revocations_interval_seconds: Seconds = Field(5, description="seconds, above 0, at most 600", examples=["5"])
    cleanup_interval_seconds: float = Field(
        3600, gt=0, le=DAY, description="seconds, above 0, at most 86400", examples=["3600"]
    )

    @field_validator("auth_signing_key")
    @classmethod
    def _is_a_signing_key(cls, value: SecretStr) -> SecretStr:
        load_signing_key(value.get_secret_value())
        return value

    @field_validator("auth_verification_keys")
    @classmethod
    def _are_public_keys(cls, value: SecretStr) -> SecretStr:
        load_verification_keys(value.get_secret_value())
        return value

    @field_validator("service_keys")
    @classmethod
    def _are_service_keys(cls, value: SecretStr) -> SecretStr:
        load_service_keys(value.get_secret_value())
        return value
