"""Settings of auth."""

from pydantic import Field, SecretStr, field_validator
from slipway_kit.settings import DatabaseSettings, Port, Seconds

from slipway_auth.keys import load_signing_key


class Settings(DatabaseSettings):
    port: Port = Field(3001, description="a port between 1 and 65535", examples=["3001"])
    auth_signing_key: SecretStr = Field(description="a private key in PEM form on the curve P-256")
    token_issuer: str = Field("slipway-auth", min_length=1, description="the `iss` of access tokens")
    token_audience: str = Field("slipway", min_length=1, description="the `aud` of access tokens")
    token_lifetime_seconds: int = Field(900, ge=30, le=3600, description="seconds, 30 to 3600", examples=["900"])
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

    @field_validator("auth_signing_key")
    @classmethod
    def _is_a_signing_key(cls, value: SecretStr) -> SecretStr:
        load_signing_key(value.get_secret_value())
        return value
