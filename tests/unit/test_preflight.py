"""What the wrong inventories of tests/preflight do not reach: files without Ansible, precedence, single values."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "plugins" / "module_utils"))

from preflight import platform  # noqa: E402
from preflight.hosts import FACTS_SCRIPT, parse  # noqa: E402
from preflight.inventory import Value  # noqa: E402
from preflight.mistake import Mistake, in_order, show  # noqa: E402
from preflight.schema import check, variables  # noqa: E402
from preflight.yaml_files import read_inventory  # noqa: E402

SCHEMAS = variables(ROOT / "roles" / "preflight" / "files" / "schema")
CANARY = "canary-51ab"


def program(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / name), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("environment", ["local", "staging", "production"])
def test_the_inventories_can_be_read_without_ansible(environment: str) -> None:
    done = program("python", "scripts/check_inventory.py", f"inventories/{environment}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_entry_point_without_ansible_names_every_mistake(tmp_path: Path) -> None:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "hosts.yml").write_text("k3s_cluster:\n\tchildren: {}\n")
    (tmp_path / "group_vars" / "all.yml").write_text(f"token: *{CANARY}\n")
    done = program("python", "scripts/check_inventory.py", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"{tmp_path}/group_vars/all.yml:1: YAML: found invalid YAML (found undefined alias ...), wanted valid YAML, "
        "for example platform_domain: slipway.test",
        f"{tmp_path}/hosts.yml:2: YAML: found a tab in the indentation, wanted spaces, "
        "for example two spaces for each level",
        "preflight found 2 mistakes; nothing was changed on any host",
    ]


@pytest.mark.parametrize("directory", [".", "playbooks"])
def test_inventories_win_over_shared_defaults(directory: str, tmp_path: Path) -> None:
    """Ansible's own order is the other way round; and shared defaults must be seen from playbooks/ too."""
    play = ROOT / directory / f"precedence-{tmp_path.name}.yml"
    message = "{{ platform_profile }} {{ ingress_controller }}"
    task = {"ansible.builtin.debug": {"msg": message}}
    try:
        play.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]))
        done = program("ansible-playbook", "-i", "inventories/local", str(play))
    finally:
        play.unlink(missing_ok=True)
    assert "lab traefik" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\xef\xbb\xbfa: 1\n", "a byte order mark"),
        (b"a: caf\xe9\n", "the byte 0xe9"),
        (b"a: 1\r\n", "Windows line ends"),
        (b"- a\n", "no map"),
        (b"a: [1\n", "invalid YAML"),
        (b"a: 1\n? [b]\n: 1\n", "a map or a list as a key"),
        (b"a: \x01\n", "a character that YAML forbids"),
        (b"a: 1\n---\nb: 1\n", "invalid YAML"),
    ],
)
def test_files_that_are_no_clean_yaml(data: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "all.yml").write_bytes(data)
    found = [mistake.found for mistake in read_inventory(tmp_path).mistakes]
    assert len(found) == 1
    assert problem in found[0]


@pytest.mark.parametrize(
    "text", ["a: |\n  \ttab in a block\n", "a: !vault |\n  $ANSIBLE_VAULT;1.1\n", "", "# nothing\n"]
)
def test_files_that_are_unusual_and_right(text: str, tmp_path: Path) -> None:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "all.yml").write_text(text)
    assert read_inventory(tmp_path).mistakes == []


@pytest.mark.parametrize(
    "domain",
    [
        "localhost",
        "https://a.b",
        "a.b.",
        "*.a.b",
        "bücher.de",
        "a_b.c",
        "a.b:443",
        "a..b",
        "-a.b",
        "10.0.0.1",
        "A.b",
        "",
    ],
)
def test_domains_that_are_none(domain: str) -> None:
    assert [finding.path for finding in check("platform_domain", domain, SCHEMAS["platform_domain"])] == [
        "platform_domain"
    ]


@pytest.mark.parametrize("domain", ["slipway.test", "a.b.example.com", "xn--bcher-kva.de", "a-1.b2.io"])
def test_domains_that_are_right(domain: str) -> None:
    assert list(check("platform_domain", domain, SCHEMAS["platform_domain"])) == []


