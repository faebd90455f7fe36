"""A collector: takes traces by OTLP/HTTP and decodes them with the protocol's own definitions."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtocolSpan

SERVER = ProtocolSpan.SPAN_KIND_SERVER
CLIENT = ProtocolSpan.SPAN_KIND_CLIENT


@dataclass(frozen=True)
class Span:
    """What tests ask a span for. Ids are hexadecimal; a root has an empty `parent_id`."""

    service: str
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    error: bool
    message: str
    events: int


@dataclass
class Collector:
    url: str = ""
    status: int = 200
    delay: float = 0.0
    spans: list[Span] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)

    def receive(self, path: str, body: bytes) -> None:
        if path != "/v1/traces":
            raise ValueError(f"nothing is collected at {path}")
        self.bodies.append(body)
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _attributes(group.resource)
            self.resources.append(resource)
            for scope in group.scope_spans:
                self.spans += [_span(resource["service.name"], span) for span in scope.spans]

    def wait_for(self, count: int, seconds: float = 10) -> list[Span]:
        """Spans, as soon as there are so many; whatever there is when they do not come."""
        deadline = time.monotonic() + seconds
        while len(self.spans) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.spans

    def one(self, kind: int, name: str) -> Span:
        """The only span of that kind and name."""
        (span,) = [span for span in self.spans if (span.kind, span.name) == (kind, name)]
        return span


def _span(service: str, span: Any) -> Span:
    return Span(
        service=service,
        name=span.name,
        kind=span.kind,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes=_attributes(span),
        error=span.status.code == 2,
        message=span.status.message,
        events=len(span.events),
    )


def _attributes(owner: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in owner.attributes}


@contextmanager
def running_collector() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(collector.delay)
            if collector.status == 200:
                collector.receive(self.path, body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(collector.status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        collector.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join(5)
