"""The writers in a pod of their own, where the platform's services are: no tunnel of the controller is in the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cluster_client import Client
from kubernetes.client import ApiException

from drills import writer
from drills.history import History
from drills.installation import DATABASE, HOST, NAMESPACE, OWNER, DrillError, Installation, wait

LOG, STOP = "/log/outcomes", "/log/stop"
# More than the slowest fault takes to heal, and the inserts around it.
ROWS_SECONDS = 300
IMAGE_OF = ("auth", "auth")  # a service whose image has Python and asyncpg


@dataclass
class Writers:
    """Writers that run; the pod outlives them until their log is read."""

    client: Client

    def _execute(self, *command: str) -> str:
        ended = self.client.pods.execute(self.client.namespace, self.client.name, *command)
        if ended.code != 0:
            raise DrillError(
                f"{' '.join(command)} in {self.client.namespace}/{self.client.name}: {ended.errors[-300:]}"
            )
        return ended.output

    def acknowledged(self) -> int:
        core = self.client.pods.core
        if core.read_namespaced_pod(self.client.name, self.client.namespace).status.phase == "Failed":
            said = core.read_namespaced_pod_log(self.client.name, self.client.namespace, tail_lines=1)
            raise DrillError(f"the writers ended: {said.strip()}")
        return int(self._execute("sh", "-c", f"cat {LOG} 2>/dev/null | grep -c '\"{writer.OK}\"' || true"))

    def wait_acknowledged(self, rows: int) -> None:
        def missing() -> str:
            found = self.acknowledged()
            return "" if found >= rows else f"{found} of {rows} inserts acknowledged"

        wait(missing, ROWS_SECONDS, "writing")

    def end(self) -> History:
        """Stop them and read what they noted."""
        self._execute("touch", STOP)

        def running() -> str:
            return "" if '"ended"' in self._execute("tail", "-n", "1", LOG) else "the writers have not ended"

        wait(running, 60, "writing")
        return History.parse(self._execute("cat", LOG))


@contextmanager
def writing(installation: Installation, table: str) -> Iterator[Writers]:
    """Start writers on a node that no fault stops; the pod is gone at the end.

    The name of the Service stands in the pod's hosts file: the drill is about Postgres, and a node that takes the DNS
    server along must not count.
    """
    pods, name = installation.pods, f"writers-{table.replace('_', '-')}"
    image = installation.cluster.get("/apis/apps/v1/namespaces/{}/deployments/{}".format(*IMAGE_OF))
    settings = {
        "host": HOST,
        "port": 5432,
        "database": DATABASE,
        "user": OWNER,
        "password": installation.password,
        "table": table,
        "log": LOG,
        "stop": STOP,
        "ca": "/drill/ca.crt",
    }
    files = {
        "settings.json": json.dumps(settings),
        "writer.py": Path(writer.__file__).read_text(encoding="utf-8"),
        "ca.crt": installation.ca,
    }
    pods.core.create_namespaced_secret(NAMESPACE, {"metadata": {"name": name}, "stringData": files})
    client = pods.start(
        NAMESPACE,
        name,
        image["spec"]["template"]["spec"]["containers"][0]["image"],
        nodeName=installation.servers[0],
        hostAliases=[{"ip": installation.service_address, "hostnames": [HOST]}],
        volumes=[
            {"name": "drill", "secret": {"secretName": name}},
            {"name": "log", "emptyDir": {"sizeLimit": "256Mi"}},
        ],
        container={
            # The log is read after the writers have ended.
            "command": ["sh", "-c", "python3 /drill/writer.py /drill/settings.json || exit; sleep 3600"],
            "volumeMounts": [
                {"name": "drill", "mountPath": "/drill", "readOnly": True},
                {"name": "log", "mountPath": "/log"},
            ],
        },
    )
    try:
        yield Writers(client)
    finally:
        with suppress(ApiException, OSError):  # the namespace takes it along
            pods.core.delete_namespaced_pod(name, NAMESPACE, grace_period_seconds=0)
