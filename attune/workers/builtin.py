"""The actions of the core pack that are coroutines: no process, no start-up cost.

Each takes its parameters, checked and with defaults, and the trace of its execution, and returns what goes into the
result; an `error` there means failure.
"""

import codecs
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import anyio

from attune.base.json import Json, JsonObject, dumps, loads, unstorable
from attune.base.traces import HEADER
from attune.workers.output import clean

if TYPE_CHECKING:
    from ssl import SSLContext

    from httpx2 import Request, Response


class Trace(NamedTuple):
    """What an execution tells Attune when it asks it for something, and nobody else: its traceparent, for what is below
    this URL."""

    api_url: str
    traceparent: str


Builtin = Callable[[JsonObject, Trace], Awaitable[JsonObject]]

_MAX_BODY = 1_000_000
# The time these take grows with the square of the body, and nobody writes a body in them.
_SLOW_CHARSETS = {"punycode", "idna"}


async def noop(parameters: JsonObject, _: Trace) -> JsonObject:
    code = parameters.get("exit_code", 0)
    result: JsonObject = {"exit_code": code}
    if parameters.get("message") is not None:
        result["stdout"] = parameters["message"]
    if code != 0:
        result["error"] = f"exit code {code}"
    return result


async def echo(parameters: JsonObject, _: Trace) -> JsonObject:
    return {"exit_code": 0, "stdout": parameters.get("message", "")}


async def sleep(parameters: JsonObject, _: Trace) -> JsonObject:
    await anyio.sleep(_number(parameters["seconds"]))
    return {"exit_code": 0, "stdout": parameters.get("message") or ""}


async def http_request(parameters: JsonObject, own: Trace) -> JsonObject:
    # Half the start-up time of a small server, for an action that many never use.
    import httpx2

    seconds = _number(parameters["timeout"])
    try:
        # One deadline for all of it: an answer that comes drop by drop is late as well.
        with anyio.fail_after(seconds):
            return {"data": await _exchange(parameters, own)}
    except TimeoutError:
        error = f"Timeout: there was no complete answer within {seconds:g} s"
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as failure:
        error = f"{type(failure).__name__}: {failure}"
    return {"error": error, "data": {"url": parameters["url"], "success": False}}


BUILTINS: Final[dict[str, Builtin]] = {"noop": noop, "echo": echo, "sleep": sleep, "http_request": http_request}


async def _exchange(parameters: JsonObject, own: Trace) -> JsonObject:
    import httpx2

    async with (
        _connections() as trace,
        httpx2.AsyncClient(
            verify=_tls(bool(parameters["verify_ssl"])),
            timeout=None,
            follow_redirects=bool(parameters["follow_redirects"]),
            max_redirects=int(_number(parameters["max_redirects"])),
            # For each request, those that follow from redirects as well.
            event_hooks={"request": [_marking(own)]},
        ) as client,
    ):
        started = anyio.current_time()
        request = client.build_request(**_request(parameters), extensions={"trace": trace})
        response = await client.send(request, stream=True, auth=_auth(parameters))
        try:
            return await _answer(response, started)
        finally:
            await response.aclose()


def _marking(own: Trace) -> Callable[["Request"], Awaitable[None]]:
    """Lets requests to Attune itself say which execution they come from."""
    import httpx2

    api = httpx2.URL(own.api_url)

    async def mark(request: "Request") -> None:
        if (request.url.scheme, request.url.host, request.url.port) == (api.scheme, api.host, api.port):
            request.headers.setdefault(HEADER, own.traceparent)
        elif request.headers.get(HEADER) == own.traceparent:
            # It came here by a redirect.
            del request.headers[HEADER]

    return mark


@asynccontextmanager
async def _connections() -> AsyncIterator[Callable[[str, Mapping[str, Any]], Awaitable[None]]]:
    """Notes the connections of a request, and closes them: httpcore forgets one that is cancelled while it agrees on
    TLS."""
    opened = []

    async def trace(event: str, about: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            opened.append(about["return_value"])

    try:
        yield trace
    finally:
        with anyio.CancelScope(shield=True):
            for stream in opened:
                await stream.aclose()


@cache
def _tls(verify: bool) -> "SSLContext":
    """Reading the certificates of the authorities takes longer than most requests."""
    import httpx2

    return httpx2.create_ssl_context(verify=verify)


def _number(value: Json) -> float:
    assert isinstance(value, int | float), "the schema says number"
    return value


def _request(parameters: JsonObject) -> dict[str, Any]:
    import httpx2

    assert isinstance(parameters["headers"], dict)
    headers = httpx2.Headers({name: str(value) for name, value in parameters["headers"].items()})
    content = parameters.get("body")
    if "json_body" in parameters:
        # Not by httpx, to whom null is no body.
        content = dumps(parameters["json_body"])
        headers.setdefault("Content-Type", "application/json")
    if parameters["auth_type"] == "bearer":
        headers["Authorization"] = f"Bearer {parameters.get('auth_token', '')}"
    return {
        "method": parameters["method"],
        "url": parameters["url"],
        "headers": headers,
        "params": parameters["query_params"] or None,
        "content": content,
    }


def _auth(parameters: JsonObject) -> tuple[str, str] | None:
    if parameters["auth_type"] != "basic":
        return None
    return str(parameters.get("auth_username", "")), str(parameters.get("auth_password", ""))


async def _answer(response: "Response", started: float) -> JsonObject:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _MAX_BODY:
            break
    truncated = len(body) > _MAX_BODY
    text, replaced = _decoded(bytes(body[:_MAX_BODY]), response.charset_encoding, truncated)
    return {
        "status_code": response.status_code,
        "headers": dict(response.headers.items()),
        "body": text,
        "body_truncated": truncated,
        "body_replaced": replaced,
        "json": None if truncated else _json_or_none(bytes(body)),
        "elapsed_ms": round((anyio.current_time() - started) * 1000),
        "url": str(response.url),
        "success": response.is_success,
    }


def _decoded(body: bytes, charset: str | None, truncated: bool) -> tuple[str, bool]:
    """The body as text that PostgreSQL can store, and whether something had to be replaced for that.

    A body that is not in the charset it claims is read as UTF-8.
    """
    with suppress(LookupError, ValueError):
        if charset is not None and codecs.lookup(charset).name not in _SLOW_CHARSETS:
            body = body.decode(charset).encode()
    return clean(body, cut=truncated)


def _json_or_none(body: bytes) -> Json:
    try:
        value: Json = loads(body)
    except ValueError:
        return None
    return None if any(unstorable(value)) else value
