"""What is measured, one function per group of rows. The goals stand here and nowhere else."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from bench import arithmetic, load, processes, uploads
from bench.load import Request
from bench.metrics import observed
from bench.platform import UNCOUNTED, UNTRACED, Running, memory_limit_mib
from bench.report import Row, at_least, at_most, below, number, plain
from bench.users import Prepared

# Connections at full speed: enough to keep one core busy, too few to only measure queues.
CONNECTIONS = 16
# Connections at a given rate: many that pause long behave like independent users.
CALM_CONNECTIONS = 64
CALM_SHARE = 0.8
MIXED_RATE = 200
LOGIN_CONNECTIONS = 8
UPLOADS_AT_A_TIME = 4
MANY_UPLOADS = 100

# Service, and the requests that it gets in turn.
Target = tuple[str, Sequence[Request]]
DEMO = "demo GET /api/data"
# Not what the goals are about, but what the cache saves is worth a look.
NEXT = "the page after it (not cached)"
WITHOUT_GOAL = ("bare FastAPI", NEXT)

GOAL_CPU_US = 900
GOAL_RATE = 1000
GOAL_CALM_MS = 100
GOAL_LOGIN_SHARE = 90
GOAL_UPLOAD_SHARE = 60
GOAL_UPLOAD_P95_S = 5
GOAL_UPLOAD_MEMORY_MIB = 256
GOAL_UPSTREAM_P95_MS = 10
GOAL_DATABASE_P95_MS = 50


@dataclass(frozen=True)
class Plan:
    """How long and how often; seconds are whole, as wrk takes them."""

    rounds: int
    seconds: int
    calm_seconds: int
    login_seconds: int
    mixed_seconds: int
    uploads: int


FULL = Plan(rounds=5, seconds=3, calm_seconds=6, login_seconds=6, mixed_seconds=10, uploads=24)
QUICK = Plan(rounds=1, seconds=2, calm_seconds=2, login_seconds=2, mixed_seconds=3, uploads=8)


@dataclass
class Bench:
    running: Running
    prepared: Prepared
    plan: Plan
    # Everything that was measured, for the receipt.
    raw: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def picture(self) -> uploads.Picture:
        """Takes a second to make."""
        return uploads.Picture()


@dataclass(frozen=True)
class FullSpeed:
    """A service on a core of its own, asked as fast as it answers: lowest cost of its rounds, medians of the rest."""

    cpu_us: float
    per_core: float
    # Answers per second as they came; and how much of its core the service used.
    rate: float
    busy: float
    failed: int


def full_speed(bench: Bench, targets: Mapping[str, Target]) -> dict[str, FullSpeed]:
    """Rounds go through all targets: what disturbs the machine disturbs them all.

    Of the cost the lowest counts, as timeit has it: caches that others use, too, only add to it.
    """
    seen: dict[str, list[tuple[float, float, float]]] = {name: [] for name in targets}
    failed = dict.fromkeys(targets, 0)
    for turn in range(bench.plan.rounds):
        for name, (service, requests) in targets.items():
            bench.running.alone(service)
            if turn == 0:
                _wrk(bench, service, requests, CONNECTIONS, 1)
            pid = bench.running.services[service].pid
            before = processes.cpu_time(pid)
            result = _wrk(bench, service, requests, CONNECTIONS, bench.plan.seconds)
            used = processes.cpu_time(pid) - before
            cpu_us = arithmetic.microseconds_each(used, result.requests)
            seen[name].append((cpu_us, result.rate, used.total / result.seconds))
            failed[name] += result.failed
            bench.raw[f"{name}, round {turn + 1}"] = asdict(result) | {"cpu": asdict(used)}
    found = {}
    for name, rounds in seen.items():
        costs, rates, busy = zip(*rounds, strict=True)
        cpu_us = min(costs)
        found[name] = FullSpeed(
            cpu_us, arithmetic.MICROSECONDS / cpu_us, arithmetic.median(rates), arithmetic.median(busy), failed[name]
        )
    return found


def calm(bench: Bench, name: str, target: Target, top_rate: float) -> load.Result:
    """The same service at 80 % of what it answered at full speed."""
    service, requests = target
    wanted = top_rate * CALM_SHARE
    bench.running.alone(service)
    # The pause depends on the latency, and the latency on the pause: a short run tells it well enough.
    pause = arithmetic.think_time_ms(CALM_CONNECTIONS, wanted, latency_ms=2)
    tried = _wrk(bench, service, requests, CALM_CONNECTIONS, 1, pause)
    pause = arithmetic.think_time_ms(CALM_CONNECTIONS, wanted, tried.mean_ms)
    result = _wrk(bench, service, requests, CALM_CONNECTIONS, bench.plan.calm_seconds, pause)
    bench.raw[f"{name}, calm"] = asdict(result) | {"wanted_rate": wanted}
    return result


def targets_of(prepared: Prepared) -> dict[str, Target]:
    """What is measured at full speed, by name."""
    return {
        "bare FastAPI": ("bare", prepared.bare),
        "GET /api/v1/posts (20)": ("api", prepared.posts),
        NEXT: ("api", prepared.next_posts),
        "auth POST /verify": ("auth", prepared.verify),
        "image metadata": ("image", prepared.metadata),
        DEMO: ("demo", prepared.demo),
    }


def profile(bench: Bench, service: str) -> int:
    """Ask a service that runs under cProfile for what it is measured by; returns how often."""
    requests = next(requests for name, requests in targets_of(bench.prepared).values() if name == service)
    bench.running.alone(service)
    _wrk(bench, service, requests, CONNECTIONS, 2)
    bench.running.services[service].popen.send_signal(signal.SIGUSR1)
    return _wrk(bench, service, requests, CONNECTIONS, bench.plan.seconds * 2).requests


def http(bench: Bench) -> list[Row]:
    """CPU per request, requests per second and core, latency at 80 % load."""
    targets = targets_of(bench.prepared)
    del targets[DEMO]
    exported = bench.running.traced()["exports"]
    fast = full_speed(bench, targets)
    bare = fast["bare FastAPI"]
    rows: list[Row] = []
    for name, one in fast.items():
        measure, beside = f"CPU of a request: {name}", f"{one.cpu_us / bare.cpu_us:.1f} x bare" + _failures(one.failed)
        if name in WITHOUT_GOAL:
            rows.append(plain(measure, one.cpu_us, "us", beside=beside))
        else:
            rows.append(at_most(measure, one.cpu_us, GOAL_CPU_US, "us", beside=beside))
    for name, one in fast.items():
        measure = f"requests per core: {name}"
        if name in WITHOUT_GOAL:
            rows.append(plain(measure, one.per_core, "req/s", beside=_wall(one)))
        else:
            rows.append(at_least(measure, one.per_core, GOAL_RATE, "req/s", beside=_wall(one)))
    for name, target in targets.items():
        result = calm(bench, name, target, fast[name].rate)
        measure = f"latency at 80 % load, mean: {name}"
        beside = f"p95 {number(result.p95_ms)} ms at {result.rate / fast[name].rate:.0%} of its top rate"
        beside += _failures(result.failed)
        if name in WITHOUT_GOAL:
            rows.append(plain(measure, result.mean_ms, "ms", beside=beside))
        else:
            rows.append(below(measure, result.mean_ms, GOAL_CALM_MS, "ms", beside=beside))
    bench.raw["trace exports"] = bench.running.traced()
    if bench.running.traced()["exports"] <= exported:
        raise RuntimeError("no traces arrived at the sink: what was measured is not the services with everything on")
    return rows


def telemetry(bench: Bench) -> list[Row]:
    """What traces and metrics add to a request: the same gateway with both, with metrics alone and without either."""
    names = {"traces and metrics": "api", "metrics, no traces": UNTRACED, "neither": UNCOUNTED}
    targets = {name: (service, bench.prepared.posts) for name, service in names.items()}
    exported = bench.running.traced()["exports"]
    fast = full_speed(bench, targets)
    if bench.running.traced()["exports"] <= exported:
        raise RuntimeError("no traces arrived at the sink: what was measured with traces had none")
    full, untraced, neither = (fast[name] for name in names)
    rows = [
        plain(f"CPU of a request: posts with {name}", one.cpu_us, "us", beside=_wall(one)) for name, one in fast.items()
    ]
    for name, more, less in (("traces", full, untraced), ("metrics", untraced, neither)):
        added = more.cpu_us - less.cpu_us
        beside = f"{added / less.cpu_us:+.0%} of what it costs without"
        rows.append(plain(f"CPU that {name} add to a request", added, "us", beside=beside))
    return rows


def logins(bench: Bench) -> list[Row]:
    """Logins per second of CPU time beside the bare hash, in the same seconds on the same core.

    A hash goes through 19 MiB of memory, so what else the machine does makes it slower: the database, the load
    generator, a neighbour. One after the other would compare different conditions.
    """
    bench.running.alone("auth")
    _wrk(bench, "auth", bench.prepared.logins, LOGIN_CONNECTIONS, 1)
    pid = bench.running.services["auth"].pid
    with _bare_hashes(bench) as hashing:
        before = processes.cpu_time(pid)
        result = _wrk(bench, "auth", bench.prepared.logins, LOGIN_CONNECTIONS, bench.plan.login_seconds)
        used = processes.cpu_time(pid) - before
    hashes = hashing[0]["per_core"]
    good = result.requests - result.failed
    bench.raw["logins"] = asdict(result) | {"cpu": asdict(used), "bare hashes": hashing[0]}
    return [
        plain("bare argon2id hashes per core", hashes, "/s", beside=f"{hashing[0]['per_second']:.1f} /s came"),
        at_least(
            "logins per core, share of the bare hash",
            100 * arithmetic.per_core(used, good) / hashes,
            GOAL_LOGIN_SHARE,
            "%",
            beside=f"{arithmetic.per_core(used, good):.1f} per core; {good / result.seconds:.1f} /s came, "
            f"{used.total / result.seconds:.0%} of the core" + _failures(result.failed),
        ),
    ]


def upload_throughput(bench: Bench) -> list[Row]:
    """Through the gateway and the image service, and straight to the store, taking turns."""
    running, plan = bench.running, bench.plan
    running.side_by_side()
    picture = bench.picture
    ways: dict[str, Callable[[], uploads.Send]] = {
        "gateway": lambda: uploads.to_gateway(picture, running.urls["api"], bench.prepared.token),
        "store": lambda: uploads.to_store(picture, running.store, "straight"),
    }
    parts = {name: [running.services[name].pid] for name in ("api", "image")}
    parts |= {"store": processes.named(os.getpid(), "minio"), "client": [os.getpid()]}
    found: dict[str, list[uploads.Uploads]] = {name: [] for name in ways}
    # Of each way, the CPU seconds of each part.
    spent = {name: dict.fromkeys(parts, 0.0) for name in ways}
    for _ in range(plan.rounds):
        for name, send in ways.items():
            sends = [send() for _ in range(plan.uploads)]
            before = {part: sum(processes.cpu_time(pid).total for pid in pids) for part, pids in parts.items()}
            done = asyncio.run(uploads.upload(sends, at_a_time=UPLOADS_AT_A_TIME, bytes_each=picture.size))
            found[name].append(done)
            for part, pids in parts.items():
                spent[name][part] += sum(processes.cpu_time(pid).total for pid in pids) - before[part]
    rate = {name: arithmetic.median(done.mb_per_second for done in all_) for name, all_ in found.items()}
    latencies = {name: [one for done in all_ for one in done.latencies] for name, all_ in found.items()}
    bench.raw["uploads"] = {name: [asdict(done) for done in all_] for name, all_ in found.items()}
    p95 = {name: arithmetic.percentile(all_, 0.95) if all_ else float("nan") for name, all_ in latencies.items()}
    each = {
        name: {part: 1000 * seconds / (plan.uploads * plan.rounds) for part, seconds in used.items()}
        for name, used in spent.items()
    }
    bench.raw["uploads, CPU ms each"] = each
    failed = sum(sum(done.statuses.values()) - done.stored for all_ in found.values() for done in all_)
    return [
        at_least(
            "10 MB uploads, share of straight to the store",
            100 * rate["gateway"] / rate["store"] if rate["store"] else float("nan"),
            GOAL_UPLOAD_SHARE,
            "%",
            beside=f"{rate['gateway']:.0f} of {rate['store']:.0f} MB/s, {UPLOADS_AT_A_TIME} at a time"
            + _failures(failed),
        ),
        below(
            "10 MB upload through the gateway, p95",
            p95["gateway"],
            GOAL_UPLOAD_P95_S,
            "s",
            beside=f"straight {number(p95['store'])} s",
        ),
        plain(
            "CPU of a 10 MB upload through the gateway",
            sum(each["gateway"].values()),
            "ms",
            beside=_cpu(each["gateway"]),
        ),
        plain("CPU of the same straight to the store", sum(each["store"].values()), "ms", beside=_cpu(each["store"])),
    ]


def many_uploads(bench: Bench) -> list[Row]:
    """A hundred at once: what they take of memory, and what becomes of them."""
    running = bench.running
    running.side_by_side()
    picture = bench.picture
    watched = {name: running.services[name].pid for name in ("image", "api")}
    for pid in watched.values():
        processes.reset_peak_memory(pid)
    send = uploads.to_gateway(picture, running.urls["api"], bench.prepared.token)
    done = asyncio.run(uploads.upload([send] * MANY_UPLOADS, at_a_time=MANY_UPLOADS, bytes_each=picture.size))
    running.check()
    peaks = {name: processes.peak_memory_mib(pid) for name, pid in watched.items()}
    other = {status: count for status, count in done.statuses.items() if status not in (201, 503)}
    bench.raw["many uploads"] = asdict(done) | {"peak memory": peaks}
    at_once = f"{MANY_UPLOADS} uploads of 10 MB at once"
    return [
        below(
            f"{at_once}: peak memory of image",
            peaks["image"],
            GOAL_UPLOAD_MEMORY_MIB,
            "MiB",
            beside=f"{number(processes.memory_mib(watched['image']))} MiB afterwards",
        ),
        below(
            f"{at_once}: peak memory of api",
            peaks["api"],
            memory_limit_mib("api"),
            "MiB",
            beside=f"{number(processes.memory_mib(watched['api']))} MiB afterwards",
        ),
        at_most(
            f"{at_once}: neither stored nor told 503",
            sum(other.values()),
            0,
            "uploads",
            beside=f"{done.told(201)} stored, {done.told(503)} told 503"
            + (f", others: {other}" if other else "")
            + f"; p95 {number(done.percentile(0.95))} s",
        ),
    ]


def everyday(bench: Bench) -> list[Row]:
    """A mixed load through the gateway, and what the services themselves say about their calls and queries."""
    running = bench.running
    running.side_by_side()
    names = ("api", "auth", "image")
    before = {name: running.metrics(name) for name in names}
    pause = arithmetic.think_time_ms(CALM_CONNECTIONS, MIXED_RATE, latency_ms=5)
    result = _wrk(bench, "api", bench.prepared.mixed, CALM_CONNECTIONS, bench.plan.mixed_seconds, pause)
    after = {name: running.metrics(name) for name in names}
    bench.raw["everyday"] = asdict(result)
    upstream = {
        name: observed(before["api"], after["api"], "upstream_duration_seconds", upstream=name)
        for name in ("auth", "image")
    }
    database = {name: observed(before[name], after[name], "db_query_duration_seconds") for name in names}
    at_rate = f"{result.rate:.0f} mixed req/s"
    return [
        below(
            f"service to service at {at_rate}, p95",
            _p95_ms(upstream.values()),
            GOAL_UPSTREAM_P95_MS,
            "ms",
            beside=_each(upstream) + _failures(result.failed),
        ),
        below(
            f"database at {at_rate}, p95",
            _p95_ms(database.values()),
            GOAL_DATABASE_P95_MS,
            "ms",
            beside=_each(database),
        ),
        plain(f"gateway at {at_rate}, p95", result.p95_ms, "ms", beside=f"mean {number(result.mean_ms)} ms"),
    ]


def demo(bench: Bench) -> list[Row]:
    """The demo service by itself: what its users' load tests will find."""
    fast = full_speed(bench, {DEMO: ("demo", bench.prepared.demo)})[DEMO]
    result = calm(bench, DEMO, ("demo", bench.prepared.demo), fast.rate)
    pid = bench.running.services["demo"].pid
    limit = memory_limit_mib("demo")
    return [
        plain("demo: requests per core", fast.per_core, "req/s", beside=_wall(fast)),
        plain(
            "demo: latency at 80 % load, p95",
            result.p95_ms,
            "ms",
            beside=f"p50 {number(result.p50_ms)} ms, p99 {number(result.p99_ms)} ms at {result.rate:.0f} req/s"
            + _failures(result.failed),
        ),
        below(
            "demo: peak memory of the process",
            processes.peak_memory_mib(pid),
            limit,
            "MiB",
            beside=f"{number(processes.memory_mib(pid))} MiB now",
        ),
    ]


