"""Whose request it is, for limits and the audit log: behind the gateway every connection is the gateway's."""

from ipaddress import ip_network

import structlog
from fastapi import Request
from slipway_kit.addresses import client_address
from slipway_kit.service_tokens import SERVICE_TOKEN_HEADER, ServiceCallers
from slipway_kit.tokens import InvalidTokenError

log = structlog.get_logger()


class Clients:
    """X-Forwarded-For is believed only of who proves to be the gateway: anybody can write that header."""

    def __init__(self, gateway: ServiceCallers) -> None:
        self._gateway = gateway

    async def address(self, request: Request) -> str:
        """The client's address, or an empty text when the server does not know it."""
        address = client_address(request.scope, ())
        if address and await self._is_gateway(request):
            address = client_address(request.scope, (ip_network(address),))
        structlog.contextvars.bind_contextvars(client_address=address)
        return address

    async def _is_gateway(self, request: Request) -> bool:
        token = request.headers.get(SERVICE_TOKEN_HEADER)
        if not token:
            return False
        try:
            await self._gateway.verify(token)
        except InvalidTokenError as error:
            # No reason to refuse: all the token does here is to make the header count.
            log.warning("forwarded address not believed", reason=str(error))
            return False
        return True
