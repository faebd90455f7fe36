"""The tables of alerts: each fires, ends and stays silent when it should, and has a page that says what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "plugins" / "module_utils"), str(ROOT / "molecule" / "support")]

import alert_table  # noqa: E402
from rule_cases import rule_tests  # noqa: E402

from tests.unit.test_docs import anchors  # noqa: E402

FILES = sorted((ROOT / "roles/prometheus/files/alerts").glob("*.yml")) + sorted(ROOT.glob("services/*/alerts.yml"))
BAD = {
    "alert": "ShopDown",
    "expr": "shop_up == 0",
    "severity": "warning",
    "summary": "It is closed",
    "description": "Nobody buys.",
    "trial": {"series": {"shop_up": ["0", "1"]}},
}


def table_of(alert: dict[str, Any]) -> dict[str, Any]:
    return {"dashboard": "service-shop", "alerts": [alert]}


def family(path: Path) -> str:
    return path.parent.name if path.name == "alerts.yml" else path.stem


def table(path: Path) -> dict[str, Any]:
    return alert_table.read(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)))


def rules(path: Path) -> dict[str, Any]:
    return alert_table.rules(table(path), family(path))


tables = pytest.mark.parametrize("path", FILES, ids=family)


def test_there_are_tables() -> None:
    assert {family(path) for path in FILES} >= {"services", "slo", "postgres", "monitoring"}
    assert len({family(path) for path in FILES}) == len(FILES)


def test_every_alert_has_one_name() -> None:
    names = [entry["alert"] for path in FILES for entry in table(path)["alerts"]]
    assert sorted(names) == sorted(set(names))
    assert names.count("Watchdog") == 1


@tables
def test_promtool_accepts_it(path: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(json.dumps(rules(path)), encoding="utf-8")
    done = promtool("check", "rules", str(tmp_path / "rules.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


@tables
def test_every_alert_fires_ends_and_stays_silent_when_it_should(path: Path, tmp_path: Path) -> None:
    made = rules(path)
    (tmp_path / "rules.yml").write_text(json.dumps(made), encoding="utf-8")
    files = []
    for number, text in enumerate(rule_tests(table(path)["alerts"], made["groups"][0]["rules"], ["rules.yml"])):
        (tmp_path / f"cases-{number}.yml").write_text(text, encoding="utf-8")
        files.append(str(tmp_path / f"cases-{number}.yml"))
    done = promtool("test", "rules", *files)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]


@tables
def test_every_alert_has_a_runbook(path: Path) -> None:
    for rule in rules(path)["groups"][0]["rules"]:
        if "alert" in rule:
            page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
            assert (ROOT / page).exists(), f"{rule['alert']}: no {page}"
            assert anchor in anchors(ROOT / page), f"{rule['alert']}: {page} has no heading for it"


def test_a_runbook_speaks_of_nothing_else() -> None:
    """A heading that is left over would send its reader after an alert that cannot fire."""
    wanted = {
        f"{alert_table.RUNBOOKS}/{family(path)}.md": {entry["alert"].lower() for entry in table(path)["alerts"]}
        for path in FILES
    }
    pages = {str(p.relative_to(ROOT)): p for p in (ROOT / alert_table.RUNBOOKS).glob("*.md") if p.name != "README.md"}
    # Others are about what somebody does, and no alert leads there.
    assert set(pages) >= set(wanted)
    for name in wanted:
        text = pages[name].read_text(encoding="utf-8")
        headings = {line.removeprefix("## ").lower() for line in text.splitlines() if line.startswith("## ")}
        assert headings == wanted[name], name


def test_a_case_that_is_wrong_fails(tmp_path: Path) -> None:
    """What every test above stands on."""
    wrong = BAD | {"expr": "shop_up == 1"}
    found = alert_table.read(yaml.safe_dump(table_of(wrong)), "shop")
    made = alert_table.rules(found, "shop")
    (tmp_path / "rules.yml").write_text(json.dumps(made), encoding="utf-8")
    [text] = rule_tests(found["alerts"], made["groups"][0]["rules"], ["rules.yml"])
    (tmp_path / "cases.yml").write_text(text, encoding="utf-8")
    done = promtool("test", "rules", str(tmp_path / "cases.yml"))
    assert done.returncode == 1
    assert "ShopDown fires, then ends" in done.stdout + done.stderr
    assert "ShopDown stays silent" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"severity": "bad"},
            'shop: alerts.ShopDown.severity: found "bad", wanted one of critical, warning, none, for example warning',
        ),
        (
            {"sumary": "typo"},
            "shop: alerts.ShopDown.sumary: found an unknown key, wanted summary (did you mean that?), "
            'for example "Postgres does not answer"',
        ),
        (
            {"expr": "shop_up == <what>"},
            "shop: alerts.ShopDown.each: found no what, wanted what in each of its maps, "
            "for example each: [{what: ...}]",
        ),
        (
            {"each": [{"what": 1}, {"what": 2}]},
            "shop: alerts.ShopDown: found it twice, wanted a name of its own for each, for example ShopDown2",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_mistake_is_one_line(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(alert_table.TableError) as error:
        alert_table.read(yaml.safe_dump(table_of(BAD | change)), "shop")
    assert str(error.value) == expected


@pytest.mark.parametrize("text", ["alerts: [", "[]", "", "alerts: []"])
def test_what_is_no_table_is_refused(text: str) -> None:
    with pytest.raises(alert_table.TableError, match=r"^shop: .*found .*, wanted .*, for example"):
        alert_table.read(text, "shop")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("up == 0", {"up"}),
        ('sum by (a, b) (rate(x_total{c=~"y{2}.*", d!=""}[5m])) / on (a) group_left (e) z > 1e3', {"x_total", "z"}),
        ('label_replace(a:b:c, "job", "$1", "service", "(.+)") unless on (job) up', {"a:b:c", "up"}),
        ("histogram_quantile(0.95, sum by (le) (rate(h_bucket[2m] offset 1h))) > bool time() - 3 * 60", {"h_bucket"}),
        ("vector(1)", set()),
    ],
)
def test_metrics_of_an_expression(expression: str, expected: set[str]) -> None:
    assert alert_table.metrics(expression) == expected


def test_the_trial_of_an_alert_has_a_series_for_each_metric_that_its_rules_ask_for() -> None:
    """Otherwise a part of an expression could be wrong and nobody would see it."""
    for path in FILES:
        recorded = {entry["record"]: alert_table.metrics(entry["expr"]) for entry in table(path)["records"]}
        for alert in table(path)["alerts"]:
            wanted = alert_table.metrics(alert["expr"])
            while named := wanted & recorded.keys():
                wanted = (wanted - named).union(*(recorded[name] for name in named))
            given = {series.partition("{")[0] for series in alert["trial"]["series"]}
            assert wanted <= given, f"{alert['alert']}: {sorted(wanted - given)}"


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, timeout=120)
