"""A cluster of one server, as an administrator, a client of its API and a pod meet it."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_access import Cluster
from cluster_client import Client, Pods
from controller import playbook
from leaks import leaked

DATA = "/var/lib/rancher/k3s"
OWN = "molecule-k3s"
METRICS = "/apis/metrics.k8s.io/v1beta1"


@pytest.fixture(scope="session")
def kubeconfig(state: Path) -> dict[str, Any]:
    """Return the kubeconfig that the role left on the controller."""
    found: dict[str, Any] = yaml.safe_load((state / "kubeconfig").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="session")
def node(cluster: Cluster) -> dict[str, Any]:
    """Return the only node."""
    [found] = cluster.items("/api/v1/nodes")
    return found


@pytest.fixture(scope="session")
def address(inventory: Any) -> str:
    """Return the address of the host."""
    return str(inventory.address("molecule-1"))


@pytest.fixture(scope="module")
def workload(pods: Pods) -> Iterator[Client]:
    """Return a pod with a volume, from an image that the role brought to the node."""
    with pods.namespace(OWN):
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}}
        pods.core.create_namespaced_persistent_volume_claim(OWN, {"metadata": {"name": "kept"}, "spec": claim})
        yield pods.start(OWN, "workload", **with_volume(pods))


def with_volume(pods: Pods) -> dict[str, Any]:
    """Return what makes a pod one with the volume; its user is the one that the image's own files belong to."""
    nodes = pods.core.list_node().items
    names = [name for image in nodes[0].status.images for name in image.names]
    [postgres] = [name for name in names if name.startswith("slipway.local/postgres:")]
    return {
        "image": postgres,
        "volumes": [{"name": "kept", "persistentVolumeClaim": {"claimName": "kept"}}],
        "container": {"volumeMounts": [{"name": "kept", "mountPath": "/kept"}]},
    }


def write(path: str, text: str) -> None:
    """In the pod."""
    import pathlib

    pathlib.Path(path).write_text(text)


def read(path: str) -> str:
    """In the pod."""
    import pathlib

    return pathlib.Path(path).read_text()


def resolve(name: str) -> list[str]:
    """In the pod: the addresses of a name."""
    import socket

    return sorted({str(found[4][0]) for found in socket.getaddrinfo(name, None, socket.AF_INET)})


def unsigned(address: str, port: int, path: str, context: ssl.SSLContext) -> int:
    """Ask without any credentials; return the status."""
    connection = http.client.HTTPSConnection(address, port, timeout=10, context=context)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


# --- the release


def test_the_node_is_ready_and_runs_what_is_installed(server: Any, node: dict[str, Any]) -> None:
    conditions = {c["type"]: c["status"] for c in node["status"]["conditions"]}
    assert conditions["Ready"] == "True"
    assert conditions["EtcdIsVoter"] == "True"
    installed = server.check_output("k3s --version").split()[2]
    assert node["status"]["nodeInfo"]["kubeletVersion"] == installed


def test_it_bears_the_name_address_and_labels_of_a_server(node: dict[str, Any], address: str) -> None:
    labels = node["metadata"]["labels"]
    assert node["metadata"]["name"] == "molecule-1"
    assert {a["type"]: a["address"] for a in node["status"]["addresses"]}["InternalIP"] == address
    assert labels["node-role.kubernetes.io/control-plane"] == "true"
    assert labels["node-role.kubernetes.io/etcd"] == "true"
    assert node["spec"].get("taints", []) == [], "a server runs workloads too"


@pytest.mark.parametrize("tool", ["kubectl", "crictl", "ctr"])
def test_its_tools_work_for_the_administrator(server: Any, tool: str) -> None:
    commands = {"kubectl": "kubectl get nodes -o name", "crictl": "crictl ps -q", "ctr": "ctr containers ls -q"}
    assert server.check_output(commands[tool]) != ""


