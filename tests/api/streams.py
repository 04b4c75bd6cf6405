"""Reading server-sent events as a browser does."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx2

from tests.api.sites import Site
from tests.support.waiting import eventually

_PATIENCE = 20.0


@dataclass
class Event:
    """What a browser would dispatch; an event without a name is a `message`."""

    name: str
    data: Any
    id: str | None


@dataclass
class Stream:
    """A stream that is open. `last_id` is where a browser would come back to."""

    response: httpx2.Response
    last_id: str | None = None
    seen: list[Event] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lines = self.response.aiter_lines()

    async def next(self) -> Event | None:
        """The next event; None when the server has ended the stream."""
        with anyio.fail_after(_PATIENCE):
            return await self._next()

    async def until(self, name: str, **payload: Any) -> Event:
        """The next event of that name with these values."""
        while True:
            event = await self.next()
            assert event is not None, f"the stream has ended without {name}: {self.seen}"
            if event.name == name and payload.items() <= event.data.items():
                return event

    async def _next(self) -> Event | None:
        name, data = "message", list[str]()
        async for line in self._lines:
            key, _, value = line.partition(": ")
            if line == "":
                if data:
                    self.seen.append(Event(name, json.loads("\n".join(data)), self.last_id))
                    return self.seen[-1]
                name, data = "message", []
            elif line.startswith(":"):
                self.comments.append(line)
            elif key == "id":
                self.last_id = value
            elif key == "event":
                name = value
            elif key == "data":
                data.append(value)
        return None


async def nothing_is_on_the_way(site: Site) -> None:
    """Return when everything that was committed has been passed on: who looks later is not told of it."""
    await eventually(lambda: site.serving.engine.bus.broadcasts.depth("attune.notifications.queue") == 0)


@asynccontextmanager
async def stream_of(
    site: Site,
    path: str = "/api/v1/stream",
    *,
    last: str | None = None,
    local: bool = True,
    headers: Mapping[str, str] | None = None,
    **query: Any,
) -> AsyncIterator[Stream]:
    """A stream: of the administrator on this machine, or over TCP of whoever the headers name."""
    await nothing_is_on_the_way(site)
    sent = {**(headers or {}), **({"Last-Event-ID": last} if last else {})}
    transport = httpx2.AsyncHTTPTransport(uds=str(site.place.socket) if local else None, verify=False)
    base = "http://localhost" if local else site.serving.about.url
    async with (
        httpx2.AsyncClient(transport=transport, base_url=base, timeout=40) as client,
        client.stream("GET", path, params=query, headers=sent) as response,
    ):
        yield Stream(response)
