"""The arithmetic of the bench: a wrong number in a table looks exactly like a right one."""

from __future__ import annotations

import asyncio
import io
import json
import math
import os
import random
import signal
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import bench.__main__ as main
from bench import arithmetic, load, metrics, processes, report, uploads
from bench.arithmetic import CpuTime

NUMBERS = st.floats(min_value=0, max_value=1e6, allow_nan=False)


@pytest.mark.parametrize(
    ("values", "share", "wanted"),
    [
        ([5], 0.5, 5),
        ([5], 0.99, 5),
        ([1, 2], 0.5, 1),
        ([1, 2], 0.51, 2),
        (range(1, 101), 0.95, 95),
        (range(1, 101), 0.99, 99),
        (range(1, 101), 1, 100),
        (range(1, 21), 0.95, 19),
        (range(20, 0, -1), 0.95, 19),
        (range(1, 11), 0.95, 10),
    ],
)
def test_percentile(values: list[float], share: float, wanted: float) -> None:
    assert arithmetic.percentile(list(values), share) == wanted


@given(st.lists(NUMBERS, min_size=1), st.floats(min_value=0.01, max_value=1))
def test_percentile_is_a_value_that_the_share_does_not_exceed(values: list[float], share: float) -> None:
    found = arithmetic.percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= len(values) * share - 1e-6


@pytest.mark.parametrize("share", [0, -0.1, 1.01, 95])
def test_shares_are_shares(share: float) -> None:
    with pytest.raises(ValueError, match="wanted above 0 and at most 1"):
        arithmetic.percentile([1], share)
    with pytest.raises(ValueError, match="wanted above 0 and at most 1"):
        arithmetic.histogram_quantile({math.inf: 1}, share)


def test_nothing_measured_is_no_number() -> None:
    with pytest.raises(ValueError, match="no values"):
        arithmetic.percentile([], 0.5)
    with pytest.raises(ValueError, match="no values"):
        arithmetic.median([])
    with pytest.raises(ValueError, match="nothing was answered"):
        arithmetic.microseconds_each(CpuTime(1, 1), 0)
    assert math.isnan(arithmetic.histogram_quantile({1: 0, math.inf: 0}, 0.95))


def test_median() -> None:
    assert arithmetic.median([3, 1, 2]) == 2
    assert arithmetic.median([4, 1, 2, 3]) == 2.5


def test_cpu_time_from_a_line_of_proc() -> None:
    fields = "S 1 2 3 4 5 6 7 8 9 10 150 50 1 1 20 0 1 0 100 1 1"
    for name in ("python3", "a (b) c", "x) S 9 9 9"):
        cpu = arithmetic.parse_stat(f"77 ({name}) {fields}", 100)
        assert (cpu.user, cpu.system, cpu.total) == (1.5, 0.5, 2.0)
    for wrong in ("", "77 python3 S 1", "77 (python3) S 1 2"):
        with pytest.raises(ValueError, match="wanted a line of"):
            arithmetic.parse_stat(wrong, 100)


def test_cpu_time_of_a_real_process_is_what_it_burned() -> None:
    before, started = processes.cpu_time(os.getpid()), time.process_time()
    while time.process_time() - started < 0.3:
        pass
    used = processes.cpu_time(os.getpid()) - before
    # The kernel counts in ticks of 10 ms; other threads of the test may have used a little.
    assert 0.25 <= used.total <= 0.6


def test_what_a_request_costs() -> None:
    used = CpuTime(2.5, 0.5) - CpuTime(0.5, 0.5)
    assert arithmetic.microseconds_each(used, 4000) == 500
    assert arithmetic.per_core(used, 4000) == 2000


@pytest.mark.parametrize(
    ("connections", "rate", "latency", "wanted"), [(100, 1000, 0, 100), (100, 1000, 20, 80), (10, 1000, 20, 0)]
)
def test_think_time(connections: int, rate: float, latency: float, wanted: float) -> None:
    assert arithmetic.think_time_ms(connections, rate, latency) == pytest.approx(wanted)


def test_think_time_needs_a_rate() -> None:
    with pytest.raises(ValueError, match="wanted above 0"):
        arithmetic.think_time_ms(1, 0, 1)


HISTOGRAM = {0.001: 0.0, 0.005: 50.0, 0.01: 90.0, 0.05: 100.0, math.inf: 100.0}


