"""How often something was tried, by how it ended."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter
from slipway_kit.problems import Problem

# By the code of the problem that ended it. Every other problem or exception is ours, not the user's: `failed`.
RESULTS = {
    "username-taken": "taken",
    "invalid-request": "refused",
    "invalid-credentials": "refused",
    "invalid-refresh-token": "refused",
    "invalid-service-credentials": "refused",
    "rate-limited": "limited",
    "busy": "busy",
}
FAILED = "failed"


@dataclass
class Outcome:
    """Set `result` inside of the block where the problem alone does not tell enough."""

    result: str | None = None


class Outcomes:
    """A counter with the label `result`: each try is counted once, whichever way it leaves."""

    def __init__(self, name: str, what: str, registry: CollectorRegistry, success: str, *others: str) -> None:
        self._counter = Counter(name, what, ["result"], registry=registry)
        self._success = success
        # All from the beginning: the first increase of a series that was not there is none to Prometheus.
        for result in (success, FAILED, *others):
            self._counter.labels(result)

    @contextmanager
    def counted(self) -> Iterator[Outcome]:
        outcome = Outcome()
        try:
            yield outcome
        except BaseException as error:
            code = error.code if isinstance(error, Problem) else ""
            self._counter.labels(outcome.result or RESULTS.get(code, FAILED)).inc()
            raise
        self._counter.labels(outcome.result or self._success).inc()
