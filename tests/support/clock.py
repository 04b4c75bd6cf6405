"""A clock that tests turn."""

from datetime import UTC, datetime, timedelta

import anyio

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class VirtualClock:
    """Stands still until `advance`, which wakes whoever sleeps until a moment that was passed."""

    def __init__(self, now: datetime = START) -> None:
        self._now = now
        self._monotonic = 0.0
        self._sleepers: list[tuple[float, anyio.Event]] = []

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        await self.wait(anyio.Event(), seconds)

    async def wait(self, event: anyio.Event, seconds: float) -> None:
        if seconds <= 0:
            await anyio.lowlevel.checkpoint()
            return
        sleeper = (self._monotonic + seconds, event)
        self._sleepers.append(sleeper)
        try:
            await event.wait()
        finally:
            if sleeper in self._sleepers:
                self._sleepers.remove(sleeper)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds
        for due, event in list(self._sleepers):
            if due <= self._monotonic:
                event.set()

    def set(self, now: datetime) -> None:
        """Set the wall clock: a jump, in which no time passes. Sleepers look again, as they do every second."""
        self._now = now
        for _, event in list(self._sleepers):
            event.set()
