"""Listening: HTTP on a TCP address for everybody, and on a socket file for whoever owns this installation."""

import contextlib
import os
import socket
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, cast

import anyio
import structlog
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from attune.api.authentication import LOCAL_SCOPE
from attune.api.protocol import Protocol, SocketProtocol
from attune.base.errors import StartError

log = structlog.get_logger()

_BACKLOG = 1024
_LARGEST_MESSAGE = 4096
"""Bytes: what a client says in a WebSocket is short."""


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


def behind(proxies: Collection[str], application: ASGIApp) -> ASGIApp:
    """The application, told by `proxies`, and by nobody else, who its clients are and whether they came over TLS."""
    return cast("ASGIApp", ProxyHeadersMiddleware(cast("Any", application), list(proxies))) if proxies else application


def tcp_server(application: ASGIApp, protocol: type[Protocol] = Protocol) -> Server:
    """A server for everybody."""
    return Server(_config(application, protocol))


def local_server(application: ASGIApp, users: Collection[int] | None = None) -> Server:
    """A server for callers of certain users, whom it marks as local: our own and root, unless `users` says which."""
    welcome = {0, os.geteuid()} if users is None else users

    async def local(scope: Scope, receive: Receive, send: Send) -> None:
        scope[LOCAL_SCOPE] = True
        await application(scope, receive, send)

    class OwnerOnly(Protocol):
        """The mode of the file keeps other users out already; this does not depend on a file system."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            peer = _peer_uid(transport.get_extra_info("socket"))
            if peer is not None and peer not in welcome:
                log.warning("another user connected to the socket file", uid=peer)
                transport.abort()

    return Server(_config(local, OwnerOnly))


def _peer_uid(connection: socket.socket) -> int | None:
    """The user at the other end; None where the system does not tell."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return int(uid)


def _config(application: ASGIApp, protocol: type[Protocol]) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        loop="none",
        http=protocol,
        ws=SocketProtocol,
        ws_max_size=_LARGEST_MESSAGE,
        # To compress what is told to hundreds takes longer than to send it.
        ws_per_message_deflate=False,
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=5,
    )
