"""From what was counted to the rows of the table: with a machine of our own making, whose numbers are known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import load, processes, report, scenarios, uploads
from bench.arithmetic import CpuTime
from bench.load import Request
from bench.metrics import Exposed
from bench.platform import memory_limit_mib
from bench.scenarios import Bench, Plan
from bench.users import Prepared

PLAN = Plan(rounds=3, seconds=2, calm_seconds=2, login_seconds=2, mixed_seconds=2, uploads=4)
PREPARED = Prepared(
    token="token",
    bare=[Request("GET", "/")],
    posts=[Request("GET", "/posts")],
    next_posts=[Request("GET", "/posts?cursor=x")],
    verify=[Request("POST", "/verify")],
    metadata=[Request("GET", "/metadata")],
    demo=[Request("GET", "/data")],
    logins=[Request("POST", "/login")],
    mixed=[Request("GET", "/mixed")],
)


def result(requests: int, *, seconds: float = 2.0, mean_ms: float = 4.0, failed: int = 0) -> load.Result:
    return load.Result(requests, seconds, mean_ms, mean_ms, mean_ms * 2, mean_ms * 3, failed)


@dataclass
class Machine:
    """Stands for the servers: each request costs its service what `costs` says, and `rate` of them come per second."""

    costs: dict[str, list[float]]
    rate: int = 500
    failed: int = 0
    traced_: Iterator[int] = field(default_factory=lambda: iter(range(1, 1000)))
    looks: dict[str, list[str]] = field(default_factory=dict)
    alone_: list[str] = field(default_factory=list)
    used: dict[int, float] = field(default_factory=dict)
    pauses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = ("bare", "api", "auth", "image", "demo", "api-untraced", "api-uncounted")
        self.pids = {name: number for number, name in enumerate(names, 1)}
        self.services = {name: SimpleNamespace(pid=pid) for name, pid in self.pids.items()}
        self.urls = {name: f"http://{name}" for name in self.pids}
        self.folder = Path("/nowhere")

    def alone(self, name: str) -> None:
        self.alone_.append(name)

    def side_by_side(self) -> None:
        self.alone_.append("everybody")

    def check(self) -> None:
        """Nobody ever dies."""

    def traced(self) -> dict[str, int]:
        return {"exports": next(self.traced_), "bytes": 0}

    def metrics(self, name: str) -> Exposed:
        return Exposed(self.looks[name].pop(0))

    def wrk(
        self, _: Bench, service: str, __: Sequence[Request], ___: int, seconds: int, pause_ms: float = 0
    ) -> load.Result:
        self.pauses.append(pause_ms)
        requests = self.rate * seconds
        costs = self.costs.get(service, [0.0])
        # The warm-up, of one second, costs as much as the rounds, and must not count.
        cost = costs[0] if seconds == 1 or len(costs) == 1 else costs.pop(0)
        pid = self.pids[service]
        self.used[pid] = self.used.get(pid, 0.0) + cost * requests / 1e6
        return result(requests, seconds=float(seconds), failed=self.failed)


def bench_of(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(scenarios, "_wrk", machine.wrk)
    monkeypatch.setattr(processes, "cpu_time", lambda pid: CpuTime(machine.used.get(pid, 0.0), 0.0))
    monkeypatch.setattr(processes, "memory_mib", lambda _: 50.0)
    monkeypatch.setattr(processes, "peak_memory_mib", lambda pid: 100.0 + pid)
    monkeypatch.setattr(processes, "reset_peak_memory", lambda _: None)
    running: Any = machine
    return Bench(running, PREPARED, PLAN)


def by_measure(rows: list[report.Row]) -> dict[str, report.Row]:
    found = {row.measure: row for row in rows}
    assert len(found) == len(rows)
    return found


def test_full_speed_is_the_lowest_cost_of_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine({"bare": [100.0], "api": [900.0, 5000.0, 800.0], "auth": [1000.0], "image": [400.0]})
    fast = scenarios.full_speed(bench_of(machine, monkeypatch), {"posts": ("api", PREPARED.posts)})["posts"]
    assert fast.cpu_us == pytest.approx(800)
    assert fast.per_core == pytest.approx(1e6 / 800)
    assert fast.rate == 500
    assert fast.busy == pytest.approx(0.45)
    assert set(machine.alone_) == {"api"}


def test_rows_of_http(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine({"bare": [100.0], "api": [800.0], "auth": [1000.0], "image": [400.0]})
    rows = by_measure(scenarios.http(bench_of(machine, monkeypatch)))
    assert rows["CPU of a request: bare FastAPI"].met is None
    assert rows["CPU of a request: GET /api/v1/posts (20)"].met is True
    assert rows["CPU of a request: auth POST /verify"].met is False
    assert rows["CPU of a request: auth POST /verify"].beside == "10.0 x bare"
    assert rows["requests per core: image metadata"].value == pytest.approx(2500)
    assert rows["requests per core: auth POST /verify"].met is True
    assert rows["latency at 80 % load, mean: image metadata"].met is True
    # 64 connections for 400 requests per second, of which each takes 4 ms of that time.
    assert machine.pauses[-1] == pytest.approx(64 / 400 * 1000 - 4)


def test_failures_are_told_in_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine({"bare": [100.0], "api": [800.0], "auth": [1000.0], "image": [400.0]}, failed=2)
    rows = by_measure(scenarios.http(bench_of(machine, monkeypatch)))
    assert "6 FAILED" in rows["CPU of a request: image metadata"].beside
    assert "2 FAILED" in rows["latency at 80 % load, mean: image metadata"].beside


def test_without_traces_there_are_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine({"bare": [1.0], "api": [1.0], "auth": [1.0], "image": [1.0]}, traced_=iter([5] * 9))
    with pytest.raises(RuntimeError, match="no traces arrived"):
        scenarios.http(bench_of(machine, monkeypatch))


def test_what_traces_and_metrics_add_is_told_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine({"api": [500.0], "api-untraced": [400.0], "api-uncounted": [390.0]})
    rows = by_measure(scenarios.telemetry(bench_of(machine, monkeypatch)))
    assert [row.value for row in rows.values()] == pytest.approx([500, 400, 390, 100, 10])
    assert rows["CPU that traces add to a request"].beside == "+25% of what it costs without"
    assert rows["CPU that metrics add to a request"].beside == "+3% of what it costs without"
    # In turns: what disturbs the machine disturbs all three.
    assert machine.alone_[:3] == machine.alone_[3:6] == ["api", "api-untraced", "api-uncounted"]


def test_without_traces_nothing_is_said_of_their_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine({"api": [1.0], "api-untraced": [1.0], "api-uncounted": [1.0]}, traced_=iter([5] * 9))
    with pytest.raises(RuntimeError, match="no traces arrived"):
        scenarios.telemetry(bench_of(machine, monkeypatch))


@pytest.mark.parametrize(("cost", "met"), [(44_000.0, True), (45_000.0, False)])
def test_logins_beside_the_bare_hash(monkeypatch: pytest.MonkeyPatch, cost: float, met: bool) -> None:
    """40 ms for the hash: 25 per core. A login of 44 ms reaches 91 % of that, one of 45 ms 89 %."""
    machine = Machine({"auth": [cost]}, rate=20)
    monkeypatch.setattr(scenarios, "_bare_hashes", lambda _: nullcontext([{"per_core": 25.0, "per_second": 24.0}]))
    hashes, share = scenarios.logins(bench_of(machine, monkeypatch))
    assert (hashes.value, hashes.met) == (25.0, None)
    assert share.value == pytest.approx(100 * 40_000 / cost)
    assert share.met is met


def test_uploads_beside_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine({})
    seen: list[float] = []

    async def upload(sends: Sequence[Any], *, at_a_time: int, bytes_each: int) -> uploads.Uploads:
        assert (len(sends), at_a_time) == (4, scenarios.UPLOADS_AT_A_TIME)
        # In turns: the gateway takes twice as long; one of its uploads is refused once.
        through = len(seen) % 2 == 0
        seen.append(1.0)
        machine.used[machine.pids["image"]] = machine.used.get(machine.pids["image"], 0.0) + (0.2 if through else 0.0)
        statuses = {201: 4} if len(seen) > 1 else {201: 3, 503: 1}
        return uploads.Uploads(bytes_each, 2.0 if through else 1.0, [0.5] * 4, statuses)

    monkeypatch.setattr(uploads, "upload", upload)
    monkeypatch.setattr(uploads, "to_gateway", lambda *_: None)
    monkeypatch.setattr(uploads, "to_store", lambda *_: None)
    machine.store = None  # type: ignore[attr-defined]
    bench = bench_of(machine, monkeypatch)
    bench.__dict__["picture"] = SimpleNamespace(size=10_000_000)
    share, p95, through, straight = scenarios.upload_throughput(bench)
    assert len(seen) == 2 * PLAN.rounds
    assert share.value == pytest.approx(50)
    assert share.met is False
    assert "20 of 40 MB/s" in share.beside
    assert "1 FAILED" in share.beside
    assert (p95.value, p95.met) == (0.5, True)
    # 0.2 s for four uploads.
    assert through.value == pytest.approx(50)
    assert straight.value == 0


@pytest.mark.parametrize(
    ("statuses", "other", "beside"),
    [
        ({201: 100}, 0, "100 stored, 0 told 503; p95"),
        ({201: 60, 503: 40}, 0, "60 stored, 40 told 503; p95"),
        ({201: 97, 502: 2, 0: 1}, 3, "97 stored, 0 told 503, others: {502: 2, 0: 1}; p95"),
    ],
)
def test_many_uploads_are_stored_or_told(
    monkeypatch: pytest.MonkeyPatch, statuses: dict[int, int], other: int, beside: str
) -> None:
    async def upload(sends: Sequence[Any], **_: int) -> uploads.Uploads:
        assert len(sends) == 100
        return uploads.Uploads(1, 5.0, [2.0], dict(statuses))

    monkeypatch.setattr(uploads, "upload", upload)
    bench = bench_of(Machine({}), monkeypatch)
    bench.__dict__["picture"] = SimpleNamespace(size=1)
    image, api, told = scenarios.many_uploads(bench)
    assert (image.value, image.goal, image.met) == (104.0, "< 256 MiB", True)
    assert (api.value, api.goal) == (102.0, f"< {memory_limit_mib('api'):.0f} MiB")
    assert (told.value, told.met) == (other, other == 0)
    assert told.beside.startswith(beside)


def exposed(name: str, labels: str, counts: Sequence[int]) -> str:
    bounds = ("0.005", "0.01", "0.05", "+Inf")
    lines = [f"# TYPE {name} histogram"]
    lines += [f'{name}_bucket{{{labels}le="{bound}"}} {count}' for bound, count in zip(bounds, counts, strict=True)]
    return "\n".join([*lines, f"{name}_count{{{labels.rstrip(',')}}} {counts[-1]}", f"{name}_sum{{{labels}}} 1", ""])


def test_p95_is_that_of_the_run_and_of_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    def api(auth: Sequence[int], image: Sequence[int], queries: Sequence[int]) -> str:
        name = "upstream_duration_seconds"
        both = exposed(name, 'upstream="auth",', auth) + exposed(name, 'upstream="image",', image).split("\n", 1)[1]
        return both + exposed("db_query_duration_seconds", 'query="a",', queries)

    def one(queries: Sequence[int]) -> str:
        return exposed("db_query_duration_seconds", 'query="b",', queries)

    machine = Machine({})
    # What was there before was slow; it must not count.
    machine.looks = {
        "api": [
            api((0, 0, 0, 50), (0, 0, 0, 50), (0, 0, 0, 9)),
            api((90, 90, 90, 140), (0, 10, 10, 60), (100, 100, 100, 109)),
        ],
        "auth": [one((0, 0, 0, 0)), one((0, 0, 0, 100))],
        "image": [one((0, 0, 0, 0)), one((800, 800, 800, 800))],
    }
    upstream, database, gateway = scenarios.everyday(bench_of(machine, monkeypatch))
    # 90 below 5 ms, 10 between 5 and 10: the 95th of 100 is in the middle of those.
    assert upstream.value == pytest.approx(7.5)
    assert upstream.met is True
    # Of 1000, 100 are above the last bound: the quantile is that bound, and no less.
    assert database.value == pytest.approx(50)
    assert database.met is False
    assert "auth 50 ms (100)" in database.beside
    assert gateway.met is None


def test_a_service_that_was_not_asked_has_no_p95(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = exposed("upstream_duration_seconds", 'upstream="auth",', (1, 1, 1, 1))
    nothing += exposed("upstream_duration_seconds", 'upstream="image",', (1, 1, 1, 1)).split("\n", 1)[1]
    nothing += exposed("db_query_duration_seconds", 'query="a",', (1, 1, 1, 1))
    machine = Machine({})
    machine.looks = {name: [nothing, nothing] for name in ("api", "auth", "image")}
    upstream, _, _ = scenarios.everyday(bench_of(machine, monkeypatch))
    assert math.isnan(upstream.value)
    assert upstream.met is False
    assert upstream.shown == "not measured"


def test_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    rate, latency, memory = scenarios.demo(bench_of(Machine({"demo": [250.0]}), monkeypatch))
    assert rate.value == pytest.approx(4000)
    assert latency.value == 8
    assert "p50 4 ms, p99 12 ms" in latency.beside
    assert (memory.goal, memory.met) == ("< 512 MiB", True)


def test_every_group_has_a_name_for_the_command_line() -> None:
    assert set(scenarios.GROUPS) == {"http", "telemetry", "logins", "uploads", "many-uploads", "everyday", "demo"}
