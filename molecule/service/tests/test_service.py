"""What the role makes of services/<name>/service.yml, seen from inside of the cluster. Then a service of its own,
because adding one is adding a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_client import Client, Pods
from confinement import confined, confinements
from controller import Run, apply_role
from cronjobs import run_now
from kubernetes.client import AppsV1Api, BatchV1Api
from leaks import leaked

OWN = "molecule-service-own"
SERVICES = ["auth", "api", "image", "web", "demo"]
# Those whose image has a Python to look around with; the page's has nginx and not even a shell.
PYTHON = [name for name in SERVICES if name != "web"]
RUNNING = "app.kubernetes.io/component=service,app.kubernetes.io/name={}"
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"

pytestmark = [pytest.mark.explain(name) for name in ("auth", "api", "image-storage", "web", "sre-app", OWN)]


def ask(url: str) -> tuple[int, str]:
    """In the cluster: status and body of an answer over HTTP; 0 where nobody answers."""
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def look_around(secrets_dir: str, token: str) -> dict[str, Any]:
    """In a service's own container: what its process has, and what it may do to the disk."""
    import os
    import pathlib

    def writable(directory: str) -> bool:
        try:
            file = pathlib.Path(directory, "molecule")
            file.write_text("")
            file.unlink()
        except OSError:
            return False
        return True

    folder = pathlib.Path(secrets_dir)
    files = [path for path in folder.iterdir() if not path.name.startswith("..")] if folder.exists() else []
    return {
        "environment": pathlib.Path("/proc/1/environ").read_text() + pathlib.Path("/proc/1/cmdline").read_text(),
        "secrets": {path.name: path.read_text() for path in files},
        "open": [path.name for path in files if path.stat().st_mode & 0o007],
        "token": pathlib.Path(token).exists(),
        "ca": pathlib.Path("/etc/slipway/ca.crt").read_text() if pathlib.Path("/etc/slipway/ca.crt").exists() else "",
        "writable": [d for d in ("/", "/app", "/etc", "/usr/bin", "/var/tmp", "/tmp") if writable(d)],
        "uid": os.getuid(),
    }


