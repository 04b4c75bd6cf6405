"""The core pack's own actions; `core.http_request` against a real server."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import anyio
import pytest

from attune.base.json import JsonObject, dumps, unstorable
from attune.base.schema import validate, with_defaults
from attune.base.traces import traceparent
from attune.catalog.files import read_pack
from attune.workers.builtin import BUILTINS, Trace
from tests.support.engines import BUNDLED

SCHEMAS = {action.entry_point: action.parameters for action in read_pack(BUNDLED / "core").actions}

TRACE = Trace("http://127.0.0.1:1", traceparent(uuid4(), 7))


async def call(name: str, **parameters: Any) -> JsonObject:
    """What a built-in action gives for parameters, which get the defaults of its schema as they always do."""
    given = with_defaults(parameters, SCHEMAS[name])
    assert validate(given, SCHEMAS[name]) == []
    output = await BUILTINS[name](given, TRACE)
    assert [*unstorable(output)] == []
    assert dumps(output)
    return output


def test_every_built_in_action_has_its_file_and_every_file_its_action() -> None:
    # No worker runs what waits for an answer.
    assert SCHEMAS.keys() == BUILTINS.keys() | {"ask"}


PLAIN: list[tuple[str, dict[str, Any], JsonObject]] = [
    ("noop", {}, {"exit_code": 0}),
    ("noop", {"message": "hi"}, {"exit_code": 0, "stdout": "hi"}),
    ("noop", {"exit_code": 3}, {"exit_code": 3, "error": "exit code 3"}),
    ("echo", {}, {"exit_code": 0, "stdout": ""}),
    ("echo", {"message": "Grüße"}, {"exit_code": 0, "stdout": "Grüße"}),
    ("sleep", {"seconds": 0}, {"exit_code": 0, "stdout": ""}),
    ("sleep", {"seconds": 0.01, "message": "rested"}, {"exit_code": 0, "stdout": "rested"}),
]


@pytest.mark.parametrize(("name", "parameters", "output"), PLAIN, ids=range(len(PLAIN)))
async def test_a_simple_action_gives_what_it_is_documented_to(
    name: str, parameters: dict[str, Any], output: JsonObject
) -> None:
    assert await call(name, **parameters) == output


# What is asked for, and what the server then gets.
REQUESTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"method": "GET", "target": "/echo", "body": ""}),
    ({"method": "DELETE"}, {"method": "DELETE"}),
    ({"method": "POST", "body": "Grüße"}, {"method": "POST", "body": "Grüße"}),
    (
        {"method": "PUT", "json_body": {"a": [1, None]}},
        {"body": '{"a":[1,null]}', "content-type": "application/json"},
    ),
    # JSON's null is a body, and no absence of one.
    ({"method": "POST", "json_body": None}, {"body": "null", "content-type": "application/json"}),
    ({"query_params": {"a": "x y&z", "n": 2, "b": True}}, {"target": "/echo?a=x+y%26z&n=2&b=true"}),
    ({"headers": {"X-Mine": "1", "Content-Type": "a/b"}, "body": "a"}, {"x-mine": "1", "content-type": "a/b"}),
    (
        {"auth_type": "basic", "auth_username": "me", "auth_password": "p:w"},
        {"authorization": "Basic bWU6cDp3"},
    ),
    ({"auth_type": "bearer", "auth_token": "t0"}, {"authorization": "Bearer t0"}),
    ({"headers": {"authorization": "mine"}, "auth_type": "bearer", "auth_token": "t0"}, {"authorization": "Bearer t0"}),
    # Without an auth_type they are not sent.
    ({"auth_username": "me", "auth_token": "t0"}, {"authorization": None}),
]  # fmt: skip


@pytest.mark.parametrize(("parameters", "gets"), REQUESTS, ids=range(len(REQUESTS)))
async def test_a_request_is_what_the_parameters_say(parameters: dict[str, Any], gets: dict[str, Any]) -> None:
    async with server() as url:
        output: Any = await call("http_request", url=f"{url}/echo", **parameters)

    got = output["data"]["json"]
    assert {name: got.get(name) for name in gets} == gets


async def test_a_request_to_attune_itself_says_which_execution_it_comes_from_and_no_other_does() -> None:
    async with server() as url, server() as other:
        own = Trace(url, TRACE.traceparent)

        async def told(address: str, **parameters: Any) -> Any:
            given = with_defaults({"url": address, **parameters}, SCHEMAS["http_request"])
            output: Any = await BUILTINS["http_request"](given, own)
            return output["data"]["json"].get("traceparent")

        assert await told(f"{url}/echo") == TRACE.traceparent
        assert await told(f"{other}/echo") is None
        assert await told(f"{url}/to?{other}/echo") is None
        assert await told(f"{other}/to?{url}/echo") == TRACE.traceparent
        # Who says something else knows why.
        assert await told(f"{url}/echo", headers={"Traceparent": "mine"}) == "mine"


# A path of the server, what is asked beside it, and what is said about the answer.
ANSWERS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("/answer?body=hello", {}, {"status_code": 200, "body": "hello", "json": None, "success": True}),
    # An answer that the server calls an error is an answer.
    ("/answer?status=404&body=gone", {}, {"status_code": 404, "body": "gone", "success": False}),
    ("/answer?status=204", {}, {"status_code": 204, "body": "", "json": None, "success": True}),
    ("/answer?body=[1,null]", {}, {"body": "[1,null]", "json": [1, None], "body_truncated": False}),
    ("/answer?body=hello", {"method": "HEAD"}, {"status_code": 200, "body": ""}),
    # JSON that cannot be stored is text that can.
    (r'/answer?body="\u0000"', {}, {"body": r'"\u0000"', "json": None}),
    ("/answer?raw=610062", {}, {"body": "a\ufffdb", "body_replaced": True}),
    ("/answer?raw=ff61", {}, {"body": "\ufffda", "body_replaced": True}),
    ("/answer?raw=fc&type=text/plain;charset=latin-1", {}, {"body": "ü", "body_replaced": False}),
    ("/answer?raw=c3bc&type=text/plain;charset=nonsense", {}, {"body": "ü", "body_replaced": False}),
    ("/answer?raw=c3bc&type=text/plain;charset=punycode", {}, {"body": "ü", "body_replaced": False}),
    ("/gzip", {}, {"body": "x" * 1000, "body_truncated": False}),
    ("/redirect?times=2", {}, {"status_code": 200, "body": "arrived"}),
    ("/redirect?times=2", {"follow_redirects": False}, {"status_code": 302, "success": False}),
]


@pytest.mark.parametrize(("path", "parameters", "holds"), ANSWERS, ids=range(len(ANSWERS)))
async def test_an_answer_becomes_data(path: str, parameters: dict[str, Any], holds: dict[str, Any]) -> None:
    async with server() as url:
        output: Any = await call("http_request", url=url + path, **parameters)

    assert "error" not in output
    assert {name: output["data"][name] for name in holds} == holds
    assert output["data"]["url"].startswith(url)


@pytest.mark.parametrize("path", ["/large", "/endless"])
async def test_of_a_huge_body_the_beginning_is_kept_and_the_rest_not_even_read(path: str) -> None:
    async with server() as url:
        output: Any = await call("http_request", url=url + path)

    assert len(output["data"]["body"]) == 1_000_000
    assert (output["data"]["body_truncated"], output["data"]["json"]) == (True, None)


# What cannot be asked, or gets no answer, and what the error then says.
FAILURES: list[tuple[str, dict[str, Any], str]] = [
    ("/silent", {"timeout": 1}, "Timeout: there was no complete answer within 1 s"),
    # Drop by drop: no single wait is long.
    ("/dripping", {"timeout": 1}, "Timeout: there was no complete answer within 1 s"),
    ("/redirect?times=99", {"max_redirects": 3}, "TooManyRedirects"),
    ("/redirect?times=1", {"max_redirects": 0}, "TooManyRedirects"),
    ("/elsewhere", {}, "Unsupported"),
    ("/cut", {}, "RemoteProtocolError"),
    ("/garbage", {}, "RemoteProtocolError"),
    ("/hang-up", {}, "RemoteProtocolError"),
    ("/answer", {"headers": {"X": "a\r\nY: b"}}, "Error"),
    ("/answer", {"headers": {"X": "ü"}}, "Error"),
    ("/bad-gzip", {}, "DecodingError"),
]


@pytest.mark.parametrize(("path", "parameters", "error"), FAILURES, ids=range(len(FAILURES)))
async def test_a_request_without_an_answer_fails_and_says_why(
    path: str, parameters: dict[str, Any], error: str
) -> None:
    async with server() as url:
        output = await call("http_request", url=url + path, **parameters)

    assert error in str(output["error"])
    assert output["data"] == {"url": url + path, "success": False}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "no url",
        "/path",
        "http://",
        "http://[::1",
        "http://x:99999/",
        "ftp://localhost/",
        "file:///etc/passwd",
        "http://a b/",
        "http://localhost/\n",
        "http://.invalid/",
        "http://" + "a" * 300 + "/",
        "http://" + "x." * 200,
        "x" * 100_000,
        # Port 1, on which nobody listens.
        "http://127.0.0.1:1/",
        "https://127.0.0.1:1/",
    ],
    ids=lambda url: url[:30],
)
async def test_a_url_that_leads_nowhere_fails_and_says_why(url: str) -> None:
    output = await call("http_request", url=url)

    assert isinstance(output["error"], str)
    assert output["error"]
    assert output["data"] == {"url": url, "success": False}


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_request_that_is_cancelled_hangs_up(scheme: str) -> None:
    """In the middle of an answer, or of the agreement on TLS: the server waits until it did."""
    async with server() as url:
        with anyio.move_on_after(0.2) as scope:
            await call("http_request", url=f"{scheme}{url.removeprefix('http')}/silent")

    assert scope.cancelled_caught


@asynccontextmanager
async def server() -> AsyncIterator[str]:
    """The URL of a server that behaves as the path says. It ends when all its callers have hung up."""
    connections: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.create_task(_serve(reader, writer)))

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        with anyio.move_on_after(20) as patience:
            await asyncio.gather(*connections, return_exceptions=True)
        listening.close()
        await listening.wait_closed()
    assert not patience.cancelled_caught, "a caller did not hang up"


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        request = await _request(reader)
        target = str(request["target"])
        path, _, query = target.partition("?")
        parameters = dict(part.partition("=")[::2] for part in query.split("&"))
        await _behave(path, parameters, request, reader, writer)
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def _request(reader: asyncio.StreamReader) -> dict[str, str]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ")
    lines = [line.partition(":") for line in head[1:] if line]
    headers = {name.lower(): value.strip() for name, _, value in lines}
    assert len(headers) == len(lines), "a header came twice"
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    assert len(headers) == len(set(headers)), head
    return {**headers, "method": method, "target": target, "body": body.decode()}


async def _behave(
    path: str,
    parameters: dict[str, str],
    request: dict[str, str],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    match path:
        case "/echo":
            _answer(writer, json.dumps(request).encode())
        case "/answer":
            body = (
                bytes.fromhex(parameters["raw"])
                if "raw" in parameters
                else unquote(parameters.get("body", "")).encode()
            )
            status = parameters.get("status", "200")
            _answer(writer, body, status, f"Content-Type: {parameters.get('type', 'text/plain')}", request["method"])
        case "/gzip":
            _answer(writer, gzip.compress(b"x" * 1000), "200", "Content-Encoding: gzip")
        case "/bad-gzip":
            _answer(writer, b"no gzip", "200", "Content-Encoding: gzip")
        case "/redirect" if parameters["times"] == "0":
            _answer(writer, b"arrived")
        case "/redirect":
            _answer(writer, b"", "302", f"Location: /redirect?times={int(parameters['times']) - 1}")
        case "/to":
            _answer(writer, b"", "302", f"Location: {next(iter(parameters))}")
        case "/elsewhere":
            _answer(writer, b"", "302", "Location: ftp://localhost/")
        case "/large":
            _answer(writer, b"x" * 3_000_000)
        case "/endless":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()
        case "/cut":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        case "/garbage":
            writer.write(b"what do you mean?\r\n\r\n")
        case "/dripping":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not reader.at_eof():
                writer.write(b".")
                with anyio.move_on_after(0.05):
                    await reader.read(1)
        case "/silent":
            await reader.read()
        case _:
            pass


def _answer(
    writer: asyncio.StreamWriter, body: bytes, status: str = "200", header: str = "X: y", method: str = "GET"
) -> None:
    length = "" if status == "204" else f"Content-Length: {len(body)}\r\n"
    writer.write(f"HTTP/1.1 {status} Fine\r\n{header}\r\n{length}Connection: close\r\n\r\n".encode())
    if method != "HEAD":
        writer.write(body)
