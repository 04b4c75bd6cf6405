"""Talking to a server byte by byte, as no HTTP library would."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import anyio
from anyio.abc import SocketStream

HOST = b"Host: localhost\r\n"
_PATIENCE = 30.0


class Wire:
    """A connection: what is sent, and what was heard so far."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self.heard = b""

    async def send(self, data: bytes) -> None:
        await self._stream.send(data)

    async def hears(self, what: bytes) -> bytes:
        """All that was heard once `what` is in it; fails when the other side ends before."""
        with anyio.fail_after(_PATIENCE):
            while what not in self.heard:
                self.heard += await self._stream.receive()
        return self.heard

    async def hears_the_end(self) -> bytes:
        """All that was heard when the other side has ended."""
        with anyio.fail_after(_PATIENCE):
            while True:
                try:
                    self.heard += await self._stream.receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    return self.heard


@asynccontextmanager
async def wire_to(url: str) -> AsyncIterator[Wire]:
    """A connection to a server."""
    parts = urlsplit(url)
    async with await anyio.connect_tcp(str(parts.hostname), int(parts.port or 80)) as stream:
        yield Wire(stream)


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    """A request to this machine; a body with its length."""
    length = (f"Content-Length: {len(body)}",) if body else ()
    return "\r\n".join([f"{line} HTTP/1.1", "Host: localhost", *headers, *length, "", ""]).encode() + body


def statuses(heard: bytes) -> list[int]:
    """The statuses of the answers that were heard."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", heard)]
