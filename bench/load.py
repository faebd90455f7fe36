"""Load by wrk: a C program, so that the generator takes next to nothing of the CPU that it shares with the rest.

What to send goes to wrk in a script of its own: tokens and passwords do not belong on a command line. At full speed
each connection sends its next request as soon as it has an answer; for a given rate it pauses in between, for random
times with an exponential distribution, so that requests arrive as those of independent users do.
"""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MARK = "slipway-bench:"


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""


@dataclass(frozen=True)
class Result:
    requests: int
    seconds: float
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    # Answers above 399, and requests without an answer.
    failed: int

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def lua(text: str) -> str:
    """A literal of Lua: every byte as a number, so that no text can be anything but text."""
    return '"' + "".join(f"\\{byte:03d}" for byte in text.encode()) + '"'


def _formatted(request: Request) -> str:
    headers = ", ".join(f"[{lua(name)}] = {lua(value)}" for name, value in request.headers.items())
    body = lua(request.body) if request.body else "nil"
    return f"wrk.format({lua(request.method)}, {lua(request.path)}, {{{headers}}}, {body})"


_SCRIPT = """\
local requests, turn = {{}}, 0
function init(arguments)
  requests = {{ {requests} }}
end
function request()
  turn = turn % #requests + 1
  return requests[turn]
end
{pause}
function done(summary, latency, _)
  io.write(string.format(
    '\\n{mark}{{"requests":%d,"microseconds":%d,"mean":%f,"p50":%f,"p95":%f,"p99":%f,' ..
    '"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}\\n',
    summary.requests, summary.duration, latency.mean,
    latency:percentile(50), latency:percentile(95), latency:percentile(99),
    summary.errors.connect, summary.errors.read, summary.errors.write, summary.errors.status, summary.errors.timeout))
end
"""
# The same sequence in each run. wrk takes whole milliseconds: rounded at random, so that the mean stays right.
_PAUSE = """\
math.randomseed(4)
function delay()
  return math.floor(-{pause_ms} * math.log(1 - math.random()) + math.random())
end
"""


def wrk(
    url: str, requests: Sequence[Request], *, connections: int, seconds: int, pause_ms: float, folder: Path
) -> tuple[list[str], Path]:
    """The command and its script, which it writes to `folder`, readable by nobody else."""
    script = folder / "wrk.lua"
    script.touch(mode=0o600)
    script.write_text(
        _SCRIPT.format(
            requests=",\n".join(map(_formatted, requests)),
            pause=_PAUSE.format(pause_ms=round(pause_ms, 3)) if pause_ms else "",
            mark=MARK,
        )
    )
    options = ["--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s", "--timeout", "10s"]
    return ["wrk", *options, "--script", str(script), url], script


def parse(output: str) -> Result:
    """RuntimeError with what wrk said instead."""
    for line in output.splitlines():
        if line.startswith(MARK):
            found: dict[str, Any] = json.loads(line.removeprefix(MARK))
            errors = ("connect", "read", "write", "status", "timeout")
            return Result(
                requests=found["requests"],
                seconds=found["microseconds"] / 1e6,
                mean_ms=found["mean"] / 1000,
                p50_ms=found["p50"] / 1000,
                p95_ms=found["p95"] / 1000,
                p99_ms=found["p99"] / 1000,
                failed=sum(found[name] for name in errors),
            )
    raise RuntimeError(f"wrk: {output.strip()[-500:]}")


def run(
    url: str, requests: Sequence[Request], *, connections: int, seconds: int, folder: Path, pause_ms: float = 0
) -> Result:
    """Blocks for `seconds` (at least 1)."""
    command, _ = wrk(url, requests, connections=connections, seconds=seconds, pause_ms=pause_ms, folder=folder)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 20)
    return parse(done.stdout + done.stderr)
