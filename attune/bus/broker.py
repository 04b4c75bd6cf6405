"""The hop between a committed delivery and its consumer.

What stands here is a hint; the row in `attune.delivery` is the truth. A broker may lose, double or delay a hint and
nothing is lost, doubled or stuck: the consumer's transaction begins by deleting the row, and a sweep finds rows without
a hint.
"""

import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

import anyio

from attune.base.clock import Clock
from attune.base.crash_points import reach
from attune.bus.messages import Delivery

MAX_DELIVERIES = 1_000
MAX_BYTES = 4_000_000
BATCH = 250
"""Deliveries that a consumer gets at once, at most: more would keep the loop busy for too long at a stretch."""

Load = Callable[[str, Collection[UUID], int], Awaitable[Sequence[Delivery[Any]]]]
"""Reads deliveries of a queue that are due, in the order of their ids: (queue, ids to leave out, how many) →
deliveries."""


@dataclass(frozen=True, slots=True)
class Depth:
    """What a broker holds of a queue. `spilled`: there may be more in the table than here."""

    waiting: int
    in_flight: int
    bytes: int
    spilled: bool


class Broker(Protocol):
    """Carries deliveries from a commit to a consumer."""

    def declare(self, queue: str) -> None:
        """Make a queue. What its table rows hold already is delivered like everything else."""
        ...

    def has(self, queue: str) -> bool:
        """Whether the queue was declared."""
        ...

    def queues(self) -> Sequence[str]:
        """The names of all declared queues."""
        ...

    def hand_over(self, deliveries: Iterable[Delivery[Any]]) -> None:
        """Take deliveries whose rows were committed."""
        ...

    async def wait(self, queue: str, limit: int) -> None:
        """Return as soon as the queue has a delivery. `limit` is how many will be taken at most."""
        ...

    def take(self, queue: str, limit: int) -> Sequence[Delivery[Any]]:
        """Up to `limit` deliveries of those that wait: first attempts together, a later attempt alone."""
        ...

    def settle(self, queue: str, deliveries: Iterable[Delivery[Any]]) -> None:
        """Forget deliveries that were taken: their rows were decided upon."""
        ...

    def wake_at(self, queue: str, instant: datetime) -> None:
        """Look into the table at `instant`: a row becomes due then."""
        ...

    def doubt(self, queue: str) -> None:
        """Look into the table soon: there may be rows that nobody handed over."""
        ...

    def knows(self, queue: str, delivery_id: UUID) -> bool:
        """Whether the delivery waits here or is in flight, or will be read because the queue is spilled."""
        ...

    def depth(self, queue: str) -> Depth: ...


@dataclass(slots=True)
class _Queue:
    waiting: deque[Delivery[Any]] = field(default_factory=deque)
    known: set[UUID] = field(default_factory=set)
    bytes: int = 0
    # A new queue reads its table first: there may be rows of an earlier life.
    spilled: bool = True
    generation: int = 0
    due: list[datetime] = field(default_factory=list)
    # Moments that have come since the table was last read to its end.
    come: list[datetime] = field(default_factory=list)
    changed: anyio.Event = field(default_factory=anyio.Event)

    @property
    def is_full(self) -> bool:
        return len(self.waiting) >= MAX_DELIVERIES or self.bytes >= MAX_BYTES