@pytest.mark.parametrize(
    ("share", "wanted"),
    [(0.5, 0.005), (0.25, 0.003), (0.9, 0.01), (0.95, 0.03), (1, 0.05)],
)
def test_histogram_quantile(share: float, wanted: float) -> None:
    assert arithmetic.histogram_quantile(HISTOGRAM, share) == pytest.approx(wanted)


def test_what_is_above_the_last_bound_is_told_as_the_bound() -> None:
    assert arithmetic.histogram_quantile({0.01: 10, 0.05: 10, math.inf: 100}, 0.95) == 0.05


def test_the_order_of_buckets_does_not_matter() -> None:
    shuffled = list(HISTOGRAM.items())
    random.Random(1).shuffle(shuffled)  # noqa: S311 - a fixed order
    assert arithmetic.histogram_quantile(dict(shuffled), 0.95) == arithmetic.histogram_quantile(HISTOGRAM, 0.95)


@given(st.lists(st.integers(min_value=0, max_value=1000), min_size=3, max_size=3), st.floats(0.01, 1))
def test_a_quantile_lies_in_its_bucket(counts: list[int], share: float) -> None:
    bounds = [0.01, 0.1, 1.0]
    cumulative = [sum(counts[: number + 1]) for number in range(3)]
    buckets = {**dict(zip(bounds, map(float, cumulative), strict=True)), math.inf: float(sum(counts))}
    found = arithmetic.histogram_quantile(buckets, share)
    if not sum(counts):
        assert math.isnan(found)
        return
    bucket = next(n for n, total in enumerate(cumulative) if total >= share * sum(counts))
    assert (0, *bounds)[bucket] <= found <= bounds[bucket] + 1e-12


def test_histograms_differ_and_add_up() -> None:
    before = {0.1: 5.0, math.inf: 6.0}
    after = {0.1: 7.0, math.inf: 10.0}
    assert arithmetic.added(before, after) == {0.1: 2.0, math.inf: 4.0}
    # A label that was not there before.
    assert arithmetic.added({}, after) == after
    assert arithmetic.together([before, after]) == {0.1: 12.0, math.inf: 16.0}
    assert arithmetic.together([]) == {}
    with pytest.raises(ValueError, match="different bounds"):
        arithmetic.together([before, {0.2: 1.0, math.inf: 1.0}])


EXPOSED = """\
# TYPE upstream_duration_seconds histogram
upstream_duration_seconds_bucket{le="0.005",upstream="image"} 3.0
upstream_duration_seconds_bucket{le="0.01",upstream="image"} 4.0
upstream_duration_seconds_bucket{le="+Inf",upstream="image"} 4.0
upstream_duration_seconds_count{upstream="image"} 4.0
upstream_duration_seconds_sum{upstream="image"} 0.02
upstream_duration_seconds_bucket{le="0.005",upstream="auth"} 1.0
upstream_duration_seconds_bucket{le="0.01",upstream="auth"} 1.0
upstream_duration_seconds_bucket{le="+Inf",upstream="auth"} 2.0
upstream_duration_seconds_count{upstream="auth"} 2.0
upstream_duration_seconds_sum{upstream="auth"} 0.9
# TYPE spans_dropped counter
spans_dropped_total{name="a"} 2.0
spans_dropped_total{name="b"} 3.0
"""


def test_metrics_are_read_as_they_are_exposed() -> None:
    found = metrics.Exposed(EXPOSED)
    assert found.histogram("upstream_duration_seconds", upstream="image") == {0.005: 3.0, 0.01: 4.0, math.inf: 4.0}
    assert found.histogram("upstream_duration_seconds") == {0.005: 4.0, 0.01: 5.0, math.inf: 6.0}
    assert found.total("spans_dropped_total") == 5.0
    assert found.total("spans_dropped_total", name="b") == 3.0
    assert found.total("nothing_total") == 0.0
    with pytest.raises(LookupError, match="no histogram nothing"):
        found.histogram("nothing")


WRK = (
    '{"requests":1000,"microseconds":2000000,"mean":1500,"p50":1400,"p95":2500,"p99":3000,'
    '"connect":0,"read":0,"write":0,"status":0,"timeout":0}'
)


def test_what_wrk_says() -> None:
    result = load.parse(f"Running 2s test @ http://127.0.0.1:1/\n  2 threads\n{load.MARK}{WRK}\n")
    assert (result.requests, result.seconds, result.rate) == (1000, 2.0, 500.0)
    assert (result.mean_ms, result.p50_ms, result.p95_ms, result.p99_ms) == (1.5, 1.4, 2.5, 3.0)
    assert result.failed == 0
    failing = load.parse(load.MARK + WRK.replace('"status":0', '"status":7').replace('"timeout":0', '"timeout":2'))
    assert failing.failed == 9
    with pytest.raises(RuntimeError, match="unable to connect"):
        load.parse("unable to connect to 127.0.0.1:1 Connection refused\n")


