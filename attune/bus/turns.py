"""Who may have a transaction now."""

from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
from anyio.lowlevel import checkpoint_if_cancelled


class Turns:
    """So many turns at the same time, for consumers and the writer together.

    What comes in from outside has a time at which it came, or was due; what it causes waits in a queue anyway. So the
    writer goes before the consumers, and a burst of its writes may hold them back.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._bursts = 0
        self._first: deque[anyio.Event] = deque()
        self._waiting: deque[anyio.Event] = deque()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A consumer's turn, for the block."""
        # Who always finds a turn and a batch would never notice that it is to stop.
        await checkpoint_if_cancelled()
        await self._wait_in(self._waiting, may_go=self._free > 0 and not self._bursts)
        try:
            yield
        finally:
            self._give_back()

    @asynccontextmanager
    async def first(self) -> AsyncIterator[None]:
        """The writer's turn, for the block: the next one that there is."""
        await checkpoint_if_cancelled()
        await self._wait_in(self._first, may_go=self._free > 0)
        try:
            yield
        finally:
            self._give_back()

    @contextmanager
    def burst(self) -> Iterator[None]:
        """No consumer begins a turn during the block. It must end by itself: consumers wait for it."""
        self._bursts += 1
        try:
            yield
        finally:
            self._bursts -= 1
            self._next()

    async def _wait_in(self, line: deque[anyio.Event], *, may_go: bool) -> None:
        if may_go:
            self._free -= 1
            return
        called = anyio.Event()
        line.append(called)
        try:
            await called.wait()
        except BaseException:
            if called.is_set():
                self._give_back()
            else:
                line.remove(called)
            raise

    def _give_back(self) -> None:
        self._free += 1
        self._next()

    def _next(self) -> None:
        while self._free and (line := self._first or (None if self._bursts else self._waiting)):
            self._free -= 1
            line.popleft().set()