class MemoryBroker:
    """A broker in the process. It is bounded: a full queue is *spilled* and refilled from the table."""

    def __init__(self, load: Load, clock: Clock) -> None:
        self._load = load
        self._clock = clock
        self._queues: dict[str, _Queue] = {}

    def declare(self, queue: str) -> None:
        self._queues.setdefault(queue, _Queue())

    def has(self, queue: str) -> bool:
        return queue in self._queues

    def queues(self) -> Sequence[str]:
        return tuple(self._queues)

    def hand_over(self, deliveries: Iterable[Delivery[Any]]) -> None:
        for delivery in deliveries:
            queue = self._queues[delivery.queue]
            if queue.spilled or queue.is_full:
                reach("spill.before")
                queue.spilled = True
                queue.generation += 1
                reach("spill.after")
            else:
                _admit(queue, delivery)
            queue.changed.set()

    async def wait(self, queue: str, limit: int) -> None:
        state = self._queues[queue]
        while True:
            self._note_due(state)
            if state.spilled and not state.is_full and len(state.waiting) < min(limit, BATCH):
                await self._refill(queue, state)
            if state.waiting:
                return
            if not state.spilled:
                await self._sleep(state)

    def take(self, queue: str, limit: int) -> Sequence[Delivery[Any]]:
        return _batch(self._queues[queue], min(limit, BATCH))

    def settle(self, queue: str, deliveries: Iterable[Delivery[Any]]) -> None:
        known = self._queues[queue].known
        for delivery in deliveries:
            known.discard(delivery.envelope.message_id)

    def wake_at(self, queue: str, instant: datetime) -> None:
        state = self._queues[queue]
        # Whole seconds: a storm of retries leaves few wake-ups.
        second = (instant + timedelta(microseconds=999_999)).replace(microsecond=0)
        if second not in state.due:
            heapq.heappush(state.due, second)
            state.changed.set()

    def doubt(self, queue: str) -> None:
        state = self._queues[queue]
        state.spilled = True
        state.generation += 1
        state.changed.set()

    def knows(self, queue: str, delivery_id: UUID) -> bool:
        state = self._queues.get(queue)
        if state is None:
            return False
        self._note_due(state)
        return state.spilled or delivery_id in state.known

    def depth(self, queue: str) -> Depth:
        state = self._queues[queue]
        # A consumer without capacity does not look, but it will.
        self._note_due(state)
        return Depth(len(state.waiting), len(state.known) - len(state.waiting), state.bytes, state.spilled)

    def _note_due(self, state: _Queue) -> None:
        now = self._clock.now()
        while state.due and state.due[0] <= now:
            state.come.append(heapq.heappop(state.due))
            state.spilled = True
            state.generation += 1

    async def _refill(self, name: str, state: _Queue) -> None:
        """Read what fits. The queue stops being spilled when nothing was left behind and nothing came meanwhile."""
        generation = state.generation
        reach("refill.before")
        room = MAX_DELIVERIES - len(state.waiting)
        found = await self._load(name, state.known, room)
        for delivery in found:
            if state.is_full:
                return
            _admit(state, delivery)
        if len(found) < room and state.generation == generation:
            state.spilled = False
            self._forget_what_came(state)
        reach("refill.after")

    def _forget_what_came(self, state: _Queue) -> None:
        """What was due at the moments that have come is in memory: unless the clock went back, and they come again."""
        now = self._clock.now()
        for moment in state.come:
            if moment > now:
                heapq.heappush(state.due, moment)
        state.come.clear()

    async def _sleep(self, state: _Queue) -> None:
        state.changed = anyio.Event()
        if not state.due:
            await state.changed.wait()
            return
        # A wall clock that jumps must not make a retry wait for ever: look again every second.
        seconds = (state.due[0] - self._clock.now()).total_seconds()
        await self._clock.wait(state.changed, min(max(seconds, 0.001), 1.0))


def _admit(queue: _Queue, delivery: Delivery[Any]) -> None:
    if delivery.envelope.message_id not in queue.known:
        queue.known.add(delivery.envelope.message_id)
        queue.waiting.append(delivery)
        queue.bytes += delivery.size


def _batch(queue: _Queue, limit: int) -> list[Delivery[Any]]:
    """The next first attempts, or one later attempt: a delivery that failed before must not fail its neighbours."""
    batch: list[Delivery[Any]] = []
    while queue.waiting and len(batch) < limit:
        if queue.waiting[0].attempt > 1 and batch:
            break
        delivery = queue.waiting.popleft()
        queue.bytes -= delivery.size
        batch.append(delivery)
        if delivery.attempt > 1:
            break
    return batch
