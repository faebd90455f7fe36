"""Sessions over HTTP: refresh tokens that work once, what ends a session, and what its end means for its tokens."""

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event
from typing import Any

import httpx2
import jwt
import pytest
from slipway_auth.repository import SessionRepository
from slipway_testing.checks import assert_problem
from slipway_testing.platform import PASSWORD, Platform, User
from slipway_testing.tokens import mint

NEW_PASSWORD = "a whole new horse"


@dataclass
class Session:
    """What a client has after it logged in."""

    username: str
    access_token: str
    refresh_token: str

    @property
    def id(self) -> str:
        sid: str = jwt.decode(self.access_token, options={"verify_signature": False})["sid"]
        return sid

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access_token}"}


def login(auth: httpx2.Client, username: str, password: str = PASSWORD) -> Session:
    answer = auth.post("/login", json={"username": username, "password": password})
    assert answer.status_code == 200, answer.text
    return Session(username, answer.json()["access_token"], answer.json()["refresh_token"])


def refresh(auth: httpx2.Client, token: str) -> httpx2.Response:
    return auth.post("/refresh", json={"refresh_token": token})


def is_active(auth: httpx2.Client, token: str) -> bool:
    active: bool = auth.post("/verify", json={"token": token}).json()["active"]
    return active


def count(auth: httpx2.Client, series: str) -> float:
    (line,) = [line for line in auth.get("/metrics").text.splitlines() if line.startswith(series + " ")]
    return float(line.split()[-1])


@pytest.fixture
def session(auth: httpx2.Client, account: User) -> Session:
    return login(auth, account.username)


def test_a_login_gives_both_tokens_and_says_how_long_they_live(auth: httpx2.Client, account: User) -> None:
    answer = auth.post("/login", json={"username": account.username, "password": PASSWORD})
    assert set(answer.json()) == {
        "access_token",
        "token_type",
        "expires_in",
        "refresh_token",
        "refresh_expires_in",
    }
    assert answer.json()["refresh_expires_in"] == pytest.approx(7 * 24 * 3600, abs=5)
    # 256 random bits.
    assert len(answer.json()["refresh_token"]) == 43
    assert "set-cookie" not in answer.headers


def test_a_refresh_gives_new_tokens_of_the_same_session(auth: httpx2.Client, session: Session) -> None:
    answer = refresh(auth, session.refresh_token)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    renewed = Session(session.username, answer.json()["access_token"], answer.json()["refresh_token"])
    assert renewed.id == session.id
    assert renewed.refresh_token != session.refresh_token
    assert is_active(auth, renewed.access_token)
    assert refresh(auth, renewed.refresh_token).status_code == 200


def test_a_refresh_token_that_comes_again_ends_the_session_for_both(auth: httpx2.Client, session: Session) -> None:
    before = (
        count(auth, 'auth_refreshes_total{result="reused"}'),
        count(auth, 'auth_sessions_revoked_total{reason="reuse"}'),
    )
    stolen = session.refresh_token
    renewed = refresh(auth, stolen).json()
    assert_problem(refresh(auth, stolen), 401, "invalid-refresh-token")
    assert_problem(refresh(auth, renewed["refresh_token"]), 401, "invalid-refresh-token")
    assert not is_active(auth, renewed["access_token"])
    assert not is_active(auth, session.access_token)
    # Counted once: what comes after it is a token of a session that has ended.
    after = (
        count(auth, 'auth_refreshes_total{result="reused"}'),
        count(auth, 'auth_sessions_revoked_total{reason="reuse"}'),
    )
    assert after == (before[0] + 1, before[1] + 1)


def test_a_theft_ends_only_the_session_it_happened_in(auth: httpx2.Client, session: Session) -> None:
    other = login(auth, session.username)
    refresh(auth, session.refresh_token)
    refresh(auth, session.refresh_token)
    assert not is_active(auth, session.access_token)
    assert is_active(auth, other.access_token)
    assert refresh(auth, other.refresh_token).status_code == 200


