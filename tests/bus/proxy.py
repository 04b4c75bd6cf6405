"""A network between a client and PostgreSQL, which fails when a test says so."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

COMMIT = b"COMMIT\x00"


class Failure(Enum):
    """What becomes of a COMMIT."""

    LOST = auto()
    """The server never hears it."""
    UNANSWERED = auto()
    """The server commits, and the client never hears it."""
    LATE = auto()
    """The client is cut off first, and the server commits when the test releases it."""


class Proxy:
    """Forwards connections to the server of a URL; `url` is the way through it."""

    def __init__(self, dsn: str, folder: Path) -> None:
        parts = urlsplit(dsn)
        found = parse_qs(parts.query)
        name = f".s.PGSQL.{found['port'][0]}"
        self.url = parts._replace(query=f"host={quote(str(folder), safe='')}&port={found['port'][0]}").geturl()
        self.next_commit: Failure | None = None
        self.failed = asyncio.Event()
        self.released = asyncio.Event()
        self._target = Path(found["host"][0]) / name
        self._path = folder / name
        self._frozen = asyncio.Event()
        self._links: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Proxy"]:
        server = await asyncio.start_unix_server(self._accept, self._path)
        try:
            yield self
        finally:
            server.close()
            for link in self._links:
                link.cancel()
            await asyncio.gather(*self._links, return_exceptions=True)
            await server.wait_closed()

    def freeze(self) -> None:
        """Let the connections that are open hear nothing any more, without closing them. New ones work."""
        self._frozen.set()
        self._frozen = asyncio.Event()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: the server's would report its cancellation as an error.
        link = asyncio.create_task(self._link(reader, writer))
        self._links.add(link)
        link.add_done_callback(self._links.discard)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(self._target)
        frozen, muted = self._frozen, asyncio.Event()
        pumps = [
            asyncio.create_task(self._up(reader, writer, server_writer, frozen, muted)),
            asyncio.create_task(self._down(server_reader, writer, frozen, muted)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for each in (writer, server_writer):
                each.close()
                with suppress(OSError):
                    await each.wait_closed()

    async def _up(
        self,
        reader: asyncio.StreamReader,
        client: asyncio.StreamWriter,
        server: asyncio.StreamWriter,
        frozen: asyncio.Event,
        muted: asyncio.Event,
    ) -> None:
        while data := await reader.read(65_536):
            if frozen.is_set():
                await asyncio.Event().wait()
            if self.next_commit is not None and COMMIT in data:
                failure, self.next_commit = self.next_commit, None
                self.failed.set()
                if failure is Failure.LOST:
                    return
                muted.set()
                if failure is Failure.LATE:
                    client.close()
                    await self.released.wait()
                server.write(data)
                await server.drain()
                await asyncio.Event().wait()  # until the answer is there, and everything is closed
            server.write(data)
            await server.drain()

    async def _down(
        self, reader: asyncio.StreamReader, client: asyncio.StreamWriter, frozen: asyncio.Event, muted: asyncio.Event
    ) -> None:
        while data := await reader.read(65_536):
            if muted.is_set():
                return
            if frozen.is_set():
                await asyncio.Event().wait()
            client.write(data)
            await client.drain()


@asynccontextmanager
async def proxy_to(dsn: str) -> AsyncIterator[Proxy]:
    """A proxy to the server of a URL, on a socket with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="attune-"))
    try:
        async with Proxy(dsn, folder).running() as proxy:
            yield proxy
    finally:
        shutil.rmtree(folder)
