"""What services say about themselves: their own Prometheus metrics, read as Prometheus would."""

import math

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from bench.arithmetic import added, together

Sample = tuple[str, dict[str, str], float]


class Exposed:
    """One look at the /metrics of one process."""

    def __init__(self, text: str) -> None:
        self._samples: list[Sample] = [
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    @classmethod
    def of(cls, url: str) -> "Exposed":
        answer = httpx2.get(f"{url}/metrics", timeout=10)
        answer.raise_for_status()
        return cls(answer.text)

    def histogram(self, name: str, /, **labels: str) -> dict[float, float]:
        """Cumulative buckets, those of all label values that are not given together. LookupError when there is none."""
        series: dict[tuple[tuple[str, str], ...], dict[float, float]] = {}
        for sample, found, value in self._samples:
            if sample == f"{name}_bucket" and labels.items() <= found.items():
                own = tuple(sorted((key, text) for key, text in found.items() if key != "le"))
                series.setdefault(own, {})[float(found["le"])] = value
        if not series:
            raise LookupError(f"found no histogram {name}{labels or ''} among the metrics")
        return together(series.values())

    def total(self, name: str, /, **labels: str) -> float:
        """The sum over all label values that are not given; 0 when nothing was counted yet."""
        return math.fsum(
            value for sample, found, value in self._samples if sample == name and labels.items() <= found.items()
        )


def observed(before: Exposed, after: Exposed, name: str, /, **labels: str) -> dict[float, float]:
    """What a histogram has seen between two looks; label values that came up in between count from zero."""
    try:
        earlier = before.histogram(name, **labels)
    except LookupError:
        earlier = {}
    return added(earlier, after.histogram(name, **labels))
