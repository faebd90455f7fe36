"""`python -m slipway_<name>` serves, `... migrate` brings the schema up to date; services may have more commands."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import structlog
import uvicorn
from fastapi import FastAPI

from slipway_kit.application import Runtime
from slipway_kit.lifecycle import Server
from slipway_kit.logs import configure_logging
from slipway_kit.migrations import MigrationError, migrate
from slipway_kit.settings import DatabaseSettings, ServiceSettings, SettingsError

EXIT_USAGE = 2

S = TypeVar("S", bound=ServiceSettings)


Command = Callable[[S], Awaitable[int]]


def run(
    package: str,
    settings_class: type[S],
    create_app: Callable[[S], FastAPI],
    arguments: Sequence[str] | None = None,
    *,
    commands: Mapping[str, Command[S]] | None = None,
) -> int:
    """The exit code: 0, 1 for what went wrong while running, 2 for settings and usage.

    `commands` are what a service can do besides: each gets the settings and returns the exit code. Services with a
    database also have `migrate`.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    known: dict[str, Command[S]] = dict(commands or {})
    if issubclass(settings_class, DatabaseSettings):
        known["migrate"] = _migration(package)
    command = words[0] if words else "serve"
    if len(words) > 1 or command not in ("serve", *known):
        wanted = " or ".join(["serve (default)", *sorted(known)])
        return _complain(package, [f"found arguments {' '.join(words)!r}, wanted {wanted}"], EXIT_USAGE)
    try:
        settings = settings_class.load()
    except SettingsError as error:
        return _complain(package, error.lines, EXIT_USAGE)
    configure_logging(
        package.removeprefix("slipway_"), settings.service_version, settings.log_level, settings.log_format
    )
    if command == "serve":
        return serve(create_app(settings))
    try:
        return asyncio.run(_as_coroutine(known[command](settings)))
    except MigrationError as error:
        return _complain(package, [f"{command}: {error}"], 1)
    except Exception:
        structlog.get_logger().exception("command failed", command=command)
        return 1


def _migration(package: str) -> Command[Any]:
    async def command(settings: DatabaseSettings) -> int:
        applied = await migrate(settings, package)
        structlog.get_logger().info("schema is up to date", applied=applied)
        return 0

    return command


async def _as_coroutine(awaitable: Awaitable[int]) -> int:
    return await awaitable


def serve(app: FastAPI) -> int:
    runtime: Runtime = app.state.runtime
    settings = runtime.settings
    server = Server(uvicorn_config(app, settings), runtime.lifecycle, settings.shutdown_delay_seconds)
    try:
        server.run()
    except SystemExit:
        return 1
    return 0


def uvicorn_config(app: FastAPI, settings: ServiceSettings, **overrides: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        **{
            "host": settings.host,
            "port": settings.port,
            "loop": "uvloop",
            "http": "httptools",
            "ws": "none",
            "lifespan": "on",
            # RequestMiddleware writes the access line; uvicorn's own costs as much again and lacks the route.
            "access_log": False,
            "log_config": None,
            "server_header": False,
            # The address of the peer is what is logged. Whoever reads X-Forwarded-For has to know its proxies.
            "proxy_headers": False,
            # Above what ingress controllers (90 s) and our own client keep, so that the server never closes first.
            "timeout_keep_alive": 95,
            "timeout_graceful_shutdown": settings.shutdown_grace_seconds,
            **overrides,
        },
    )


def _complain(package: str, lines: Sequence[str], code: int) -> int:
    for line in lines:
        print(f"{package}: {line}", file=sys.stderr)
    return code
