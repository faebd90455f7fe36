"""What the relay counts, by upstream."""

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram
from slipway_kit.metrics import BUCKETS

# ok: passed on as a whole. error: passed on, and 500 or above. No answer: unreachable, timeout, broken (also in the
# middle). Not asked: refused by the breaker, busy for want of a connection, unidentified for want of a service token.
# client: it left, or was too slow, or sent too much.
Outcome = Literal["ok", "error", "unreachable", "timeout", "broken", "refused", "busy", "unidentified", "client"]


class RelayMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.duration = Histogram(
            "upstream_duration_seconds",
            "Time from the last byte of a call to the head of its answer.",
            ["upstream"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.requests = Counter(
            "upstream_requests_total", "Relayed requests by how they ended.", ["upstream", "outcome"], registry=registry
        )
        self.retries = Counter("upstream_retries_total", "Calls made a second time.", ["upstream"], registry=registry)

    def count(self, upstream: str, outcome: Outcome) -> None:
        self.requests.labels(upstream, outcome).inc()
