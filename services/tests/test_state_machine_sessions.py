"""Sessions of auth against a model of a few lines: whatever order users, thieves and impatient tabs act in.

The model knows a session by its refresh tokens: the last one works once, an older one ends the session. The real one
runs with its Postgres and its Redis. Counts are small, because each login is a real argon2 hash.
"""

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import jwt
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from slipway_kit.revocations import REVOKED_SESSIONS
from slipway_testing.limits import UNLIMITED
from slipway_testing.platform import PASSWORD, Platform

pytestmark = pytest.mark.slow

COOKIE = "slipway_refresh"
PASSWORDS = (PASSWORD, "another horse battery", "yet another battery")


@dataclass
class Session:
    """What the model knows of one login."""

    user: "Account"
    place: str
    current: str
    access: str
    used: list[str] = field(default_factory=list)
    live: bool = True

    @property
    def id(self) -> str:
        sid: str = jwt.decode(self.access, options={"verify_signature": False})["sid"]
        return sid


@dataclass
class Account:
    id: str
    username: str
    first_hash: str
    password: str = PASSWORD


class Sessions(RuleBasedStateMachine):
    platform: Platform
    client: httpx2.Client
    accounts: list[Account]

    def __init__(self) -> None:
        super().__init__()
        self.sessions: list[Session] = []

    # What a client does

    def post(self, path: str, body: dict[str, Any] | None = None, **headers: str) -> httpx2.Response:
        # A cookie of the answer before must not help: each request carries what its rule gives it.
        self.client.cookies.clear()
        return self.client.post(path, json=body, headers=headers)

    def present(self, path: str, place: str, token: str) -> httpx2.Response:
        """A refresh token, in the body or as the browser has it: there no body is needed."""
        if place == "cookie":
            return self.post(path, cookie=f"{COOKIE}={token}")
        return self.post(path, {"refresh_token": token})

    def given(self, answer: httpx2.Response, place: str) -> str:
        """The refresh token of an answer, which is in one place only."""
        body, cookie = answer.json().get("refresh_token"), answer.cookies.get(COOKIE)
        token, other = (cookie, body) if place == "cookie" else (body, cookie)
        assert token
        assert other is None
        return token

    def pick(self, data: st.DataObject, *, live: bool) -> Session:
        return data.draw(st.sampled_from([each for each in self.sessions if each.live is live]))

    # Rules

    @initialize()
    def somebody(self) -> None:
        """New accounts for each run of rules would cost two hashes more: sessions are what has to be new."""
        for account in self.accounts:
            account.password = PASSWORD
            sql = "UPDATE users SET password_hash = $2 WHERE username = $1 RETURNING 1"
            self.platform.postgres.query("auth_db", sql, account.username, account.first_hash)
        # Two devices of one user, one of another: whatever happens to a session can happen to its neighbour.
        for who, place in ((0, "body"), (0, "cookie"), (1, "body")):
            self.log_in(who, place)

    @rule(who=st.integers(0, 1), place=st.sampled_from(["body", "cookie"]))
    def log_in(self, who: int, place: str) -> None:
        account = self.accounts[who]
        answer = self.post(
            "/login", {"username": account.username, "password": account.password, "refresh_token_in": place}
        )
        assert answer.status_code == 200, answer.text
        self.sessions.append(Session(account, place, self.given(answer, place), answer.json()["access_token"]))

    @precondition(lambda self: any(each.live for each in self.sessions))
    @rule(data=st.data())
    def refresh(self, data: st.DataObject) -> None:
        session = self.pick(data, live=True)
        answer = self.present("/refresh", session.place, session.current)
        assert answer.status_code == 200, answer.text
        assert jwt.decode(answer.json()["access_token"], options={"verify_signature": False})["sid"] == session.id
        session.used.append(session.current)
        session.current = self.given(answer, session.place)
        session.access = answer.json()["access_token"]
        assert session.current not in session.used

    @precondition(lambda self: any(not each.live for each in self.sessions))
    @rule(data=st.data())
    def refresh_what_is_over(self, data: st.DataObject) -> None:
        session = self.pick(data, live=False)
        self.refused(self.present("/refresh", session.place, session.current))

    @precondition(lambda self: any(each.used for each in self.sessions))
    @rule(data=st.data())
    def use_a_token_twice(self, data: st.DataObject) -> None:
        """By a thief, or by whom it was stolen from: nobody can tell, so both have to log in again."""
        session = data.draw(st.sampled_from([each for each in self.sessions if each.used]))
        token = data.draw(st.sampled_from(session.used))
        self.refused(self.present("/refresh", data.draw(st.sampled_from(["body", "cookie"])), token))
        session.live = False

    @precondition(lambda self: any(each.live for each in self.sessions))
    @rule(data=st.data())
    def refresh_in_two_tabs_at_once(self, data: st.DataObject) -> None:
        """One of them is second, and then the token was used twice: never two heirs of one session."""
        session = self.pick(data, live=True)
        with ThreadPoolExecutor(2) as pool, httpx2.Client(base_url=self.client.base_url) as other:
            body = {"refresh_token": session.current}
            asked = [pool.submit(each.post, "/refresh", json=body) for each in (self.client, other)]
            answers = [each.result() for each in asked]
        assert sorted(each.status_code for each in answers) == [200, 401]
        (heir,) = [each.json() for each in answers if each.status_code == 200]
        session.used.append(session.current)
        session.current, session.access, session.live = heir["refresh_token"], heir["access_token"], False

    @rule(data=st.data(), by=st.sampled_from(["token", "used token", "bearer"]))
    def log_out(self, data: st.DataObject, by: str) -> None:
        session = data.draw(st.sampled_from(self.sessions))
        if by == "bearer":
            answer = self.post("/logout", {}, authorization=f"Bearer {session.access}")
        elif by == "used token" and session.used:
            answer = self.present("/logout", session.place, data.draw(st.sampled_from(session.used)))
        else:
            answer = self.present("/logout", session.place, session.current)
        assert answer.status_code == 204, answer.text
        session.live = False

    @precondition(lambda self: any(each.live for each in self.sessions))
    @rule(data=st.data(), new=st.sampled_from(PASSWORDS))
    def change_the_password(self, data: st.DataObject, new: str) -> None:
        """Every other session of that user ends, this one stays."""
        session = self.pick(data, live=True)
        answer = self.change(session, session.user.password, new)
        if new == session.user.password:
            # Whether that is a change is a matter of taste; that nothing breaks is not.
            assert answer.status_code in (204, 422)
        else:
            assert answer.status_code == 204, answer.text
        if answer.status_code == 204:
            session.user.password = new
            for other in self.sessions:
                other.live = other.live and (other.user is not session.user or other is session)

    @rule(data=st.data())
    def change_the_password_without_knowing_it(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(self.sessions))
        wrong = next(each for each in PASSWORDS if each != session.user.password)
        answer = self.change(session, wrong, "never to be seen again")
        assert answer.status_code == 401
        if session.live:
            assert answer.json()["type"].endswith(":invalid-credentials")

    @precondition(lambda self: any(not each.live for each in self.sessions))
    @rule(data=st.data())
    def change_the_password_after_the_end(self, data: st.DataObject) -> None:
        """The access token would be good for some minutes more: auth asks its database."""
        session = self.pick(data, live=False)
        assert self.change(session, session.user.password, "never to be seen again").status_code == 401

    @rule(data=st.data())
    def verify(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(self.sessions))
        seen = self.post("/verify", {"token": session.access}).json()
        if not session.live:
            assert seen == {"active": False}
            return
        account = session.user
        assert seen.pop("exp")
        assert seen == {"active": True, "sub": account.id, "username": account.username, "sid": session.id}

    def change(self, session: Session, current: str, new: str) -> httpx2.Response:
        body = {"current_password": current, "new_password": new}
        return self.post("/password", body, authorization=f"Bearer {session.access}")

    def refused(self, answer: httpx2.Response) -> None:
        """One answer for unknown, used, expired and revoked: it says nothing about which."""
        assert answer.status_code == 401, answer.text
        assert answer.json()["type"] == "urn:slipway:problem:invalid-refresh-token"
        assert "refresh_token" not in answer.json()

    # What is always so

    @invariant()
    def others_hear_of_every_end(self) -> None:
        """The list that api and image read has every session that ended, and none that lives."""
        with self.platform.redis.admin() as redis:
            listed = set(redis.zrange(REVOKED_SESSIONS, 0, -1))
        for session in self.sessions:
            assert (session.id in listed) is not session.live

    def teardown(self) -> None:
        """What the model believes at the end is what the real one does."""
        for session in self.sessions:
            answer = self.present("/refresh", session.place, session.current)
            assert answer.status_code == (200 if session.live else 401)


@contextmanager
def machine(platform: Platform) -> Iterator[type[Sessions]]:
    with platform.auth(**UNLIMITED) as server, httpx2.Client(base_url=server.url, timeout=20) as client:
        accounts = []
        for _ in range(2):
            username = f"model-{secrets.token_hex(6)}"
            created = client.post("/register", json={"username": username, "password": PASSWORD})
            sql = "SELECT password_hash FROM users WHERE username = $1"
            (row,) = platform.postgres.query("auth_db", sql, username)
            accounts.append(Account(created.json()["id"], username, row["password_hash"]))
        yield type("BoundSessions", (Sessions,), {"platform": platform, "client": client, "accounts": accounts})


def test_sessions(platform: Platform) -> None:
    with machine(platform) as bound:
        run_state_machine_as_test(
            bound,
            settings=settings(
                max_examples=25,
                stateful_step_count=25,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            ),
        )