def test_the_unit_comes_back_by_itself(server: Any) -> None:
    service = server.service("k3s")
    assert service.is_running and service.is_enabled
    wanted = {"Type": "notify", "KillMode": "process", "Restart": "always", "Delegate": "yes"}
    shown = server.check_output("systemctl show k3s --property=%s", ",".join(wanted))
    assert dict(line.split("=", 1) for line in shown.splitlines()) == wanted


def test_it_brings_no_ingress_of_its_own(cluster: Cluster) -> None:
    names = [d["metadata"]["name"] for d in cluster.items("/apis/apps/v1/daemonsets")]
    names += [d["metadata"]["name"] for d in cluster.items("/apis/apps/v1/deployments")]
    assert not [name for name in names if "traefik" in name or name.startswith("svclb")]


# --- who may what


@pytest.mark.parametrize(
    "path", ["/etc/rancher/k3s/token", "/etc/rancher/k3s/config.yaml", "/etc/rancher/k3s/k3s.yaml"]
)
def test_what_opens_the_cluster_is_roots_alone(server: Any, path: str) -> None:
    file = server.file(path)
    assert (file.user, file.group, file.mode) == ("root", "root", 0o600)


def test_the_token_is_in_its_file_and_nowhere_else(server: Any, secrets: dict[str, Any]) -> None:
    only = {"k3s_token": secrets["k3s_token"]}
    assert leaked(only, server.check_output("cat /etc/rancher/k3s/token")) == ["k3s_token"]
    for place in (
        "cat /etc/rancher/k3s/config.yaml /etc/systemd/system/k3s.service*",
        "cat /proc/[0-9]*/cmdline 2>/dev/null; true",
        "journalctl --no-pager --output=cat",
    ):
        assert leaked(only, server.check_output(place)) == [], place


def test_the_full_token_names_the_ca(server: Any) -> None:
    full = server.check_output(f"cat {DATA}/server/node-token").strip()
    digest = server.check_output(f"sha256sum {DATA}/server/tls/server-ca.crt").split()[0]
    assert full.startswith(f"K10{digest}::")


def test_the_controllers_kubeconfig_is_its_owners_and_leads_to_the_host(
    state: Path, kubeconfig: dict[str, Any], address: str
) -> None:
    assert stat.S_IMODE((state / "kubeconfig").stat().st_mode) == 0o600
    [cluster] = kubeconfig["clusters"]
    assert cluster["cluster"]["server"] == f"https://{address}:6443"
    assert "insecure-skip-tls-verify" not in cluster["cluster"]


def test_strangers_learn_nothing(address: str) -> None:
    context = ssl._create_unverified_context()  # noqa: S323 - who asks is the question, not who answers
    for port, path in ((6443, "/api/v1/nodes"), (6443, "/api/v1/secrets"), (10250, "/pods"), (10250, "/metrics")):
        assert unsigned(address, port, path, context) in (401, 403), f"{port}{path}"


@pytest.mark.parametrize("port", [2381, 10248, 10249, 10255, 10257, 10259])
def test_what_needs_no_network_is_not_on_it(address: str, port: int) -> None:
    with pytest.raises(OSError):
        socket.create_connection((address, port), timeout=3).close()


def test_etcd_wants_a_certificate_of_its_own(address: str) -> None:
    context = ssl._create_unverified_context()  # noqa: S323 - as above
    with pytest.raises(OSError):
        unsigned(address, 2379, "/version", context)


# --- what pods get


def test_names_of_the_cluster_resolve(workload: Client, cluster: Cluster) -> None:
    service = cluster.get("/api/v1/namespaces/default/services/kubernetes")
    assert workload.call(resolve, name="kubernetes.default.svc") == [service["spec"]["clusterIP"]]
    assert workload.call(resolve, name="kubernetes.default.svc.cluster.local") == [service["spec"]["clusterIP"]]


