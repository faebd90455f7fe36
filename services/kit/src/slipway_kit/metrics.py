"""Prometheus metrics of one process. The registry belongs to the application, not to the module."""

from collections.abc import Awaitable, Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
UNMATCHED = "unmatched"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class HttpMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "http_requests_total", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self.duration = Histogram(
            "http_request_duration_seconds",
            "Time from the first byte of the request to the last of the answer.",
            ["method", "route"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.in_progress = Gauge("http_requests_in_progress", "Requests not answered yet.", registry=registry)
        # What labels() finds, without its checks and its lock. Routes, methods and statuses are few.
        self._found: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """`route` is a template; a method that is not one of HTTP's own becomes OTHER."""
        method = method if method in METHODS else "OTHER"
        found = self._found.get((method, route, status))
        if found is None:
            found = (self.requests.labels(method, route, str(status)), self.duration.labels(method, route))
            self._found[method, route, status] = found
        found[0].inc()
        found[1].observe(seconds)


def new_registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def route_template(scope: Scope) -> str:
    """The template of the matched route, such as /api/v1/posts/{post_id}.

    `scope["route"].path` lacks the prefix of included routers since FastAPI keeps routers as a tree (0.137): the
    whole template is in the effective route context. A path that no route matched must not become a label.
    """
    context = scope.get("fastapi", {}).get("effective_route_context")
    path = getattr(context or scope.get("route"), "path", None)
    return path if isinstance(path, str) and path else UNMATCHED


def metrics_endpoint(registry: CollectorRegistry) -> Callable[[Request], Awaitable[Response]]:
    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return metrics
