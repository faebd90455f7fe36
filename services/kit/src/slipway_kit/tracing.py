"""Traces, when a collector is configured. Without one the libraries for it are not even loaded."""

from typing import Protocol

from prometheus_client import CollectorRegistry

from slipway_kit.settings import ServiceSettings


class ServerSpan(Protocol):
    """The span of one request: current, and so the parent of all others that begin meanwhile, until it ends."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits, as in `traceparent`."""

    def end(self, method: str, route: str, status: int) -> None:
        """`route` is the template, `status` what the access line shows; 500 and above are errors."""


class Tracing(Protocol):
    """One process's way to a collector."""

    def server_span(self, method: str, path: str, traceparent: str, tracestate: str) -> ServerSpan:
        """Begin the span of a request, as a child of the caller's when it sent these headers (else empty)."""

    def close(self) -> None:
        """Send what is left, within a few seconds. Blocks."""


def start_tracing(name: str, settings: ServiceSettings, registry: CollectorRegistry) -> Tracing | None:
    """For a whole process: the clients of databases and other services are instrumented globally."""
    if settings.otel_exporter_otlp_endpoint is None:
        return None
    from slipway_kit.otlp import OtlpTracing

    return OtlpTracing(
        name,
        settings.service_version,
        str(settings.otel_exporter_otlp_endpoint).rstrip("/") + "/v1/traces",
        settings.trace_sample_ratio,
        registry,
    )
