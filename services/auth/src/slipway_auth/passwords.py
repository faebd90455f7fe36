"""argon2id, behind a gate: a hash costs 19 MiB and a core for 20 ms, so their number at a time is bounded."""

import secrets

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError
from prometheus_client import CollectorRegistry, Histogram
from slipway_kit.capacity import Capacity
from slipway_kit.metrics import BUCKETS


class Passwords:
    def __init__(self, hasher: PasswordHasher, gate: Capacity, registry: CollectorRegistry) -> None:
        self._hasher = hasher
        self._gate = gate
        self._seconds = Histogram(
            "auth_hash_duration_seconds",
            "Time of one password hash, without waiting for its turn.",
            buckets=BUCKETS,
            registry=registry,
        )
        # For names that do not exist: they must take as long as a wrong password.
        self._dummy = hasher.hash(secrets.token_hex(16))

    @classmethod
    def with_cost(
        cls, *, memory_kib: int, passes: int, lanes: int, gate: Capacity, registry: CollectorRegistry
    ) -> "Passwords":
        hasher = PasswordHasher(time_cost=passes, memory_cost=memory_kib, parallelism=lanes, type=Type.ID)
        return cls(hasher, gate, registry)

    async def hash(self, password: str) -> str:
        return await self._gate.run(self._hash, password)

    async def verify(self, stored: str | None, password: str) -> bool:
        """One hash, whether there is something to compare with or not."""
        matches = await self._gate.run(self._matches, stored or self._dummy, password)
        return matches and stored is not None

    def outdated(self, stored: str) -> bool:
        return self._hasher.check_needs_rehash(stored)

    def _hash(self, password: str) -> str:
        with self._seconds.time():
            return self._hasher.hash(password)

    def _matches(self, stored: str, password: str) -> bool:
        with self._seconds.time():
            try:
                return self._hasher.verify(stored, password)
            except (VerificationError, InvalidHashError):
                return False
