"""The roles prometheus and alertmanager by themselves: what they scrape, what they may see, and their rules.

That Prometheus itself reads settings and rules, and fires, is shown on the lab (molecule/prometheus).
"""

from __future__ import annotations

import base64
import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cryptography import x509

from tests.rendering.conftest import ROOT, Rendering, pick

VERSIONS = yaml.safe_load((ROOT / "group_vars/all/versions.yml").read_text(encoding="utf-8"))
KUBERNETES = ".".join(str(VERSIONS["kubernetes_version"]).split(".")[:2])
BLACKBOX_EXPORTER = ("service.yml.j2", "config.yml.j2", "deployment.yml.j2")
PROMETHEUS = ("rbac.yml.j2", "service.yml.j2", "config.yml.j2", "statefulset.yml.j2")
ALERTMANAGER = ("secret.yml.j2", "service.yml.j2", "config.yml.j2", "statefulset.yml.j2")
SERVICES = [
    {"name": "shop", "namespace": "shops", "slo": {"availability": 99.9, "latency_p95_ms": 300}},
    {"name": "till", "namespace": "shops", "slo": {"availability": 99, "latency_p95_ms": 2000, "except": ["/x"]}},
]


def prometheus(render: Any, **variables: Any) -> list[dict[str, Any]]:
    given = {
        "prometheus_image": "slipway.local/prometheus:test",
        "prometheus_services": SERVICES,
        "prometheus_watched_namespaces": ["monitoring", "shops"],
    }
    return list(render("prometheus", *PROMETHEUS, **given | variables))


def blackbox_exporter(render: Any, **variables: Any) -> list[dict[str, Any]]:
    given = {"blackbox_exporter_image": "slipway.local/prometheus:test"}
    return list(render("blackbox_exporter", *BLACKBOX_EXPORTER, **given | variables))


PROBES = [
    {"module": "health", "target": "http://shop.shops.svc:80/health", "service": "shop", "namespace": "shops"},
    {"module": "public", "target": "https://10.0.0.1/", "host": "shop.test"},
    {"module": "public", "target": "https://10.0.0.1/", "host": "till.shop.test"},
]


# One of everything that can be declared.
TOLD: dict[str, Any] = {
    "alertmanager_receivers": [
        {"name": "sre", "slack": {}},
        {"name": "dba", "slack": {"channel": "#databases"}, "email": {"to": "dba@mycompany.com"}},
        {"name": "pager", "webhook": {}},
    ],
    "alertmanager_routes": [
        {"receiver": "pager", "matchers": ['severity="critical"'], "continue": True},
        {"receiver": "dba", "matchers": ['alertname=~"Postgres.*|Redis.*"', 'namespace="infrastructure"']},
    ],
    "alertmanager_smtp": {"host": "smtp.mycompany.com:587", "from": "alerts@mycompany.com", "user": "alerts"},
    "alertmanager_deadman": True,
    "alertmanager_secrets": {
        name: f"https://hooks.mycompany.com/canary-{name}"
        for name in ("sre_slack_url", "dba_slack_url", "pager_webhook_url", "smtp_password", "deadman_url")
    },
}


def alertmanager(render: Any, **variables: Any) -> list[dict[str, Any]]:
    given = {"alertmanager_image": "slipway.local/alertmanager:test", "alertmanager_secrets": {}}
    return list(render("alertmanager", *ALERTMANAGER, **given | variables))


