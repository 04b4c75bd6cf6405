"""Broadcast queues: transient hints that something changed, always paired with a re-read of what is true."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import anyio

from attune.bus.messages import Message

MAX_MESSAGES = 1_000


@dataclass(frozen=True, slots=True)
class Heard:
    """What came since the last time. `missed`: there was more than fitted, so everything may have changed."""

    messages: Sequence[Message]
    missed: bool


@dataclass(slots=True)
class _Queue:
    messages: deque[Message] = field(default_factory=deque)
    missed: bool = False
    changed: anyio.Event = field(default_factory=anyio.Event)


class Broadcasts:
    """One bounded queue for each listener."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}

    def declare(self, queue: str) -> None:
        """Make the queue of a listener."""
        self._queues.setdefault(queue, _Queue())

    def send(self, queue: str, message: Message) -> None:
        """Tell the listener of `queue`, if there is one."""
        state = self._queues.get(queue)
        if state is None:
            return
        if len(state.messages) < MAX_MESSAGES:
            state.messages.append(message)
        else:
            state.messages.clear()
            state.missed = True
        state.changed.set()

    def doubt(self, queue: str) -> None:
        """Tell the listener of `queue` that everything may have changed."""
        state = self._queues.get(queue)
        if state is not None:
            state.missed = True
            state.changed.set()

    async def take(self, queue: str) -> Heard:
        """Everything that came, as soon as there is something."""
        state = self._queues[queue]
        while not state.messages and not state.missed:
            state.changed = anyio.Event()
            await state.changed.wait()
        heard = Heard(tuple(state.messages), state.missed)
        state.messages.clear()
        state.missed = False
        return heard

    def depth(self, queue: str) -> int:
        """How many messages wait in a queue."""
        state = self._queues.get(queue)
        return len(state.messages) if state else 0