@pytest.fixture(params=SERVICES)
def definition(request: pytest.FixtureRequest, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the service.yml of each service in turn."""
    found: dict[str, Any] = definitions[request.param]
    return found


@pytest.fixture(scope="session")
def seen(pods: Pods, definitions: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what each service's process sees around it."""
    found = {}
    for name in PYTHON:
        one = definitions[name]
        [pod, *_] = pods.names(one["namespace"], RUNNING.format(name))
        inside = Client(pods, one["namespace"], pod)
        found[name] = inside.call(look_around, secrets_dir="/run/secrets/slipway", token=TOKEN)
    return found


def test_every_enabled_service_is_tested(definitions: dict[str, Any]) -> None:
    assert sorted(definitions) == sorted(SERVICES)


def test_it_answers_by_its_name_in_the_cluster(client: Client, definition: dict[str, Any]) -> None:
    base = f"http://{definition['name']}.{definition['namespace']}.svc:{definition['port']}"
    for path in (definition["probes"]["live"], definition["probes"]["ready"], "/health", "/metrics"):
        status, body = client.call(ask, url=base + path)
        assert status == 200, f"{path}: {body}"


def test_every_pod_that_is_wanted_takes_requests(pods: Pods, cluster: Any, definition: dict[str, Any]) -> None:
    name, namespace = definition["name"], definition["namespace"]
    deployment = AppsV1Api(pods.api).read_namespaced_deployment(name, namespace)
    slices = cluster.items(
        f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices",
        labelSelector=f"kubernetes.io/service-name={name}",
    )
    ready = [e for s in slices for e in s["endpoints"] or [] if e["conditions"]["ready"]]
    assert len(ready) == deployment.spec.replicas
    assert [port["port"] for s in slices for port in s["ports"]] == [definition["port"]]


def test_it_is_confined(pods: Pods, hosts: dict[str, Any], definition: dict[str, Any]) -> None:
    found = confinements(pods, hosts, definition["namespace"], RUNNING.format(definition["name"]))
    assert found == dict.fromkeys(found, confined(10001))


@pytest.mark.parametrize("name", PYTHON)
def test_it_can_write_to_tmp_alone(seen: dict[str, Any], name: str) -> None:
    assert seen[name]["writable"] == ["/tmp"]


@pytest.mark.parametrize("name", PYTHON)
def test_it_has_no_key_to_the_cluster(seen: dict[str, Any], name: str) -> None:
    assert not seen[name]["token"]


@pytest.mark.parametrize("name", PYTHON)
def test_it_knows_the_ca_if_it_meets_a_data_store(
    seen: dict[str, Any], definitions: dict[str, Any], state: Path, name: str
) -> None:
    meets = {"database", "bucket", "redis"} & definitions[name].keys()
    assert seen[name]["ca"] == ((state / "ca.crt").read_text(encoding="utf-8") if meets else "")


def test_the_page_has_no_secret_and_no_key_to_the_cluster(pods: Pods, definitions: dict[str, Any]) -> None:
    [name, *_] = pods.names(definitions["web"]["namespace"], RUNNING.format("web"))
    spec = pods.core.read_namespaced_pod(name, definitions["web"]["namespace"]).spec
    assert [volume.name for volume in spec.volumes] == ["tmp"]


@pytest.mark.parametrize("name", PYTHON)
def test_its_secrets_are_files_and_only_its_own(
    seen: dict[str, Any], secrets: dict[str, Any], definitions: dict[str, Any], name: str
) -> None:
    definition = definitions[name]
    wanted = {file: secrets[key] for file, key in definition.get("secrets", {}).items()}
    if "database" in definition:
        wanted["database_password"] = secrets["postgres_databases"][name]
    if "bucket" in definition:
        keys = secrets["minio_keys"][name]
        wanted |= {"s3_access_key": keys["access_key"], "s3_secret_key": keys["secret_key"]}
    if "redis" in definition:
        wanted["redis_password"] = secrets["redis_passwords"][name]
    if definition.get("service_tokens"):
        wanted["service_key"] = secrets["service_keys"][name]
    # What is a map in the environment's secrets is JSON in the file.
    wanted |= {file: json.dumps(value, sort_keys=True) for file, value in wanted.items() if isinstance(value, dict)}
    found = seen[name]["secrets"]
    assert sorted(found) == sorted(wanted)
    assert [file for file in wanted if found[file].strip() != wanted[file].strip()] == []
    assert seen[name]["open"] == [], "others may read them"
    assert leaked(secrets, seen[name]["environment"]) == []


def test_no_secret_is_in_its_specification(cluster: Any, secrets: dict[str, Any], definition: dict[str, Any]) -> None:
    core, apps = f"/api/v1/namespaces/{definition['namespace']}", f"/apis/apps/v1/namespaces/{definition['namespace']}"
    collections = (f"{core}/pods", f"{core}/configmaps", f"{apps}/deployments", f"{apps}/replicasets")
    assert leaked(secrets, str([cluster.items(path) for path in collections])) == []


def test_its_database_was_migrated_by_the_image_that_runs(cluster: Any, definition: dict[str, Any]) -> None:
    """Who has no database has no migration."""
    namespace, name = definition["namespace"], definition["name"]
    jobs = cluster.items(
        f"/apis/batch/v1/namespaces/{namespace}/jobs",
        labelSelector=f"app.kubernetes.io/component=migration,app.kubernetes.io/name={name}",
    )
    deployment = cluster.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}")
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    migrated = [image] if "database" in definition else []
    assert [job["spec"]["template"]["spec"]["containers"][0]["image"] for job in jobs] == migrated
    assert [job["status"]["succeeded"] for job in jobs] == [1] * len(migrated)


def test_what_it_does_at_fixed_times_works(pods: Pods, definition: dict[str, Any]) -> None:
    """Each of its schedules is run now, once."""
    namespace, name = definition["namespace"], definition["name"]
    batch: Any = BatchV1Api(pods.api)
    label = f"app.kubernetes.io/component=schedule,app.kubernetes.io/name={name}"
    found = batch.list_namespaced_cron_job(namespace, label_selector=label).items
    wanted = {f"{name}-{one['name']}": one["schedule"] for one in definition.get("schedules", [])}
    assert {cronjob.metadata.name: cronjob.spec.schedule for cronjob in found} == wanted
    for cronjob in found:
        run_now(pods, cronjob)


def test_only_who_has_a_path_is_reachable_from_outside(cluster: Any, definitions: dict[str, Any], domain: str) -> None:
    paths = {
        (rule["host"], path["path"], path["backend"]["service"]["name"])
        for ingress in cluster.items("/apis/networking.k8s.io/v1/ingresses")
        if ingress["metadata"]["namespace"] in {d["namespace"] for d in definitions.values()}
        for rule in ingress["spec"]["rules"]
        for path in rule["http"]["paths"]
    }
    hosts = {d["name"]: d["ingress"].get("host", "") for d in definitions.values() if "ingress" in d}
    assert paths == {
        (f"{host}.{domain}" if host else domain, definitions[name]["ingress"]["path"], name)
        for name, host in hosts.items()
    }


# --- one of the test's own

PORT = 8080
ROOM = {"cpu": "50m", "memory": "64Mi"}


