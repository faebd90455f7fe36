"""Grafana cannot run here. What it would show can be looked at: every query of every panel, as the cluster has it, is
asked of the data source that it names."""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import alert_table
import grafana_dashboards
import https_client
import pytest
import yaml
from cluster_client import Client, Pods
from controller import ROOT, Inventory, apply_role, playbook

NAMESPACE, OWN = "monitoring", "molecule-grafana-own"
REVIEWED = yaml.safe_load(Path(__file__).with_name("empty.yml").read_text(encoding="utf-8"))
# Longer than between two looks of Prometheus, so that what the fixture asks for is in it.
WINDOWS = {"$__rate_interval": "5m", "$__range": "1h", "$__interval": "1m", "$__auto": "5m"}

pytestmark = [pytest.mark.explain(NAMESPACE), pytest.mark.explain(OWN)]


@dataclass(frozen=True)
class Query:
    """What a panel asks, and of whom."""

    place: str
    source: str
    target: dict[str, Any]

    @property
    def expression(self) -> str:
        """The expression, with windows and variables filled in as Grafana does with all values chosen."""
        text = str(self.target["expr"])
        for name, value in WINDOWS.items():
            text = text.replace(name, value)
        return re.sub(r"\$id\b", "", re.sub(r"\$(node|namespace|service)\b", ".*", text))


def ask(urls: dict[str, str]) -> dict[str, Any]:
    """In the cluster: the JSON of each answer, or what went wrong as text."""
    import json
    import urllib.error
    import urllib.request

    found = {}
    for name, url in urls.items():
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                found[name] = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            found[name] = f"{error.code}: {error.read().decode(errors='replace')[:300]}"
        except (OSError, ValueError) as error:
            found[name] = str(error)
    return found


