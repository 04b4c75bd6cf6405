"""The ASGI application: routes, and around each of them the same checks and the same answers to errors."""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any

import structlog
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Match, Route, WebSocketRoute
from starlette.websockets import WebSocket

from attune.api.authentication import Gate
from attune.api.endpoints import Access, Call, Endpoint, NoQuery, Permission, Socket
from attune.api.idempotency import answer_once, key_of
from attune.api.paging import Query, id_of
from attune.api.problems import HttpError, problem_response, unexpected_response
from attune.base import json
from attune.base.errors import AttuneError, BadInput, NotFound, Problem, StartError
from attune.base.validation import problems_of
from attune.database.ids import uuid7
from attune.events.idempotency import Keys

log = structlog.get_logger()

_LARGEST_PUBLIC_BODY = 16_384
"""Bytes: who has not signed in has little to say, and no right to keep the loop busy with reading it."""


class Api:
    """Makes the application of endpoints."""

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        gate: Gate,
        keys: Keys,
        *,
        max_body_size: int,
        sockets: Iterable[Socket] = (),
    ) -> None:
        """Raises StartError for an endpoint that does not say who may use it."""
        self.endpoints = tuple(endpoints)
        self._sockets = tuple(sockets)
        self._gate = gate
        self._keys = keys
        self._max_body_size = max_body_size
        for endpoint in self.endpoints:
            if not isinstance(endpoint.access, Access | Permission):
                raise StartError(f"{endpoint.method} {endpoint.path} declares no permission.")

    def application(self) -> Starlette:
        """The ASGI application."""
        application = Starlette(
            routes=[
                *(
                    Route(endpoint.path, self._responder(endpoint), methods=[endpoint.method, *endpoint.aliases])
                    for endpoint in self.endpoints
                ),
                *(WebSocketRoute(socket.path, self._talker(socket)) for socket in self._sockets),
            ],
            exception_handlers={HTTPException: _no_such_route},
        )
        # A redirect would be an answer without words, at an address that the caller's Host header makes up.
        application.router.redirect_slashes = False
        return application

    def _responder(self, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            instance = str(uuid7())
            try:
                call = await self._checked(request, endpoint)
                response = await answer_once(self._keys, endpoint, call)
            except AttuneError as error:
                response = problem_response(error, instance)
            except ClientDisconnect:
                response = Response(status_code=HTTPStatus.BAD_REQUEST)
            except Exception:
                log.exception("a request failed", request=instance, method=request.method, path=request.scope["path"])
                response = unexpected_response(instance)
            response.headers["X-Request-Id"] = instance
            return response

        return respond

    def _talker(self, socket: Socket) -> Callable[[WebSocket], Awaitable[None]]:
        async def talk(connection: WebSocket) -> None:
            instance = str(uuid7())
            try:
                _refuse_ambiguous_host(connection)
                caller = await self._gate.caller(connection, socket)
                _query(connection, NoQuery)
                socket.check()
            except AttuneError as error:
                await connection.send_denial_response(problem_response(error, instance))
                return
            await socket.talk(connection, caller)

        return talk

    async def _checked(self, request: Request, endpoint: Endpoint) -> Call[Any, Any]:
        _refuse_ambiguous_host(request)
        caller = await self._gate.caller(request, endpoint)
        path, query = _path(request), _query(request, endpoint.query)
        body = await self._body(request, endpoint)
        return Call(caller, path, query, body, key_of(request, endpoint, caller, query, body), request)

    async def _body(self, request: Request, endpoint: Endpoint) -> BaseModel | None:
        raw = await self._read(request, endpoint)
        model = endpoint.body
        if model is None:
            if raw.strip() not in {b"", b"{}"}:
                raise BadInput("This route takes no body.")
            return None
        if not raw:
            raise BadInput("The body is missing; it must be a JSON object.")
        _refuse_other_media(request)
        value = json.parse(raw)
        if not isinstance(value, dict):
            raise BadInput("The body is wrong.", [Problem("", "must be a JSON object")])
        try:
            return model.model_validate(value, strict=True)
        except ValidationError as error:
            raise BadInput("The body is wrong.", problems_of(error, model)) from error

    async def _read(self, request: Request, endpoint: Endpoint) -> bytes:
        limit = self._max_body_size
        if endpoint.access is Access.PUBLIC:
            limit = min(limit, _LARGEST_PUBLIC_BODY)
        declared = request.headers.get("content-length", "")
        # By length first: Python refuses to read numbers of thousands of digits.
        if declared.isdecimal() and (len(declared) > len(str(limit)) or int(declared) > limit):
            raise _too_large(request, limit)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise _too_large(request, limit)
        return bytes(body)


def _too_large(request: Request, limit: int) -> HttpError:
    # Who asks first sends nothing after a refusal. To hang up on the others would make the system throw this
    # answer away before they read it: uvicorn swallows what they still send.
    headers = {"Connection": "close"} if "expect" in request.headers else {}
    hint = "" if limit == _LARGEST_PUBLIC_BODY else ", which server.max_body_size allows"
    return HttpError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"The body is larger than the {limit} bytes that this takes{hint}.",
        headers,
    )


def _refuse_ambiguous_host(request: HTTPConnection) -> None:
    """RFC 9112, section 3.2: who checks the name and who uses it must not read different ones."""
    hosts = request.headers.getlist("host")
    if len(hosts) > 1 or not (hosts or request.scope["http_version"] == "1.0"):
        raise HttpError(HTTPStatus.BAD_REQUEST, "Send one Host header.")


def _refuse_other_media(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not re.fullmatch(r"application/[\w.-]+\+json", kind):
        raise HttpError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send the body as Content-Type: application/json.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HttpError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send the body as it is, without Content-Encoding.")


def _path(request: Request) -> Mapping[str, Any]:
    values = dict(request.path_params)
    for name, value in values.items():
        if isinstance(value, str) and "\x00" in value:
            raise NotFound("There is nothing with a NUL character in its name.")
        if name == "id":
            values[name] = id_of(value)
            if values[name] is None:
                raise NotFound(f"There is nothing with the id {value}.")
    return values


def _query(request: HTTPConnection, model: type[Query]) -> Query:
    values: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in values:
            raise BadInput("The query is wrong.", [Problem(f"/{name}", "stands there twice")])
        if "\x00" in value:
            raise BadInput("The query is wrong.", [Problem(f"/{name}", "holds a NUL character")])
        values[name] = value
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise BadInput("The query is wrong.", problems_of(error, model)) from error


async def _no_such_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path, instance = request.scope["path"], str(uuid7())
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"Allow": ", ".join(_methods_of(request))}
        problem = HttpError(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} does not know {request.method}.", headers)
    else:
        hint = " No path ends with a slash here." if path.endswith("/") else ""
        problem = HttpError(HTTPStatus.NOT_FOUND, f"There is no route {request.method} {path}.{hint}")
    return problem_response(problem, instance)


def _methods_of(request: Request) -> list[str]:
    """The methods that a path knows: it may be the path of several routes."""
    matching = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in matching for method in route.methods})
