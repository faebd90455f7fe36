"""The frame of a service: everything that is the same in all of them, around the routers that are not."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
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

    @classmethod
    def new(cls, name: str, settings: ServiceSettings) -> "Runtime":
        lifecycle = Lifecycle()
        return cls(name, settings, new_registry(), lifecycle, Health(name, settings.service_version, lifecycle))


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
        lifespan=lifespan,
        middleware=[
            Middleware(RequestMiddleware, metrics=HttpMetrics(runtime.registry), lifecycle=runtime.lifecycle),
            Middleware(BodyLimitMiddleware, limit=body_limit, exceptions=body_limit_exceptions),
        ],
    )
    app.state.runtime = runtime
    install_problem_handlers(app)
    app.include_router(runtime.health.router())
    app.add_api_route("/metrics", metrics_endpoint(runtime.registry), include_in_schema=False)
    for router in routers:
        app.include_router(router)
    _describe_problems(app)
    return app


def _describe_problems(app: FastAPI) -> None:
    """Put the schema that `problems()` refers to into the OpenAPI document."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = ProblemDocument.model_json_schema()
        return document

    app.openapi = openapi  # type: ignore[method-assign]
