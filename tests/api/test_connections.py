"""Connections: what no HTTP library would send is answered, or ended, and neighbours notice nothing."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from attune.api import listening
from attune.api.answers import deleted
from attune.api.protocol import Protocol
from tests.api.sites import Site
from tests.api.wires import HOST, Wire, request, statuses, wire_to

LIVE = request("GET /health/live", "Connection: close")
JSON = "Content-Type: application/json"
NOBODY = b'{"login":"nobody","password":"wrong"}'

ANSWERED = [
    # An upgrade that is offered and not taken: what follows is HTTP as before, and a body is a body.
    ("websocket", request("GET /health", "Connection: Upgrade", "Upgrade: websocket") + LIVE, [200, 200]),
    ("curl --http2", request("GET /health", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c") + LIVE, [200, 200]),
    (
        "Java's client, which offers h2c with a body",
        request("POST /auth/login", "Connection: Upgrade", "Upgrade: h2c", JSON, body=NOBODY) + LIVE,
        [401, 200],
    ),
    (
        "pipelined",
        request("GET /health") + request("GET /none") + request("DELETE /health") + LIVE,
        [200, 404, 405, 200],
    ),
    ("a body nobody asked for", request("GET /health", body=b"abc") + LIVE, [422, 200]),
    ("a refused body before the next request", request("POST /api/v1/rules", JSON, body=b"{}") + LIVE, [401, 200]),
    ("HEAD has no body", request("HEAD /health") + request("HEAD /none") + LIVE, [200, 404, 200]),
    ("OPTIONS", request("OPTIONS /api/v1/rules") + LIVE, [405, 200]),
    ("TRACE", request("TRACE /health") + LIVE, [405, 200]),
    ("empty lines before a request", b"\r\n\r\n" + LIVE, [200]),
    ("an unknown expectation", request("POST /auth/login", JSON, "Expect: tea", body=NOBODY) + LIVE, [401, 200]),
    ("HTTP/1.0 without a Host", b"GET /health HTTP/1.0\r\n\r\n", [200]),
    # RFC 9112, section 3.2.
    ("no Host", b"GET /health HTTP/1.1\r\n\r\n" + LIVE, [400, 200]),
    ("two Hosts", b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n" + LIVE, [400, 200]),
    # Text from the caller stands in bodies, never in headers.
    ("a line break in a path", request("GET /api/v1/none%0d%0aX-Evil:%20yes") + LIVE, [404, 200]),
    ("a line break in a query", request("GET /api/v1/rules?a%0d%0aX-Evil:%20yes=1") + LIVE, [401, 200]),
    ("a path that is no UTF-8", request("GET /api/v1/rules/%ff%ed%a0%80") + LIVE, [401, 200]),
    ("a path with a NUL", request("GET /api/v1/rules/%00") + LIVE, [401, 200]),
    ("another server's address", request("GET http://evil.example/health") + LIVE, [200, 200]),
    ("an address without a scheme", request("GET //evil.example/health") + LIVE, [404, 200]),
]


@pytest.mark.parametrize(("sent", "expected"), [row[1:] for row in ANSWERED], ids=[row[0] for row in ANSWERED])
async def test_each_request_on_a_connection_has_its_answer(site: Site, sent: bytes, expected: list[int]) -> None:
    async with wire_to(site.serving.about.url) as wire:
        await wire.send(sent)
        heard = await wire.hears_the_end()

    assert statuses(heard) == expected, heard
    assert b"\nX-Evil" not in heard
    assert heard.lower().count(b"\r\nx-request-id: ") == len(expected)


NO_HTTP = [
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    ("a method that does not exist", b"BREW /health HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("CONNECT", b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n"),
    ("bytes in the path", b"GET /\xc3\xa9 HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("a NUL in a header", b"GET /health HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n\r\n"),
    ("a folded header", b"GET /health HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n"),
    ("a space before the colon", b"GET /health HTTP/1.1\r\n" + HOST + b"X : a\r\n\r\n"),
    # What hides one request in another.
    (
        "two kinds of length",
        request("POST /auth/login", "Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    ),
    ("two lengths", request("POST /auth/login", "Content-Length: 2", "Content-Length: 3") + b"{}"),
    ("a length that is no number", request("POST /auth/login", "Content-Length: 0x10") + b"{}"),
    ("a negative length", request("POST /auth/login", "Content-Length: -1") + b"{}"),
    ("a length without end", request("POST /auth/login", f"Content-Length: {'9' * 5000}") + b"{}"),
    ("a chunk of no size", request("POST /auth/login", JSON, "Transfer-Encoding: chunked") + b"zz\r\n"),
]


@pytest.mark.parametrize("sent", [row[1] for row in NO_HTTP], ids=[row[0] for row in NO_HTTP])
async def test_what_is_no_http_is_told_so_and_hung_up_on(site: Site, sent: bytes) -> None:
    async with wire_to(site.serving.about.url) as wire:
        await wire.send(sent + LIVE)
        heard = await wire.hears_the_end()

    assert statuses(heard)[0] == 400
    assert b"application/problem+json" in heard
    assert b"connection: close" in heard.lower()


async def test_a_head_that_does_not_end_is_refused(site: Site) -> None:
    async with wire_to(site.serving.about.url) as wire:
        await wire.send(b"GET /health HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 70_000)
        heard = await wire.hears_the_end()

    assert statuses(heard) == [431]
    assert b'"code":"HEADERS_TOO_LARGE"' in heard


FIFTY_MB = 50 * 1024 * 1024


async def test_50_mb_are_refused_before_they_came_and_the_connection_goes_on(site: Site) -> None:
    async with wire_to(site.serving.about.url) as wire:
        await wire.send(request("POST /auth/login", JSON, f"Content-Length: {FIFTY_MB}"))
        await wire.hears(b'"code":"PAYLOAD_TOO_LARGE"')
        for _ in range(50):
            await wire.send(b" " * (FIFTY_MB // 50 - 1) + b"}")
        await wire.send(LIVE)
        heard = await wire.hears_the_end()

    assert statuses(heard) == [413, 200]


async def test_50_mb_of_no_declared_length_are_refused_when_the_limit_is_passed(site: Site) -> None:
    megabyte = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    async with wire_to(site.serving.about.url) as wire:
        await wire.send(request("POST /auth/login", JSON, "Transfer-Encoding: chunked") + megabyte)
        await wire.hears(b'"code":"PAYLOAD_TOO_LARGE"')
        for _ in range(49):
            await wire.send(megabyte)
        await wire.send(b"0\r\n\r\n" + LIVE)
        heard = await wire.hears_the_end()

    assert statuses(heard) == [413, 200]


async def test_who_asks_before_sending_too_much_is_told_not_to(site: Site) -> None:
    async with wire_to(site.serving.about.url) as wire:
        headers = (JSON, "Expect: 100-continue", f"Content-Length: {FIFTY_MB}")
        await wire.send(request("POST /auth/login", *headers))
        heard = await wire.hears_the_end()

    assert statuses(heard) == [413]


async def test_who_asks_before_sending_a_body_that_fits_is_told_to_go_on(site: Site) -> None:
    async with wire_to(site.serving.about.url) as wire:
        await wire.send(request("POST /auth/login", JSON, "Expect: 100-continue", f"Content-Length: {len(NOBODY)}"))
        await wire.hears(b"HTTP/1.1 100 Continue")
        await wire.send(NOBODY + LIVE)
        heard = await wire.hears_the_end()

    assert statuses(heard) == [100, 401, 200]


class Impatient(Protocol):
    """Does not wait for long, and not for many."""

    patience = 0.05
    most_connections = 3


class Doorman:
    """An application that keeps its callers waiting until it is told."""

    def __init__(self) -> None:
        self.called = anyio.Event()
        self.open = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        while message.get("more_body"):
            message = await receive()
        self.called.set()
        await self.open.wait()
        await deleted("hello")(scope, receive, send)


@asynccontextmanager
async def impatient(application: ASGIApp) -> AsyncIterator[str]:
    """The URL of a server that gives a request no time to come."""
    server = listening.tcp_server(application, Impatient)
    with listening.bind_tcp("127.0.0.1", 0) as bound:
        async with anyio.create_task_group() as serving:
            serving.start_soon(server.serve, [bound])
            await server.ready()
            yield listening.address_of(bound)
            if isinstance(application, Doorman):
                application.open.set()
            server.should_exit = True


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\r\n",
        b"GET",
        b"GET /health HTTP/1.1\r\nX-Slow: ",
        request("POST /auth/login", JSON, "Content-Length: 10"),
        request("POST /auth/login", JSON, "Content-Length: 10") + b"{",
        request("POST /auth/login", JSON, "Transfer-Encoding: chunked") + b"1\r\n{\r\n",
    ],
)
async def test_a_request_that_does_not_arrive_in_time_is_hung_up_on(sent: bytes) -> None:
    async with impatient(Doorman()) as url, wire_to(url) as wire:
        await wire.send(sent)
        heard = await wire.hears_the_end()

    assert statuses(heard) == [408]
    assert b"application/problem+json" in heard


async def test_the_rest_of_a_body_that_has_its_answer_may_not_take_for_ever_either() -> None:
    async with impatient(deleted("hello")) as url, wire_to(url) as wire:
        await wire.send(request("POST /", JSON, "Content-Length: 10") + b"{")
        heard = await wire.hears_the_end()

    assert statuses(heard) == [200]


async def test_who_waits_for_an_answer_is_not_hurried() -> None:
    doorman = Doorman()
    async with impatient(doorman) as url, wire_to(url) as patient:
        # The second request begins and does not end before the first has its answer: that is not its fault.
        await patient.send(request("GET /"))
        await doorman.called.wait()
        await patient.send(b"GET / HTTP/1.1\r\n")
        async with wire_to(url) as late:
            await late.hears_the_end()
        doorman.open.set()
        assert statuses(await patient.hears(b"hello")) == [200]


async def test_too_many_connections_are_refused_and_the_others_go_on() -> None:
    doorman = Doorman()
    async with impatient(doorman) as url, AsyncExitStack() as stack:
        waiting: list[Wire] = []
        for _ in range(Impatient.most_connections):
            doorman.called = anyio.Event()
            waiting.append(await stack.enter_async_context(wire_to(url)))
            await waiting[-1].send(request("GET /"))
            await doorman.called.wait()
        async with wire_to(url) as one_more:
            heard = await one_more.hears_the_end()
        doorman.open.set()
        answers = [statuses(await wire.hears(b"hello")) for wire in waiting]

    assert statuses(heard) == [503]
    assert b"retry-after: " in heard.lower()
    assert answers == [[200]] * Impatient.most_connections


async def test_requests_without_end_do_not_pile_up(site: Site) -> None:
    async with wire_to(site.serving.about.url) as wire:
        with anyio.move_on_after(20):
            try:
                while True:
                    await wire.send(request("GET /health") * 1000)
            except anyio.BrokenResourceError:
                pass
        heard = await wire.hears_the_end()

    assert len(statuses(heard)) < 1000
    assert (await site.remote.get("/health")).status_code == 200
