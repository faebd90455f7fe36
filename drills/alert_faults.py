"""The faults of drills/alerts.yml. Each function injects one and returns what undoes it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import kubernetes
from cluster_access import Cluster
from cluster_client import Pods, restricted_pod

from drills.installation import DrillError, wait

NAMESPACE = "drills-alerts"
DEMO = "http://demo.sre-app.svc:8080"
BACK_SECONDS = 300
DISK_MIB, FILLED_MIB = 64, 58
DISK = "/var/lib/slipway-drill"
CERTIFICATES = ("cert-manager.io", "v1", NAMESPACE, "certificates")

Undo = Callable[[], None]


@dataclass
class Platform:
    """What is broken. `stack` ends what an injected fault needs, after all alerts are over or when it breaks off."""

    pods: Pods
    cluster: Cluster
    hosts: Mapping[str, Any]
    image: str
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def apps(self) -> Any:
        return kubernetes.client.AppsV1Api(self.pods.api)

    @property
    def objects(self) -> Any:
        return kubernetes.client.CustomObjectsApi(self.pods.api)

    def run(self, name: str, code: str, **more: Any) -> Undo:
        """Start a pod with a program of its own; the return value removes it."""
        container = {"command": ["python3", "-c", code], **more.pop("container", {})}
        self.pods.core.create_namespaced_pod(NAMESPACE, restricted_pod(name, self.image, container=container, **more))
        self.pods.wait_ready(NAMESPACE, name)
        return lambda: self.remove(name)

    def remove(self, name: str) -> None:
        with suppress(kubernetes.client.ApiException):  # it is gone already
            self.pods.core.delete_namespaced_pod(name, NAMESPACE, grace_period_seconds=0)


def _scaled_to_nothing(platform: Platform, kind: str, namespace: str, name: str) -> Undo:
    """A workload without a pod; undone when it has as many ready ones as before."""
    apps, plural = platform.apps, kind.lower().replace("set", "_set")
    read, scale = (
        getattr(apps, f"{verb}_namespaced_{plural}{part}") for verb, part in (("read", ""), ("patch", "_scale"))
    )
    before = read(name, namespace).spec.replicas
    if not before:
        raise DrillError(f"{kind} {namespace}/{name}: found no pod, wanted one at least to take away")

    def missing() -> str:
        ready = read(name, namespace).status.ready_replicas or 0
        return "" if ready >= before else f"{ready} of {before} pods of {namespace}/{name} are ready"

    def undo() -> None:
        scale(name, namespace, {"spec": {"replicas": before}})
        wait(missing, BACK_SECONDS, "after it was undone")

    platform.stack.callback(undo)
    scale(name, namespace, {"spec": {"replicas": 0}})
    return undo


def service_down(platform: Platform) -> Undo:
    return _scaled_to_nothing(platform, "Deployment", "sre-app", "demo")


def database_down(platform: Platform) -> Undo:
    return _scaled_to_nothing(platform, "StatefulSet", "infrastructure", "postgres")


def redis_down(platform: Platform) -> Undo:
    return _scaled_to_nothing(platform, "StatefulSet", "infrastructure", "redis")


# At most `threads` requests at a time, with a pause after each; answers that are errors are what is wanted.
ASKING = """
import threading, time, urllib.error, urllib.request
def ask():
    while True:
        try:
            urllib.request.urlopen({url!r}, timeout=15).read()
        except (OSError, urllib.error.HTTPError):
            pass
        time.sleep({pause})
for _ in range({threads}):
    threading.Thread(target=ask).start()
