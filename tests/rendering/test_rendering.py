"""Everything that the roles apply is valid, complete and safe: looked at before any cluster sees it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from tests.rendering.conftest import KUBERNETES, PROFILES, ROOT, Rendering

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")
PROBES = {"livenessProbe", "readinessProbe", "startupProbe"}
# Who speaks to the API, and so may have a token.
API_CLIENTS = {
    *("cert-manager", "cert-manager-webhook", "cert-manager-cainjector"),
    *("traefik", "ingress-nginx", "postgres", "prometheus", "status-page", "otel-collector"),
}
# The ingress controller of each profile, and the role of the other one.
CONTROLLERS = {"local": ("traefik", "ingress_nginx"), "ha": ("ingress-nginx", "traefik")}
# Their images are not ours.
INGRESS = "DaemonSet/ingress-nginx"
FOREIGN = (INGRESS, "Deployment/grafana")
# It reads the files that the logs of all pods are in.
READER = "DaemonSet/otel-collector"
# Roles whose templates go to hosts and not to the API.
HOST_ROLES = {"artifacts", "k3s", "node", "preflight", "secrets"}


def pod_of(document: dict[str, Any]) -> dict[str, Any]:
    template = document["spec"]["jobTemplate"]["spec"] if document["kind"] == "CronJob" else document["spec"]
    found: dict[str, Any] = template["template"]
    return found


def workloads(rendering: Rendering) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    for document in rendering.of_kind(*WORKLOADS):
        metadata = document["metadata"]
        yield f"{document['kind']}/{metadata['name']}", metadata["namespace"], document, pod_of(document)


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def where(document: dict[str, Any]) -> str:
    metadata = document["metadata"]
    return f"{document['kind']} {metadata.get('namespace', '-')}/{metadata['name']}"


def test_every_document_is_valid(rendering: Rendering) -> None:
    mistakes = []
    for document in rendering.documents:
        try:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            place = ".".join(str(part) for part in error.path)
            mistakes.append(f"{where(document)}: {place}: {error.message}")
    assert mistakes == []


def test_every_object_is_applied_once_and_server_side_as_slipway(rendering: Rendering) -> None:
    counts = Counter(where(document) for document in rendering.documents)
    assert [name for name, count in counts.items() if count > 1] == []
    managers = [call["server_side_apply"]["field_manager"] for call in rendering.calls if call["state"] == "present"]
    assert set(managers) == {"slipway"}


def test_every_template_of_every_role_is_used() -> None:
    unused = []
    for template in sorted(ROOT.glob("roles/*/templates/*")):
        role = template.parents[1]
        if role.name in HOST_ROLES:
            continue
        sources = [*role.glob("tasks/*.yml"), *role.glob("vars/*.yml"), *role.glob("templates/*")]
        if not any(template.name in path.read_text(encoding="utf-8") for path in sources if path != template):
            unused.append(str(template.relative_to(ROOT)))
    assert unused == []


def test_every_role_that_has_templates_has_applied_something(rendering: Rendering) -> None:
    """A template that is never rendered is never checked."""
    text = yaml.safe_dump(rendering.documents)
    roles = {template.parents[1].name for template in ROOT.glob("roles/*/templates/*")} - HOST_ROLES
    marks = {
        "cluster_base": "ResourceQuota",
        "cert_manager": "name: cert-manager-webhook",
        "ingress_common": "kind: IngressClass",
        "ingress_nginx": "name: ingress-nginx-controller",
        "blackbox_exporter": "app.kubernetes.io/name: blackbox-exporter",
        "logging": "app.kubernetes.io/name: loki",
        "node_exporter": "app.kubernetes.io/name: node-exporter",
        "otel_collector": "app.kubernetes.io/name: otel-collector",
        "tracing": "app.kubernetes.io/name: jaeger",
        "service": "auth-migrate-",
        "status_page": "app.kubernetes.io/name: status-page",
    }
    missing = {role for role in roles if marks.get(role, f"app.kubernetes.io/name: {role}") not in text}
    assert missing == {CONTROLLERS[rendering.profile][1]}, "that of the controller that was not chosen, and no other"


def test_namespaces_exist(rendering: Rendering) -> None:
    known = {document["metadata"]["name"] for document in rendering.of_kind("Namespace")} | {"default"}
    used = {document["metadata"].get("namespace") for document in rendering.documents} - {None}
    assert used <= known


def test_pods_are_as_restricted_as_pod_security_wants_them(rendering: Rendering) -> None:
    for name, _, _, pod in workloads(rendering):
        shared = pod["spec"]["securityContext"]
        # The files that logs are in are root's; it has no capability all the same.
        assert shared.get("runAsNonRoot", False) is (name != READER), name
        assert shared["runAsUser"] >= 10000 or name in (*FOREIGN, READER), name
        assert shared["seccompProfile"]["type"] == "RuntimeDefault", name
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            assert key not in pod["spec"], name
        allowed = {"configMap", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
        # It tells of its host, and reads no more than everybody may there.
        hosts = {"hostPath"} if name in ("DaemonSet/node-exporter", READER) else set()
        for volume in pod["spec"].get("volumes", []):
            assert set(volume) - {"name"} <= allowed | hosts, f"{name}: {volume['name']}"
        for mount in (mount for container in containers(pod) if hosts for mount in container["volumeMounts"]):
            # How far it has read outlives it.
            assert mount.get("readOnly") is True or (name, mount["mountPath"]) == (READER, "/state"), name
        for container in containers(pod):
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, name
            if name == INGRESS:
                # Still within the level restricted, but for the host ports; what is more of it the image needs.
                assert shared["runAsUser"] == 101
                assert own["capabilities"] == {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}
                continue
            assert own["readOnlyRootFilesystem"] is True, name
            assert own["capabilities"] == {"drop": ["ALL"]}, name


def test_containers_say_what_they_need(rendering: Rendering) -> None:
    for name, _, document, pod in workloads(rendering):
        assert pod["spec"]["priorityClassName"] in {c["metadata"]["name"] for c in rendering.of_kind("PriorityClass")}
        for container in containers(pod):
            resources = container["resources"]
            assert {"cpu", "memory"} <= set(resources["requests"]), name
            assert "memory" in resources["limits"], name
            image = container["image"]
            assert image.startswith("slipway.local/") or name in FOREIGN, name
            assert image.rpartition(":")[2] not in ("", "latest"), name
            if document["kind"] in ("Deployment", "StatefulSet", "DaemonSet"):
                # Not ready, an exporter would take what it watches out of its Service. From outside nobody can tell a
                # backup that hangs from one that takes hours: pgBackRest has its own timeouts. What gathers rules
                # serves nobody, and each of its questions has a timeout.
                probes = {"exporter": {"livenessProbe"}, "backup": set(), "rules": set()}.get(container["name"], PROBES)
                assert {probe for probe in PROBES if probe in container} == probes, name


def test_only_api_clients_have_a_token(rendering: Rendering) -> None:
    for name, namespace, _, pod in workloads(rendering):
        account = pod["spec"]["serviceAccountName"]
        found = rendering.find("ServiceAccount", namespace, account)
        assert found, f"{name}: no ServiceAccount {namespace}/{account}"
        mounted = pod["spec"].get("automountServiceAccountToken", found.get("automountServiceAccountToken", True))
        assert bool(mounted) is (account in API_CLIENTS), name


def test_what_a_pod_refers_to_is_applied_too(rendering: Rendering) -> None:
    missing = []
    for name, namespace, _, pod in workloads(rendering):
        for kind, target in references(pod):
            if not rendering.find(kind, namespace, target):
                missing.append(f"{name}: no {kind} {namespace}/{target}")
        for container in containers(pod):
            claims = [c["metadata"]["name"] for c in pod.get("claims", [])]
            volumes = {volume["name"] for volume in pod["spec"].get("volumes", [])} | set(claims)
            mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
            templates = claim_templates(rendering, name, namespace)
            missing += [f"{name}: no volume {mount}" for mount in mounts - volumes - templates]
    assert missing == []


def claim_templates(rendering: Rendering, name: str, namespace: str) -> set[str]:
    kind, _, target = name.partition("/")
    document = rendering.find(kind, namespace, target) or {"spec": {}}
    return {claim["metadata"]["name"] for claim in document["spec"].get("volumeClaimTemplates", [])}


def references(pod: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for volume in pod["spec"].get("volumes", []):
        sources = [volume, *volume.get("projected", {}).get("sources", [])]
        for source in sources:
            if "configMap" in source:
                yield "ConfigMap", source["configMap"]["name"]
            if "secret" in source:
                yield "Secret", source["secret"].get("secretName") or source["secret"]["name"]
    for container in containers(pod):
        for variable in container.get("env", []):
            origin = variable.get("valueFrom", {})
            if "secretKeyRef" in origin:
                yield "Secret", origin["secretKeyRef"]["name"]
            if "configMapKeyRef" in origin:
                yield "ConfigMap", origin["configMapKeyRef"]["name"]


def test_selectors_find_their_pods_and_no_others(rendering: Rendering) -> None:
    pods = [(name, namespace, pod) for name, namespace, _, pod in workloads(rendering)]

    def matching(namespace: str, selector: dict[str, str]) -> list[str]:
        return [
            name
            for name, place, pod in pods
            if place == namespace and selector.items() <= pod["metadata"].get("labels", {}).items()
        ]

    for name, namespace, document, _ in workloads(rendering):
        if document["kind"] not in ("Job", "CronJob"):
            assert matching(namespace, document["spec"]["selector"]["matchLabels"]) == [name]
    for service in rendering.of_kind("Service"):
        selector = service["spec"].get("selector")
        if not selector:
            continue
        # A label that only the running software sets (Patroni's role) is not in any template.
        static = {key: value for key, value in selector.items() if key != "slipway/role" and "role" not in key}
        found = matching(service["metadata"]["namespace"], static)
        assert len(found) == 1, f"{where(service)} selects {found}"


def test_ports_lead_somewhere(rendering: Rendering) -> None:
    for service in rendering.of_kind("Service"):
        selector = {k: v for k, v in (service["spec"].get("selector") or {}).items() if "role" not in k}
        if not selector:
            continue
        [pod] = [
            pod
            for _, namespace, _, pod in workloads(rendering)
            if namespace == service["metadata"]["namespace"] and selector.items() <= pod["metadata"]["labels"].items()
        ]
        ports = [port for container in pod["spec"]["containers"] for port in container.get("ports", [])]
        known = {port.get("name") for port in ports} | {port["containerPort"] for port in ports}
        for port in service["spec"]["ports"]:
            assert port.get("targetPort", port["port"]) in known, f"{where(service)}: {port}"
    for ingress in rendering.of_kind("Ingress"):
        assert ingress["spec"]["ingressClassName"] == "nginx"
        for rule in ingress["spec"]["rules"]:
            for path in rule.get("http", {}).get("paths", []):
                backend = path["backend"]["service"]
                served = rendering.find("Service", ingress["metadata"]["namespace"], backend["name"])
                assert served, where(ingress)
                names = {port["name"] for port in served["spec"]["ports"]}
                assert backend["port"].get("name") in names, where(ingress)


def test_secrets_are_only_in_secrets(rendering: Rendering) -> None:
    """A ConfigMap, an environment variable or an annotation is no place for a password."""
    import base64

    values = set()
    for secret in rendering.of_kind("Secret"):
        data = [base64.b64decode(value).decode() for value in secret.get("data", {}).values()]
        values |= {value for value in [*data, *secret.get("stringData", {}).values()] if len(value) >= 12}
    assert len(values) > 10
    rest = yaml.safe_dump([document for document in rendering.documents if document["kind"] != "Secret"], width=10**6)
    public = {value for value in values if value.startswith("-----BEGIN CERTIFICATE")}
    assert [value[:4] + "..." for value in values - public if value in rest] == []


def test_no_service_is_reachable_from_outside_beside_the_ingress(rendering: Rendering) -> None:
    for service in rendering.of_kind("Service"):
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP", where(service)
    ports = [
        (name, port["hostPort"])
        for name, _, _, pod in workloads(rendering)
        for container in containers(pod)
        for port in container.get("ports", [])
        if "hostPort" in port
    ]
    controller = f"DaemonSet/{CONTROLLERS[rendering.profile][0]}"
    assert sorted(ports) == [(controller, 80), (controller, 443)]


def test_a_limit_is_in_the_ingress_objects_of_who_reads_it_there(rendering: Rendering) -> None:
    found = {
        name.partition("/")[2]
        for ingress in rendering.of_kind("Ingress")
        for name in ingress["metadata"].get("annotations", {})
        if name.startswith("nginx.ingress.kubernetes.io/")
    }
    assert found == {"local": set(), "ha": {"limit-rps", "limit-burst-multiplier"}}[rendering.profile]


def test_what_the_other_controller_left_is_removed(rendering: Rendering) -> None:
    removed = {
        (document["kind"], document["metadata"]["name"])
        for call in rendering.calls
        if call["state"] == "absent"
        for document in call["documents"]
    }
    other = CONTROLLERS[rendering.profile][1].replace("_", "-")
    assert {("DaemonSet", other), ("ServiceAccount", other)} <= removed
    kept = {(document["kind"], document["metadata"]["name"]) for document in rendering.documents}
    assert removed & kept == set()


def test_services_trust_the_addresses_of_pods(rendering: Rendering) -> None:
    """The ingress is one; its X-Forwarded-For is how they know a client's address."""
    network = yaml.safe_load((ROOT / "roles/k3s/defaults/main.yml").read_text(encoding="utf-8"))["k3s_pod_cidr"]
    for document in rendering.of_kind("Deployment"):
        if document["metadata"]["labels"]["app.kubernetes.io/component"] == "service":
            [container] = containers(pod_of(document))
            assert {"name": "TRUSTED_PROXIES", "value": network} in container["env"], where(document)


