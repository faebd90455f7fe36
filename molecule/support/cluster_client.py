"""A client inside of the cluster: what a test wants to see as a pod sees it, it runs in a pod."""

from __future__ import annotations

import contextlib
import inspect
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes
from kubernetes.stream import portforward, stream

READY_SECONDS = 120
EXEC_SECONDS = 120
# runc now and then loses the race with its own child (seen: "read init-p: connection reset by peer").
EXEC_STARTS = 3
NOT_STARTED = "failed to start exec"


@dataclass(frozen=True)
class Ended:
    """How a command in a container ended."""

    code: int
    output: str
    errors: str


class Pods:
    """Runs commands in pods and makes pods to run them in."""

    def __init__(self, kubeconfig: Path) -> None:
        self.api = kubernetes.config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]
        self.core: Any = kubernetes.client.CoreV1Api(self.api)

    def execute(self, namespace: str, pod: str, *command: str, line: str = "", container: str | None = None) -> Ended:
        """Run a command; `line` is what it can read from its standard input, so that secrets are on no command line.

        A command that the runtime could not even start is started again: nothing of it has run.
        """
        for _ in range(EXEC_STARTS - 1):
            try:
                return self._execute(namespace, pod, command, line, container)
            except ValueError as error:
                # What the client library makes of an answer that is not the exit code of a command.
                if NOT_STARTED not in str(error):
                    raise
                time.sleep(1)
        return self._execute(namespace, pod, command, line, container)

    def _execute(self, namespace: str, pod: str, command: Sequence[str], line: str, container: str | None) -> Ended:
        wanted = {"container": container} if container else {}
        shell = stream(
            self.core.connect_get_namespaced_pod_exec,
            pod,
            namespace,
            command=list(command),
            stdin=bool(line),
            stdout=True,
            stderr=True,
            tty=False,
            _preload_content=False,
            **wanted,
        )
        try:
            if line:
                shell.write_stdin(line + "\n")
            shell.run_forever(timeout=EXEC_SECONDS)
            output, errors = shell.read_stdout(timeout=0), shell.read_stderr(timeout=0)
            assert not shell.is_open(), f"{command} in {namespace}/{pod} did not end in {EXEC_SECONDS} s: {errors}"
            return Ended(shell.returncode, output, errors)
        finally:
            shell.sock.shutdown()

    def may(
        self, account: str, verb: str, resource: str, namespace: str = "", *, group: str = "", name: str = ""
    ) -> bool:
        """Return whether an account (`namespace:name`) may do something with a resource, such as `pods` or `pods/exec`,
        or with the one of a name; without a namespace, with those of all."""
        kind, _, part = resource.partition("/")
        what = {
            "verb": verb,
            "group": group,
            "resource": kind,
            "subresource": part,
            "namespace": namespace,
            "name": name,
        }
        review = {"spec": {"user": f"system:serviceaccount:{account}", "resourceAttributes": what}}
        reviews: Any = kubernetes.client.AuthorizationV1Api(self.api)
        return bool(reviews.create_subject_access_review(review).status.allowed)

    def names(self, namespace: str, selector: str) -> list[str]:
        """Return the names of the running pods of a selector; a check of no pod proves nothing."""
        found = self.core.list_namespaced_pod(namespace, label_selector=selector).items
        names = [p.metadata.name for p in found if p.status.phase == "Running" and not p.metadata.deletion_timestamp]
        assert names, f"no pod runs in {namespace} with {selector}"
        return names

    @contextlib.contextmanager
    def namespace(self, name: str, **labels: str) -> Iterator[str]:
        """Make a namespace of the test's own, gone when it ends."""
        marks = {
            "app.kubernetes.io/part-of": "slipway-test",
            "pod-security.kubernetes.io/enforce": "restricted",
        } | labels
        self._forget_namespace(name)
        self.core.create_namespace({"metadata": {"name": name, "labels": marks}})
        try:
            yield name
        finally:
            self.core.delete_namespace(name)

    def _forget_namespace(self, name: str) -> None:
        """A run that was broken off leaves its namespace; the next one starts from nothing all the same."""
        limit = time.monotonic() + READY_SECONDS
        while self.core.list_namespace(field_selector=f"metadata.name={name}").items:
            with contextlib.suppress(kubernetes.client.ApiException):
                self.core.delete_namespace(name)
            assert time.monotonic() < limit, f"namespace {name} of an earlier run does not go away"
            time.sleep(1)

    def wait_ready(self, namespace: str, pod: str, other_than: str = "") -> Any:
        """Wait until a pod is ready; `other_than` is the uid of a pod of that name that was deleted."""
        limit = time.monotonic() + READY_SECONDS
        found = None
        while time.monotonic() < limit:
            listed = self.core.list_namespaced_pod(namespace, field_selector=f"metadata.name={pod}").items
            found = listed[0] if listed else None
            if found and found.metadata.uid != other_than and not found.metadata.deletion_timestamp:
                ready = [c.status for c in found.status.conditions or [] if c.type == "Ready"]
                if ready == ["True"]:
                    return found
            time.sleep(0.5)
        raise AssertionError(f"pod {namespace}/{pod} is not ready after {READY_SECONDS} s: {found and found.status}")

    @staticmethod
    def eventually(look: Callable[[], Any], wanted: Any, seconds: float = READY_SECONDS) -> Any:
        """Look until what is wanted is seen, and return what was seen last."""
        limit = time.monotonic() + seconds
        while (seen := look()) != wanted and time.monotonic() < limit:
            time.sleep(1)
        return seen

    def start(self, namespace: str, name: str, image: str, **more: Any) -> Client:
        """Start a pod that the platform's Pod Security admits, and that waits to be told what to do."""
        self.core.create_namespaced_pod(namespace, restricted_pod(name, image, **more))
        self.wait_ready(namespace, name)
        return Client(self, namespace, name)

    def start_again(self, namespace: str, name: str, killed: str, image: str, **more: Any) -> Client:
        """Start a pod in the place of one that was deleted, as soon as that is gone."""
        gone = self.eventually(
            lambda: [
                pod.metadata.uid
                for pod in self.core.list_namespaced_pod(namespace, field_selector=f"metadata.name={name}").items
                if pod.metadata.uid == killed
            ],
            [],
        )
        assert gone == [], f"pod {namespace}/{name} does not go away"
        return self.start(namespace, name, image, **more)

    @contextlib.contextmanager
    def forward(self, namespace: str, pod: str, port: int) -> Iterator[str]:
        """Give a local address whose connections end at a port of a pod."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            threading.Thread(target=self._serve, args=(listener, namespace, pod, port), daemon=True).start()
            yield f"127.0.0.1:{listener.getsockname()[1]}"

    def _serve(self, listener: socket.socket, namespace: str, pod: str, port: int) -> None:
        with contextlib.suppress(OSError):  # the listener was closed: nobody wants to connect any more
            while True:
                near, _ = listener.accept()
                # A client of its own for each, since making a connection changes the client for a moment.
                core = kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(self.api.configuration))
                forward = portforward(core.connect_get_namespaced_pod_portforward, pod, namespace, ports=str(port))
                far = forward.socket(port)
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=_pump, args=(source, target), daemon=True).start()


def _pump(source: Any, target: Any) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@dataclass(frozen=True)
class Client:
    """A pod that runs functions of the tests."""

    pods: Pods
    namespace: str
    name: str

    def call(self, function: Callable[..., Any], **arguments: Any) -> Any:
        """Run a function that stands by itself (its imports are inside of it) in the pod and return what it returns."""
        source = inspect.getsource(function)
        call = f"print(json.dumps({function.__name__}(**json.loads(input()))))"
        code = f"from __future__ import annotations\nimport json\n{source}\n{call}"
        ended = self.pods.execute(self.namespace, self.name, "python3", "-c", code, line=json.dumps(arguments))
        assert ended.code == 0, f"{function.__name__} in {self.namespace}/{self.name}: {ended.errors[-2000:]}"
        return json.loads(ended.output.splitlines()[-1])


def restricted_pod(name: str, image: str, **more: Any) -> dict[str, Any]:
    """Return a pod as Pod Security `restricted` wants it; `more` replaces parts of its spec."""
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "3600"],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        **more.pop("container", {}),
    }
    spec = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        **more,
    }
    return {"metadata": {"name": name, "labels": {"app.kubernetes.io/name": name}}, "spec": spec}
