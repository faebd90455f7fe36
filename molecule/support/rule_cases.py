"""Cases for `promtool test rules`: for each alert one that fires, one that stays silent and one that ends."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

RULES = "/etc/prometheus/rules/*.yml"
INTERVAL = "15s"
Rule = Mapping[str, Any]
Series = Sequence[Mapping[str, str]]


def rule_tests(rules: Sequence[Rule], files: str = RULES) -> str:
    """The cases as promtool reads them, JSON being YAML; ValueError for an alert that has none."""
    cases = [case for rule in rules for case in _cases(rule, rules)]
    return json.dumps({"rule_files": [files], "evaluation_interval": INTERVAL, "tests": cases})


def _cases(rule: Rule, rules: Sequence[Rule]) -> Iterator[dict[str, Any]]:
    name = rule["alert"]
    if name == "ServiceDown":
        yield from _service_down(rule, rules)
    elif name == "HighErrorRate":
        yield from _high_error_rate(rule)
    else:
        raise ValueError(f"{name}: found no case, wanted one that fires, one that stays silent and one that ends")


def _service_down(rule: Rule, rules: Sequence[Rule]) -> Iterator[dict[str, Any]]:
    fired = {"exp_labels": rule["labels"], "exp_annotations": rule["annotations"]}
    up = _up(rule["labels"])
    # All other services are well.
    labels = [other["labels"] for other in rules if other["alert"] == rule["alert"] and other is not rule]
    others = [{"series": _up(other) % "b-1", "values": "1x40"} for other in labels]

    def case(title: str, series: Series, *moments: tuple[str, bool]) -> dict[str, Any]:
        return _case(rule, title, [*others, *series], [(at, [fired] if fires else []) for at, fires in moments])

    yield case("no pod is there", [], ("45s", False), ("2m", True))
    first, second = up % "a-1", up % "a-2"
    # As when every pod of it hangs, and then comes back.
    hanging = [{"series": first, "values": "0x11 1x20"}, {"series": second, "values": "0x40"}]
    yield case("no pod answers, then one does", hanging, ("45s", False), ("2m", True), ("4m", False))
    yield case("one of two pods answers", [{"series": first, "values": "1x40"}, hanging[1]], ("9m", False))
    restart = [{"series": first, "values": "1x8 0x2 1x20"}]
    yield case("it restarts within a minute", restart, ("2m15s", False), ("3m", False), ("5m", False))


def _up(labels: Mapping[str, str]) -> str:
    return f'up{{job="{labels["service"]}", namespace="{labels["namespace"]}", pod="%s"}}'


def _high_error_rate(rule: Rule) -> Iterator[dict[str, Any]]:
    fired = {
        "exp_labels": {**rule["labels"], "service": "shop", "namespace": "shops"},
        "exp_annotations": {
            name: text.replace("{{ $labels.service }}", "shop")
            .replace("{{ $labels.namespace }}", "shops")
            .replace("{{ $value | humanizePercentage }}", "10%")
            for name, text in rule["annotations"].items()
        },
    }

    def answers(status: str, values: str, pod: str = "a-1") -> dict[str, str]:
        labels = f'service="shop", namespace="shops", pod="{pod}", method="GET", route="/", status="{status}"'
        return {"series": f"http_requests_total{{{labels}}}", "values": values}

    def case(title: str, series: Series, *moments: tuple[str, bool]) -> dict[str, Any]:
        return _case(rule, title, series, [(at, [fired] if fires else []) for at, fires in moments])

    # A tenth of the answers of both pods together, then none.
    failing = [answers("200", "0+90x40"), answers("503", "0+20x16 320x20"), answers("200", "0+90x40", "a-2")]
    yield case("one in ten fails, then none", failing, ("1m", False), ("3m", True), ("8m", False))
    few = [answers("200", "0+960x40"), answers("500", "0+40x40")]
    yield case("one in twenty-five fails", few, ("9m", False))
    yield case("clients make mistakes", [answers("200", "0+90x40"), answers("404", "0+90x40")], ("9m", False))
    yield case("nobody asks", [answers("200", "7x40"), answers("500", "7x40")], ("9m", False))


def _case(rule: Rule, title: str, series: Series, moments: Sequence[tuple[str, list[Any]]]) -> dict[str, Any]:
    alert = rule["alert"]
    return {
        "name": f"{alert} {rule['labels'].get('service', '')}: {title}",
        "interval": INTERVAL,
        "input_series": list(series),
        "alert_rule_test": [{"eval_time": at, "alertname": alert, "exp_alerts": expected} for at, expected in moments],
    }
