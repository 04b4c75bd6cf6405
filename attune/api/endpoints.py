"""Endpoints: what a route takes, what it asks of its caller, and who answers."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from attune.access.model import Caller
from attune.api.paging import Query
from attune.events.model import Key

Q = TypeVar("Q", bound=Query)
B = TypeVar("B", bound=BaseModel | None)


class Access(Enum):
    """What a route asks of its caller, beside the permission that it names."""

    PUBLIC = "public"
    """Nothing at all."""
    IDENTITY = "identity"
    """That it is known who they are."""


@dataclass(frozen=True, slots=True)
class Permission:
    """The right to do `action` with `resource`. `anonymous`: also for nobody in particular, if settings allow it."""

    resource: str
    action: str
    anonymous: bool = False


class NoQuery(Query):
    """A route without query parameters."""


@dataclass(frozen=True, slots=True)
class Call(Generic[Q, B]):
    """A request that was checked: who calls, and with what. With a `key` it is carried out once."""

    caller: Caller
    path: Mapping[str, Any]
    query: Q
    body: B
    key: Key | None
    request: Request


Handler = Callable[[Call[Any, Any]], Awaitable[Response]]
Replay = Callable[[Call[Any, Any], int], Awaitable[Response]]


class Answer(Enum):
    """What a route answers when all is well."""

    DATA = "an object, or a page of a list, in `data`; what was deleted in `message`"
    OBJECT = "a JSON object of its own"
    TEXT = "text"
    PAGE = "a page for a browser"
    FILE = "a file, as YAML"
    ARCHIVE = "files, as a tar.gz"
    STREAM = "server-sent events, until one of both sides ends it"
    NOTHING = "no body"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A route. `path` is Starlette's; `{id}` in it is a number. `failure` is a status with a body like that of success.
    `replay` answers a request from the id of what it has made before; a route that has it takes an Idempotency-Key.

    What stands here is what the OpenAPI document tells.
    """

    method: str
    path: str
    access: Access | Permission
    handler: Handler
    summary: str
    query: type[Query] = NoQuery
    body: type[BaseModel] | None = None
    aliases: tuple[str, ...] = ()
    answer: Answer = Answer.DATA
    status: HTTPStatus = HTTPStatus.OK
    failure: HTTPStatus | None = None
    replay: Replay | None = None


@dataclass(frozen=True, slots=True)
class Socket:
    """A WebSocket. `talk` gets one that is open, and whoever opened it; `check` raises when it cannot be opened."""

    path: str
    access: Permission
    check: Callable[[], None]
    talk: Callable[[WebSocket, Caller], Awaitable[None]]


SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
