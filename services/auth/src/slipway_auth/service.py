"""What auth does, without HTTP."""

import structlog
from prometheus_client import CollectorRegistry, Counter
from slipway_kit.problems import Problem, unauthorized
from slipway_kit.tokens import InvalidTokenError, Principal

from slipway_auth.passwords import Passwords
from slipway_auth.repository import StoredUser, UserRepository
from slipway_auth.tokens import TokenIssuer

log = structlog.get_logger()


class AccountService:
    def __init__(
        self, users: UserRepository, passwords: Passwords, tokens: TokenIssuer, registry: CollectorRegistry
    ) -> None:
        self._users = users
        self._passwords = passwords
        self._tokens = tokens
        self._registrations = Counter("auth_registrations_total", "Registrations.", ["result"], registry=registry)
        self._logins = Counter("auth_logins_total", "Logins.", ["result"], registry=registry)
        self._verifications = Counter("auth_verifications_total", "Introspections.", ["result"], registry=registry)

    async def register(self, username: str, password: str) -> StoredUser:
        # Hashed first, even for a name that is taken: both answers take the same time.
        password_hash = await self._passwords.hash(password)
        user = await self._users.create(username, password_hash)
        if user is None:
            self._registrations.labels("taken").inc()
            raise Problem(409, "username-taken", "This username is taken.")
        self._registrations.labels("created").inc()
        log.info("user registered", user_id=str(user.id))
        return user

    async def login(self, username: str, password: str) -> str:
        # Postgres cannot even be asked for a NUL; such a name is as unknown as any other.
        user = await self._users.by_username(username) if "\x00" not in username else None
        stored = user.password_hash if user else None
        if not await self._passwords.verify(stored, password) or user is None:
            self._logins.labels("refused").inc()
            log.info("login refused", user_id=str(user.id) if user else None)
            # One answer for both: which half was wrong is not told.
            raise unauthorized("Username or password is wrong.", error="invalid_credentials")
        if self._passwords.outdated(user.password_hash):
            await self._users.replace_hash(user.id, user.password_hash, await self._passwords.hash(password))
        self._logins.labels("accepted").inc()
        log.info("login accepted", user_id=str(user.id))
        return self._tokens.issue(user.id, user.username)

    async def introspect(self, token: str) -> Principal | None:
        """Unlike local verification this also knows whether the account still exists."""
        try:
            principal = self._tokens.verify(token)
        except InvalidTokenError as error:
            log.info("token refused", reason=str(error))
            self._verifications.labels("inactive").inc()
            return None
        active = await self._users.exists(principal.user_id)
        self._verifications.labels("active" if active else "inactive").inc()
        return principal if active else None
