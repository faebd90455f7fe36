"""The role status_page by itself: what it may see, what it is reached by, and that its program is complete."""

from __future__ import annotations

import ast
import base64
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from tests.rendering.conftest import KUBERNETES, Rendering, pick

TEMPLATES = ("secret.yml.j2", "rbac.yml.j2", "config.yml.j2", "service.yml.j2", "deployment.yml.j2")
PASSWORD = "canary-of-a-password"


def page(render: Any, **variables: Any) -> list[dict[str, Any]]:
    given = {
        "status_page_image": "slipway.local/prometheus:test",
        "status_page_host": "status.slipway.test",
        "status_page_name": "slipway.test",
        "status_page_password": PASSWORD,
    }
    return list(render("status_page", *TEMPLATES, **given | variables))


@pytest.mark.parametrize("variables", [{}, {"status_page_namespace": "elsewhere", "status_page_replicas": 2}])
def test_every_document_is_valid(render: Any, variables: dict[str, Any]) -> None:
    for document in page(render, **variables):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        assert document["metadata"]["labels"]["app.kubernetes.io/part-of"] == "slipway"


def test_the_cluster_gets_a_hash_of_the_password_and_no_password(render: Any) -> None:
    documents = page(render)
    held = pick(documents, "Secret", "status-page")["data"]
    assert {name: base64.b64decode(value).decode() for name, value in held.items()} == {
        "password.sha256": hashlib.sha256(PASSWORD.encode()).hexdigest()
    }
    assert PASSWORD not in str(documents)
    others = str([document for document in documents if document["kind"] != "Secret"])
    assert hashlib.sha256(PASSWORD.encode()).hexdigest() not in others


def test_it_may_list_what_it_shows_and_nothing_else(render: Any) -> None:
    documents = page(render)
    [rules] = [document["rules"] for document in documents if document["kind"] in ("ClusterRole", "Role")]
    assert rules == [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]},
        {"apiGroups": ["apps"], "resources": ["daemonsets", "deployments", "statefulsets"], "verbs": ["list"]},
    ]


def test_two_installations_do_not_share_a_right(render: Any) -> None:
    names = [
        {d["metadata"]["name"] for d in page(render, **more) if d["kind"].startswith("ClusterRole")}
        for more in ({}, {"status_page_namespace": "elsewhere"})
    ]
    assert names[0] & names[1] == set()


def test_from_outside_the_page_is_reached_and_nothing_else(render: Any) -> None:
    documents = page(render)
    [rule] = pick(documents, "Ingress", "status-page")["spec"]["rules"]
    assert (rule["host"], len(rule["http"]["paths"])) == ("status.slipway.test", 1)
    [port] = pick(documents, "Service", "status-page")["spec"]["ports"]
    assert (port["name"], port["targetPort"]) == ("http", "http")
    [container] = pick(documents, "Deployment", "status-page")["spec"]["template"]["spec"]["containers"]
    # Health and metrics, which ask for no password, are at a port that the Service does not have.
    assert container["ports"] == [{"name": "http", "containerPort": 8080}, {"name": "inside", "containerPort": 8081}]
    assert {container[probe]["httpGet"]["port"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")} == {
        "inside"
    }


def test_its_program_is_complete(render: Any, tmp_path: Path) -> None:
    """It starts from the files of the ConfigMap and nothing else of the project."""
    files = pick(page(render), "ConfigMap", "status-page")["data"]
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            for module in modules:
                assert module.partition(".")[0] in sys.stdlib_module_names or f"{module}.py" in files, (
                    f"{name}: {module}"
                )
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import status_server"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    deployment = pick(page(render), "Deployment", "status-page")
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    [mount] = [m["mountPath"] for m in container["volumeMounts"] if m["name"] == "program"]
    program = Path(container["command"][-1])
    assert (str(program.parent), program.name in files) == (mount, True)


@pytest.mark.parametrize(
    "change", [{"status_page_image_revision": "another"}, {"__status_page_files": ["status_html.py"]}]
)
def test_a_new_program_and_a_new_image_restart_it(render: Any, change: dict[str, Any]) -> None:
    before, after = (pick(page(render, **more), "Deployment", "status-page") for more in ({}, change))
    assert before["spec"]["template"] != after["spec"]["template"]


def test_a_new_password_does_not(render: Any) -> None:
    before, after = (
        pick(page(render, **more), "Deployment", "status-page") for more in ({}, {"status_page_password": "another"})
    )
    assert before == after


def test_users_reach_it_by_a_name_with_a_certificate(rendering: Rendering) -> None:
    """The playbook's part: the name is one of those that the public certificate is for, and the page's own."""
    ingress = rendering.find("Ingress", "status", "status-page")
    assert ingress
    [rule] = ingress["spec"]["rules"]
    certified = rendering.find("Ingress", "ingress-nginx", "public-certificate")
    assert certified
    assert rule["host"] in certified["spec"]["tls"][0]["hosts"]
    served = [
        other["host"]
        for one in rendering.of_kind("Ingress")
        for other in one["spec"]["rules"]
        if one is not ingress and "http" in other
    ]
    assert rule["host"] not in served
    # Whoever reads the Secrets of its namespace finds no other one there.
    secrets = [d["metadata"]["name"] for d in rendering.of_kind("Secret") if d["metadata"].get("namespace") == "status"]
    assert secrets == ["status-page"]
