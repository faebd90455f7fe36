"""HTTP of demo."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from slipway_kit.application import Runtime
from slipway_kit.problems import problems

from slipway_demo.schemas import Data, Flaky, Index, Link, Slow, Status
from slipway_demo.service import DemoService

MAX_DELAY_MS = 10_000
MAX_ITEMS = 100

LINKS = [
    Link(path="/health", purpose="every dependency (there is none), and whether it is shutting down"),
    Link(path="/ready", purpose="whether it wants traffic"),
    Link(path="/metrics", purpose="Prometheus metrics"),
    Link(path="/api/data", purpose="some items"),
    Link(path="/api/status", purpose="this process: version, uptime, failures"),
    Link(path="/api/flaky?failure_rate=0.1", purpose="fails in that share of all cases"),
    Link(path="/api/slow?delay_ms=1000", purpose="answers after that time"),
]

router = APIRouter(tags=["demo"])


async def _demo(request: Request) -> DemoService:
    service: DemoService = request.state.demo
    return service


async def _runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


Demo = Annotated[DemoService, Depends(_demo)]
Process = Annotated[Runtime, Depends(_runtime)]
Count = Annotated[int, Query(ge=1, le=MAX_ITEMS, description="Items, at most 100.")]
# NaN is neither below nor above anything: without the word it would slip through comparisons.
FailureRate = Annotated[
    float, Query(ge=0, le=1, allow_inf_nan=False, description="Share of the answers that fail: 0 none, 1 all.")
]
DelayMs = Annotated[int, Query(ge=0, le=MAX_DELAY_MS, description="Milliseconds, at most 10000.")]


@router.get("/", responses=problems())
async def index(process: Process) -> Index:
    """What there is to try."""
    return Index(service=process.name, version=process.settings.service_version, links=LINKS)


@router.get("/api/data", responses=problems())
async def data(demo: Demo, count: Count = 20) -> Data:
    return demo.data(count)


@router.get("/api/status", responses=problems())
async def status(demo: Demo, process: Process) -> Status:
    return Status(
        status="draining" if process.lifecycle.draining else "ok",
        service=process.name,
        version=process.settings.service_version,
        started_at=demo.started_at,
        uptime_seconds=round(demo.uptime_seconds, 3),
        failures_caused=demo.failures,
        slow_in_progress=demo.dawdling,
    )


# Tests that take each 500 for a fault read this mark, instead of knowing the path.
@router.get("/api/flaky", responses=problems(), openapi_extra={"x-fails-on-purpose": True})
async def flaky(demo: Demo, failure_rate: FailureRate = 0.1) -> Flaky:
    """Fails with 500 `flaky-failure` in the given share of all cases. That is its purpose, not a fault."""
    return demo.flaky(failure_rate)


@router.get("/api/slow", responses=problems(503))
async def slow(demo: Demo, delay_ms: DelayMs = 1000) -> Slow:
    """Answers after the given time; 503 `busy` when too many are waiting already."""
    return await demo.slow(delay_ms)