def test_the_profile_decides_how_many(rendering: Rendering) -> None:
    replicas = {"local": {1}, "ha": {2}}[rendering.profile]
    services = [
        document["spec"]["replicas"]
        for document in rendering.of_kind("Deployment")
        if document["metadata"]["labels"]["app.kubernetes.io/component"] == "service"
    ]
    assert set(services) == replicas


def test_the_images_of_the_platform_are_those_that_it_runs(rendering: Rendering) -> None:
    """Those of services come from image_build; these are what the artifact store and the nodes get."""
    listed = yaml.safe_load((ROOT / "playbooks/vars/platform_images.yml").read_text(encoding="utf-8"))
    loader = DataLoader()
    known = {
        **loader.load_from_file(str(ROOT / "group_vars/all/platform.yml"), trusted_as_template=True),
        **PROFILES[rendering.profile][1],
    }
    names = set(Templar(loader=loader, variables=known).template(trust_as_template(listed["platform_images"])))
    services = {path.parent.name for path in ROOT.glob("services/*/service.yml")}
    images = {c["image"] for _, _, _, pod in workloads(rendering) for c in containers(pod)}
    ours = {image.removeprefix("slipway.local/") for image in images if image.startswith("slipway.local/")}
    assert names == {image.partition(":")[0] for image in ours} - services