@pytest.fixture(scope="module")
def applied(cluster: Any) -> dict[str, dict[str, Any]]:
    """Return the ConfigMaps of Grafana by their names."""
    names = ("grafana", "grafana-dashboards-platform", "grafana-dashboards-services")
    return {name: cluster.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/{name}")["data"] for name in names}


@pytest.fixture(scope="module")
def sources(applied: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return the addresses of the data sources by their uids."""
    listed = yaml.safe_load(applied["grafana"]["datasources.yml"])["datasources"]
    return {source["uid"]: source["url"] for source in listed}


@pytest.fixture(scope="module")
def boards(applied: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the dashboards by their uids."""
    texts = {**applied["grafana-dashboards-platform"], **applied["grafana-dashboards-services"]}
    return {name.removesuffix(".json"): json.loads(text) for name, text in texts.items()}


@pytest.fixture(scope="module")
def queries(boards: dict[str, dict[str, Any]]) -> list[Query]:
    """Return every query of every panel."""
    return queries_of(boards)


def queries_of(boards: dict[str, dict[str, Any]]) -> list[Query]:
    """Return every query of every panel of some dashboards."""
    return [
        Query(f"{uid} / {panel['title']} / {target['refId']}", panel["datasource"]["uid"], target)
        for uid, board in boards.items()
        for panel in board["panels"]
        if panel["type"] != "row"
        for target in panel["targets"]
    ]


@pytest.fixture(scope="module")
def traffic(inventory: Inventory, domain: str, trust: ssl.SSLContext) -> Iterator[None]:
    """Ask every service for something, as its users do, and wait until Prometheus has looked before and after."""
    address = inventory.address(inventory.hosts("server")[0])
    for _ in range(2):
        run = playbook("playbooks/verify.yml")
        assert run.code == 0, run.output[-3000:]
        for path in 20 * ["/api/data"]:
            assert https_client.ask(address, f"demo.{domain}", path, trust).status == 200
        time.sleep(20)
    yield


def shown(answer: Any) -> str:
    """Return what a panel would show: data, empty, or what went wrong."""
    if not isinstance(answer, dict):
        return f"error: {answer}"
    if "error" in answer or answer.get("errors"):
        return f"error: {answer.get('error') or answer['errors']}"
    data = answer["data"]
    if isinstance(data, list):  # traces
        return "data" if data else "empty"
    # Of a query of now each series has one value, of one over time several; 0/0 is nothing to look at.
    values = [v for series in data["result"] for v in series.get("values") or [series.get("value")]]
    return "data" if any(str(value[1]) != "NaN" for value in values) else "empty"


def outcome(client: Client, asked: dict[str, str]) -> dict[str, str]:
    """Return what each of these addresses would show, asked a few at a time."""
    names = list(asked)
    found: dict[str, str] = {}
    for start in range(0, len(names), 40):
        part = {name: asked[name] for name in names[start : start + 40]}
        answers = client.call(ask, urls=part)
        found |= {name: shown(answers[name]) for name in part}
    return found


def reviewed(found: dict[str, str]) -> dict[str, str]:
    """Return what is other than it should be, by its place."""
    never, sometimes = REVIEWED["never"], REVIEWED["sometimes"]
    wrong = {}
    for place, result in found.items():
        allowed = {"data", "empty"} if place in sometimes else {"empty"} if place in never else {"data"}
        if result not in allowed:
            wrong[place] = f"{result}, wanted {' or '.join(sorted(allowed))}"
    return wrong


def addresses(queries: list[Query], sources: dict[str, str], source: str) -> dict[str, str]:
    """Return the address that answers each query of a data source."""
    now = int(time.time())
    found = {}
    for query in queries:
        if query.source != source:
            continue
        if source == "prometheus":
            path = f"/api/v1/query?{urlencode({'query': query.expression})}"
        elif source == "loki":
            times = {"start": f"{now - 3600}000000000", "end": f"{now}000000000", "step": "60", "limit": "20"}
            path = f"/loki/api/v1/query_range?{urlencode({'query': query.expression, **times})}"
        else:
            path = f"/api/traces?{urlencode({'service': query.target['service'], 'limit': 20, 'lookback': '1h'})}"
        found[query.place] = sources[source] + path
    return found


def test_every_panel_shows_something(
    client: Client, pods: Pods, queries: list[Query], sources: dict[str, str], traffic: None
) -> None:
    assert {query.source for query in queries} == set(sources) - {"alertmanager"}
    asked: dict[str, str] = {}
    for source in sources:
        mine = addresses(queries, sources, source)
        assert mine or source == "alertmanager"
        asked |= mine
    assert len(asked) == len(queries)
    assert len(asked) > 200

    def wrong() -> dict[str, str]:
        return reviewed(outcome(client, asked))

    # What was just logged or measured is there within a moment.
    assert pods.eventually(wrong, {}) == {}


def test_what_is_reviewed_is_there(definitions: dict[str, Any]) -> None:
    """A line that is left over would hide a panel of that name."""
    files = ROOT / "roles/grafana/files"
    template = json.loads((files / "service.json").read_text(encoding="utf-8"))
    made = [json.loads(path.read_text(encoding="utf-8")) for path in (files / "dashboards").glob("*.json")]
    made += [
        grafana_dashboards.for_service(template, d, ["prometheus", "loki", "jaeger"]) for d in definitions.values()
    ]
    places = {query.place for query in queries_of({board["uid"]: board for board in made})}
    listed = {*REVIEWED["never"], *REVIEWED["sometimes"]}
    assert listed - places == set()
    assert not set(REVIEWED["never"]) & set(REVIEWED["sometimes"])


def test_a_query_that_finds_nothing_is_seen(client: Client, sources: dict[str, str]) -> None:
    """What the test of all panels stands on."""
    base = f"{sources['prometheus']}/api/v1/query?query="
    expressions = {"data": "up", "empty": "no_such_metric", "nothing": "0 * up / 0", "error": "sum("}
    found = outcome(client, {name: base + quote(text) for name, text in expressions.items()})
    assert [found["data"], found["empty"], found["nothing"]] == ["data", "empty", "empty"]
    assert found["error"].startswith("error: 400")


def test_every_metric_of_a_panel_exists(client: Client, queries: list[Query], sources: dict[str, str]) -> None:
    """Where an expression has another way out, a wrong name would not be seen."""
    base = sources["prometheus"]
    answers = client.call(
        ask, urls={"names": f"{base}/api/v1/label/__name__/values", "told": f"{base}/api/v1/metadata"}
    )
    known = {*answers["names"]["data"], *answers["told"]["data"]}
    named = set().union(*(alert_table.metrics(q.expression) for q in queries if q.source == "prometheus"))
    assert len(named) > 100
    # Histograms and counters are told of without these endings.
    unknown = {n for n in named if n not in known and re.sub(r"_(bucket|count|sum|total)$", "", n) not in known}
    assert unknown - set(REVIEWED["counted_later"]) == set(REVIEWED["unknown_metrics"])
    assert set(REVIEWED["counted_later"]) <= named


def test_variables_have_values(client: Client, boards: dict[str, dict[str, Any]], sources: dict[str, str]) -> None:
    asked = {}
    for uid, board in boards.items():
        for variable in board.get("templating", {}).get("list", []):
            if variable["type"] == "query":
                matched = re.fullmatch(r"label_values\((\S+), (\w+)\)", variable["query"])
                assert matched, variable["query"]
                path = f"/api/v1/label/{matched[2]}/values?{urlencode({'match[]': matched[1]})}"
                asked[f"{uid} {variable['name']}"] = sources["prometheus"] + path
    answers = client.call(ask, urls=asked)
    assert asked
    assert [name for name, answer in answers.items() if not answer["data"]] == []


def test_data_sources_are_those_that_the_platform_has(client: Client, cluster: Any, sources: dict[str, str]) -> None:
    services = {one["metadata"]["name"] for one in cluster.items(f"/api/v1/namespaces/{NAMESPACE}/services")}
    assert set(sources) == services & {"prometheus", "alertmanager", "loki", "jaeger"}
    paths = {
        "prometheus": "/api/v1/status/buildinfo",
        "alertmanager": "/api/v2/status",
        "loki": "/loki/api/v1/status/buildinfo",
        "jaeger": "/api/services",
    }
    answers = client.call(ask, urls={uid: url + paths[uid] for uid, url in sources.items()})
    assert {uid: answer for uid, answer in answers.items() if not isinstance(answer, dict)} == {}


def test_every_service_has_a_dashboard(boards: dict[str, dict[str, Any]], definitions: dict[str, Any]) -> None:
    assert {uid for uid in boards if uid.startswith("service-")} == {f"service-{name}" for name in definitions}


def test_every_alert_leads_to_a_dashboard_that_is_there(
    client: Client, boards: dict[str, dict[str, Any]], sources: dict[str, str], definitions: dict[str, Any]
) -> None:
    answer = client.call(ask, urls={"rules": f"{sources['prometheus']}/api/v1/rules?type=alert"})["rules"]
    rules = [rule for group in answer["data"]["groups"] for rule in group["rules"]]
    assert len(rules) > 50
    for rule in rules:
        uid = rule["annotations"]["dashboard"].rpartition("/")[2]
        names = definitions if "{{" in uid else [""]
        for name in names:
            assert uid.replace("{{ $labels.service }}", name) in boards, rule["name"]


def test_the_password_is_the_environments_and_nowhere_else(
    cluster: Any, secrets: dict[str, Any], applied: dict[str, dict[str, Any]]
) -> None:
    import base64

    held = cluster.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/grafana")["data"]
    found = {name: base64.b64decode(value).decode() for name, value in held.items()}
    # Compared as yes or no: neither may be shown.
    assert all(found[name] == secrets[f"grafana_{name}"] for name in ("admin_password", "secret_key"))
    assert all(len(value) >= 20 for value in found.values())
    assert not any(value in json.dumps(applied) for value in found.values())


def test_without_an_image_nothing_runs_and_with_one_the_cluster_would_take_it(
    cluster: Any, pods: Pods, state: Path, inventory: Inventory
) -> None:
    assert inventory.variable("grafana_image") == ""
    for path in ("apis/apps/v1", "apis/networking.k8s.io/v1"):
        kind = "deployments" if "apps" in path else "ingresses"
        names = [one["metadata"]["name"] for one in cluster.items(f"/{path}/namespaces/{NAMESPACE}/{kind}")]
        assert "grafana" not in names
    versions = yaml.safe_load((ROOT / "group_vars/all/versions.yml").read_text(encoding="utf-8"))
    variables = {
        "grafana_kubeconfig": str(state / "kubeconfig"),
        "grafana_namespace": OWN,
        "grafana_host": "grafana.slipway.test",
        "grafana_image": versions["grafana_image"],
        "grafana_admin_password": "only-a-test",
        "grafana_secret_key": "only-a-test",
    }
    with pods.namespace(OWN):
        # The API server is asked, and Pod Security with it; nothing is made.
        run = apply_role("grafana", "--check", variables=variables)
        assert run.code == 0, run.output[-3000:]
        assert "would violate PodSecurity" not in run.output
        assert cluster.items(f"/apis/apps/v1/namespaces/{OWN}/deployments") == []
        # And without an image all else, twice.
        first, second = (apply_role("grafana", variables=variables | {"grafana_image": ""}) for _ in range(2))
        assert (first.code, second.code, second.changed) == (0, 0, 0), first.output[-3000:] + second.output[-3000:]
        assert {one["metadata"]["name"] for one in cluster.items(f"/api/v1/namespaces/{OWN}/configmaps")} >= {
            *("grafana", "grafana-dashboards-platform", "grafana-dashboards-services")
        }
