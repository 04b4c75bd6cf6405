"""The room that is left on the disk: without any, the database stops, and cannot even be tidied up."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import anyio.to_thread

from attune.base.clock import Clock
from attune.database.pool import FULL_FOR, StorageFull

Free: TypeAlias = Callable[[Path], int]
"""Tells the bytes that are free for a directory. Raises OSError when it cannot be looked at."""

_LOOK_EVERY = 2.0
_RETRY_AFTER = 30


def free_bytes(directory: Path) -> int:
    """The bytes that are free for a directory."""
    return shutil.disk_usage(directory).free


class Storage:
    """Watches the room in directories, and hears from the database when it has none."""

    def __init__(self, directories: Sequence[Path], min_free: int, clock: Clock, free: Free = free_bytes) -> None:
        """Less than `min_free` bytes is too little."""
        self.min_free = min_free
        self._enough_again = min_free + min_free // 10
        self._directories = directories
        self._clock = clock
        self._free = free
        self._found: Mapping[Path, int] = {}
        self._short: tuple[Path, ...] = ()
        self._denied_until = clock.monotonic()

    @property
    def free(self) -> int | None:
        """The bytes that were free at the last look, in the directory with the fewest; None without any."""
        return min(self._found.values(), default=None)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await self._clock.sleep(_LOOK_EVERY)

    async def look(self) -> None:
        """Measure now."""
        # In a thread: a network file system may keep whoever asks waiting.
        self._found = await anyio.to_thread.run_sync(self._measure, abandon_on_cancel=True)
        self._short = tuple(directory for directory, free in self._found.items() if free < self._least(directory))

    def denied(self) -> None:
        """The database had no room for something."""
        self._denied_until = self._clock.monotonic() + FULL_FOR

    def has_room(self) -> bool:
        """Whether something new may be written."""
        return self.refusal() is None

    def refusal(self) -> StorageFull | None:
        """Why nothing new should be written, or None."""
        if self._short:
            directory = self._short[0]
            return StorageFull(
                f"Only {_mb(self._found[directory])} are free for {directory}, and storage.min_free is "
                f"{_mb(self.min_free)}. Make room: with {_mb(self._enough_again)} events and executions are taken "
                "again, and timers fire.",
                _RETRY_AFTER,
            )
        if self._clock.monotonic() < self._denied_until:
            return StorageFull("The disk of the database is full. Make room where it keeps its data.", FULL_FOR)
        return None

    def _least(self, directory: Path) -> int:
        """What must be free: a tenth more when it was too little, or the answer would flicker."""
        return self._enough_again if directory in self._short else self.min_free

    def _measure(self) -> Mapping[Path, int]:
        found = {}
        for directory in self._directories:
            with suppress(OSError):
                found[directory] = self._free(directory)
        return found


def _mb(size: int) -> str:
    return f"{size / 1_000_000:,.0f} MB"
