"""Settings from environment variables and mounted secret files; a wrong one becomes one line, never a traceback."""

import os
import ssl
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AnyHttpUrl, Field, PrivateAttr, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from slipway_kit.addresses import parse_networks

SECRETS_DIR_VARIABLE = "SLIPWAY_SECRETS_DIR"
DEFAULT_SECRETS_DIR = "/run/secrets/slipway"

Seconds = Annotated[float, Field(gt=0, le=600)]
Port = Annotated[int, Field(ge=1, le=65535)]


class SettingsError(Exception):
    """Carries one printable line per wrong setting."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class ServiceSettings(BaseSettings):
    """What each service has. Every field is the environment variable of the same name in capitals."""

    model_config = SettingsConfigDict(extra="ignore", case_sensitive=False, frozen=True, hide_input_in_errors=True)

    _mounted: Path | None = PrivateAttr(None)

    # A container listens on all of its addresses; who may reach it is the NetworkPolicy's business.
    host: str = Field("0.0.0.0", description="an address to listen on", examples=["127.0.0.1"])  # noqa: S104
    port: Port = Field(description="a port between 1 and 65535", examples=["3001"])
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="one of debug, info, warning, error", examples=["info"]
    )
    log_format: Literal["json", "console"] = Field("json", description="json or console", examples=["json"])
    service_version: str = Field("dev", description="what /health and the logs call this build", examples=["1a2b3c4d"])
    public_url: AnyHttpUrl = Field(
        description="the URL under which users reach the platform", examples=["https://slipway.test"]
    )
    shutdown_delay_seconds: float = Field(
        5,
        ge=0,
        le=120,
        description="seconds (0 to 120) to go on serving after SIGTERM while readiness is off",
        examples=["5"],
    )
    shutdown_grace_seconds: int = Field(
        20, ge=1, le=600, description="seconds (1 to 600) that requests in flight get after that", examples=["20"]
    )
    otel_exporter_otlp_endpoint: AnyHttpUrl | None = Field(
        None,
        description="the base URL of an OTLP/HTTP collector; without it nothing is traced",
        examples=["http://collector.monitoring.svc:4318"],
    )
    trace_sample_ratio: float = Field(
        1, ge=0, le=1, description="the share of traces (0 to 1) that are recorded", examples=["0.1"]
    )
    platform_ca_file: Path | None = Field(
        None,
        description="a file with a CA's certificate in PEM form; the data stores' certificates come from it",
        examples=["/etc/slipway/ca.crt"],
    )
    # As text: a list would have to be JSON in the environment.
    trusted_proxies: str = Field(
        "",
        description="networks, separated by commas, whose X-Forwarded-For is believed",
        examples=["10.42.0.0/16,10.43.0.0/16"],
    )

    @field_validator("otel_exporter_otlp_endpoint", "platform_ca_file", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return value or None

    @field_validator("platform_ca_file")
    @classmethod
    def _is_a_certificate(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                ssl.create_default_context(cafile=value)
            except OSError as error:  # SSLError is one too
                raise ValueError("a file with a CA's certificate in PEM form") from error
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: str) -> str:
        parse_networks(value)
        return value

    @property
    def public_base(self) -> str:
        return str(self.public_url).rstrip("/")

    @property
    def trusted_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return parse_networks(self.trusted_proxies)

    def trust(self) -> ssl.SSLContext:
        """Whom clients of data stores believe: the CA of PLATFORM_CA_FILE and no other, or without it the system's."""
        return ssl.create_default_context(cafile=self.platform_ca_file)

    def trust_public(self) -> ssl.SSLContext:
        """For what may be the platform's or somebody else's: those of the system, and the CA of PLATFORM_CA_FILE."""
        context = ssl.create_default_context()
        if self.platform_ca_file is not None:
            context.load_verify_locations(self.platform_ca_file)
        return context

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read environment and secret files; raise SettingsError with all mistakes at once."""
        directory = secrets_dir()
        try:
            # As a mapping: pydantic-settings' own keyword is not part of the model's signature.
            settings = cls(**{"_secrets_dir": directory if directory.is_dir() else None, **overrides})
        except ValidationError as error:
            raise SettingsError(_explain(cls, error)) from None
        settings._mounted = directory
        return settings

    def secret(self, name: str) -> str:
        """The present value of a secret: the mounted file is read again, because rotation replaces it in place."""
        if self._mounted is not None and name.upper() not in os.environ:
            with suppress(OSError):
                return (self._mounted / name).read_text().strip()
        value = getattr(self, name)
        return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


class DatabaseSettings(ServiceSettings):
    database_host: str = Field(
        min_length=1, description="the address of Postgres", examples=["postgres.infrastructure.svc"]
    )
    database_port: Port = Field(5432, description="a port between 1 and 65535", examples=["5432"])
    database_tls: bool = Field(
        False,
        description="true or false: whether Postgres takes TLS, with a certificate of PLATFORM_CA_FILE",
        examples=["true"],
    )
    database_name: str = Field(min_length=1, description="the name of the database", examples=["auth_db"])
    database_user: str = Field(min_length=1, description="the user of the database", examples=["auth_user"])
    database_password: SecretStr = Field(min_length=1, description="the password of the database user")
    # Pool size times replicas, over all services, has to stay under max_connections.
    database_pool_max: int = Field(10, ge=1, le=200, description="connections, 1 to 200", examples=["10"])
    database_connect_timeout: Seconds = Field(3, description="seconds, above 0, at most 600", examples=["3"])
    database_command_timeout: Seconds = Field(5, description="seconds, above 0, at most 600", examples=["5"])
    database_acquire_timeout: Seconds = Field(2, description="seconds, above 0, at most 600", examples=["2"])
    migrate_timeout: Seconds = Field(
        120, description="seconds that a migration waits for the database and for its turn", examples=["120"]
    )


class RedisSettings(ServiceSettings):
    redis_host: str = Field(min_length=1, description="the address of Redis", examples=["redis.infrastructure.svc"])
    redis_port: Port = Field(6379, description="a port between 1 and 65535", examples=["6379"])
    redis_tls: bool = Field(
        False,
        description="true or false: whether Redis takes TLS, with a certificate of PLATFORM_CA_FILE",
        examples=["true"],
    )
    redis_user: str = Field(min_length=1, description="the user of Redis", examples=["auth"])
    redis_password: SecretStr = Field(min_length=1, description="the password of the Redis user")
    # Everything that Redis does here can be done without: better soon without than late with it.
    redis_timeout: Seconds = Field(0.25, description="seconds, above 0, at most 600", examples=["0.25"])


class TokenSettings(ServiceSettings):
    auth_jwks_url: AnyHttpUrl = Field(
        description="where the public keys of access tokens are",
        examples=["http://auth.auth.svc:3001/.well-known/jwks.json"],
    )
    token_issuer: str = Field("slipway-auth", min_length=1, description="the `iss` of access tokens")
    token_audience: str = Field("slipway", min_length=1, description="the `aud` of access tokens")


class ServiceTokenSettings(ServiceSettings):
    service_tokens_url: AnyHttpUrl = Field(
        description="where this service gets the tokens that tell others who calls",
        examples=["http://auth.auth.svc:3001/service-tokens"],
    )
    service_key: SecretStr = Field(min_length=1, description="the key with which this service asks for them")


def secrets_dir() -> Path:
    return Path(os.environ.get(SECRETS_DIR_VARIABLE, DEFAULT_SECRETS_DIR))


def _explain(cls: type[ServiceSettings], error: ValidationError) -> list[str]:
    """Where, found, wanted, example: one line per mistake; a secret's value is never shown."""
    lines = []
    # The input is taken from the environment, not from the error: pydantic is told to keep it out of errors.
    for mistake in error.errors(include_input=False, include_url=False, include_context=False):
        name = str(mistake["loc"][0]) if mistake["loc"] else ""
        field = cls.model_fields.get(name)
        if field is None:
            lines.append(f"settings: {mistake['msg']}")
            continue
        secret = field.annotation is SecretStr
        where = f"{name.upper()}"
        if secret:
            where += f" (or the file {secrets_dir() / name})"
        value = os.environ.get(name.upper())
        if value is None:
            found = "nothing" if mistake["type"] == "missing" else "a wrong value"
        else:
            found = "a wrong value" if secret else _shorten(value)
        wanted = field.description or mistake["msg"]
        if mistake["type"] == "value_error":
            wanted = mistake["msg"].removeprefix("Value error, ")
        example = f", for example {field.examples[0]}" if field.examples else ""
        lines.append(f"{where}: found {found}, wanted {wanted}{example}")
    return lines


def _shorten(value: str) -> str:
    # One line, whatever somebody put there; and a URL may carry a password.
    shown = repr(value if len(value) <= 60 else value[:57] + "...")
    return "a value with '@' in it (not shown)" if "@" in value else shown
