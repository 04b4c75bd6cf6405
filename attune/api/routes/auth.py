"""Signing in."""

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Any

import structlog
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from attune.access.identities import Identities
from attune.access.model import Caller, Identity
from attune.access.tokens import TokenPair
from attune.api.answers import one
from attune.api.endpoints import Access, Call, Endpoint, NoQuery
from attune.base.errors import Forbidden, Unauthenticated

log = structlog.get_logger()


class LoginBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    login: Annotated[str, Field(min_length=1, max_length=255)]
    password: Annotated[str, Field(min_length=1, max_length=1024)]


class RefreshBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    refresh_token: Annotated[str, Field(min_length=1, max_length=4096)]


class AuthRoutes:
    def __init__(self, identities: Identities) -> None:
        self._identities = identities

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint("POST", "/auth/login", Access.PUBLIC, self.login, "Get tokens for a password", body=LoginBody),
            Endpoint("POST", "/auth/refresh", Access.PUBLIC, self.refresh, "Get new tokens", body=RefreshBody),
            Endpoint("GET", "/auth/me", Access.IDENTITY, self.me, "Who the caller is"),
        ]

    async def login(self, call: Call[NoQuery, LoginBody]) -> Response:
        client = _client(call.request)
        if client is not None and not client.is_loopback and call.request.url.scheme == "http":
            log.warning("a password came over plain HTTP", client=str(client))
        try:
            identity, tokens = await self._identities.sign_in(call.body.login, call.body.password)
        except (Unauthenticated, Forbidden) as error:
            # For those who block addresses. Without the login: people type their password there.
            log.warning("a sign-in was refused", client=str(client), reason=error.message)
            raise
        user = {"id": identity.id, "login": identity.login, "display_name": identity.display_name}
        return one({**_tokens(tokens), "user": user})

    async def refresh(self, call: Call[NoQuery, RefreshBody]) -> Response:
        return one(_tokens(await self._identities.refresh(call.body.refresh_token)))

    async def me(self, call: Call[NoQuery, None]) -> Response:
        return one(_me(call.caller))


def _client(request: Request) -> IPv4Address | IPv6Address | None:
    """Where a request came from; None for the socket file, and for a proxy that does not say."""
    try:
        return ip_address(request.client.host) if request.client else None
    except ValueError:
        return None


def _tokens(tokens: TokenPair) -> dict[str, Any]:
    return {
        "access_token": tokens.access,
        "refresh_token": tokens.refresh,
        "token_type": "Bearer",
        "expires_in": tokens.expires_in,
    }


def _me(caller: Caller) -> dict[str, Any]:
    identity: Identity | None = caller.identity
    return {
        "id": identity.id if identity else None,
        "login": identity.login if identity else caller.how.value,
        "display_name": identity.display_name if identity else None,
        "auth_provider": caller.how.value if identity is None else "local",
        "is_local": True,
        "can_change_password": False,
        "administrator": identity is None or identity.administrator,
    }