def test_of_many_refreshes_at_once_one_gets_in(auth: httpx2.Client, session: Session) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: refresh(auth, session.refresh_token), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 7
    # The others were a second use.
    assert not is_active(auth, session.access_token)


def test_all_refusals_look_the_same(auth: httpx2.Client, platform: Platform, account: User) -> None:
    used, revoked, expired, ended = (login(auth, account.username) for _ in range(4))
    refresh(auth, used.refresh_token)
    auth.post("/logout", json={"refresh_token": revoked.refresh_token})
    sql = "UPDATE refresh_tokens SET expires_at = now() - interval '1 s' WHERE session_id = $1 RETURNING 1"
    assert platform.postgres.query("auth_db", sql, expired.id)
    sql = "UPDATE sessions SET expires_at = now() - interval '1 s' WHERE id = $1 RETURNING 1"
    assert platform.postgres.query("auth_db", sql, ended.id)
    unknown = [secrets.token_urlsafe(32), "", "ä", "x" * 256, "\x00"]
    tokens = [*(session.refresh_token for session in (used, revoked, expired, ended)), *unknown]
    answers = []
    for token in tokens:
        answer = refresh(auth, token)
        problem = assert_problem(answer, 401, "invalid-refresh-token")
        assert answer.headers["www-authenticate"] == 'Bearer realm="slipway", error="invalid_refresh_token"'
        answers.append({key: value for key, value in problem.items() if key != "request_id"})
    assert all(answer == answers[0] for answer in answers)


def test_a_request_without_any_refresh_token(auth: httpx2.Client) -> None:
    for body in (None, {}, {"refresh_token": None}):
        assert_problem(auth.post("/refresh", json=body), 401, "invalid-refresh-token")
    assert_problem(auth.post("/refresh"), 401, "invalid-refresh-token")


def test_an_access_token_is_no_refresh_token_and_the_other_way_round(auth: httpx2.Client, session: Session) -> None:
    assert refresh(auth, session.access_token).status_code == 422
    assert not is_active(auth, session.refresh_token)


def test_a_session_ends_for_good_after_its_time(platform: Platform, account: User) -> None:
    with (
        platform.auth(session_lifetime_seconds=60, refresh_lifetime_seconds=600) as server,
        httpx2.Client(base_url=server.url) as client,
    ):
        answer = client.post("/login", json={"username": account.username, "password": PASSWORD}).json()
        assert 55 <= answer["refresh_expires_in"] <= 60
        renewed = refresh(client, answer["refresh_token"]).json()
        # No refresh makes it longer.
        assert renewed["refresh_expires_in"] <= answer["refresh_expires_in"]


def test_the_database_knows_no_token(platform: Platform, session: Session) -> None:
    (row,) = platform.postgres.query(
        "auth_db", "SELECT r.*, r::text AS whole FROM refresh_tokens r WHERE session_id = $1", session.id
    )
    assert len(row["hash"]) == 32
    assert session.refresh_token not in row["whole"]


# Cookies


def cookie_of(answer: httpx2.Response) -> dict[str, str]:
    """Attributes of the only cookie, by small name; its value is `value`."""
    (header,) = answer.headers.get_list("set-cookie")
    first, *rest = (part.strip() for part in header.split(";"))
    name, _, value = first.partition("=")
    assert name == "slipway_refresh"
    attributes = {key.lower(): content for key, _, content in (part.partition("=") for part in rest)}
    return {"value": value, **attributes}


def login_by_cookie(auth: httpx2.Client, account: User) -> httpx2.Response:
    body = {"username": account.username, "password": PASSWORD, "refresh_token_in": "cookie"}
    return auth.post("/login", json=body)


def test_a_cookie_that_only_auth_gets_and_no_script_sees(auth: httpx2.Client, account: User) -> None:
    answer = login_by_cookie(auth, account)
    assert "refresh_token" not in answer.json()
    cookie = cookie_of(answer)
    assert len(cookie.pop("value")) == 43
    assert int(cookie.pop("max-age")) == pytest.approx(7 * 24 * 3600, abs=5)
    assert cookie == {"httponly": "", "secure": "", "samesite": "strict", "path": "/api/v1/auth"}


