"""All SQL of auth."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from slipway_kit.database import Database, Row

Reason = Literal["logout", "reuse", "password"]


@dataclass(frozen=True)
class StoredUser:
    id: UUID
    username: str
    password_hash: str
    created_at: datetime


@dataclass(frozen=True)
class StartedSession:
    id: UUID
    refresh_expires_at: datetime


@dataclass(frozen=True)
class RotatedSession:
    id: UUID
    user_id: UUID
    username: str
    refresh_expires_at: datetime


@dataclass(frozen=True)
class RevokedSession:
    id: UUID
    user_id: UUID
    revoked_at: datetime


def _user(row: Row) -> StoredUser:
    return StoredUser(row["id"], row["username"], row["password_hash"], row["created_at"])


def _revoked(row: Row) -> RevokedSession:
    return RevokedSession(row["id"], row["user_id"], row["revoked_at"])


class UserRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, username: str, password_hash: str) -> StoredUser | None:
        """None when the name is taken. The constraint decides, so that two at once cannot both win."""
        row = await self._database.fetchrow(
            "users.create",
            """
            INSERT INTO users (username, password_hash) VALUES ($1, $2)
            ON CONFLICT (username) DO NOTHING
            RETURNING id, username, password_hash, created_at
            """,
            username,
            password_hash,
        )
        return _user(row) if row else None

    async def by_username(self, username: str) -> StoredUser | None:
        row = await self._database.fetchrow(
            "users.by_username",
            "SELECT id, username, password_hash, created_at FROM users WHERE username = $1",
            username,
        )
        return _user(row) if row else None

    async def replace_hash(self, user_id: UUID, old: str, new: str) -> bool:
        """Only if it is still the one that was checked: a password changed meanwhile stays changed."""
        changed = await self._database.execute(
            "users.replace_hash",
            "UPDATE users SET password_hash = $3, updated_at = now() WHERE id = $1 AND password_hash = $2",
            user_id,
            old,
            new,
        )
        return changed == 1


class SessionRepository:
    """Times are the database's alone: the clocks of replicas do not matter."""

    def __init__(self, database: Database, refresh_lifetime: timedelta, session_lifetime: timedelta) -> None:
        self._database = database
        self._refresh_lifetime = refresh_lifetime
        self._session_lifetime = session_lifetime

    async def start(self, user_id: UUID, password_hash: str, token: bytes) -> StartedSession | None:
        """None when that is not the user's hash any more.

        The shared lock waits for a password change that is under way. Without it a login with the old password could
        begin its session right after that change has ended all others.
        """
        row = await self._database.fetchrow(
            "sessions.start",
            """
            WITH account AS (
                SELECT id FROM users WHERE id = $1 AND password_hash = $2 FOR SHARE
            ), session AS (
                INSERT INTO sessions (user_id, expires_at) SELECT id, now() + $4::interval FROM account
                RETURNING id, expires_at
            )
            INSERT INTO refresh_tokens (hash, session_id, expires_at)
            SELECT $3, id, LEAST(expires_at, now() + $5::interval) FROM session
            RETURNING session_id, expires_at
            """,
            user_id,
            password_hash,
            token,
            self._session_lifetime,
            self._refresh_lifetime,
        )
        return StartedSession(row["session_id"], row["expires_at"]) if row else None

    async def rotate(self, used: bytes, fresh: bytes) -> RotatedSession | None:
        """Use up a refresh token for a new one; None when it is not good, or not good any more.

        Of two at once the second waits for the lock of the first, then finds the token used.
        """
        row = await self._database.fetchrow(
            "sessions.rotate",
            """
            WITH live AS (
                SELECT t.hash, s.id, s.user_id, s.expires_at, u.username
                FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id JOIN users u ON u.id = s.user_id
                WHERE t.hash = $1 AND t.used_at IS NULL AND t.expires_at > now()
                  AND s.revoked_at IS NULL AND s.expires_at > now()
                FOR UPDATE OF t, s
            ), used AS (
                UPDATE refresh_tokens SET used_at = now() WHERE hash = (SELECT hash FROM live)
            ), fresh AS (
                INSERT INTO refresh_tokens (hash, session_id, expires_at)
                SELECT $2, id, LEAST(expires_at, now() + $3::interval) FROM live
                RETURNING expires_at
            )
            SELECT live.id, live.user_id, live.username, fresh.expires_at FROM live, fresh
            """,
            used,
            fresh,
            self._refresh_lifetime,
        )
        return RotatedSession(row["id"], row["user_id"], row["username"], row["expires_at"]) if row else None

    async def is_live(self, session_id: UUID, user_id: UUID) -> bool:
        """Sessions go with their account, so this says that it exists, too."""
        row = await self._database.fetchrow(
            "sessions.is_live",
            """
            SELECT 1 FROM sessions
            WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL AND expires_at > now()
            """,
            session_id,
            user_id,
        )
        return row is not None

    async def revoke_by_reuse(self, token: bytes) -> RevokedSession | None:
        """End the session of a refresh token that was used before; None when there is no such, or it has ended."""
        return await self._revoke(
            "sessions.revoke_by_reuse",
            "id = (SELECT session_id FROM refresh_tokens WHERE hash = $2 AND used_at IS NOT NULL)",
            "reuse",
            token,
        )

    async def revoke_by_token(self, token: bytes, reason: Reason) -> RevokedSession | None:
        return await self._revoke(
            "sessions.revoke_by_token",
            "id = (SELECT session_id FROM refresh_tokens WHERE hash = $2)",
            reason,
            token,
        )

    async def revoke(self, session_id: UUID, user_id: UUID, reason: Reason) -> RevokedSession | None:
        return await self._revoke("sessions.revoke", "id = $2 AND user_id = $3", reason, session_id, user_id)

    async def _revoke(self, query: str, condition: str, reason: Reason, *arguments: object) -> RevokedSession | None:
        row = await self._database.fetchrow(
            query,
            # The condition is one of the constants above.
            f"""
            UPDATE sessions SET revoked_at = now(), revoked_because = $1
            WHERE {condition} AND revoked_at IS NULL AND expires_at > now()
            RETURNING id, user_id, revoked_at
            """,  # noqa: S608
            reason,
            *arguments,
        )
        return _revoked(row) if row else None

    async def change_password(
        self, user_id: UUID, old: str, new: str, keep_session: UUID
    ) -> list[RevokedSession] | None:
        """A new hash, and the end of all other sessions; None, and neither, when `old` is not the hash any more.

        Two statements, because the second has to see the sessions of logins that the first has waited for.
        """
        async with self._database.transaction("sessions.change_password") as connection:
            changed = await connection.fetchval(
                """
                UPDATE users SET password_hash = $3, updated_at = now() WHERE id = $1 AND password_hash = $2
                RETURNING true
                """,
                user_id,
                old,
                new,
            )
            if not changed:
                return None
            rows = await connection.fetch(
                """
                UPDATE sessions SET revoked_at = now(), revoked_because = 'password'
                WHERE user_id = $1 AND id <> $2 AND revoked_at IS NULL AND expires_at > now()
                RETURNING id, user_id, revoked_at
                """,
                user_id,
                keep_session,
            )
        return [_revoked(row) for row in rows]

    async def revoked_within(self, period: timedelta) -> list[RevokedSession]:
        rows = await self._database.fetch(
            "sessions.revoked_within",
            "SELECT id, user_id, revoked_at FROM sessions WHERE revoked_at > now() - $1::interval",
            period,
        )
        return [_revoked(row) for row in rows]

    async def remove_ended(self, since: timedelta, limit: int) -> int:
        """Sessions, with their refresh tokens, that ended that long ago; how many, at most `limit`.

        Rows that another replica is just removing are left to it.
        """
        return await self._database.execute(
            "sessions.remove_ended",
            """
            DELETE FROM sessions WHERE id IN (
                SELECT id FROM sessions
                WHERE expires_at < now() - $1::interval OR revoked_at < now() - $1::interval
                LIMIT $2 FOR UPDATE SKIP LOCKED
            )
            """,
            since,
            limit,
        )
