"""Tokens by which services recognise each other, for a key that only one of them has."""

from prometheus_client import CollectorRegistry
from slipway_kit.problems import Problem

from slipway_auth.audit import audit
from slipway_auth.limits import RateLimits, address_identity
from slipway_auth.outcomes import Outcomes
from slipway_auth.service_keys import ServiceKeys
from slipway_auth.tokens import TokenIssuer


class ServiceTokenService:
    def __init__(self, keys: ServiceKeys, tokens: TokenIssuer, limits: RateLimits, registry: CollectorRegistry) -> None:
        self._keys = keys
        self._tokens = tokens
        self._limits = limits
        self._grants = Outcomes(
            "auth_service_tokens_total", "Service tokens asked for.", registry, "accepted", "refused", "limited"
        )

    async def grant(self, name: str, key: str, callee: str, address: str) -> tuple[str, int]:
        """A token for calls to `callee`, and the seconds that it lives; Problem 401 for a wrong name or key."""
        with self._grants.counted():
            await self._limits.check("service_tokens", address=address_identity(address))
            if not self._keys.match(name, key):
                audit("service refused", callee=callee)
                raise wrong_service_credentials()
            audit("service identified", caller=name, callee=callee)
            return self._tokens.issue_for_service(name, callee), self._tokens.service_lifetime


def wrong_service_credentials() -> Problem:
    headers = {"WWW-Authenticate": 'Basic realm="slipway services", charset="UTF-8"'}
    return Problem(401, "invalid-service-credentials", "The name or the key of the service is wrong.", headers=headers)
