"""Every mistake in a service.yml is one line; the services of the project have none."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "plugins" / "module_utils"))

from service_definition import load, load_schema  # noqa: E402

SCHEMA = load_schema(ROOT / "roles" / "service" / "files" / "service.schema.yml")
SERVICES = sorted(path.parent.name for path in (ROOT / "services").glob("*/service.yml"))

GOOD: dict[str, Any] = {
    "name": "shop",
    "namespace": "shops",
    "port": 3010,
    "replicas": 2,
    "database": {"name": "shop_db", "user": "shop_user"},
    "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}},
    "probes": {"live": "/health/live", "ready": "/health/ready"},
    "callers": ["till", "ingress"],
    "callees": ["postgres"],
    "ingress": {"path": "/shop"},
}
AUTH: dict[str, Any] = {
    **{key: value for key, value in GOOD.items() if key not in ("database", "ingress")},
    "name": "auth",
    "callers": ["shop"],
    "callees": ["redis"],
    "redis": {},
}
TILL: dict[str, Any] = {
    **{key: value for key, value in GOOD.items() if key not in ("database", "ingress")},
    "name": "till",
    "callers": [],
    "callees": ["shop"],
}


def write(directory: Path, *definitions: dict[str, Any] | str) -> Path:
    for definition in definitions:
        name = definition["name"] if isinstance(definition, dict) else "shop"
        folder = directory / "services" / str(name if not isinstance(definition, str) else "shop")
        folder.mkdir(parents=True)
        text = definition if isinstance(definition, str) else yaml.safe_dump(definition)
        (folder / "service.yml").write_text(text, encoding="utf-8")
    return directory / "services"


def mistakes(directory: Path, *names: str) -> list[str]:
    return [str(mistake) for mistake in load(directory, names or ("shop", "till"), SCHEMA)[1]]


def test_the_projects_services_are_right() -> None:
    definitions, found = load(ROOT / "services", SERVICES, SCHEMA)
    assert found == []
    assert [definition["name"] for definition in definitions] == SERVICES


def test_what_is_left_out_is_filled_in(tmp_path: Path) -> None:
    definitions, found = load(write(tmp_path, GOOD, TILL), ["shop", "till"], SCHEMA)
    assert found == []
    assert definitions[0]["command"] == ["python3", "-m", "slipway_shop"]
    assert (definitions[0]["tmp_size"], definitions[0]["drain_seconds"]) == ("256Mi", 30)
    assert (definitions[0]["environment"], definitions[0]["secrets"]) == ({}, {})


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"port": "3010"}, 'port: found "3010", wanted a whole number from 1024 to 65535 (without quotes)'),
        ({"port": 80}, "port: found 80, wanted a whole number from 1024 to 65535 (without quotes), for example 3003"),
        ({"replica": 2}, "replica: found an unknown key, wanted replicas (did you mean that?), for example 2"),
        ({"resources": {"requests": {"cpu": "1", "memory": "64Mi"}}}, "resources.limits: found nothing, wanted a map"),
        ({"probes": {"live": "health", "ready": "/r"}}, 'probes.live: found "health", wanted a path that starts'),
        ({"environment": {"SIZE": 5}}, "environment.SIZE: found 5, wanted text (numbers in quotes)"),
        ({"environment": {"size": "5"}}, 'environment: found "size", wanted capital letters, digits and underscores'),
        ({"callers": ["till"]}, "callers: found no ingress, though the service has a path there, wanted ingress"),
        ({"callees": []}, "callees: found no postgres, though it declares database, wanted postgres"),
        ({"callees": ["postgres", "reddis"]}, "callees: found reddis, wanted an enabled service, redis (did you"),
        ({"callers": ["ingress"]}, "callers: found no till, which calls it, wanted till, for example"),
        ({"secrets": {"s3_access_key": "x"}}, "secrets.s3_access_key: found a name that the platform uses"),
        ({"bucket": "My_Bucket", "callees": ["postgres", "minio"]}, 'bucket: found "My_Bucket", wanted 3 to 63 small'),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)  # fmt: skip
def test_a_mistake_is_one_line(tmp_path: Path, change: dict[str, Any], line: str) -> None:
    [found] = mistakes(write(tmp_path, {**GOOD, **change}, TILL))
    assert found.startswith(f"services/shop/service.yml: {line}")
    assert "\n" not in found


SWEEP = {"name": "sweep", "schedule": "17 * * * *", "command": ["sweep"]}
WITH_AUTH = {"callees": ["postgres", "redis", "auth"]}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"redis": {}, "callees": ["postgres"]}, "callees: found no redis, though it declares redis, wanted redis"),
        ({"service_tokens": True}, "callees: found no auth, though it declares service_tokens, wanted auth"),
        ({"service_tokens": "yes"}, "service_tokens: found a hidden value, wanted true or false (without quotes)"),
        ({"redis": {"reads": ["sessions"]}}, 'redis.reads[0]: found "sessions", wanted a key of another service, with'),
        (
            {"redis": {"reads": ["api:x"]}, **WITH_AUTH},
            "redis.reads: found api:x, wanted a key of auth, for example auth",
        ),
        ({"redis": {"write": []}}, "redis.write: found an unknown key, wanted one of reads"),
        ({"image": "nginx"}, 'image: found "nginx", wanted one of service, web, for example service'),
        (
            {"schedules": [{**SWEEP, "schedule": "hourly"}]},
            'schedules[0].schedule: found "hourly", wanted five fields of cron',
        ),
        ({"schedules": [SWEEP, SWEEP]}, "schedules: found sweep twice, wanted a name of its own for each"),
        (
            {"ingress": {"path": "/", "host": "a.b"}},
            'ingress.host: found "a.b", wanted 1 to 30 small letters, digits',
        ),
        (
            {"ingress": {"path": "/", "host": "status"}},
            "ingress.host: found status, which a page of the platform has, wanted another host, for example shop",
        ),
        ({"metrics": {}}, "metrics.path: found nothing, wanted a path that starts with /"),
        ({"secrets": {"service_key": "x"}}, "secrets.service_key: found a name that the platform uses"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_a_mistake_in_what_the_platform_gives_is_one_line(tmp_path: Path, change: dict[str, Any], line: str) -> None:
    found = mistakes(write(tmp_path, {**GOOD, **change}, TILL, AUTH), "shop", "till", "auth")
    assert found[0].startswith(f"services/shop/service.yml: {line}")
    assert "\n" not in found[0]


def test_two_services_have_one_place(tmp_path: Path) -> None:
    till = {**TILL, "callers": ["ingress"], "ingress": {"path": "/shop"}}
    [found] = mistakes(write(tmp_path, GOOD, till))
    assert found.startswith("services/till/service.yml: ingress: found ")
    assert "as shop has it, wanted another path or host, for example host: till" in found
    till["ingress"]["host"] = "till"
    (tmp_path / "services/till/service.yml").write_text(yaml.safe_dump(till), encoding="utf-8")
    assert mistakes(tmp_path / "services") == []


def test_what_the_platform_gives_is_filled_in(tmp_path: Path) -> None:
    web = {**TILL, "name": "web", "image": "web", "callees": []}
    shop = {**GOOD, "redis": {"reads": ["auth:gone"]}, "service_tokens": True, **WITH_AUTH}
    definitions, found = load(write(tmp_path, shop, TILL, AUTH, web), ["shop", "till", "auth", "web"], SCHEMA)
    assert found == []
    assert (definitions[0]["image"], definitions[0]["metrics"]) == ("service", {"path": "/metrics"})
    assert (definitions[1]["service_tokens"], definitions[1]["schedules"]) == (False, [])
    assert definitions[3]["command"] == [], "an image of its own recipe knows what it starts"


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    directory = write(tmp_path, {**GOOD, "port": 1, "replicas": 0}, {**TILL, "namespace": "Tills"})
    assert len(mistakes(directory)) == 3


def test_the_folder_is_the_name(tmp_path: Path) -> None:
    directory = write(tmp_path, GOOD, TILL)
    (directory / "shop").rename(directory / "store")
    assert mistakes(directory, "store")[0].startswith(
        "services/store/service.yml: name: found shop, wanted the name of"
    )


def test_a_service_that_is_not_there(tmp_path: Path) -> None:
    [found] = mistakes(write(tmp_path, GOOD, TILL), "shopp")
    assert found.startswith(
        "services_enabled: shopp: found no services/shopp/service.yml, wanted shop (did you mean that?)"
    )


@pytest.mark.parametrize("text", ["- a list\n", "name: [\n", "", "\tname: shop\n"])
def test_a_file_that_is_no_map(tmp_path: Path, text: str) -> None:
    [found] = mistakes(write(tmp_path, text), "shop")
    assert found.startswith("services/shop/service.yml: the file: found no ")


def test_a_service_may_bring_alerts_and_promise_something(tmp_path: Path) -> None:
    directory = write(tmp_path, GOOD, TILL)
    good = {"alert": "ShopDown", "expr": "shop_up == 0", "severity": "warning", "summary": "It is closed"}
    alerts = [good | {"description": "Nobody buys.", "trial": {"series": {"shop_up": ["0", "1"]}}}]
    table = {"dashboard": "service-shop", "alerts": alerts}
    (directory / "shop" / "alerts.yml").write_text(yaml.safe_dump(table), encoding="utf-8")
    (shop, till), found = load(directory, ("shop", "till"), SCHEMA)
    assert found == []
    assert yaml.safe_load(shop["alerts"]) == table
    assert till["alerts"] == ""
    # Who promises nothing is watched all the same.
    assert shop["slo"] == {"availability": 99.9, "latency_p95_ms": 1000}


def test_a_mistake_in_the_alerts_of_a_service_is_one_line(tmp_path: Path) -> None:
    directory = write(tmp_path, GOOD, TILL)
    (directory / "shop" / "alerts.yml").write_text("dashboard: service-shop\nalerts: []\n", encoding="utf-8")
    [line] = mistakes(tmp_path / "services")
    assert line.startswith("services/shop/alerts.yml: alerts: found an empty list, wanted a list, for example")