def test_what_comes_by_cookie_is_renewed_by_cookie(auth: httpx2.Client, account: User) -> None:
    first = cookie_of(login_by_cookie(auth, account))["value"]
    answer = auth.post("/refresh", headers={"Cookie": f"slipway_refresh={first}"})
    assert answer.status_code == 200, answer.text
    assert "refresh_token" not in answer.json()
    second = cookie_of(answer)["value"]
    assert second != first
    again = auth.post("/refresh", headers={"Cookie": f"slipway_refresh={first}"})
    assert_problem(again, 401, "invalid-refresh-token")
    assert cookie_of(again)["max-age"] == "0"


def test_the_body_goes_before_the_cookie(auth: httpx2.Client, account: User, session: Session) -> None:
    cookie = cookie_of(login_by_cookie(auth, account))["value"]
    answer = auth.post(
        "/refresh", json={"refresh_token": session.refresh_token}, headers={"Cookie": f"slipway_refresh={cookie}"}
    )
    assert answer.json()["refresh_token"]
    assert "set-cookie" not in answer.headers
    # The cookie's token is as unused as before.
    assert auth.post("/refresh", headers={"Cookie": f"slipway_refresh={cookie}"}).status_code == 200


def test_an_overloaded_auth_does_not_take_the_cookie_away(platform: Platform, account: User) -> None:
    with platform.auth(limit_refresh_address="1/hour") as server, httpx2.Client(base_url=server.url) as client:
        cookie = cookie_of(login_by_cookie(client, account))["value"]
        for _ in range(2):
            answer = client.post("/refresh", headers={"Cookie": f"slipway_refresh={cookie}"})
        assert_problem(answer, 429, "rate-limited")
        assert "set-cookie" not in answer.headers


# Logout


@pytest.mark.parametrize("shown", ["body", "cookie", "bearer", "used token"])
def test_a_logout_ends_the_session(auth: httpx2.Client, session: Session, shown: str) -> None:
    other = login(auth, session.username)
    token = session.refresh_token
    if shown == "used token":
        refresh(auth, token)
    request: dict[str, Any] = {
        "body": {"json": {"refresh_token": token}},
        "used token": {"json": {"refresh_token": token}},
        "cookie": {"headers": {"Cookie": f"slipway_refresh={token}"}},
        "bearer": {"headers": session.headers},
    }[shown]
    answer = auth.post("/logout", **request)
    assert (answer.status_code, answer.content) == (204, b"")
    cleared = cookie_of(answer)
    assert (cleared["max-age"], cleared["path"]) == ("0", "/api/v1/auth")
    assert not is_active(auth, session.access_token)
    assert_problem(refresh(auth, token), 401, "invalid-refresh-token")
    assert is_active(auth, other.access_token)


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"json": {}},
        {"json": {"refresh_token": "unknown"}},
        {"headers": {"Cookie": "slipway_refresh=unknown"}},
        {"headers": {"Authorization": "Bearer unknown"}},
        {"headers": {"Authorization": "Basic eDp5"}},
    ],
)
def test_a_logout_of_nobody_is_as_good(auth: httpx2.Client, request_: dict[str, Any]) -> None:
    assert auth.post("/logout", **request_).status_code == 204


def test_a_logout_that_makes_no_sense(auth: httpx2.Client) -> None:
    assert_problem(auth.post("/logout", json={"refresh_token": 5}), 422, "invalid-request")
    assert_problem(auth.post("/logout", json={"everything": True}), 422, "invalid-request")


def test_somebody_elses_session_is_not_ended_by_its_id(
    auth: httpx2.Client, platform: Platform, session: Session
) -> None:
    """A good signature with the session of another user: only possible with the key, and refused all the same."""
    auth.post("/logout", headers={"Authorization": f"Bearer {mint(platform.key, sid=session.id)}"})
    assert is_active(auth, session.access_token)


# Passwords


def change(auth: httpx2.Client, session: Session, current: str = PASSWORD, new: str = NEW_PASSWORD) -> httpx2.Response:
    body = {"current_password": current, "new_password": new}
    return auth.post("/password", json=body, headers=session.headers)


