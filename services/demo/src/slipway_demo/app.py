"""The application: what is created. There is nothing to close: demo has neither a database nor anybody to call."""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypedDict

from fastapi import FastAPI
from slipway_kit.application import Runtime, build_app

from slipway_demo.endpoints import router
from slipway_demo.service import DemoService
from slipway_demo.settings import Settings


class State(TypedDict):
    demo: DemoService


def create_app(settings: Settings, chance: Callable[[], float] = random.random) -> FastAPI:
    runtime = Runtime.new("demo", settings)
    demo = DemoService(runtime.registry, chance, settings.slow_max)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        yield {"demo": demo}

    app = build_app(
        runtime,
        title="slipway demo",
        description="Fails and dawdles on demand.",
        routers=[router],
        lifespan=lifespan,
    )
    # The short name that its users know; Kubernetes asks /health/ready.
    app.add_api_route("/ready", runtime.health.ready, include_in_schema=False)
    return app
