"""What the nginx of the page's image answers, with the image's own configuration."""

import json
import re
import ssl
from pathlib import Path

import httpx2
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.web.conftest import Site
from tests.web.support.servers import ROOT, Nginx

POLICY = {
    "default-src": ["'none'"],
    "script-src": ["'self'"],
    "style-src": ["'self'"],
    "img-src": ["'self'", "blob:"],
    "connect-src": ["'self'"],
    "base-uri": ["'none'"],
    "form-action": ["'none'"],
    "frame-ancestors": ["'none'"],
    "require-trusted-types-for": ["'script'"],
    "trusted-types": ["'none'"],
}


def asset(page_files: Path) -> str:
    found = re.search(r'src="(/assets/[^"]+\.js)"', (page_files / "index.html").read_text())
    assert found
    return found[1]


def get(page_server: Nginx, path: str, method: str = "GET", **headers: str) -> httpx2.Response:
    return httpx2.request(method, page_server.url + path, headers=headers)


def policy_of(answer: httpx2.Response) -> dict[str, list[str]]:
    directives = [words.split() for words in answer.headers["content-security-policy"].split(";")]
    return {name: values for name, *values in directives}


@pytest.mark.parametrize("path", ["/", "/sign-in", "/posts/some-id", "/images/", "/no/such/view"])
def test_every_address_of_the_page_is_the_page(page_server: Nginx, page_files: Path, path: str) -> None:
    answer = get(page_server, path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.text == (page_files / "index.html").read_text()
    assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", ["/assets/old-12345678.js", "/assets/", "/favicon.ico", "/api/v1/posts", "/a/b.map"])
def test_what_is_not_there_is_an_error_that_nobody_keeps(page_server: Nginx, path: str) -> None:
    answer = get(page_server, path)
    assert answer.status_code in (403, 404)
    assert answer.headers["cache-control"] == "no-cache"


def test_assets_are_kept_for_good_and_the_page_is_not(page_server: Nginx, page_files: Path) -> None:
    answer = get(page_server, asset(page_files))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/javascript; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"


@pytest.mark.parametrize("path", ["/", "/favicon.svg", "/reload.js", "/health", "/assets/nothing.js", "/metrics"])
def test_every_answer_has_the_policy(page_server: Nginx, path: str) -> None:
    answer = get(page_server, path)
    assert policy_of(answer) == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "camera=()" in answer.headers["permissions-policy"]
    assert answer.headers["server"] == "nginx"


def test_an_old_page_is_never_taken_for_the_new_one(page_server: Nginx) -> None:
    """Files of an image have no age, and two builds of the page have the same length: no validator tells them apart."""
    answer = get(page_server, "/")
    assert "etag" not in answer.headers
    assert "last-modified" not in answer.headers
    again = get(page_server, "/", **{"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT", "If-None-Match": "*"})
    assert again.status_code == 200


def test_compressed_for_those_who_can(page_server: Nginx, page_files: Path) -> None:
    path = asset(page_files)
    plain, packed = (get(page_server, path, **{"Accept-Encoding": coding}) for coding in ("identity", "gzip"))
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert plain.headers["vary"] == packed.headers["vary"] == "Accept-Encoding"
    assert plain.content == packed.content == (page_files / path[1:]).read_bytes()
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 2


def test_nothing_but_reading(page_server: Nginx) -> None:
    assert get(page_server, "/", "POST").status_code == 405
    assert get(page_server, "/", "DELETE").status_code == 405
    assert get(page_server, "/", "HEAD").status_code == 200
    assert httpx2.post(page_server.url + "/", content=b"x" * 2000).status_code == 413


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/assets/..%2f..%2f..%2fetc/passwd"]
)
def test_no_way_out_of_its_directory(page_server: Nginx, path: str) -> None:
    assert "root:" not in get(page_server, path).text


def test_health(page_server: Nginx) -> None:
    answer = get(page_server, "/health")
    assert (answer.status_code, answer.text) == (200, "ok\n")


def test_metrics_are_what_prometheus_reads(page_server: Nginx) -> None:
    before, after = get(page_server, "/metrics"), get(page_server, "/metrics")
    assert after.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(after.text)
        for sample in family.samples
    }
    assert found["nginx_up",] == 1
    assert found["nginx_connections_active",] >= 1
    assert found["nginx_connections", "writing"] >= 1
    assert set(found) >= {("nginx_connections", "reading"), ("nginx_connections", "waiting")}
    accepted = re.search(r"^nginx_connections_accepted_total (\d+)$", before.text, re.MULTILINE)
    assert accepted
    # Each of the two requests had a connection of its own.
    assert found["nginx_connections_accepted_total",] == int(accepted[1]) + 1


def test_metrics_stay_inside(page_server: Nginx, site: Site) -> None:
    assert get(page_server, "/metrics", **{"X-Forwarded-For": "203.0.113.9"}).status_code == 404
    assert get(page_server, "/metrics", **{"X-Forwarded-Proto": "https"}).status_code == 404
    port = site.url.rsplit(":", 1)[1]
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    with httpx2.Client(verify=anybody) as client:
        assert client.get(f"https://127.0.0.1:{port}/metrics").status_code == 404
        assert client.get(f"https://127.0.0.1:{port}/health").status_code == 200


def test_lines_are_those_of_the_services(page_server: Nginx) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"X-Request-Id": "request-of-this-test", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    get(page_server, "/sign-in?password=typed-into-the-address", **headers)
    get(page_server, '/"}{', **{"X-Request-Id": 'a"b\\'})
    get(page_server, "/health")
    lines = [json.loads(line) for line in page_server.log.read_text().splitlines()]
    mine = next(line for line in lines if line["request_id"] == "request-of-this-test")
    assert mine["trace_id"] == trace
    assert mine["path"] == "/sign-in"
    assert (mine["event"], mine["service"], mine["method"], mine["status"]) == ("request", "web", "GET", 200)
    assert not [line for line in lines if "typed-into" in json.dumps(line)]
    assert not [line for line in lines if line["path"] in ("/health", "/metrics")]
    # A request id that is none is replaced.
    assert not [line for line in lines if '"' in line["request_id"]]


def test_the_recipe_builds_from_every_file_that_the_page_is_built_from() -> None:
    paths = yaml.safe_load((ROOT / "images/web/recipe.yml").read_text())["paths"]
    script = (ROOT / "images/web/build.sh").read_text()
    copied = re.search(r"cp -R (.+) \"\$site\"", script)
    assert copied
    assert {f"services/web/{name}" for name in copied[1].split()} == {p for p in paths if p.startswith("services/web/")}


def test_licenses_of_what_the_page_contains_come_with_it(page_server: Nginx) -> None:
    answer = get(page_server, "/licenses.txt")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert {"react", "react-dom", "scheduler"} <= set(re.findall(r"^## (\S+) - ", answer.text, re.MULTILINE))
