"""Cases for `promtool test rules`, from what a table of alerts says about each alert under `trial`.

Each alert has one case in which it fires and then ends, and one in which it stays silent. Nothing here is said twice:
thresholds stand in the table as the way that a series goes when it is bad and when it is good.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]
Rule = Mapping[str, Any]
Moment = tuple[int, bool]

STEP = "15s"
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
WAY = re.compile(r"(?P<start>-?[0-9.]+(?:e[0-9]+)?)?(?P<change>[+-][0-9.]+(?:e[0-9]+)?)?")
# Expressions are told to look a little longer than their time, so that no case stands on the edge of a sample.
SPARE = 3


def seconds(duration: str) -> int:
    """Return a duration such as 15m as a number of seconds."""
    return int(duration[:-1]) * SECONDS[duration[-1]]


def rule_tests(alerts: Sequence[Entry], rules: Sequence[Rule], files: Sequence[str]) -> list[str]:
    """Return files for promtool (JSON is YAML), one for each step of time; `rules` are those made of `alerts`."""
    made = {rule["alert"]: rule for rule in rules if "alert" in rule}
    cases: dict[str, list[dict[str, Any]]] = {}
    for alert in alerts:
        step = alert["trial"].get("step", STEP)
        cases.setdefault(step, []).extend(_cases(alert, made[alert["alert"]], step))
    return [
        json.dumps({"rule_files": list(files), "evaluation_interval": step, "tests": tests})
        for step, tests in cases.items()
    ]


def _cases(alert: Entry, rule: Rule, step: str) -> list[dict[str, Any]]:
    trial, each = alert["trial"], seconds(step)
    wait, lead = seconds(alert.get("for", "0s")), seconds(trial.get("lead", "0s"))
    bad = math.ceil((lead + wait) / each) + SPARE
    good = math.ceil(seconds(trial.get("tail", "0s")) / each) + SPARE
    before = [((wait // each - 1) * each, False)] if wait >= each else []
    ends = [(bad * each, True), ((bad + good) * each, False)]
    if not any(isinstance(ways, list) for ways in trial["series"].values()):
        # Always there: it has no other way to go.
        return [_case(alert, rule, step, "is there", {}, [(0, True), (bad * each, True)])]
    changing = {name: _samples(ways, bad + 1, good, each) for name, ways in trial["series"].items()}
    quiet = {name: _samples(_last(ways), bad + 1, good, each) for name, ways in trial["series"].items()}
    never = [(at, False) for at, _ in [*before, *ends]]
    return [
        _case(alert, rule, step, "fires, then ends", changing, [*before, *ends]),
        _case(alert, rule, step, "stays silent", quiet, never),
    ]


def _last(ways: str | list[str]) -> str:
    return ways if isinstance(ways, str) else ways[-1]


def _samples(ways: str | list[str], bad: int, good: int, each: int) -> str:
    """Return the samples of a series in promtool's notation: first so many bad ones, then so many good ones."""
    first, second = (ways, ways) if isinstance(ways, str) else ways
    if first == second and first != "gone":
        return _way(first, bad + good, 0.0, 0, each)[0]
    text, last = _way(first, bad, 0.0, 0, each)
    return f"{text} {_way(second, good, last, bad * each, each)[0]}"


def _way(way: str, count: int, last: float, begin: int, each: int) -> tuple[str, float]:
    """Return `count` samples that go a way from `begin` on, and the last of them; some go on from `last`."""
    if way == "gone":
        return ("stale" if count == 1 else f"stale _x{count - 1}"), 0.0
    if way.startswith("now"):
        start = begin + float(way.removeprefix("now") or 0)
        return f"{start:.10g}+{each}x{count - 1}", start + each * (count - 1)
    found = WAY.fullmatch(way)
    assert found, way
    change = float(found["change"] or 0)
    start = float(found["start"]) if found["start"] else last + change
    return f"{start:.10g}{change:+.10g}x{count - 1}", start + change * (count - 1)


def _case(
    alert: Entry, rule: Rule, step: str, title: str, series: Mapping[str, str], moments: Sequence[Moment]
) -> dict[str, Any]:
    fired = {
        "exp_labels": {**alert["trial"].get("labels", {}), **rule["labels"]},
        "exp_annotations": {name: _read(text, alert["trial"]) for name, text in rule["annotations"].items()},
    }
    name = rule["alert"]
    return {
        "name": f"{name} {title}",
        "interval": step,
        "input_series": [{"series": one, "values": values} for one, values in series.items()],
        "alert_rule_test": [
            {"eval_time": f"{at}s", "alertname": name, "exp_alerts": [fired] if fires else []} for at, fires in moments
        ],
    }


def _read(text: str, trial: Entry) -> str:
    """Return an annotation as its receiver will read it."""
    text = re.sub(r"\{\{ \$value( \| \w+)? \}\}", lambda _: trial.get("value", ""), text)
    return re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: trial.get("labels", {})[found[1]], text)