def settings(documents: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(pick(documents, "ConfigMap", "prometheus")["data"]["prometheus.yml"])
    return found


def rules(config_map: dict[str, Any], *files: str) -> list[dict[str, Any]]:
    """Return the rules of some files, or of all."""
    texts = [text for name, text in config_map["data"].items() if not files or name in files]
    return [rule for text in texts for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


@pytest.mark.parametrize(
    ("role", "variables"),
    [
        (prometheus, {}),
        (prometheus, {"prometheus_services": [], "prometheus_watched_namespaces": []}),
        (prometheus, {"prometheus_storage_class": "fast"}),
        (prometheus, {"prometheus_scrape_cluster": False}),
        (prometheus, {"prometheus_probes": PROBES, "prometheus_etcd_targets": ["10.0.0.1:2381"]}),
        (blackbox_exporter, {}),
        (blackbox_exporter, {"blackbox_exporter_ca_certificate": "-----BEGIN CERTIFICATE-----"}),
        (alertmanager, {}),
        (alertmanager, {"alertmanager_storage_class": "fast"}),
        (alertmanager, TOLD),
    ],
)
def test_every_document_is_valid(render: Any, role: Any, variables: dict[str, Any]) -> None:
    for document in role(render, **variables):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        assert document["metadata"]["labels"]["app.kubernetes.io/part-of"] == "slipway"


def test_it_may_list_pods_where_it_looks_and_nothing_else(render: Any) -> None:
    documents = prometheus(render, prometheus_scrape_cluster=False)
    kinds = {document["kind"] for document in documents}
    assert not kinds & {"ClusterRole", "ClusterRoleBinding"}
    roles = {d["metadata"]["namespace"]: d["rules"] for d in documents if d["kind"] == "Role"}
    looks = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]},
    ]
    assert roles == {"monitoring": looks, "shops": looks}
    for job in settings(documents)["scrape_configs"]:
        assert job["kubernetes_sd_configs"] == [{"role": "pod", "namespaces": {"names": ["monitoring", "shops"]}}]


def test_of_the_cluster_it_may_find_nodes_and_read_metrics(render: Any) -> None:
    documents = prometheus(render)
    assert pick(documents, "ClusterRole", "slipway-prometheus")["rules"] == [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
        {"nonResourceURLs": ["/metrics"], "verbs": ["get"]},
    ]
    assert [job["job_name"] for job in settings(documents)["scrape_configs"]] == [
        "kubelet",
        "kubelet-probes",
        "kubelet-resource",
        "cadvisor",
        "kube-apiserver",
        "pods",
        "pods-second",
    ]


def test_the_blackbox_exporter_is_asked_to_ask_and_its_answer_is_about_who_was_asked(render: Any) -> None:
    [job] = [
        job
        for job in settings(prometheus(render, prometheus_probes=PROBES))["scrape_configs"]
        if job["job_name"] == "blackbox"
    ]
    assert job["metrics_path"] == "/probe"
    assert [one["targets"] for one in job["static_configs"]] == [[probe["target"]] for probe in PROBES]
    health, public, other = (one["labels"] for one in job["static_configs"])
    assert health == {
        "__param_module": "health",
        "probe": "health",
        "probed_service": "shop",
        "probed_namespace": "shops",
    }
    assert public == {
        "__param_module": "public",
        "__param_hostname": "shop.test",
        "probe": "public",
        "host": "shop.test",
    }
    assert public != other
    # Last of all the exporter is who is asked, in place of what it asks.
    *_, last = job["relabel_configs"]
    assert last == {"target_label": "__address__", "replacement": "blackbox-exporter.monitoring.svc:9115"}
    # `up` of a probe must not pass for a pod of the service: ServiceDown would be silent.
    assert not {"service", "namespace"} & {name for one in job["static_configs"] for name in one["labels"]}


def test_without_probes_and_etcd_nothing_is_asked(render: Any) -> None:
    names = {job["job_name"] for job in settings(prometheus(render))["scrape_configs"]}
    assert not names & {"blackbox", "etcd"}


def test_a_public_probe_believes_the_ca_that_it_is_given_and_the_systems_without_one(render: Any) -> None:
    for given, wanted in (("", None), ("PEM", {"ca_file": "/etc/blackbox-exporter/ca.crt"})):
        documents = blackbox_exporter(render, blackbox_exporter_ca_certificate=given)
        data = pick(documents, "ConfigMap", "blackbox-exporter")["data"]
        modules = yaml.safe_load(data["blackbox.yml"])["modules"]
        assert modules["public"]["http"].get("tls_config") == wanted
        assert modules["public"]["http"]["fail_if_not_ssl"] is True
        assert "insecure_skip_verify" not in data["blackbox.yml"]
        assert ("ca.crt" in data) == bool(given)


