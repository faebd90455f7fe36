"""The frame of a service: everything that is the same in all of them, around the routers that are not."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry
from starlette.middleware import Middleware

from slipway_kit.health import Health
from slipway_kit.lifecycle import Lifecycle
from slipway_kit.metrics import HttpMetrics, metrics_endpoint, new_registry
from slipway_kit.middleware import BodyLimitMiddleware, RequestMiddleware
from slipway_kit.problems import ProblemDocument, install_problem_handlers
from slipway_kit.settings import ServiceSettings
from slipway_kit.tracing import Tracing, start_tracing

# JSON bodies of these services are a few KiB. Whatever takes more says so by itself.
DEFAULT_BODY_LIMIT = 64 * 1024

State = Mapping[str, Any]
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[State]]


@dataclass(frozen=True)
class Runtime:
    """What exists before the lifespan starts and outlives it; one per application, none per module."""

    name: str
    settings: ServiceSettings
    registry: CollectorRegistry
    lifecycle: Lifecycle
    health: Health
    tracing: Tracing | None = None

    @classmethod
    def new(cls, name: str, settings: ServiceSettings) -> "Runtime":
        lifecycle = Lifecycle()
        registry = new_registry()
        health = Health(name, settings.service_version, lifecycle)
        # Before any client of a database or another service is made: those are instrumented from here on.
        return cls(name, settings, registry, lifecycle, health, start_tracing(name, settings, registry))


def build_app(
    runtime: Runtime,
    *,
    title: str,
    description: str,
    routers: Sequence[APIRouter],
    lifespan: Lifespan,
    body_limit: int = DEFAULT_BODY_LIMIT,
    body_limit_exceptions: Sequence[tuple[str, int | None]] = (),
) -> FastAPI:
    app = FastAPI(
        title=title,
        description=description,
        version=runtime.settings.service_version,
        docs_url=None,
        redoc_url=None,
        # A path with one slash too many is not found. The redirect would be built from the Host header.
        redirect_slashes=False,
        lifespan=_closing_traces(runtime, lifespan),
        # RequestMiddleware does this, for less, and with neither bodies nor messages of errors in it.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        middleware=[
            Middleware(
                RequestMiddleware,
                metrics=HttpMetrics(runtime.registry),
                lifecycle=runtime.lifecycle,
                tracing=runtime.tracing,
                trusted=runtime.settings.trusted_networks,
            ),
            Middleware(BodyLimitMiddleware, limit=body_limit, exceptions=body_limit_exceptions),
        ],
    )
    app.state.runtime = runtime
    install_problem_handlers(app)
    # Routes are tried one after the other: those of users come first.
    # Their own routes, without a router between: FastAPI would look for each route twice.
    for router in (*routers, runtime.health.router()):
        app.router.routes.extend(router.routes)
    app.add_api_route("/metrics", metrics_endpoint(runtime.registry), include_in_schema=False)
    _describe_problems(app)
    return app


def _closing_traces(runtime: Runtime, lifespan: Lifespan) -> Lifespan:
    """Everything that a service closes at its end may still be traced: the way to the collector is closed last."""

    @asynccontextmanager
    async def wrapped(app: FastAPI) -> AsyncIterator[State]:
        try:
            async with lifespan(app) as state:
                yield state
        finally:
            if runtime.tracing is not None:
                await asyncio.to_thread(runtime.tracing.close)

    return wrapped


def _describe_problems(app: FastAPI) -> None:
    """Put the schema that `problems()` refers to into the OpenAPI document."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = ProblemDocument.model_json_schema()
        return document

    app.openapi = openapi  # type: ignore[method-assign]
