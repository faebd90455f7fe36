"""How long a wait waits, and what it outlives."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import ansible.module_utils
import pytest
from kubernetes.client import ApiException
from urllib3.exceptions import MaxRetryError, NewConnectionError, SSLError

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "plugins" / "modules"))
# Ansible puts the project's directory there by itself.
ansible.module_utils.__path__.append(str(ROOT / "plugins" / "module_utils"))

kube_wait: Any = importlib.import_module("kube_wait")

RECORDED = json.loads((Path(__file__).parent / "recorded" / "workloads.json").read_text(encoding="utf-8"))
READY, UNREADY = RECORDED["good"]["object"], RECORDED["big"]["object"]
OPTIONS = {"kubeconfig": "/state/kubeconfig", "timeout": 30, "log_lines": 5}


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(kube_wait.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(kube_wait.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class FakeCluster:
    """Gives a prepared answer to each look at an object, the last one for ever."""

    def __init__(self, **answers: list[Any]) -> None:
        self.answers = answers
        self.looks = dict.fromkeys(answers, 0)

    def find(self, kind: str, name: str, namespace: str) -> Any:
        given = self.answers[name]
        answer = given[min(self.looks[name], len(given) - 1)]
        self.looks[name] += 1
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def pods(self, kind: str, obj: Any) -> list[Any]:
        return []

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        return {"items": []}


def target(name: str, **more: Any) -> dict[str, Any]:
    return {"kind": "Deployment", "name": name, "namespace": "trial", "timeout": None, **more}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return a clock that stands still."""
    return Clock(monkeypatch)


def test_what_is_complete_is_not_waited_for(clock: Clock) -> None:
    cluster = FakeCluster(migrate=[RECORDED["complete-job"]["object"]])
    assert kube_wait.wait(cluster, [target("migrate", kind="Job")], OPTIONS) == (0.0, "")
    assert cluster.looks == {"migrate": 1}


def test_a_moment_between_start_and_crash_is_no_rollout(clock: Clock) -> None:
    cluster = FakeCluster(api=[READY, READY, UNREADY, READY, UNREADY, READY, READY, READY])
    assert kube_wait.wait(cluster, [target("api")], OPTIONS) == (7.0, "")
    assert kube_wait.wait(FakeCluster(api=[READY]), [target("api")], OPTIONS) == (2.0, "")


def test_several_are_waited_for_side_by_side(clock: Clock) -> None:
    cluster = FakeCluster(api=[None, UNREADY, READY], auth=[UNREADY, UNREADY, UNREADY, READY])
    assert kube_wait.wait(cluster, [target("api"), target("auth")], OPTIONS) == (5.0, "")
    assert cluster.looks == {"api": 5, "auth": 6}


def test_each_has_its_own_time(clock: Clock) -> None:
    cluster = FakeCluster(api=[UNREADY], auth=[UNREADY])
    waited, problem = kube_wait.wait(cluster, [target("api"), target("auth", timeout=5)], OPTIONS)
    assert waited == 5.0
    assert "Deployment auth" in problem
    assert "Deployment api" not in problem


def test_an_api_server_that_restarts_is_outlived(clock: Clock) -> None:
    gone = MaxRetryError(None, "/apis", NewConnectionError(None, "refused"))  # type: ignore[arg-type]
    cluster = FakeCluster(api=[gone, ApiException(status=503, reason="starting"), READY])
    assert kube_wait.wait(cluster, [target("api")], OPTIONS) == (4.0, "")


@pytest.mark.parametrize(
    "refusal",
    [
        ApiException(status=401, reason="Unauthorized"),
        ApiException(status=403, reason="deployments.apps is forbidden"),
        MaxRetryError(None, "/apis", SSLError("self-signed certificate in certificate chain")),  # type: ignore[arg-type]
    ],
    ids=["401", "403", "certificate"],
)
def test_a_refusal_ends_the_wait(clock: Clock, refusal: Exception) -> None:
    waited, problem = kube_wait.wait(FakeCluster(api=[refusal]), [target("api")], OPTIONS)
    assert waited == 0.0
    assert problem.splitlines()[-1] == "next: kubectl --kubeconfig /state/kubeconfig get --raw /readyz"


def test_check_mode_waits_for_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = {"kubeconfig": "/nowhere", "kind": "Pod", "name": "a", "namespace": "b", "_ansible_check_mode": True}
    monkeypatch.setattr(
        "ansible.module_utils.basic._ANSIBLE_ARGS", json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode()
    )
    monkeypatch.setattr("ansible.module_utils.basic._ANSIBLE_PROFILE", "legacy")
    with pytest.raises(SystemExit) as end:
        kube_wait.main()
    assert end.value.code == 0
    assert json.loads(capsys.readouterr().out)["waited"] == 0.0