GROUPS: Mapping[str, Callable[[Bench], list[Row]]] = {
    "http": http,
    "telemetry": telemetry,
    "logins": logins,
    "uploads": upload_throughput,
    "many-uploads": many_uploads,
    "everyday": everyday,
    "demo": demo,
}


def _wrk(
    bench: Bench, service: str, requests: Sequence[Request], connections: int, seconds: int, pause_ms: float = 0
) -> load.Result:
    url = bench.running.urls[service]
    result = load.run(
        url, requests, connections=connections, seconds=seconds, folder=bench.running.folder, pause_ms=pause_ms
    )
    bench.running.check()
    return result


@contextmanager
def _bare_hashes(bench: Bench) -> Iterator[list[dict[str, float]]]:
    """The bare hash on the core on which the services are measured, for as long as the block; then what it counted."""
    cpus = ",".join(map(str, sorted(bench.running.cores.service)))
    command = ["taskset", "--cpu-list", cpus, sys.executable, "-m", "bench.hashing"]
    counted: list[dict[str, float]] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as hashing:
        try:
            # It says when it begins: what it takes to start it is not measured.
            if not (hashing.stdout and hashing.stdout.readline()):
                raise RuntimeError("bench.hashing ended before it began")
            yield counted
            output, _ = hashing.communicate("end", timeout=30)
        finally:
            hashing.kill()
    counted.append(json.loads(output))


def _p95_ms(histograms: Any) -> float:
    return 1000 * arithmetic.histogram_quantile(arithmetic.together(histograms), 0.95)


def _each(histograms: Mapping[str, arithmetic.Buckets]) -> str:
    return ", ".join(
        f"{name} {number(_p95_ms([buckets]))} ms ({arithmetic.observations(buckets):.0f})"
        for name, buckets in histograms.items()
    )


def _cpu(milliseconds: Mapping[str, float]) -> str:
    return ", ".join(f"{part} {number(used)} ms" for part, used in milliseconds.items())


def _wall(one: FullSpeed) -> str:
    return f"{one.rate:.0f} req/s came, {one.busy:.0%} of the core" + _failures(one.failed)


def _failures(count: int) -> str:
    return f", {count} FAILED" if count else ""
