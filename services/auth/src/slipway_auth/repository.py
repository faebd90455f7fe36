"""All SQL of auth."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from slipway_kit.database import Database, Row


@dataclass(frozen=True)
class StoredUser:
    id: UUID
    username: str
    password_hash: str
    created_at: datetime


def _user(row: Row) -> StoredUser:
    return StoredUser(row["id"], row["username"], row["password_hash"], row["created_at"])


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

    async def exists(self, user_id: UUID) -> bool:
        row = await self._database.fetchrow("users.exists", "SELECT 1 FROM users WHERE id = $1", user_id)
        return row is not None

    async def replace_hash(self, user_id: UUID, old: str, new: str) -> None:
        """Only if it is still the one that was checked: a password changed meanwhile stays changed."""
        await self._database.execute(
            "users.replace_hash",
            "UPDATE users SET password_hash = $3, updated_at = now() WHERE id = $1 AND password_hash = $2",
            user_id,
            old,
            new,
        )