class Folder:
    """A services directory with one service, which serves the files of the image."""

    def __init__(self, directory: Path, state: Path, image: str) -> None:
        self.directory, self.state, self.image = directory, state, image
        self.definition: dict[str, Any] = {
            "name": "hello",
            "namespace": OWN,
            "port": PORT,
            "replicas": 1,
            "command": ["python3", "-m", "http.server", str(PORT), "--directory", "/etc"],
            "resources": {"requests": ROOM, "limits": {"cpu": "1", "memory": "128Mi"}},
            "probes": {"live": "/hostname", "ready": "/hostname"},
            "callers": [],
            "callees": [],
            "environment": {"GREETING": "hello"},
        }

    def apply(self, *arguments: str, timeout: int = 90, **changes: Any) -> Run:
        folder = self.directory / "hello"
        folder.mkdir(exist_ok=True)
        (folder / "service.yml").write_text(yaml.safe_dump(self.definition | changes), encoding="utf-8")
        variables = {
            "service_names": ["hello"],
            "service_directory": str(self.directory),
            "service_kubeconfig": str(self.state / "kubeconfig"),
            "service_domain": "slipway.test",
            "service_images": {"hello": self.image},
            "service_rollout_timeout": timeout,
        }
        return apply_role("service", *arguments, variables=variables)


@pytest.fixture(scope="module")
def folder(pods: Pods, state: Path, service_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    """Return a folder whose service was deployed."""
    with pods.namespace(OWN):
        made = Folder(tmp_path_factory.mktemp("services"), state, service_image)
        check = made.apply("--check")
        assert check.code == 0, check.output
        assert pods.core.list_namespaced_service(OWN).items == []
        run = made.apply()
        assert run.code == 0, run.output
        yield made


URL = f"http://hello.{OWN}.svc:{PORT}"


def test_a_folder_becomes_a_service(folder: Folder, client: Client, pods: Pods, hosts: dict[str, Any]) -> None:
    # The nodes hear of a new Service a moment after its pod is ready.
    assert pods.eventually(lambda: client.call(ask, url=f"{URL}/hostname")[0], 200) == 200
    found = confinements(pods, hosts, OWN, RUNNING.format("hello"))
    assert found == dict.fromkeys(found, confined(10001))


def test_a_second_run_changes_nothing(folder: Folder) -> None:
    run = folder.apply()
    assert run.code == 0, run.output
    assert run.changed == 0, run.output


def test_a_schedule_comes_and_goes_with_its_line(folder: Folder, pods: Pods) -> None:
    batch: Any = BatchV1Api(pods.api)

    def names() -> list[str]:
        return [found.metadata.name for found in batch.list_namespaced_cron_job(OWN).items]

    nightly = {"name": "nightly", "schedule": "0 3 * * *", "command": ["python3", "--version"]}
    run = folder.apply(schedules=[nightly])
    assert run.code == 0, run.output
    assert names() == ["hello-nightly"]
    run_now(pods, batch.read_namespaced_cron_job("hello-nightly", OWN))
    run = folder.apply()
    assert run.code == 0, run.output
    assert names() == []


def test_alerts_come_and_go_with_their_file(folder: Folder, pods: Pods) -> None:
    def names() -> list[str]:
        found = pods.core.list_namespaced_config_map(OWN, label_selector="slipway/prometheus-rules=true").items
        return [one.metadata.name for one in found]

    alert = {
        "alert": "HelloDown",
        "expr": "hello_up == 0",
        "severity": "warning",
        "summary": "It is silent",
        "description": "Nobody is greeted.",
        "trial": {"series": {"hello_up": ["0", "1"]}},
    }
    path = folder.directory / "hello" / "alerts.yml"
    path.write_text(yaml.safe_dump({"dashboard": "service-hello", "alerts": [alert]}), encoding="utf-8")
    run = folder.apply()
    assert run.code == 0, run.output
    assert names() == ["hello-alerts"]
    path.unlink()
    run = folder.apply()
    assert run.code == 0, run.output
    assert names() == []


def test_a_release_that_does_not_start_says_why_and_the_old_one_goes_on(folder: Folder, client: Client) -> None:
    broken = ["python3", "-c", "raise SystemExit('out of coffee')"]
    # Long enough to start and end on a busy machine too: before, there is nothing to tell.
    run = folder.apply(timeout=40, command=broken)
    assert run.code != 0
    assert "out of coffee" in run.output
    assert "hello" in run.failure
    assert client.call(ask, url=f"{URL}/hostname")[0] == 200
    run = folder.apply()
    assert run.code == 0, run.output


def test_a_mistake_in_the_folder_is_refused_before_anything_changes(folder: Folder, cluster: Any) -> None:
    path = f"/apis/apps/v1/namespaces/{OWN}/deployments/hello"
    before = cluster.get(path)["metadata"]["generation"]
    run = folder.apply(probs={"live": "/"}, port="eighty")
    assert run.code != 0
    assert "probs" in run.output and "probes" in run.output
    assert "eighty" in run.output
    assert cluster.get(path)["metadata"]["generation"] == before