@pytest.mark.parametrize(
    "change",
    [{"blackbox_exporter_ca_certificate": "another"}, {"blackbox_exporter_image_revision": "another"}],
    ids=lambda change: next(iter(change)),
)
def test_what_the_blackbox_exporter_reads_at_its_start_restarts_it(render: Any, change: dict[str, Any]) -> None:
    before, after = (
        pick(d, "Deployment", "blackbox-exporter")
        for d in (blackbox_exporter(render), blackbox_exporter(render, **change))
    )
    assert before["spec"]["template"] != after["spec"]["template"]


def test_every_alert_says_how_bad_it_is_and_where_to_read_on(render: Any) -> None:
    """What the tables say is in tests/unit/test_alerts.py; this is what comes out of them."""
    page = "https://git.mycompany.com/docs/runbooks/"
    found = rules(pick(prometheus(render, prometheus_runbooks=page), "ConfigMap", "prometheus-rules"))
    alerts = {rule["alert"]: rule for rule in found if "alert" in rule}
    assert len(alerts) >= 50
    for name, rule in alerts.items():
        assert rule["labels"].keys() == {"severity"}
        assert rule["annotations"].keys() == {"summary", "description", "dashboard", "runbook_url"}
        address, _, heading = rule["annotations"]["runbook_url"].partition("#")
        assert (address.startswith(page), heading) == (True, name.lower())
    # Prometheus fills in labels itself.
    assert alerts["ServiceDown"]["annotations"]["summary"] == "No pod of {{ $labels.service }} answers"


def test_all_tables_are_used(render: Any) -> None:
    files = {path.name for path in (ROOT / "roles/prometheus/files/alerts").glob("*.yml")}
    assert set(pick(prometheus(render), "ConfigMap", "prometheus-rules")["data"]) == files | {"declared.yml"}


def test_what_is_declared_is_a_series_to_compare_with(render: Any) -> None:
    documents = prometheus(render, prometheus_expected_jobs=["redis"], prometheus_postgres_members=3)
    found = [
        (rule["record"], rule["labels"].get("service") or rule["labels"]["job"], rule["expr"])
        for rule in rules(pick(documents, "ConfigMap", "prometheus-rules"), "declared.yml")
    ]
    assert found == [
        ("service:slo_availability:ratio", "shop", "0.999"),
        ("service:slo_latency_p95:seconds", "shop", "0.3"),
        ("service:slo_availability:ratio", "till", "0.99"),
        ("service:slo_latency_p95:seconds", "till", "2.0"),
        ("service:slo_except:info", "till", "1"),
        ("monitoring:expected_job:info", "redis", "1"),
        ("monitoring:expected_job:info", "kube-apiserver", "1"),
        ("monitoring:expected_job:info", "kubelet", "1"),
        ("monitoring:expected_standbys:count", "postgres", "2"),
    ]