@pytest.mark.parametrize("text", ["plain", 'a "quoted" \\ word', "new\nline", "]==]", "\x00\x07", "ümlaut"])
def test_texts_survive_the_way_into_lua(text: str) -> None:
    """Only digits and backslashes: nothing in a token or a body can end the literal."""
    literal = load.lua(text)
    inside = literal.removeprefix('"').removesuffix('"')
    assert set(inside) <= set("\\0123456789")
    assert bytes(int(code) for code in inside.split("\\")[1:]).decode() == text


def test_secrets_of_a_request_are_not_on_the_command_line(tmp_path: Path) -> None:
    request = load.Request("POST", "/verify", {"Authorization": "Bearer s3cret"}, '{"token": "s3cret"}')
    command, script = load.wrk("http://127.0.0.1:1", [request], connections=8, seconds=2, pause_ms=5, folder=tmp_path)
    assert "s3cret" not in " ".join(command)
    assert script.stat().st_mode & 0o077 == 0
    assert "function delay()" in script.read_text()
    _, script = load.wrk("http://127.0.0.1:1", [request], connections=8, seconds=2, pause_ms=0, folder=tmp_path)
    assert "function delay()" not in script.read_text()


def test_goals_are_met_or_not() -> None:
    assert report.at_most("cost", 899.9, 900, "us").met is True
    assert report.at_most("cost", 900, 900, "us").met is True
    assert report.at_most("cost", 900.1, 900, "us").met is False
    assert report.at_least("rate", 1000, 1000, "req/s").met is True
    assert report.at_least("rate", 999.9, 1000, "req/s").met is False
    assert report.below("latency", 100, 100, "ms").met is False
    assert report.plain("rate", 5, "req/s").met is None
    # What could not be measured has not met its goal.
    assert report.below("latency", math.nan, 100, "ms").met is False
    assert report.at_most("latency", math.nan, 100, "ms").met is False


def test_a_number_is_never_rounded_into_its_goal() -> None:
    row = report.at_most("cost", 900.04, 900, "us")
    assert row.met is False
    assert row.shown != "900 us"


def test_every_row_is_in_the_table() -> None:
    rows = [
        report.at_most("CPU of a request", 1234.5, 900, "us", beside="bare 160 us"),
        report.plain("memory", 57.25, "MiB"),
    ]
    lines = report.table(rows).splitlines()
    assert lines[0].startswith("| measure ")
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == [
        "CPU of a request",
        "<= 900 us",
        "1234 us",
        "bare 160 us",
        "NO",
    ]
    assert [cell.strip() for cell in lines[3].split("|")[1:-1]] == ["memory", "", "57.2 MiB", "", ""]
    # Columns line up in a terminal too.
    assert len({len(line) for line in lines}) == 1


def test_the_receipt_can_be_read_again(tmp_path: Path) -> None:
    rows = [report.at_most("cost", 5, 900, "us"), report.below("never measured", math.nan, 1, "s")]
    path = report.write_receipt(tmp_path, rows, machine={"cores": 2}, raw={"posts": {"requests": 5}})
    receipt = json.loads(path.read_text())
    assert receipt["rows"][0] == {
        "measure": "cost",
        "value": 5,
        "unit": "us",
        "goal": "<= 900 us",
        "beside": "",
        "met": True,
    }
    # NaN is no JSON.
    assert receipt["rows"][1]["value"] is None
    assert (receipt["machine"], receipt["raw"]) == ({"cores": 2}, {"posts": {"requests": 5}})


