"""Settings: from the environment and from mounted files; every mistake is one line that says what to do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from slipway_api.settings import Settings as ApiSettings
from slipway_auth.settings import Settings as AuthSettings
from slipway_image.settings import Settings as ImageSettings
from slipway_kit.settings import ServiceSettings, SettingsError
from slipway_testing.tokens import new_pem

GOOD = {
    "PUBLIC_URL": "https://slipway.test",
    "DATABASE_HOST": "localhost",
    "DATABASE_NAME": "auth_db",
    "DATABASE_USER": "auth_user",
    "AUTH_URL": "http://auth:3001",
    "AUTH_JWKS_URL": "http://auth:3001/.well-known/jwks.json",
    "IMAGE_URL": "http://image:3003",
    "S3_ENDPOINT": "http://minio:9000",
    "S3_BUCKET": "images",
    "REDIS_HOST": "redis",
    "REDIS_USER": "auth",
    "SERVICE_TOKENS_URL": "http://auth:3001/service-tokens",
}
SECRETS = {
    "database_password": "db-secret",
    "redis_password": "redis-secret",
    "service_key": "k" * 64,
    "service_keys": json.dumps({"api": "k" * 64}),
    "s3_access_key": "access",
    "s3_secret_key": "s3-secret-key",
}


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in list(os.environ):
        if name not in ("PATH", "HOME"):
            monkeypatch.delenv(name)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name, value in SECRETS.items():
        (secrets / name).write_text(value + "\n")
    (secrets / "auth_signing_key").write_text(new_pem())
    monkeypatch.setenv("SLIPWAY_SECRETS_DIR", str(secrets))
    return monkeypatch


def lines(cls: type[ServiceSettings]) -> list[str]:
    with pytest.raises(SettingsError) as error:
        cls.load()
    return error.value.lines


@pytest.mark.parametrize(("cls", "port"), [(AuthSettings, 3001), (ApiSettings, 3002), (ImageSettings, 3003)])
def test_good_settings(environment: pytest.MonkeyPatch, cls: type[ServiceSettings], port: int) -> None:
    settings = cls.load()
    assert settings.port == port
    assert settings.public_base == "https://slipway.test"
    assert settings.secret("database_password") == "db-secret"
    assert "db-secret" not in repr(settings)


def test_a_rotated_secret_is_seen(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = AuthSettings.load()
    (tmp_path / "secrets/database_password").write_text("newer\n")
    assert settings.secret("database_password") == "newer"
    (tmp_path / "secrets/database_password").unlink()
    # While the mount is replaced nothing may be there for a moment.
    assert settings.secret("database_password") == "db-secret"


def test_the_environment_comes_before_the_file(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DATABASE_PASSWORD", "from-environment")
    assert AuthSettings.load().secret("database_password") == "from-environment"


def test_all_mistakes_come_at_once(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.delenv("DATABASE_HOST")
    environment.setenv("DATABASE_PORT", "5432x")
    environment.setenv("LOG_LEVEL", "loud")
    environment.setenv("PUBLIC_URL", "slipway.test")
    (tmp_path / "secrets/database_password").unlink()
    assert sorted(lines(AuthSettings)) == [
        "DATABASE_HOST: found nothing, wanted the address of Postgres, for example postgres.infrastructure.svc",
        f"DATABASE_PASSWORD (or the file {tmp_path}/secrets/database_password): found nothing, "
        "wanted the password of the database user",
        "DATABASE_PORT: found '5432x', wanted a port between 1 and 65535, for example 5432",
        "LOG_LEVEL: found 'loud', wanted one of debug, info, warning, error, for example info",
        "PUBLIC_URL: found 'slipway.test', wanted the URL under which users reach the platform, "
        "for example https://slipway.test",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "0"),
        ("PORT", "70000"),
        ("HASH_MEMORY_KIB", "1024"),
        ("HASH_PASSES", "1"),
        ("DATABASE_POOL_MAX", "0"),
        ("DATABASE_COMMAND_TIMEOUT", "-1"),
        ("SHUTDOWN_DELAY_SECONDS", "soon"),
        ("TOKEN_LIFETIME_SECONDS", "86400"),
        ("DATABASE_NAME", ""),
        ("DATABASE_TLS", "sometimes"),
        ("REDIS_TLS", "sometimes"),
        ("PORT", "three\nthousand " + "x" * 100),
    ],
)
def test_wrong_values_are_named_in_one_line(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(name, value)
    (line,) = lines(AuthSettings)
    assert line.startswith(f"{name}: found ")
    assert ", wanted " in line
    assert "\n" not in line
    assert len(line) < 200


@pytest.mark.parametrize(
    "key", ["not a key", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0LWtleQ==\n-----END PRIVATE KEY-----"]
)
def test_a_wrong_signing_key_is_not_shown(environment: pytest.MonkeyPatch, tmp_path: Path, key: str) -> None:
    (tmp_path / "secrets/auth_signing_key").write_text(key)
    (line,) = lines(AuthSettings)
    assert line.endswith("found a wrong value, wanted a private key in PEM form on the curve P-256")


def test_a_url_with_a_password_is_not_shown(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AUTH_URL", "user:hunter2@auth:3001")
    (line,) = lines(ApiSettings)
    assert "hunter2" not in line


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_ca_file_that_is_none_is_named_in_one_line(
    environment: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "ca.crt"
    if content is not None:
        file.write_text(content)
    environment.setenv("PLATFORM_CA_FILE", str(file))
    (line,) = lines(AuthSettings)
    wanted = "wanted a file with a CA's certificate in PEM form, for example /etc/slipway/ca.crt"
    assert line.startswith("PLATFORM_CA_FILE: found ")
    assert line.endswith(wanted)


def test_without_a_ca_file_there_is_none(environment: pytest.MonkeyPatch) -> None:
    assert AuthSettings.load().platform_ca_file is None
    environment.setenv("PLATFORM_CA_FILE", "")
    assert AuthSettings.load().platform_ca_file is None


@pytest.mark.parametrize("command", ["slipway_auth", "slipway_api serve", "slipway_image migrate"])
def test_the_command_ends_with_2_and_one_line(environment: pytest.MonkeyPatch, command: str) -> None:
    package, *arguments = command.split()
    environment.setenv("LOG_LEVEL", "loud")
    done = run(package, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    wanted = "LOG_LEVEL: found 'loud', wanted one of debug, info, warning, error, for example info"
    assert done.stderr == f"{package}: {wanted}\n"


def test_unknown_arguments(environment: pytest.MonkeyPatch) -> None:
    done = run("slipway_auth", "--reload")
    assert (done.returncode, done.stderr) == (
        2,
        "slipway_auth: found arguments '--reload', wanted serve (default) or migrate\n",
    )


def run(package: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", package, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
