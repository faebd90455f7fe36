"""Sessions: what a login begins, refresh tokens carry on, and a logout, a theft or a new password ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from prometheus_client import CollectorRegistry, Counter
from slipway_kit.problems import unauthorized
from slipway_kit.tokens import InvalidTokenError, Principal

from slipway_auth.audit import audit
from slipway_auth.limits import RateLimits, address_identity
from slipway_auth.outcomes import Outcomes
from slipway_auth.refresh_tokens import digest, new_token
from slipway_auth.repository import Reason, RevokedSession, SessionRepository, StoredUser
from slipway_auth.revocations import RevocationPublisher
from slipway_auth.tokens import TokenIssuer


@dataclass(frozen=True)
class Grant:
    """What a client gets, and for which session. Times are seconds from now."""

    session_id: UUID
    access_token: str
    expires_in: int
    refresh_token: str
    refresh_expires_in: int


class Sessions:
    """Also the `verifier` of this service's own routes: unlike the others it asks whether the session lives."""

    def __init__(
        self,
        sessions: SessionRepository,
        tokens: TokenIssuer,
        publisher: RevocationPublisher,
        limits: RateLimits,
        registry: CollectorRegistry,
    ) -> None:
        self._sessions = sessions
        self._tokens = tokens
        self._publisher = publisher
        self._limits = limits
        self._started = Counter("auth_sessions_started_total", "Sessions started.", registry=registry)
        self._revoked = Counter("auth_sessions_revoked_total", "Sessions ended early.", ["reason"], registry=registry)
        for reason in ("logout", "reuse", "password"):
            self._revoked.labels(reason)
        self._refreshes = Outcomes(
            "auth_refreshes_total", "Refreshes.", registry, "accepted", "refused", "reused", "limited"
        )

    async def start(self, user: StoredUser, checked_hash: str) -> Grant | None:
        """A new session; None when the password has changed since `checked_hash` was checked."""
        token = new_token()
        session = await self._sessions.start(user.id, checked_hash, digest(token))
        if session is None:
            return None
        self._started.inc()
        return self._grant(session.id, user.id, user.username, token, session.refresh_expires_at)

    async def refresh(self, token: str | None, address: str) -> Grant:
        """The next tokens for a refresh token that was never used; Problem 401, and always the same, for all others.

        A token that comes a second time was stolen before or after its first use, and nobody can tell who of the two
        is the owner: the session ends for both.
        """
        with self._refreshes.counted() as outcome:
            await self._limits.check("refresh", address=address_identity(address))
            used, fresh = digest(token or ""), new_token()
            rotated = await self._sessions.rotate(used, digest(fresh))
            if rotated is not None:
                audit("session refreshed", user_id=str(rotated.user_id), session_id=str(rotated.id))
                return self._grant(rotated.id, rotated.user_id, rotated.username, fresh, rotated.refresh_expires_at)
            reused = await self._sessions.revoke_by_reuse(used)
            if reused is not None:
                outcome.result = "reused"
                await self.ended([reused], "reuse")
            raise unauthorized("The refresh token is not valid (any more): log in.", error="invalid_refresh_token")

    async def end_by_refresh_token(self, token: str) -> None:
        """A used one does as well: whoever has it can at most end the session."""
        session = await self._sessions.revoke_by_token(digest(token), "logout")
        await self.ended([session] if session else [], "logout")

    async def end_by_access_token(self, token: str) -> None:
        """Nothing happens for a token that is not valid: there is nothing left to end."""
        try:
            principal = await self._tokens.verify(token)
        except InvalidTokenError:
            return
        session = await self._sessions.revoke(UUID(principal.session_id), principal.user_id, "logout")
        await self.ended([session] if session else [], "logout")

    async def ended(self, sessions: Sequence[RevokedSession], reason: Reason) -> None:
        """Tell everybody what Postgres has just committed."""
        for session in sessions:
            self._revoked.labels(reason).inc()
            audit("session revoked", user_id=str(session.user_id), session_id=str(session.id), reason=reason)
        await self._publisher.publish(sessions)

    async def verify(self, token: str) -> Principal:
        """Whose token this is; InvalidTokenError when it is none, or its session or account is no more."""
        principal = await self._tokens.verify(token)
        if not await self._sessions.is_live(UUID(principal.session_id), principal.user_id):
            raise InvalidTokenError("its session has ended")
        return principal

    def _grant(self, session_id: UUID, user_id: UUID, username: str, token: str, expires_at: datetime) -> Grant:
        left = int((expires_at - datetime.now(UTC)).total_seconds())
        access = self._tokens.issue(user_id, username, session_id)
        return Grant(session_id, access, self._tokens.lifetime, token, max(left, 1))
