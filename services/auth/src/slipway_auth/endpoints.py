"""HTTP of auth."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Cookie, Depends, Request, Response
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from fastapi.security.utils import get_authorization_scheme_param
from pydantic import SecretStr
from slipway_kit.problems import Problem, problems
from slipway_kit.tokens import CurrentUser

from slipway_auth.clients import Clients
from slipway_auth.cookies import COOKIE, clear_refresh_cookie, clearing_header, set_refresh_cookie
from slipway_auth.schemas import (
    Credentials,
    Introspection,
    JsonWebKeySet,
    PasswordChange,
    RefreshToken,
    Registration,
    ServiceToken,
    ServiceTokenRequest,
    Tokens,
    TokenToCheck,
    User,
)
from slipway_auth.service import AccountService
from slipway_auth.service_tokens import ServiceTokenService, wrong_service_credentials
from slipway_auth.sessions import Grant, Sessions
from slipway_auth.tokens import TokenIssuer

router = APIRouter()


async def _accounts(request: Request) -> AccountService:
    service: AccountService = request.state.accounts
    return service


async def _sessions(request: Request) -> Sessions:
    sessions: Sessions = request.state.verifier
    return sessions


async def _tokens(request: Request) -> TokenIssuer:
    tokens: TokenIssuer = request.state.tokens
    return tokens


async def _service_tokens(request: Request) -> ServiceTokenService:
    service: ServiceTokenService = request.state.service_tokens
    return service


async def _address(request: Request) -> str:
    clients: Clients = request.state.clients
    return await clients.address(request)


async def _bearer(request: Request) -> str | None:
    """Not as a security scheme: that would say in the document that the route needs it."""
    scheme, token = get_authorization_scheme_param(request.headers.get("authorization"))
    return token if scheme.lower() == "bearer" else None


class _ServiceKey(HTTPBasic):
    # FastAPI names its own subclass, and raises whatever it gets.
    def make_not_authenticated_error(self) -> Problem:  # type: ignore[override]
        return wrong_service_credentials()


_service_key = _ServiceKey(scheme_name="ServiceKey")

Accounts = Annotated[AccountService, Depends(_accounts)]
SessionsOf = Annotated[Sessions, Depends(_sessions)]
Issuer = Annotated[TokenIssuer, Depends(_tokens)]
ServiceTokens = Annotated[ServiceTokenService, Depends(_service_tokens)]
Address = Annotated[str, Depends(_address)]
ServiceKey = Annotated[HTTPBasicCredentials, Depends(_service_key)]
Bearer = Annotated[str | None, Depends(_bearer)]
RefreshCookie = Annotated[SecretStr | None, Cookie(alias=COOKIE)]


@router.post("/register", status_code=201, responses=problems(400, 409, 413, 429, 503))
async def register(body: Registration, accounts: Accounts, address: Address) -> User:
    """422 also for a password of those that are tried first: `common-password` among its errors."""
    user = await accounts.register(body.username, body.password.get_secret_value(), address)
    return User(id=user.id, username=user.username, created_at=user.created_at)


@router.post("/login", responses=problems(400, 401, 413, 429, 503), response_model_exclude_none=True)
async def login(body: Credentials, accounts: Accounts, address: Address, response: Response) -> Tokens:
    grant = await accounts.login(body.username.strip().lower(), body.password.get_secret_value(), address)
    return _answer(response, grant, in_cookie=body.refresh_token_in == "cookie")  # noqa: S105 - a place


@router.post("/refresh", responses=problems(400, 401, 413, 429, 503), response_model_exclude_none=True)
async def refresh(
    sessions: SessionsOf,
    address: Address,
    response: Response,
    body: RefreshToken | None = None,
    cookie: RefreshCookie = None,
) -> Tokens:
    """Each refresh token works once. The next one comes the way this one came: in the body or as a cookie."""
    if body is not None and body.refresh_token is not None:
        return _answer(response, await sessions.refresh(body.refresh_token.get_secret_value(), address))
    try:
        grant = await sessions.refresh(cookie.get_secret_value() if cookie else None, address)
    except Problem as problem:
        if problem.status_code == 401:
            problem.headers = {**(problem.headers or {}), **clearing_header()}
        raise
    return _answer(response, grant, in_cookie=True)


@router.post("/logout", status_code=204, responses=problems(400, 413, 503))
async def logout(
    sessions: SessionsOf,
    address: Address,
    response: Response,
    access_token: Bearer,
    body: RefreshToken | None = None,
    cookie: RefreshCookie = None,
) -> None:
    """Ends the session of whatever is shown: refresh token, cookie, access token. What is not valid is as good."""
    offered = [body.refresh_token if body else None, cookie]
    for token in filter(None, offered):
        await sessions.end_by_refresh_token(token.get_secret_value())
    if access_token:
        await sessions.end_by_access_token(access_token)
    clear_refresh_cookie(response)


@router.post("/password", status_code=204, responses=problems(400, 401, 413, 429, 503))
async def change_password(body: PasswordChange, user: CurrentUser, accounts: Accounts, address: Address) -> None:
    """Ends all other sessions of the user. 401 `invalid-credentials` when the present password is wrong."""
    current, new = body.current_password.get_secret_value(), body.new_password.get_secret_value()
    await accounts.change_password(user, current, new, address)


@router.post("/verify", responses=problems(400, 413, 503), response_model_exclude_none=True)
async def verify(body: TokenToCheck, accounts: Accounts, response: Response) -> Introspection:
    response.headers["Cache-Control"] = "no-store"
    principal = await accounts.introspect(body.token)
    if principal is None:
        return Introspection(active=False)
    return Introspection(
        active=True,
        sub=principal.user_id,
        username=principal.username,
        exp=principal.expires_at,
        sid=UUID(principal.session_id),
    )


@router.get("/.well-known/jwks.json", responses=problems())
async def jwks(tokens: Issuer, response: Response) -> JsonWebKeySet:
    """Public halves only. Verifiers keep them for ten minutes and ask again when they meet an unknown `kid`."""
    response.headers["Cache-Control"] = "public, max-age=600"
    return JsonWebKeySet.model_validate(tokens.keys.jwks)


@router.post("/service-tokens", responses=problems(400, 401, 413, 429))
async def service_token(
    body: ServiceTokenRequest, key: ServiceKey, service_tokens: ServiceTokens, address: Address, response: Response
) -> ServiceToken:
    """For services, by name and key (HTTP Basic); the gateway does not pass it on."""
    response.headers["Cache-Control"] = "no-store"
    token, lifetime = await service_tokens.grant(key.username, key.password, body.audience, address)
    return ServiceToken(token=token, expires_in=lifetime)


def _answer(response: Response, grant: Grant, *, in_cookie: bool = False) -> Tokens:
    response.headers["Cache-Control"] = "no-store"
    if in_cookie:
        set_refresh_cookie(response, grant.refresh_token, grant.refresh_expires_in)
    return Tokens(
        access_token=grant.access_token,
        expires_in=grant.expires_in,
        refresh_token=None if in_cookie else grant.refresh_token,
        refresh_expires_in=grant.refresh_expires_in,
    )
