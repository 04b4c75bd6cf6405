"""HTTP on a connection: uvicorn's, with bounds on what a caller may send, how slowly, and how much of it at once."""

import asyncio
from http import HTTPStatus
from typing import Any, ClassVar, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from attune.api.problems import HttpError, problem_response
from attune.base.errors import AttuneError, Unavailable
from attune.database.ids import uuid7

_LARGEST_HEAD = 65_536
_LONGEST_PIPELINE = 100
_SLOWEST = 1_000
"""Bytes of a body that have to come in a second, on the average."""

ABORT_SCOPE = "attune.abort"
"""In the ASGI scope: hangs up on a client that takes nothing any more."""

WRITE_SCOPE = "attune.write"
"""In the ASGI scope: sends a part of a body that has begun, in chunks, at once; False when the client is behind."""

SOCKET_PATH = "/ws"


class SocketProtocol(WebSocketsSansIOProtocol):
    """A WebSocket on a connection."""

    async def run_asgi(self) -> None:
        cast("dict[str, Any]", self.scope)[ABORT_SCOPE] = self.transport.abort
        await super().run_asgi()


class Protocol(HttpToolsProtocol):
    """Every error that ends a connection is told as the API tells errors."""

    patience: ClassVar[float] = 20.0
    """Seconds for a request to arrive; its body gives it more."""
    most_connections: ClassVar[int] = 512
    """At once. The database and running actions need files, too."""

    _headed = 0
    _due = 0.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            self._hang_up(Unavailable(f"There are {self.most_connections} connections already."))
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._expect_request()
        self._headed += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._is_socket():
                self._expect_nothing()
                self.handle_websocket_upgrade()
                return
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._hang_up(HttpError(HTTPStatus.BAD_REQUEST, "This is no HTTP request."))
        if self._headed > _LARGEST_HEAD:
            message = f"The request line and the headers have more than {_LARGEST_HEAD} bytes."
            self._hang_up(HttpError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message))

    def on_headers_complete(self) -> None:
        cast("dict[str, Any]", self.scope).update({ABORT_SCOPE: self.transport.abort, WRITE_SCOPE: self._write})
        super().on_headers_complete()
        if len(self.pipeline) > _LONGEST_PIPELINE:
            self.transport.abort()

    def on_body(self, body: bytes) -> None:
        self._headed = 0
        self._due += len(body) / _SLOWEST
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._headed = 0
        self._expect_nothing()
        super().on_message_complete()

    def _should_upgrade(self) -> bool:
        # uvicorn leaves such a request to us then, in `data_received`.
        return bool(self.parser.get_method() != b"CONNECT")

    def _is_socket(self) -> bool:
        """Whether a WebSocket is asked for where there is one. Elsewhere the offer is not taken."""
        offered = {value.strip().lower() for name, value in self.headers if name == b"upgrade"}
        path = self.url.partition(b"?")[0].decode()
        return path == SOCKET_PATH and self.scope["method"] == "GET" and offered == {b"websocket"}

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read the request as if it offered no other protocol (RFC 9110, section 7.8). curl and Java offer one."""
        line = f"{self.scope['method']} {self.url.decode()} HTTP/{self.scope['http_version']}\r\n"
        fields = [name + b": " + value + b"\r\n" for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._headed = 0
        self.data_received(b"".join([line.encode(), *fields, b"\r\n", rest]))

    def _write(self, part: bytes) -> bool:
        if self.flow.write_paused or self.transport.is_closing():
            return False
        self.transport.write(b"%x\r\n%b\r\n" % (len(part), part))
        return True

    def _expect_request(self) -> None:
        if self._timer is None:
            self._due = self.loop.time() + self.patience
            self._timer = self.loop.call_at(self._due, self._look)

    def _expect_nothing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """End a request that does not arrive; one that comes behind others has to wait for us, not we for it."""
        self._timer = None
        # None until the first head is complete.
        cycle: RequestResponseCycle | None = self.cycle
        answered = cycle is not None and cycle.response_complete
        if self.pipeline or not (cycle is None or answered or cycle.more_body):
            self._expect_request()
        elif self._due > self.loop.time():
            self._timer = self.loop.call_at(self._due, self._look)
        elif answered:
            # What still came was the rest of something that has its answer.
            self.transport.close()
        else:
            self._hang_up(HttpError(HTTPStatus.REQUEST_TIMEOUT, "The request did not arrive in time."))

    def _hang_up(self, error: AttuneError) -> None:
        if self.transport.is_closing():
            return
        response = problem_response(error, str(uuid7()))
        response.headers["Connection"] = "close"
        headers = b"".join(name + b": " + value + b"\r\n" for name, value in response.raw_headers)
        status = HTTPStatus(response.status_code)
        self.transport.write(f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() + headers + b"\r\n")
        self.transport.write(bytes(response.body))
        self.transport.close()
