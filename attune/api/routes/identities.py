"""Identities and their passwords."""

import re
from http import HTTPStatus
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.responses import Response

from attune.access.identities import Identities
from attune.access.model import Identity
from attune.api.answers import one
from attune.api.endpoints import Call, Endpoint, NoQuery, Permission


def _login(text: str) -> str:
    # It stands in paths and in log lines.
    if not re.fullmatch(r"\w[^\s/]*", text) or not text.isprintable():
        raise ValueError("must begin with a letter or a digit and have no spaces, slashes or control characters")
    return text


class CreateIdentityBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    login: Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_login)]
    display_name: Annotated[str, Field(max_length=255)] | None = None
    administrator: bool = False


class PasswordBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    password: str


class IdentityRoutes:
    def __init__(self, identities: Identities) -> None:
        self._identities = identities

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                "POST",
                "/api/v1/identities",
                Permission("identities", "create"),
                self.create,
                "Make an identity; it has no password yet",
                body=CreateIdentityBody,
                status=HTTPStatus.CREATED,
            ),
            Endpoint(
                "PUT",
                "/api/v1/identities/{login}/password",
                Permission("identities", "update"),
                self.set_password,
                "Give an identity a password; all its tokens end",
                body=PasswordBody,
            ),
        ]

    async def create(self, call: Call[NoQuery, CreateIdentityBody]) -> Response:
        identity = await self._identities.create(
            call.body.login, call.body.display_name, administrator=call.body.administrator
        )
        return one(_view(identity), status=HTTPStatus.CREATED)

    async def set_password(self, call: Call[NoQuery, PasswordBody]) -> Response:
        return one(_view(await self._identities.set_password(call.path["login"], call.body.password)))


def _view(identity: Identity) -> dict[str, Any]:
    return {
        "id": identity.id,
        "login": identity.login,
        "display_name": identity.display_name,
        "administrator": identity.administrator,
        "frozen": identity.frozen,
        "has_password": identity.has_password,
        "created": identity.created,
        "updated": identity.updated,
    }
