"""The migrations runner: once, in order, by one at a time, and understandable when something is wrong."""

import asyncio
import secrets
import zlib
from pathlib import Path
from typing import Any

import pytest
from slipway_kit.migrations import MigrationError, load_migrations, migrate
from slipway_kit.settings import DatabaseSettings
from slipway_testing.postgres import Postgres
from slipway_testing.processes import free_port


@pytest.fixture
def settings(postgres: Postgres) -> DatabaseSettings:
    name = f"test_{secrets.token_hex(6)}"
    return new_settings(**postgres.create_database(name, name, "x"))


def new_settings(**values: Any) -> DatabaseSettings:
    return DatabaseSettings(port=1, public_url="https://slipway.test", **values)  # type: ignore[arg-type]


class Package:
    """A package that consists of migrations."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name = f"package_{secrets.token_hex(6)}"
        self.directory = directory / self.name / "migrations"
        self.directory.mkdir(parents=True)
        (directory / self.name / "__init__.py").touch()
        monkeypatch.syspath_prepend(str(directory))

    def write(self, name: str, sql: str) -> None:
        (self.directory / name).write_text(sql)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    package = Package(tmp_path, monkeypatch)
    package.write("0001_create.sql", "CREATE TABLE things (id int PRIMARY KEY); INSERT INTO things VALUES (1);")
    package.write("0002_more.sql", "INSERT INTO things SELECT count(*) + 1 FROM things;")
    return package


def things(postgres: Postgres, settings: DatabaseSettings) -> list[int]:
    return [row["id"] for row in postgres.query(settings.database_name, "SELECT id FROM things ORDER BY id")]


async def test_each_is_applied_once(settings: DatabaseSettings, package: Package) -> None:
    assert await migrate(settings, package.name) == ["0001", "0002"]
    assert await migrate(settings, package.name) == []
    package.write("0003_third.sql", "SELECT 1")
    assert await migrate(settings, package.name) == ["0003"]


def test_many_at_once_apply_each_once(settings: DatabaseSettings, package: Package, postgres: Postgres) -> None:
    package.write("0003_slow.sql", "SELECT pg_sleep(0.3); INSERT INTO things SELECT count(*) + 1 FROM things;")

    async def all_of_them() -> list[list[str]]:
        return await asyncio.gather(*(migrate(settings, package.name) for _ in range(6)))

    results = asyncio.run(all_of_them())
    assert sorted(results) == [[]] * 5 + [["0001", "0002", "0003"]]
    assert things(postgres, settings) == [1, 2, 3]


def test_a_failing_one_leaves_nothing_behind(settings: DatabaseSettings, package: Package, postgres: Postgres) -> None:
    package.write("0003_broken.sql", "INSERT INTO things VALUES (99); SELECT * FROM nowhere;")
    with pytest.raises(MigrationError, match=r"0003_broken\.sql failed and was rolled back: .*nowhere"):
        asyncio.run(migrate(settings, package.name))
    # What came before it stays, so that the next try starts there.
    assert things(postgres, settings) == [1, 2]
    package.write("0003_broken.sql", "INSERT INTO things VALUES (99);")
    assert asyncio.run(migrate(settings, package.name)) == ["0003"]


async def test_a_changed_file_is_refused(settings: DatabaseSettings, package: Package) -> None:
    await migrate(settings, package.name)
    package.write("0001_create.sql", "CREATE TABLE other (id int);")
    with pytest.raises(MigrationError, match=r"0001_create\.sql was changed after it had been applied"):
        await migrate(settings, package.name)


async def test_an_older_release_leaves_newer_migrations_alone(settings: DatabaseSettings, package: Package) -> None:
    package.write("0003_newer.sql", "ALTER TABLE things ADD COLUMN newer text")
    await migrate(settings, package.name)
    (package.directory / "0003_newer.sql").unlink()
    assert await migrate(settings, package.name) == []


async def test_the_turn_of_another_is_waited_for_but_not_for_ever(
    settings: DatabaseSettings, package: Package, postgres: Postgres
) -> None:
    holder = await postgres.connect(settings.database_name)
    try:
        await holder.execute("SELECT pg_advisory_lock($1)", zlib.crc32(package.name.encode()))
        short = settings.model_copy(update={"migrate_timeout": 0.5})
        with pytest.raises(MigrationError, match="another migration holds the lock"):
            await migrate(short, package.name)
        task = asyncio.create_task(migrate(settings, package.name))
        await asyncio.sleep(0.4)
        assert not task.done()
    finally:
        await holder.close()
    # A holder that dies gives its turn away.
    assert await task == ["0001", "0002"]


async def test_no_database(package: Package) -> None:
    port = free_port()
    values = {"database_host": "127.0.0.1", "database_port": port, "database_name": "d", "database_user": "u"}
    settings = new_settings(**values, database_password="hunter2", migrate_timeout=0.5)
    with pytest.raises(MigrationError) as error:
        await migrate(settings, package.name)
    message = str(error.value)
    assert message.startswith(f"no connection to u@127.0.0.1:{port}/d within 0.5 s: ConnectionRefusedError: ")
    assert "\n" not in message
    assert "hunter2" not in message


async def test_a_wrong_password_is_named(settings: DatabaseSettings, package: Package) -> None:
    wrong = new_settings(
        **(settings.model_dump(include=set(CONNECTION)) | {"database_password": "wrong", "migrate_timeout": 0.3})
    )
    with pytest.raises(MigrationError, match="InvalidPasswordError: password authentication failed"):
        await migrate(wrong, package.name)


CONNECTION = ("database_host", "database_port", "database_name", "database_user")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1_create.sql"], "wanted a name such as 0001_create_posts.sql"),
        (["0001_Create.sql"], "wanted a name such as"),
        (["0001_a.sql", "0003_c.sql"], r"wanted 0002_\*\.sql next, found 0003_c\.sql"),
        (["0001_a.sql", "0001_b.sql"], r"wanted 0002_\*\.sql next, found 0001_b\.sql"),
    ],
)
def test_names_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], message: str) -> None:
    package = Package(tmp_path, monkeypatch)
    for name in names:
        package.write(name, "SELECT 1")
    with pytest.raises(MigrationError, match=message):
        load_migrations(package.name)


@pytest.mark.parametrize("service", ["slipway_auth", "slipway_api", "slipway_image"])
def test_the_migrations_of_the_services_are_in_order(service: str) -> None:
    assert load_migrations(service)