"""


def errors(platform: Platform) -> Undo:
    code = ASKING.format(url=f"{DEMO}/api/flaky?failure_rate=0.5", threads=1, pause=0.2)
    return platform.run("errors", code)


def latency(platform: Platform) -> Undo:
    code = ASKING.format(url=f"{DEMO}/api/slow?delay_ms=2000", threads=4, pause=0)
    return platform.run("latency", code)


def disk_filling(platform: Platform) -> Undo:
    """All hosts of the lab share one large disk, so the disk is a small file system of its own on one of them."""
    core = platform.pods.core
    node = next(name for name in platform.hosts if name.startswith("agent"))
    host = platform.hosts[node]

    def on(command: str) -> None:
        done = host.run(command)
        if done.rc != 0:
            raise DrillError(f"{node}: {command}: {done.stderr.strip()[-300:]}")

    def gone() -> str:
        found = core.list_namespaced_pod(NAMESPACE, field_selector="metadata.name=disk").items
        return "the pod on it is still there" if found else ""

    def cleanup() -> None:
        platform.remove("disk")
        wait(gone, BACK_SECONDS, "removing the disk")
        with suppress(kubernetes.client.ApiException):
            core.delete_namespaced_persistent_volume_claim("disk", NAMESPACE)
        with suppress(kubernetes.client.ApiException):
            core.delete_persistent_volume(NAMESPACE)
        host.run(f"umount {DISK}; rmdir {DISK}")

    cleanup()  # of a run that was broken off
    platform.stack.callback(cleanup)
    options = f"size={DISK_MIB}m,mode=0770,uid=10001,gid=10001"
    on(f"mkdir -p {DISK} && mount -t tmpfs -o {shlex.quote(options)} slipway-drill {DISK}")
    size = {"storage": f"{DISK_MIB}Mi"}
    core.create_persistent_volume(
        {
            "metadata": {"name": NAMESPACE, "labels": {"app.kubernetes.io/part-of": "slipway-test"}},
            "spec": {
                "capacity": size,
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": NAMESPACE,
                "local": {"path": DISK},
                "claimRef": {"namespace": NAMESPACE, "name": "disk"},
                "nodeAffinity": {
                    "required": {
                        "nodeSelectorTerms": [
                            {
                                "matchExpressions": [
                                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
                                ]
                            }
                        ]
                    }
                },
            },
        }
    )
    core.create_namespaced_persistent_volume_claim(
        NAMESPACE,
        {
            "metadata": {"name": "disk"},
            "spec": {"storageClassName": NAMESPACE, "accessModes": ["ReadWriteOnce"], "resources": {"requests": size}},
        },
    )
    code = f"import time\nopen('/data/file', 'wb').write(bytes({FILLED_MIB} << 20))\ntime.sleep(7200)"
    platform.run(
        "disk",
        code,
        container={"volumeMounts": [{"name": "data", "mountPath": "/data"}]},
        volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "disk"}}],
    )

    def undo() -> None:
        platform.pods.execute(NAMESPACE, "disk", "rm", "/data/file")

    return undo


def certificate_ending(platform: Platform) -> Undo:
    wanted = {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": {"name": "ending"},
        "spec": {
            "secretName": "ending",
            "dnsNames": ["ending.slipway.test"],
            "issuerRef": {"kind": "ClusterIssuer", "name": "platform-ca"},
            "duration": "48h",
            "renewBefore": "24h",
        },
    }
    platform.objects.create_namespaced_custom_object(*CERTIFICATES, wanted)

    def undo() -> None:
        longer = {"spec": {"duration": "2160h", "renewBefore": "720h"}}
        platform.objects.patch_namespaced_custom_object(*CERTIFICATES, "ending", longer)

    return undo


def _hog(platform: Platform, name: str, code: str, **limits: str) -> Undo:
    resources = {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": limits}
    return platform.run(name, code, container={"resources": resources})


def memory_hog(platform: Platform) -> Undo:
    """Its child is ended, not the pod: what counts it lives on."""
    code = (
        "import subprocess, sys, time\n"
        "while True:\n"
        "    subprocess.run([sys.executable, '-c', 'bytearray(200 << 20)'])\n"
        "    time.sleep(10)"
    )
    return _hog(platform, "memory-hog", code, cpu="200m", memory="64Mi")


def cpu_hog(platform: Platform) -> Undo:
    return _hog(platform, "cpu-hog", "while True: pass", cpu="200m", memory="64Mi")


FAULTS: Mapping[str, Callable[[Platform], Undo]] = {
    function.__name__: function
    for function in (
        service_down,
        errors,
        latency,
        database_down,
        redis_down,
        disk_filling,
        certificate_ending,
        memory_hog,
        cpu_hog,
    )
}
