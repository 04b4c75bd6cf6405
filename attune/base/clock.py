"""Time as a parameter."""

import time
from datetime import UTC, datetime
from typing import Protocol

import anyio


class Clock(Protocol):
    """Where the engine gets the time from. Tests pass one that they turn themselves."""

    def now(self) -> datetime:
        """The wall clock, in UTC. It may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds from an unknown start that never go back: for durations and deadlines."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        ...

    async def wait(self, event: anyio.Event, seconds: float) -> None:
        """Return when `event` is set, or after `seconds`."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def wait(self, event: anyio.Event, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await event.wait()
