"""What the gateway passes on, what it keeps, and what it says when there is no answer."""

import hashlib
import socket
import time
from collections.abc import Iterator

import httpx2
import pytest
from slipway_testing import upstreams
from slipway_testing.checks import assert_problem
from slipway_testing.images import jpeg
from slipway_testing.platform import PASSWORD, Platform, User
from slipway_testing.processes import free_port
from slipway_testing.servers import listen, live_asgi, url_of


def test_register_and_login_through_the_gateway(api: httpx2.Client) -> None:
    name = f"gateway-{time.time_ns()}"
    created = api.post("/api/v1/auth/register", json={"username": name, "password": PASSWORD})
    assert created.status_code == 201
    answer = api.post("/api/v1/auth/login", json={"username": name, "password": PASSWORD})
    assert answer.status_code == 200
    checked = api.post("/api/v1/auth/verify", json={"token": answer.json()["access_token"]})
    assert checked.json()["active"] is True
    assert api.get("/api/v1/auth/.well-known/jwks.json").json()["keys"]


def test_a_session_through_the_gateway(api: httpx2.Client) -> None:
    """With the cookie as a browser keeps it: sent to auth, rotated, gone after logging out."""
    name, new = f"session-{time.time_ns()}", "another correct horse"
    assert api.post("/api/v1/auth/register", json={"username": name, "password": PASSWORD}).status_code == 201
    credentials = {"username": name, "password": PASSWORD, "refresh_token_in": "cookie"}
    signed_in = api.post("/api/v1/auth/login", json=credentials)
    cookie = signed_in.headers["set-cookie"]
    assert cookie.startswith("slipway_refresh=")
    assert "Path=/api/v1/auth" in cookie

    def kept(answer: httpx2.Response) -> dict[str, str]:
        return {"Cookie": answer.headers["set-cookie"].split(";")[0]}

    refreshed = api.post("/api/v1/auth/refresh", headers=kept(signed_in))
    assert refreshed.status_code == 200, refreshed.text
    token = {"Authorization": f"Bearer {refreshed.json()['access_token']}"}
    assert api.get("/api/v1/posts/my", headers=token).status_code == 200
    changed = {"current_password": PASSWORD, "new_password": new}
    assert api.post("/api/v1/auth/password", json=changed, headers=token).status_code == 204
    out = api.post("/api/v1/auth/logout", headers=kept(refreshed))
    assert (out.status_code, out.content) == (204, b"")
    assert api.post("/api/v1/auth/refresh", headers=kept(refreshed)).status_code == 401
    # And what was signed in is out, here too.
    deadline = time.monotonic() + 10
    while api.get("/api/v1/posts/my", headers=token).status_code != 401:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_an_image_through_the_gateway(api: httpx2.Client, user: User, other_user: User) -> None:
    picture = jpeg(width=640, height=480)
    sent = api.post("/api/v1/images", files={"file": ("photo.jpg", picture, "image/jpeg")}, headers=user.headers)
    assert sent.status_code == 201, sent.text
    path = f"/api/v1/images/{sent.json()['filename']}"
    head = api.head(path, headers=user.headers)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(picture)))
    part = api.get(path, headers=user.headers | {"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, picture[10:20])
    assert api.get(path, headers=user.headers | {"Range": "bytes=99999999-"}).status_code == 416
    details = api.get(f"{path}/metadata", headers=user.headers)
    assert (details.status_code, details.json()["width"]) == (200, 640)
    small = api.get(f"{path}/160", headers=other_user.headers)
    assert small.status_code == 200
    assert 0 < len(small.content) < len(picture)
    assert api.delete(path, headers=other_user.headers).status_code == 404
    assert api.delete(path, headers=user.headers).status_code == 204
    assert api.get(path, headers=user.headers).status_code == 404


def test_errors_of_the_service_behind_come_through(api: httpx2.Client) -> None:
    answer = api.post("/api/v1/auth/login", json={"username": "nobody", "password": "x"})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert "invalid_credentials" in answer.headers["www-authenticate"]
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert len(answer.headers.get_list("x-request-id")) == 1
    assert len(answer.headers.get_list("date")) == 1


@pytest.fixture
def echo(platform: Platform) -> Iterator[httpx2.Client]:
    with (
        live_asgi(upstreams.echo) as upstream,
        platform.api(auth_url=upstream.url, image_url=upstream.url) as server,
        httpx2.Client(base_url=server.url) as client,
    ):
        yield client


def test_what_is_passed_on(echo: httpx2.Client) -> None:
    answer = echo.post(
        "/api/v1/auth/login?a=1&b=%2F%20x",
        content=b"anything \xff at all",
        headers=[
            ("Content-Type", "text/strange"),
            ("X-Request-Id", "my-request-1"),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("Accept-Language", "de"),
            ("User-Agent", "tester"),
            ("X-Forwarded-For", "203.0.113.7"),
            ("X-User-Id", "admin"),
            ("x-user-roles", "root"),
            ("Connection", "keep-alive, X-Secret-Hop"),
            ("X-Secret-Hop", "1"),
            ("TE", "trailers"),
            ("Proxy-Authorization", "Basic x"),
            ("Upgrade", "h2c"),
        ],
    )
    assert answer.status_code == 207
    seen = answer.json()
    headers = dict(seen["headers"])
    assert (seen["method"], seen["path"], seen["query"]) == ("POST", "/login", "a=1&b=%2F%20x")
    assert seen["body"] == "anything \xff at all"
    assert headers["content-type"] == "text/strange"
    assert headers["content-length"] == "17"
    assert headers["x-request-id"] == "my-request-1" == answer.headers["x-request-id"]
    assert headers["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c")
    assert headers["accept-language"] == "de"
    assert headers["user-agent"] == "tester"
    # Nobody is trusted to tell another address than that of the connection.
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["host"].startswith("127.0.0.1:")
    gone = {"x-user-id", "x-user-roles", "x-secret-hop", "te", "proxy-authorization", "upgrade"}
    assert not gone & set(headers)
    assert len(seen["headers"]) == len(headers)


def test_what_comes_back(echo: httpx2.Client) -> None:
    answer = echo.get("/api/v1/auth/.well-known/jwks.json")
    assert answer.headers["x-upstream"] == "kept"
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert "x-private" not in answer.headers
    assert "keep-alive" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_token_goes_along_and_no_other_path_does(echo: httpx2.Client, user: User) -> None:
    seen = echo.get("/api/v1/images/stats", headers=user.headers).json()
    assert ["authorization", f"Bearer {user.token}"] in seen["headers"]
    for name in (
        "..%2fmetrics",
        "%2e%2e/metrics",
        "a.jpg",
        "A" * 32 + ".jpg",
        "0" * 32 + ".jpg%0d%0a",
        "0" * 32 + ".jpg/x",
    ):
        assert echo.get(f"/api/v1/images/{name}", headers=user.headers).status_code in (404, 422), name


def test_routes_of_relays_are_templates_in_the_metrics(api: httpx2.Client, user: User) -> None:
    api.get(f"/api/v1/images/{'0' * 32}.jpg", headers=user.headers)
    text = api.get("/metrics").text
    assert 'route="/api/v1/images/{filename}",status="404"' in text
    assert 'upstream_duration_seconds_count{upstream="image"}' in text
    assert "0" * 32 not in text


def test_nobody_listens(platform: Platform) -> None:
    with platform.api(auth_url=f"http://127.0.0.1:{free_port()}") as server:
        answer = httpx2.post(f"{server.url}/api/v1/auth/login", json={})
        assert_problem(answer, 503, "upstream-unavailable")
        assert answer.headers["retry-after"] == "2"
        health = httpx2.get(f"{server.url}/health")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert health.json()["checks"]["auth"] == {"status": "down", "error": "ClientConnectorError"}
        assert httpx2.get(f"{server.url}/health/ready").status_code == 200


def test_nobody_accepts(platform: Platform) -> None:
    """A full backlog, as of a node that is gone without a word: connecting takes as long as we allow."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        url = url_of(full)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        with platform.api(auth_url=url, relay_connect_timeout=0.3, relay_read_timeout=0.5) as server:
            answer = httpx2.post(f"{server.url}/api/v1/auth/login", json={})
            assert answer.status_code in (503, 504)
            assert answer.headers["content-type"] == "application/problem+json"
        for filler in fillers:
            filler.close()


def test_an_answer_that_does_not_come(platform: Platform) -> None:
    with (
        live_asgi(upstreams.slow) as upstream,
        platform.api(auth_url=upstream.url, relay_read_timeout=0.3) as server,
    ):
        answer = httpx2.post(f"{server.url}/api/v1/auth/login", json={})
        assert_problem(answer, 504, "upstream-timeout")
        assert (
            'upstream_requests_total{outcome="timeout",upstream="auth"} 1.0' in httpx2.get(f"{server.url}/metrics").text
        )


def test_a_connection_that_breaks_before_the_answer(platform: Platform) -> None:
    with upstreams.hanging_up() as url, platform.api(auth_url=url) as server:
        assert_problem(httpx2.post(f"{server.url}/api/v1/auth/login", json={}), 502, "upstream-failed")


def test_an_answer_that_breaks_off_is_not_taken_for_whole(platform: Platform) -> None:
    with live_asgi(upstreams.breaks_in_body) as upstream, platform.api(auth_url=upstream.url) as server:
        with pytest.raises(httpx2.RemoteProtocolError):
            httpx2.post(f"{server.url}/api/v1/auth/login", json={})
        # And the gateway itself is well.
        assert httpx2.get(f"{server.url}/health/live").status_code == 200


def test_an_early_refusal_reaches_the_client(platform: Platform, user: User) -> None:
    with live_asgi(upstreams.refuses_early) as upstream, platform.api(image_url=upstream.url) as server:
        answer = httpx2.post(f"{server.url}/api/v1/images", content=b"x" * 20_000_000, headers=user.headers, timeout=20)
        assert answer.status_code == 413


def test_a_client_that_leaves_in_the_middle(platform: Platform, user: User) -> None:
    with live_asgi(upstreams.echo) as upstream, platform.api(image_url=upstream.url) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST /api/v1/images HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {user.token}\r\n"
            connection.sendall(head.encode() + b"Content-Length: 1000\r\n\r\n" + b"x" * 10)
            time.sleep(0.2)
        wait_for(f"{server.url}/metrics", 'route="/api/v1/images",status="499"} 1.0')


def test_reads_go_on_while_auth_and_image_are_away(platform: Platform, user: User) -> None:
    sock = listen()
    away = f"http://127.0.0.1:{free_port()}"
    with platform.api(sock, auth_url=away, image_url=away) as server, httpx2.Client(base_url=server.url) as client:
        # The keys were fetched from the real one; from here on nobody answers.
        assert client.get("/api/v1/posts/my", headers=user.headers).status_code == 200
        assert client.get("/api/v1/posts").status_code == 200
        assert_problem(client.get("/api/v1/images", headers=user.headers), 503, "upstream-unavailable")


def test_ten_megabytes_through_the_gateway(api: httpx2.Client, user: User) -> None:
    for size in (10_000_000, 10 * 1024 * 1024):
        picture = jpeg(size, 640, 480)
        answer = api.post("/api/v1/images", files={"file": ("photo.jpg", picture, "image/jpeg")}, headers=user.headers)
        assert answer.status_code == 201, answer.text
        image = answer.json()
        assert image["sha256"] == hashlib.sha256(picture).hexdigest()
        assert (image["size"], image["width"], image["height"]) == (size, 640, 480)
        assert image["url"] == f"https://slipway.test/api/v1/images/{image['filename']}" == answer.headers["location"]
        read = api.get(f"/api/v1/images/{image['filename']}", headers=user.headers)
        assert read.content == picture
        assert read.headers["content-length"] == str(size)
        known = {"If-None-Match": read.headers["etag"]}
        assert api.get(f"/api/v1/images/{image['filename']}", headers=user.headers | known).status_code == 304


def test_too_large_through_the_gateway(api: httpx2.Client, user: User) -> None:
    picture = jpeg(13 * 1024 * 1024)
    answer = api.post("/api/v1/images", files={"file": ("photo.jpg", picture, "image/jpeg")}, headers=user.headers)
    assert answer.status_code == 413


def wait_for(url: str, text: str) -> None:
    deadline = time.monotonic() + 5
    while text not in httpx2.get(url).text:
        assert time.monotonic() < deadline, text
        time.sleep(0.05)
