"""Traces by OTLP/HTTP: the official SDK, with the instrumentations of the clients in use.

The server span is made by RequestMiddleware and not by the instrumentation of FastAPI, which adds a span for each
piece of a body and costs several times as much.

A request never waits for the collector: ended spans go into a bounded queue, which a thread empties. While the
collector is away the thread gives up batch by batch, and what does not fit into the queue is dropped.
"""

import logging
import os
import threading
from collections.abc import Sequence
from contextvars import Token
from typing import Any

import requests
import structlog

# Read when the first instrumentation is set up: the names of the stable conventions instead of those from before.
os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http,database")

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.instrumentation.asyncpg import AsyncPGInstrumentor
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.instrumentation.urllib3 import URLLib3Instrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry, Counter

# At most so many spans wait (about 5 MiB), and so many travel at a time.
QUEUE = 4096
BATCH = 512
SEND_EVERY_SECONDS = 2.0
# For one batch with all of its tries; and for the last batches, when the process ends.
SEND_TIMEOUT = 3.0
CLOSE_TIMEOUT = 3.0

log = structlog.get_logger()


class OtlpServerSpan:
    """See tracing.ServerSpan. Begins and ends in the same task."""

    __slots__ = ("_span", "_token", "trace_id")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._token: Token[Context] = attach(trace.set_span_in_context(span))
        self.trace_id = format(span.get_span_context().trace_id, "032x")

    def end(self, method: str, route: str, status: int) -> None:
        detach(self._token)
        span = self._span
        if span.is_recording():
            span.update_name(f"{method} {route}")
            span.set_attribute("http.route", route)
            span.set_attribute("http.response.status_code", status)
            if status >= 500:
                span.set_attribute("error.type", str(status))
                span.set_status(StatusCode.ERROR)
        span.end()


class OtlpTracing:
    """See tracing.Tracing."""

    def __init__(self, name: str, version: str, endpoint: str, ratio: float, registry: CollectorRegistry) -> None:
        spans = Counter("trace_spans_total", "Spans by what became of them.", ["result"], registry=registry)
        self._provider = TracerProvider(
            sampler=RequestSampler(ratio),
            resource=Resource.create(
                {"service.name": name, "service.namespace": "slipway", "service.version": version}
            ),
            # Instrumentations note exceptions as events, with messages that may hold what a user sent.
            span_limits=SpanLimits(max_events=0, max_span_attribute_length=512),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(_Processor(_Exporter(endpoint, spans), spans))
        self._tracer = self._provider.get_tracer("slipway")
        self._propagator = TraceContextTextMapPropagator()
        self._instrumentors = _instrument(self._provider)

    def server_span(self, method: str, path: str, traceparent: str, tracestate: str) -> OtlpServerSpan:
        carrier = {"traceparent": traceparent, "tracestate": tracestate} if traceparent else {}
        return OtlpServerSpan(
            self._tracer.start_span(
                # The route is known at the end only.
                method,
                context=self._propagator.extract(carrier, Context()),
                kind=SpanKind.SERVER,
                attributes={"http.request.method": method, "url.path": path},
            )
        )

    def close(self) -> None:
        for instrumentor in self._instrumentors:
            instrumentor.uninstrument()
        # The SDK waits for up to 30 s and takes no other number.
        last = threading.Thread(target=self._provider.shutdown, name="last-traces", daemon=True)
        last.start()
        last.join(CLOSE_TIMEOUT)


class RequestSampler(Sampler):
    """The same share of traces in all services, chosen by trace id: traces are whole, and a client that sets the
    sampled flag of its `traceparent` cannot make us record more.

    A call that belongs to no request, such as a look at Redis every second or a probe, is not recorded at all.
    """

    def __init__(self, ratio: float) -> None:
        share = TraceIdRatioBased(ratio)
        self._by_parent = ParentBased(root=share, remote_parent_sampled=share)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        *details: Any,
        **more: Any,
    ) -> SamplingResult:
        belongs = kind is SpanKind.SERVER or trace.get_current_span(parent_context).get_span_context().is_valid
        chosen = self._by_parent if belongs else ALWAYS_OFF
        return chosen.should_sample(parent_context, trace_id, name, kind, *details, **more)

    def get_description(self) -> str:
        return "RequestSampler"


class _Processor(BatchSpanProcessor):
    """Also counts: what was recorded, but neither delivered nor lost, waits, or was dropped from a full queue."""

    def __init__(self, exporter: SpanExporter, spans: Counter) -> None:
        super().__init__(
            exporter,
            max_queue_size=QUEUE,
            max_export_batch_size=BATCH,
            schedule_delay_millis=SEND_EVERY_SECONDS * 1000,
        )
        self._recorded = spans.labels("recorded")

    def on_end(self, span: ReadableSpan) -> None:
        self._recorded.inc()
        super().on_end(span)


class _Exporter(SpanExporter):
    """Counts what arrived and what did not, and says each change in one line."""

    def __init__(self, endpoint: str, spans: Counter) -> None:
        # They would say with every batch, and with every span of a full queue, what is said here once and counted.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        logging.getLogger("opentelemetry.sdk").setLevel(logging.ERROR)
        session = requests.Session()
        # A collector is a neighbour: no proxy, no .netrc.
        session.trust_env = False
        self._otlp = OTLPSpanExporter(endpoint, timeout=SEND_TIMEOUT, session=session)
        self._endpoint = endpoint
        self._delivered, self._lost = spans.labels("delivered"), spans.labels("lost")
        self._working = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._otlp.export([_without_message(span) for span in spans])
        working = result is SpanExportResult.SUCCESS
        (self._delivered if working else self._lost).inc(len(spans))
        if working != self._working:
            self._working = working
            (log.info if working else log.warning)("traces", delivered=working, collector=self._endpoint)
        return result

    def shutdown(self) -> None:
        self._otlp.shutdown()  # type: ignore[no-untyped-call]


def _without_message(span: ReadableSpan) -> ReadableSpan:
    """The message of an exception may hold what a user sent; its class stays, in `error.type`."""
    if not span.status.description:
        return span
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=span.attributes,
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _instrument(provider: TracerProvider) -> list[Any]:
    """Client spans: of each query, each call of another service, each Redis command and each request to the store."""
    # Queries of URLs stay out, as they stay out of the log.
    options: list[tuple[Any, dict[str, Any]]] = [
        (AioHttpClientInstrumentor(), {"url_filter": lambda url: str(url.with_query(None))}),
        (AsyncPGInstrumentor(), {}),  # type: ignore[no-untyped-call]
        (RedisInstrumentor(), {}),
        (URLLib3Instrumentor(), {"url_filter": lambda url: url.partition("?")[0]}),
    ]
    for instrumentor, arguments in options:
        instrumentor.instrument(tracer_provider=provider, **arguments)
    return [instrumentor for instrumentor, _ in options]