@pytest.mark.parametrize("variables", [{}, {"prometheus_services": [], "prometheus_scrape_cluster": False}])
def test_promtool_accepts_the_rules(render: Any, variables: dict[str, Any], tmp_path: Path) -> None:
    """Settings are checked by the platform's own promtool: that of Debian 12 knows nothing of Kubernetes."""
    for name, text in pick(prometheus(render, **variables), "ConfigMap", "prometheus-rules")["data"].items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    command = ["promtool", "check", "rules", *map(str, tmp_path.glob("*.yml"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "change",
    [
        {"prometheus_services": SERVICES[:1]},
        {"prometheus_interval": "30s"},
        {"prometheus_image_revision": "another"},
        {"prometheus_retention": "2d"},
        {"prometheus_expected_jobs": ["redis"]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_prometheus_reads_at_its_start_restarts_it(render: Any, change: dict[str, Any]) -> None:
    before, after = (pick(d, "StatefulSet", "prometheus") for d in (prometheus(render), prometheus(render, **change)))
    assert before["spec"]["template"] != after["spec"]["template"]


def test_samples_leave_room_on_the_volume(render: Any) -> None:
    container, _ = pick(prometheus(render, prometheus_storage_size="10Gi"), "StatefulSet", "prometheus")["spec"][
        "template"
    ]["spec"]["containers"]
    assert f"--storage.tsdb.retention.size={8 * 2**30}B" in container["args"]
    assert "--storage.tsdb.retention.time=15d" in container["args"]


def told(documents: list[dict[str, Any]]) -> dict[str, Any]:
    text = pick(documents, "ConfigMap", "alertmanager")["data"]["alertmanager.yml"]
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def amtool(config: dict[str, Any], directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Ask amtool about settings. That of Debian 12 has no url_file of webhooks yet; the lab's reads it as it is."""
    text = re.sub(r"(?<!api_)url_file: /run", "url: http://run", yaml.safe_dump(config))
    (directory / "alertmanager.yml").write_text(text, encoding="utf-8")
    return subprocess.run(
        ["amtool", *arguments], cwd=directory, capture_output=True, text=True, check=False, timeout=60
    )


def test_alertmanager_tells_nobody_and_keeps_alerts_visible(render: Any) -> None:
    documents = alertmanager(render)
    found = told(documents)
    assert found["receivers"] == [{"name": "none"}]
    assert {route["receiver"] for route in [found["route"], *found["route"]["routes"]]} == {"none"}
    assert "global" not in found
    assert pick(documents, "Secret", "alertmanager")["data"] == {}


def test_alerts_of_one_name_come_together_and_are_repeated_twice_a_day(render: Any) -> None:
    route = told(alertmanager(render, **TOLD))["route"]
    wanted = {"group_by": ["alertname"], "group_wait": "30s", "group_interval": "5m", "repeat_interval": "12h"}
    assert {name: route[name] for name in wanted} == wanted


def test_receivers_are_what_the_inventory_says(render: Any) -> None:
    found = {receiver["name"]: receiver for receiver in told(alertmanager(render, **TOLD))["receivers"]}
    assert list(found) == ["none", "deadman", "sre", "dba", "pager"]
    assert [one["slack_configs"][0]["channel"] for one in (found["sre"], found["dba"])] == ["#sre-alerts", "#databases"]
    assert found["dba"]["email_configs"][0]["to"] == "dba@mycompany.com"
    assert all(one["send_resolved"] for one in [*found["sre"]["slack_configs"], *found["pager"]["webhook_configs"]])


def test_secrets_of_receivers_are_files_of_a_secret_and_nowhere_else(render: Any) -> None:
    documents = alertmanager(render, **TOLD)
    held = pick(documents, "Secret", "alertmanager")["data"]
    assert {name: base64.b64decode(value).decode() for name, value in held.items()} == TOLD["alertmanager_secrets"]
    others = [document for document in documents if document["kind"] != "Secret"]
    assert "canary" not in yaml.safe_dump_all(others)
    text = pick(documents, "ConfigMap", "alertmanager")["data"]["alertmanager.yml"]
    for name in held:
        assert f"_file: /run/secrets/alertmanager/{name}\n" in text


def test_amtool_accepts_the_settings(render: Any, tmp_path: Path) -> None:
    for variables in ({}, TOLD):
        done = amtool(told(alertmanager(render, **variables)), tmp_path, "check-config", "alertmanager.yml")
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        (["alertname=HighLatency", "severity=warning", "namespace=api"], "sre"),
        (["alertname=ServiceDown", "severity=critical", "namespace=api"], "pager"),
        (["alertname=PostgresReplicationLag", "severity=warning", "namespace=infrastructure"], "dba"),
        (["alertname=PostgresMemberDown", "severity=critical", "namespace=infrastructure"], "pager,dba"),
        (["alertname=RedisMemoryHigh", "severity=warning", "namespace=elsewhere"], "sre"),
        (["alertname=Watchdog", "severity=none"], "deadman"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_an_alert_goes_to_whom_the_routes_say(render: Any, labels: list[str], receivers: str, tmp_path: Path) -> None:
    config = told(alertmanager(render, **TOLD))
    arguments = ["config", "routes", "test", "--config.file=alertmanager.yml", f"--verify.receivers={receivers}"]
    done = amtool(config, tmp_path, *arguments, *labels)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_left_out_and_for_what_are_alerts_that_exist(render: Any) -> None:
    found = rules(pick(prometheus(render), "ConfigMap", "prometheus-rules"))
    alerts = [rule["alert"] for rule in found if "alert" in rule]
    variables = yaml.safe_load((ROOT / "roles/alertmanager/vars/main.yml").read_text(encoding="utf-8"))
    rendered = told(alertmanager(render))["inhibit_rules"]
    assert len(rendered) == len(variables["__alertmanager_inhibitions"]) > 5
    for rule in variables["__alertmanager_inhibitions"]:
        for name in (*rule["source"].split("|"), *rule["targets"]):
            assert any(re.fullmatch(name, alert) for alert in alerts), name
        # It must not leave itself out.
        assert not any(re.fullmatch(target, name) for target in rule["targets"] for name in rule["source"].split("|"))


def test_every_service_is_scraped_and_missed(rendering: Rendering) -> None:
    """The playbook's part: it watches where services run, and knows each by its name."""
    config = rendering.find("ConfigMap", "monitoring", "prometheus")
    rules_map = rendering.find("ConfigMap", "monitoring", "prometheus-rules")
    assert config and rules_map
    services = {
        (d["metadata"]["name"], d["metadata"]["namespace"])
        for d in rendering.of_kind("Deployment")
        if d["metadata"]["labels"]["app.kubernetes.io/component"] == "service"
    }
    assert len(services) >= 3
    scraped = yaml.safe_load(config["data"]["prometheus.yml"])
    asking = {
        d["metadata"]["namespace"]
        for d in rendering.of_kind("Deployment", "StatefulSet", "DaemonSet")
        if d["spec"]["template"]["metadata"].get("annotations", {}).get("prometheus.io/scrape") == "true"
    }
    assert {namespace for _, namespace in services} | {"monitoring", "infrastructure"} <= asking
    [pods] = [job for job in scraped["scrape_configs"] if job["job_name"] == "pods"]
    assert asking == set(pods["kubernetes_sd_configs"][0]["namespaces"]["names"])
    assert scraped["global"]["scrape_interval"] == "15s"
    declared = rules(rules_map, "declared.yml")
    missed = {
        (rule["labels"]["service"], rule["labels"]["namespace"])
        for rule in declared
        if rule["record"] == "service:slo_availability:ratio"
    }
    assert missed == services
    # What exports metrics of its own accord is missed too.
    others = {
        d["metadata"]["labels"]["app.kubernetes.io/name"]
        for d in rendering.of_kind("Deployment", "StatefulSet", "DaemonSet")
        if d["metadata"]["labels"]["app.kubernetes.io/component"] != "service"
        and d["spec"]["template"]["metadata"].get("annotations", {}).get("prometheus.io/scrape") == "true"
    }
    assert {r["labels"]["job"] for r in declared if r["record"] == "monitoring:expected_job:info"} == others | {
        "kubelet",
        "kube-apiserver",
    }


def test_health_of_every_service_and_every_public_name_at_every_node_is_probed(rendering: Rendering) -> None:
    config = rendering.find("ConfigMap", "monitoring", "prometheus")
    assert config
    [job] = [
        job
        for job in yaml.safe_load(config["data"]["prometheus.yml"])["scrape_configs"]
        if job["job_name"] == "blackbox"
    ]
    health = {
        (one["labels"]["probed_namespace"], one["labels"]["probed_service"]): one["targets"]
        for one in job["static_configs"]
        if one["labels"]["probe"] == "health"
    }
    services = [
        d
        for d in rendering.of_kind("Service")
        if d["metadata"]["labels"].get("app.kubernetes.io/component") == "service"
    ]
    assert len(services) >= 5
    assert health == {
        (d["metadata"]["namespace"], d["metadata"]["name"]): [
            f"http://{d['metadata']['name']}.{d['metadata']['namespace']}.svc:{d['spec']['ports'][0]['port']}/health"
        ]
        for d in services
    }
    names = {rule["host"] for ingress in rendering.of_kind("Ingress") for rule in ingress["spec"]["rules"]}
    public = {
        (one["labels"]["host"], *one["targets"]) for one in job["static_configs"] if one["labels"]["probe"] == "public"
    }
    nodes = {address for _, address in public}
    assert {host for host, _ in public} == names
    assert public == {(name, node) for name in names for node in nodes}
    assert all(re.fullmatch(r"https://[0-9a-z.-]+/", node) for node in nodes)


def test_alerts_that_services_bring_are_found_by_their_label(rendering: Rendering) -> None:
    brought = {path.parent.name: path for path in ROOT.glob("services/*/alerts.yml")}
    maps = [
        d for d in rendering.of_kind("ConfigMap") if d["metadata"]["labels"].get("slipway/prometheus-rules") == "true"
    ]
    assert {d["metadata"]["name"].removesuffix("-alerts") for d in maps} == set(brought)
    for found in maps:
        config = rendering.find("ConfigMap", "monitoring", "prometheus")
        assert config
        [pods] = [
            j for j in yaml.safe_load(config["data"]["prometheus.yml"])["scrape_configs"] if j["job_name"] == "pods"
        ]
        assert found["metadata"]["namespace"] in pods["kubernetes_sd_configs"][0]["namespaces"]["names"]
        service = found["metadata"]["labels"]["app.kubernetes.io/name"]
        for rule in rules(found):
            page = rule["annotations"]["runbook_url"]
            assert page == f"docs/runbooks/{service}.md#{rule['alert'].lower()}"


def test_redis_knows_who_declares_it(rendering: Rendering) -> None:
    secret = rendering.find("Secret", "infrastructure", "redis")
    assert secret
    users = base64.b64decode(secret["data"]["users.acl"]).decode().splitlines()
    with_redis = {
        d["metadata"]["name"]
        for d in rendering.of_kind("Deployment")
        for container in d["spec"]["template"]["spec"]["containers"]
        if any(variable["name"] == "REDIS_USER" for variable in container.get("env", []))
    }
    assert {line.split()[1] for line in users} == with_redis | {"default", "_monitor"}


@pytest.mark.parametrize(
    ("secret", "prefix", "users"), [("redis", "REDIS", 3), ("postgres-certificate", "DATABASE", 3)]
)
def test_a_data_store_has_a_certificate_of_the_ca_that_its_services_believe(
    rendering: Rendering, secret: str, prefix: str, users: int
) -> None:
    found = rendering.find("Secret", "infrastructure", secret)
    assert found
    held = {name: base64.b64decode(found["data"][name]).decode() for name in ("ca.crt", "tls.crt", "tls.key")}
    certificate = x509.load_pem_x509_certificate(held["tls.crt"].encode())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(held["ca.crt"].encode()))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    clients = 0
    for workload in rendering.of_kind("Deployment", "Job"):
        [container] = workload["spec"]["template"]["spec"]["containers"]
        given = {variable["name"]: variable["value"] for variable in container.get("env", [])}
        if f"{prefix}_USER" in given:
            clients += workload["kind"] == "Deployment"
            assert given[f"{prefix}_TLS"] == "true"
            assert given[f"{prefix}_HOST"] in names.get_values_for_type(x509.DNSName)
            metadata = workload["metadata"]
            ca = rendering.find(
                "ConfigMap", metadata["namespace"], f"{metadata['labels']['app.kubernetes.io/name']}-platform-ca"
            )
            assert ca and ca["data"]["ca.crt"] == held["ca.crt"]
    assert clients >= users
