"""The arithmetic of the bench: small, without clocks and processes, so that it can be tested by itself."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

MICROSECONDS = 1_000_000


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (above 0, at most 1) of all values do not exceed (nearest rank).

    No interpolation: with few values, which uploads are, an invented value between two real ones would flatter.
    """
    if not values:
        raise ValueError("found no values, wanted at least one")
    if not 0 < share <= 1:
        raise ValueError(f"found the share {share}, wanted above 0 and at most 1, for example 0.95")
    # The product of decimals may lie a hair above the whole number that is meant: 0.95 x 20 is 19, not 20.
    rank = math.ceil(round(len(values) * share, 9))
    return sorted(values)[max(rank, 1) - 1]


def median(values: Iterable[float]) -> float:
    """The middle one, or the mean of the two middle ones."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("found no values, wanted at least one")
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


@dataclass(frozen=True)
class CpuTime:
    """What a process has used of the CPU since it started, in seconds."""

    user: float
    system: float

    @property
    def total(self) -> float:
        return self.user + self.system

    def __sub__(self, earlier: "CpuTime") -> "CpuTime":
        return CpuTime(self.user - earlier.user, self.system - earlier.system)


def parse_stat(text: str, ticks_per_second: int) -> CpuTime:
    """The fields utime and stime of /proc/<pid>/stat (proc(5): the 14th and the 15th), all threads together.

    The second field is the name of the program in parentheses and may hold blanks and parentheses itself: fields are
    counted from behind the last closing one. Children do not count.
    """
    _, found, rest = text.rpartition(")")
    fields = rest.split()
    if not found or len(fields) < 13:
        raise ValueError(f"found {text[:60]!r}, wanted a line of /proc/<pid>/stat")
    return CpuTime(int(fields[11]) / ticks_per_second, int(fields[12]) / ticks_per_second)


def microseconds_each(cpu: CpuTime, requests: int) -> float:
    """CPU microseconds per request."""
    if requests <= 0:
        raise ValueError("found no requests: nothing was answered")
    return cpu.total * MICROSECONDS / requests


def per_core(cpu: CpuTime, requests: int) -> float:
    """Requests for each second of CPU time: what one core answers when it does nothing else."""
    return MICROSECONDS / microseconds_each(cpu, requests)


def think_time_ms(connections: int, wanted_rate: float, latency_ms: float) -> float:
    """How long each of the connections has to pause between two requests for `wanted_rate` requests per second.

    By Little's law: connections = rate x (latency + pause). Never negative: more than all out is not possible.
    """
    if wanted_rate <= 0:
        raise ValueError(f"found the rate {wanted_rate}, wanted above 0")
    return max(0.0, connections / wanted_rate * 1000 - latency_ms)


# Upper bound in seconds -> observations up to it, as Prometheus counts them: cumulative, the last bound is infinite.
Buckets = Mapping[float, float]


def added(before: Buckets, after: Buckets) -> dict[float, float]:
    """What was observed between two looks at a histogram."""
    return {bound: count - before.get(bound, 0.0) for bound, count in after.items()}


def together(histograms: Iterable[Buckets]) -> dict[float, float]:
    """Several histograms with the same bounds as one."""
    total: dict[float, float] = {}
    bounds: set[float] | None = None
    for buckets in histograms:
        if bounds is not None and set(buckets) != bounds:
            raise ValueError("found histograms with different bounds, wanted the same ones")
        bounds = set(buckets)
        for bound, count in buckets.items():
            total[bound] = total.get(bound, 0.0) + count
    return total


def observations(buckets: Buckets) -> float:
    return buckets.get(math.inf, 0.0)


def histogram_quantile(buckets: Buckets, share: float) -> float:
    """As Prometheus' histogram_quantile: linear within the bucket that the wanted observation is in.

    What lies above the last finite bound is told as that bound, which is then a lower limit. No observations: NaN.
    """
    if not 0 < share <= 1:
        raise ValueError(f"found the share {share}, wanted above 0 and at most 1, for example 0.95")
    total = observations(buckets)
    if total <= 0:
        return math.nan
    rank = share * total
    lower, below = 0.0, 0.0
    for bound in sorted(bound for bound in buckets if math.isfinite(bound)):
        count = buckets[bound]
        if count >= rank:
            return lower + (bound - lower) * (rank - below) / (count - below)
        lower, below = bound, count
    return lower