def test_what_was_written_outlives_the_pod(workload: Client, pods: Pods) -> None:
    workload.call(write, path="/kept/note", text="still here")
    killed = pods.core.read_namespaced_pod(workload.name, OWN).metadata.uid
    pods.core.delete_namespaced_pod(workload.name, OWN, grace_period_seconds=0)
    again = pods.start_again(OWN, workload.name, killed, **with_volume(pods))
    assert again.call(read, path="/kept/note") == "still here"


def test_logs_are_readable(cluster: Cluster) -> None:
    [pod, *_] = cluster.items("/api/v1/namespaces/kube-system/pods", labelSelector="k8s-app=kube-dns")
    container = pod["spec"]["containers"][0]["name"]
    assert list(cluster.logs("kube-system", pod["metadata"]["name"], container, lines=5, follow=False))


def test_usage_is_measured(pods: Pods, cluster: Cluster) -> None:
    def measured() -> bool:
        group = cluster.get("/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io")
        if not [c for c in group["status"]["conditions"] if (c["type"], c["status"]) == ("Available", "True")]:
            return False
        nodes, found = cluster.items(f"{METRICS}/nodes"), cluster.items(f"{METRICS}/namespaces/kube-system/pods")
        return bool(nodes and found and nodes[0]["usage"]["memory"] != "0")

    assert pods.eventually(measured, True)


def test_images_were_brought_once_under_the_name_of_their_content(
    server: Any, node: dict[str, Any], state: Path
) -> None:
    index = yaml.safe_load((state / "artifacts.yml").read_text(encoding="utf-8"))
    archives = server.check_output(f"ls {DATA}/agent/images").split()
    for name in ("postgres", "traefik", "minio"):
        digest = index[name]["sha256"][f"{name}.tar.zst"]
        assert [a for a in archives if a.startswith(f"{name}-")] == [f"{name}-{digest[:12]}.tar.zst"]
        assert server.check_output(f"sha256sum {DATA}/agent/images/{name}-{digest[:12]}.tar.zst").split()[0] == digest
        names = [found for image in node["status"]["images"] for found in image["names"]]
        assert [found for found in names if found.startswith(f"slipway.local/{name}:")]
    images = json.loads(server.check_output("crictl images --output json"))["images"]
    assert [i["repoTags"] for i in images if not i["pinned"] and "slipway.local" in str(i["repoTags"])] == []


# --- a change


def containers(cluster: Cluster) -> dict[str, int]:
    """Return every container that the API knows, and how often it was started again."""
    pods = [pod for pod in cluster.items("/api/v1/pods") if pod["status"]["phase"] == "Running"]
    statuses = [status for pod in pods for status in pod["status"]["containerStatuses"]]
    return {status["containerID"].removeprefix("containerd://"): status["restartCount"] for status in statuses}


def running(server: Any) -> set[str]:
    """Return every container that runs on the host."""
    return set(server.check_output("crictl ps --quiet --no-trunc").split())


def test_a_restart_leaves_the_pods_alone(server: Any, workload: Client, cluster: Cluster, pods: Pods) -> None:
    before = containers(cluster)
    assert before
    server.check_output("systemctl restart k3s")
    assert pods.eventually(lambda: server.run("k3s kubectl get --raw /readyz").stdout, "ok") == "ok"
    assert set(before) <= running(server)
    assert containers(cluster) == before
    names = {n["metadata"]["name"]: n["status"]["conditions"] for n in cluster.items("/api/v1/nodes")}
    assert [c["status"] for c in names["molecule-1"] if c["type"] == "Ready"] == ["True"]


def test_a_new_setting_is_live_and_the_pods_go_on(
    server: Any, workload: Client, cluster: Cluster, inventory: Any
) -> None:
    before = containers(cluster)
    variables = {"k3s_server_config": {"kubelet-arg": ["max-pods=77"]}}
    run = playbook("playbooks/cluster.yml", "--inventory", str(inventory.path), variables=variables)
    assert run.code == 0, run.output
    assert cluster.items("/api/v1/nodes")[0]["status"]["capacity"]["pods"] == "77"
    assert set(before) <= running(server)
    assert containers(cluster) == before