def test_the_page_keeps_its_words(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text(f"# Words\n\n{report.BEGIN}\nold\n{report.END}\n\nMore words.\n")
    report.write_page(page, "new table")
    assert page.read_text() == f"# Words\n\n{report.BEGIN}\n\nnew table\n\n{report.END}\n\nMore words.\n"
    page.write_text("# Words\n")
    with pytest.raises(ValueError, match="found no"):
        report.write_page(page, "new table")


def test_uploads_add_up() -> None:
    done = uploads.Uploads(10_000_000, 2.0, [0.5, 0.25, 1.0], {201: 3, 503: 2, 0: 1})
    assert (done.stored, done.told(503), done.told(500), done.told(0, 503)) == (3, 2, 0, 3)
    # Only what was stored counts as throughput and as latency.
    assert done.mb_per_second == 15.0
    assert (done.percentile(0.5), done.percentile(0.95)) == (0.5, 1.0)
    assert math.isnan(uploads.Uploads(1, 1.0).percentile(0.95))
    # A receipt can hold it.
    assert json.loads(json.dumps(asdict(done)))["statuses"] == {"201": 3, "503": 2, "0": 1}


async def test_no_two_pictures_are_the_same() -> None:
    picture = uploads.Picture(200_000, 64, 48)
    first, second = [b"".join([bytes(piece) async for piece in picture.pieces()]) for _ in range(2)]
    assert first != second
    for content in (first, second):
        assert len(content) == 200_000
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            assert (image.format, image.size) == ("JPEG", (64, 48))
    around = b"".join([bytes(piece) async for piece in picture.pieces(b"<", b">")])
    assert (around[:3], around[-3:], len(around)) == (b"<" + first[:2], first[-2:] + b">", 200_002)


async def test_every_upload_is_counted_once() -> None:
    """Stored, refused, and cut off: by a server that reads every byte and counts them."""
    taken: list[int] = []

    async def take(request: web.Request) -> web.StreamResponse:
        taken.append(len(await request.read()))
        if len(taken) == 2:
            return web.Response(status=503, headers={"Retry-After": "1"})
        if len(taken) == 3:
            assert request.transport is not None
            request.transport.close()
        return web.Response(status=201)

    app = web.Application(client_max_size=10**6)
    app.router.add_post("/api/v1/images", take)
    picture = uploads.Picture(100_000, 64, 48)
    async with TestServer(app) as server:
        send = uploads.to_gateway(picture, str(server.make_url("")).rstrip("/"), "token")
        done = await uploads.upload([send] * 5, at_a_time=1, bytes_each=picture.size)
    assert done.statuses == {201: 3, 503: 1, 0: 1}
    assert len(done.latencies) == 3
    assert done.seconds > 0
    assert len(set(taken)) == 1
    assert taken[0] > picture.size


def test_the_time_of_a_bench_is_bounded() -> None:
    """Also where an event loop runs, which keeps other exceptions to itself."""
    with pytest.raises(main.TooLongError), main.bounded(1):
        asyncio.run(asyncio.sleep(30))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, main.bounded(30):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.alarm(0) == 0


def test_the_page_gets_only_whole_runs(capsys: pytest.CaptureFixture[str]) -> None:
    for part in (["--quick"], ["--only", "http"], ["--profile", "api"]):
        with pytest.raises(SystemExit):
            main.arguments_of(["--write-docs", *part])
        assert "wanted all of it" in capsys.readouterr().err
    assert main.arguments_of(["--write-docs"]).write_docs


def test_processes_are_ended_and_what_they_start_is_found(tmp_path: Path) -> None:
    command = ["sh", "-c", "sleep 60 & echo started; wait"]
    with processes.running("sleeper", command, {"PATH": os.environ["PATH"]}, tmp_path) as process:
        deadline = time.monotonic() + 10
        while "started" not in process.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.check()
        found = processes.descendants(os.getpid())
        children = processes.descendants(process.pid)
        assert process.pid in found
        assert set(children) <= set(found)
        assert children
        cpu = frozenset([min(os.sched_getaffinity(0))])
        processes.pin([process.pid, *children, 2**22], cpu)
        assert all(os.sched_getaffinity(pid) == cpu for pid in (process.pid, *children))
        assert 0 < processes.memory_mib(process.pid) <= processes.peak_memory_mib(process.pid)
    assert process.popen.returncode == -signal.SIGTERM
    with pytest.raises(RuntimeError, match="sleeper ended with -15: started"):
        process.check()
    for child in children:
        os.kill(child, signal.SIGKILL)


def test_peak_memory_can_be_counted_anew() -> None:
    # The kernel takes what is given back at once only for large pieces.
    held = bytearray(64 * 1024**2)
    assert len(held) == 64 * 1024**2
    before = processes.peak_memory_mib(os.getpid())
    del held
    processes.reset_peak_memory(os.getpid())
    assert processes.peak_memory_mib(os.getpid()) < before - 32


def test_cores_are_shared_out() -> None:
    cores = processes.Cores.of_this_machine()
    assert cores.every == frozenset(os.sched_getaffinity(0))
    if len(cores.every) > 1:
        assert not cores.service & cores.others