def test_a_new_password_ends_all_other_sessions(auth: httpx2.Client, session: Session) -> None:
    others = [login(auth, session.username) for _ in range(2)]
    answer = change(auth, session)
    assert (answer.status_code, answer.content) == (204, b"")
    assert [is_active(auth, other.access_token) for other in (session, *others)] == [True, False, False]
    assert [refresh(auth, other.refresh_token).status_code for other in (session, *others)] == [200, 401, 401]
    old = auth.post("/login", json={"username": session.username, "password": PASSWORD})
    assert_problem(old, 401, "invalid-credentials")
    login(auth, session.username, NEW_PASSWORD)


def test_a_wrong_present_password_changes_nothing(auth: httpx2.Client, session: Session) -> None:
    other = login(auth, session.username)
    assert_problem(change(auth, session, current="wrong password"), 401, "invalid-credentials")
    assert is_active(auth, other.access_token)
    login(auth, session.username)


@pytest.mark.parametrize(("new", "pointer"), [("short", "#/new_password"), ("password1", "#/new_password")])
def test_a_new_password_has_to_be_a_good_one(auth: httpx2.Client, session: Session, new: str, pointer: str) -> None:
    problem = assert_problem(change(auth, session, new=new), 422, "invalid-request")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    login(auth, session.username)


def test_a_session_that_has_ended_changes_no_password(auth: httpx2.Client, session: Session) -> None:
    """Also while Redis has not spread the word: this route asks Postgres."""
    auth.post("/logout", headers=session.headers)
    assert_problem(change(auth, session), 401, "invalid-token")
    assert_problem(auth.post("/password", json={}), 401, "token-required")


def test_of_two_password_changes_at_once_one_wins(auth: httpx2.Client, session: Session) -> None:
    other = login(auth, session.username)
    passwords = [f"{NEW_PASSWORD} {number}" for number in range(2)]
    with ThreadPoolExecutor(2) as pool:
        answers = list(
            pool.map(lambda pair: change(auth, pair[0], new=pair[1]), zip((session, other), passwords, strict=True))
        )
    # The slower one either finds its password changed or, still later, its session ended.
    assert sorted(answer.status_code for answer in answers) == [204, 401]
    winner = passwords[[answer.status_code for answer in answers].index(204)]
    login(auth, session.username, winner)


def test_no_login_with_the_old_password_survives_its_change(auth: httpx2.Client, account: User) -> None:
    """Logins and the change race each other; whatever the order, afterwards no session of the old password lives."""
    session = login(auth, account.username)
    answers: list[httpx2.Response] = []

    stop = Event()

    def keep_logging_in() -> None:
        while not stop.is_set():
            answers.append(auth.post("/login", json={"username": account.username, "password": PASSWORD}))

    def wait_for(status: int) -> None:
        deadline = time.monotonic() + 20
        while not any(answer.status_code == status for answer in list(answers)):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            pool.submit(keep_logging_in)
        try:
            wait_for(200)
            assert change(auth, session).status_code == 204
            wait_for(401)
        finally:
            stop.set()
    for answer in answers:
        if answer.status_code == 200:
            assert not is_active(auth, answer.json()["access_token"])
    assert is_active(auth, session.access_token)


def test_a_hash_that_keeps_changing_under_a_login_lets_nobody_in(
    auth: httpx2.Client, account: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[object] = []

    async def changed(*arguments: object) -> None:
        tried.append(arguments)

    monkeypatch.setattr(SessionRepository, "start", changed)
    answer = auth.post("/login", json={"username": account.username, "password": PASSWORD})
    assert_problem(answer, 401, "invalid-credentials")
    # Looked at once more, and not for ever.
    assert len(tried) == 2


def test_a_password_that_was_changed_meanwhile_is_not_the_present_one(
    auth: httpx2.Client, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def changed(*_: object) -> None:
        return None

    monkeypatch.setattr(SessionRepository, "change_password", changed)
    assert_problem(change(auth, session), 401, "invalid-credentials")
