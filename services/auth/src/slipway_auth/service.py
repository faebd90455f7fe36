"""What auth does with accounts, without HTTP.

Password hashes are the expensive part, and their number must not tell whether a name exists. Exactly one for: a
registration, whether the name is free or taken; a login, whether the name is known or not and the password right or
wrong; a password change with a wrong present password. Two, and only for somebody who has shown the right password:
a password change, and a login whose stored hash is older than the present cost. None at all for what is refused before
anything is looked up: a malformed request, a common password, a rate limit.
"""

from uuid import UUID

import structlog
from prometheus_client import CollectorRegistry
from slipway_kit.problems import Problem, unauthorized
from slipway_kit.tokens import InvalidTokenError, Principal

from slipway_auth.audit import audit
from slipway_auth.common_passwords import refuse_common
from slipway_auth.limits import RateLimits, address_identity, name_identity
from slipway_auth.outcomes import Outcomes
from slipway_auth.passwords import Passwords
from slipway_auth.repository import SessionRepository, StoredUser, UserRepository
from slipway_auth.sessions import Grant, Sessions

log = structlog.get_logger()


class AccountService:
    def __init__(
        self,
        users: UserRepository,
        stored_sessions: SessionRepository,
        passwords: Passwords,
        sessions: Sessions,
        limits: RateLimits,
        registry: CollectorRegistry,
    ) -> None:
        self._users = users
        self._stored_sessions = stored_sessions
        self._passwords = passwords
        self._sessions = sessions
        self._limits = limits
        self._registrations = Outcomes(
            "auth_registrations_total", "Registrations.", registry, "created", "taken", "refused", "limited", "busy"
        )
        self._logins = Outcomes("auth_logins_total", "Logins.", registry, "accepted", "refused", "limited", "busy")
        self._changes = Outcomes(
            "auth_password_changes_total", "Password changes.", registry, "accepted", "refused", "limited", "busy"
        )
        self._verifications = Outcomes("auth_verifications_total", "Introspections.", registry, "active", "inactive")

    async def register(self, username: str, password: str, address: str) -> StoredUser:
        """Problem 409 for a name that is taken: names are public anyway, they stand under posts."""
        with self._registrations.counted():
            refuse_common(password, username, "password")
            await self._limits.check("register", address=address_identity(address))
            # Hashed first, even for a name that is taken: both answers take the same time.
            password_hash = await self._passwords.hash(password)
            user = await self._users.create(username, password_hash)
            if user is None:
                raise Problem(409, "username-taken", "This username is taken.")
            audit("user registered", user_id=str(user.id))
            return user

    async def login(self, username: str, password: str, address: str) -> Grant:
        """A new session; Problem 401, the same for both, when there is no such name or the password is wrong."""
        with self._logins.counted():
            identity = name_identity(username)
            await self._limits.check("login", address=address_identity(address), user=identity)
            grant = await self._try_login(username, password)
            await self._limits.forget("login", "user", identity)
            return grant

    async def _try_login(self, username: str, password: str) -> Grant:
        # Postgres cannot even be asked for a NUL; such a name is as unknown as any other.
        askable = "\x00" not in username
        # Once more when the hash was replaced between check and start: by a login beside this one that renewed it, or
        # by a password change, and then the second look refuses.
        for _ in range(2):
            user = await self._users.by_username(username) if askable else None
            if not await self._passwords.verify(user.password_hash if user else None, password) or user is None:
                audit("login refused", user_id=str(user.id) if user else None)
                raise _wrong_credentials()
            grant = await self._sessions.start(user, await self._renewed(user, password))
            if grant is not None:
                audit("login accepted", user_id=str(user.id), session_id=str(grant.session_id))
                return grant
        raise _wrong_credentials()

    async def _renewed(self, user: StoredUser, password: str) -> str:
        """The hash that is stored now: a new one when the old one was cheaper than hashes are to be today."""
        if not self._passwords.outdated(user.password_hash):
            return user.password_hash
        try:
            renewed = await self._passwords.hash(password)
        except Problem:
            # Too much to do: the next login will renew it.
            return user.password_hash
        if await self._users.replace_hash(user.id, user.password_hash, renewed):
            audit("hash renewed", user_id=str(user.id))
        return renewed

    async def change_password(self, principal: Principal, current: str, new: str, address: str) -> None:
        """All other sessions of the user end with the old password; the one that changes it stays."""
        with self._changes.counted():
            refuse_common(new, principal.username, "new_password")
            identity = str(principal.user_id)
            await self._limits.check("password", address=address_identity(address), user=identity)
            user = await self._users.by_username(principal.username)
            stored = user.password_hash if user else None
            if not await self._passwords.verify(stored, current) or user is None:
                audit("password change refused", user_id=identity, session_id=principal.session_id)
                raise _wrong_credentials()
            ended = await self._stored_sessions.change_password(
                user.id, user.password_hash, await self._passwords.hash(new), UUID(principal.session_id)
            )
            if ended is None:
                # Somebody else was faster: the password that was shown is not the present one any more.
                raise _wrong_credentials()
            audit("password changed", user_id=identity, session_id=principal.session_id)
            await self._sessions.ended(ended, "password")
            await self._limits.forget("password", "user", identity)

    async def introspect(self, token: str) -> Principal | None:
        """Unlike local verification this also knows whether session and account still live."""
        with self._verifications.counted() as outcome:
            try:
                return await self._sessions.verify(token)
            except InvalidTokenError as error:
                outcome.result = "inactive"
                log.info("token refused", reason=str(error))
                return None


def _wrong_credentials() -> Problem:
    # One answer for both: which half was wrong is not told.
    return unauthorized("Username or password is wrong.", error="invalid_credentials")
