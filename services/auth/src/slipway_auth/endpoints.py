"""HTTP of auth."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from slipway_kit.problems import problems

from slipway_auth.schemas import (
    AccessToken,
    Credentials,
    Introspection,
    JsonWebKeySet,
    Registration,
    TokenToCheck,
    User,
)
from slipway_auth.service import AccountService
from slipway_auth.tokens import TokenIssuer

router = APIRouter()


async def _accounts(request: Request) -> AccountService:
    service: AccountService = request.state.accounts
    return service


async def _tokens(request: Request) -> TokenIssuer:
    tokens: TokenIssuer = request.state.tokens
    return tokens


Accounts = Annotated[AccountService, Depends(_accounts)]
Tokens = Annotated[TokenIssuer, Depends(_tokens)]


@router.post("/register", status_code=201, responses=problems(400, 409, 413, 503))
async def register(body: Registration, accounts: Accounts) -> User:
    user = await accounts.register(body.username, body.password.get_secret_value())
    return User(id=user.id, username=user.username, created_at=user.created_at)


@router.post("/login", responses=problems(400, 401, 413, 503))
async def login(body: Credentials, accounts: Accounts, tokens: Tokens, response: Response) -> AccessToken:
    token = await accounts.login(body.username.strip().lower(), body.password.get_secret_value())
    response.headers["Cache-Control"] = "no-store"
    return AccessToken(access_token=token, expires_in=tokens.lifetime)


@router.post("/verify", responses=problems(400, 413, 503), response_model_exclude_none=True)
async def verify(body: TokenToCheck, accounts: Accounts, response: Response) -> Introspection:
    response.headers["Cache-Control"] = "no-store"
    principal = await accounts.introspect(body.token)
    if principal is None:
        return Introspection(active=False)
    return Introspection(active=True, sub=principal.user_id, username=principal.username, exp=principal.expires_at)


@router.get("/.well-known/jwks.json", responses=problems())
async def jwks(tokens: Tokens, response: Response) -> JsonWebKeySet:
    """Public halves only. Verifiers keep them for ten minutes and ask again when they meet an unknown `kid`."""
    response.headers["Cache-Control"] = "public, max-age=600"
    return JsonWebKeySet.model_validate(tokens.jwks)
