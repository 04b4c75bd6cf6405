"""Listening: hints that something changed, and the re-read that follows them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from attune.bus.broadcasts import Heard
from attune.bus.bus import Bus
from attune.bus.messages import Message
from attune.database.pool import DatabaseUnavailable

log = structlog.get_logger()

M = TypeVar("M", bound=Message)

_PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class Listener(Generic[M]):
    """The one listener of a broadcast queue. `hear` reads again what the messages say has changed, or everything when
    some were missed."""

    row: str
    message: type[M]
    name: str
    hear: Callable[[Heard], Awaitable[None]]


class ListenerLoop:
    """Runs one listener."""

    def __init__(self, bus: Bus, listener: Listener[Message]) -> None:
        self._bus = bus
        self._listener = listener
        bus.broadcasts.declare(listener.row)

    async def run(self) -> None:
        """Listen until cancelled. What could not be re-read is made up for: then everything may have changed."""
        missed = False
        while True:
            heard = Heard((), True) if missed else await self._bus.broadcasts.take(self._listener.row)
            try:
                await self._listener.hear(heard)
                missed = False
            except DatabaseUnavailable as error:
                log.debug("a listener waits for the database", listener=self._listener.name, error=str(error))
                missed = True
                await self._bus.clock.sleep(_PAUSE)