@pytest.mark.parametrize("value", ["2GB", "2", 2, "2.5Gi", "Gi", "-1Gi", "0Gi", None, ["1Gi"]])
def test_sizes_that_are_none(value: object) -> None:
    assert len(list(check("postgres_storage_size", value, SCHEMAS["postgres_storage_size"]))) == 1


def test_secrets_and_contents_are_never_shown() -> None:
    assert show(CANARY, "minio_root_password") == "a hidden value"
    assert show(CANARY, "anything", secret=True) == "a hidden value"
    assert show({"a": CANARY}, "k3s_server_config") == "a map"
    assert show([CANARY], "list") == "a list"
    assert CANARY not in show(f"https://user:{CANARY}@mirror.mycompany.com", "node_package_mirror")


def test_a_value_cannot_forge_a_second_line() -> None:
    line = str(Mistake("file:1", "name", show("a\nfile:2: b\x1b[31m", ""), "text", "a"))
    assert "\n" not in line
    assert "\x1b" not in line


def test_mistakes_come_in_the_order_of_the_file() -> None:
    mistakes = [Mistake(where, "", "", "", "") for where in ("b.yml:2", "a.yml:10", "a.yml:9", "inventory")]
    assert [mistake.where for mistake in in_order(mistakes)] == ["a.yml:9", "a.yml:10", "b.yml:2", "inventory"]


def test_the_facts_script_runs_in_a_plain_shell() -> None:
    """As Ansible sends it, with `; sleep 0` appended; with nothing on standard error and every name answered."""
    command = ["sh", "-c", f"{FACTS_SCRIPT}; sleep 0"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert done.stderr == ""
    values = parse(done.stdout)
    names = ["os", "arch", "clock", "cgroup", "init", "memory_kib", "disk_free_kib", "inodes_free", "mount_options"]
    assert {name for name in [*names, "python"] if not values.get(name)} == set()


@pytest.mark.parametrize(
    ("maximum", "limit", "found"),
    [
        ("128Mi", "256Mi", []),
        ("1Gi", "2Gi", []),
        (
            "1Gi",
            "2047Mi",
            ["redis_maxmemory: found 1Gi with a limit of 2047Mi in redis_resources, wanted at most half"],
        ),
        (
            "200Mi",
            "384Mi",
            ["redis_maxmemory: found 200Mi with a limit of 384Mi in redis_resources, wanted at most half"],
        ),
        ("200Mi", None, []),
        (200, "384Mi", []),
        ("200Mi", "much", []),
    ],
)
def test_redis_has_room_for_a_copy_of_itself(maximum: object, limit: str | None, found: list[str]) -> None:
    values = {"redis_maxmemory": maximum, "redis_resources": {"limits": {"memory": limit} if limit else {}}}
    mistakes = platform.memory_mistakes(lambda name: Value(values[name], "all.yml:7"))
    assert [str(mistake).removeprefix("all.yml:7: ").partition(" of that")[0] for mistake in mistakes] == found


@pytest.mark.parametrize(("receivers", "notices"), [([], 1), ([{"name": "sre", "slack": {}}], 0)])
def test_that_nobody_is_told_of_alerts_is_said_and_no_mistake(receivers: list[dict[str, object]], notices: int) -> None:
    values: dict[str, object] = {"alertmanager_receivers": receivers, "grafana_image": "docker.io/grafana/grafana:1"}
    found = list(platform.notices(lambda name: Value(values[name], "inventories/trial")))
    assert len(found) == notices
    for line in found:
        assert line.startswith(
            "inventories/trial: alertmanager_receivers is empty: make status and the status page show alerts, "
        )
        assert "\n" not in line


def test_that_nothing_shows_the_dashboards_is_said_and_no_mistake() -> None:
    values: dict[str, object] = {"alertmanager_receivers": [{"name": "sre", "slack": {}}], "grafana_image": ""}
    [line] = platform.notices(lambda name: Value(values[name], "inventories/trial"))
    assert line.startswith("inventories/trial: grafana_image is empty: dashboards are kept in the cluster")
    assert "\n" not in line
