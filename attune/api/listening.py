"""Listening: HTTP on a TCP address for everybody, and on a socket file for whoever owns this installation."""

import contextlib
import os
import socket
import struct
from collections.abc import Collection, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import anyio
import structlog
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from attune.api.authentication import LOCAL_SCOPE
from attune.api.problems import HttpError, problem_response
from attune.base.errors import StartError
from attune.database.ids import uuid7

log = structlog.get_logger()

_BACKLOG = 1024
_LARGEST_HEAD = 65_536


def bind_tcp(host: str, port: int) -> socket.socket:
    """A socket that is bound and not yet listening. Raises StartError when the address is taken or not ours."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartError(f"Cannot listen on {host}: {error.strerror or error}. Set another server.host.") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise StartError(
            f"Cannot listen on {host}:{port}: {error.strerror}. "
            "Stop what uses that address, or choose another with --port."
        ) from error
    return bound


def bind_file(path: Path) -> socket.socket:
    """A socket at `path` that only its owner can connect to. The caller holds the lock of the installation."""
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        bound.bind(str(path))
    finally:
        os.umask(mask)
    return bound


def address_of(bound: socket.socket) -> str:
    """The URL of a TCP socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn inside our loop, which leaves the signals to us."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ready = anyio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready.set()

    async def ready(self) -> None:
        """Return when it answers."""
        await self._ready.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def tcp_server(application: ASGIApp) -> Server:
    """A server for everybody."""
    return Server(_config(application, _Protocol))


def local_server(application: ASGIApp, users: Collection[int] | None = None) -> Server:
    """A server for callers of certain users, whom it marks as local: our own and root, unless `users` says which."""
    welcome = {0, os.geteuid()} if users is None else users

    async def local(scope: Scope, receive: Receive, send: Send) -> None:
        scope[LOCAL_SCOPE] = True
        await application(scope, receive, send)

    class OwnerOnly(_Protocol):
        """The mode of the file keeps other users out already; this does not depend on a file system."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            peer = _peer_uid(transport.get_extra_info("socket"))
            if peer is not None and peer not in welcome:
                log.warning("another user connected to the socket file", uid=peer)
                transport.abort()

    return Server(_config(local, OwnerOnly))


class _Protocol(HttpToolsProtocol):
    """uvicorn's, with a bound on what comes before and after a body, and with our answer to what is no HTTP."""

    _headed = 0

    def data_received(self, data: bytes) -> None:
        self._headed += len(data)
        super().data_received(data)
        if self._headed > _LARGEST_HEAD and not self.transport.is_closing():
            message = f"The request line and the headers have more than {_LARGEST_HEAD} bytes."
            self._hang_up(HttpError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message))

    def on_body(self, body: bytes) -> None:
        self._headed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._headed = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._hang_up(HttpError(HTTPStatus.BAD_REQUEST, msg))

    def _hang_up(self, error: HttpError) -> None:
        response = problem_response(error, str(uuid7()))
        response.headers["Connection"] = "close"
        headers = b"".join(name + b": " + value + b"\r\n" for name, value in response.raw_headers)
        line = f"HTTP/1.1 {error.status.value} {error.status.phrase}\r\n".encode()
        self.transport.write(line + headers + b"\r\n" + bytes(response.body))
        self.transport.close()


def _peer_uid(connection: socket.socket) -> int | None:
    """The user at the other end; None where the system does not tell."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return int(uid)


def _config(application: ASGIApp, protocol: type[HttpToolsProtocol]) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        loop="none",
        http=protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=5,
    )
