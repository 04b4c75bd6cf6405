"""Broadcasts: hints that nobody has to himself, and that may get lost, because what is true is read again."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio

from attune.base.clock import Clock, SystemClock
from attune.bus.broadcasts import MAX_MESSAGES, Heard
from attune.bus.bus import Bus
from attune.bus.listeners import Listener, ListenerLoop
from attune.database.pool import Database, DatabaseUnavailable
from tests.bus.parts import THINGS, TOPOLOGY, Change, ThingChanged, root
from tests.support.clock import VirtualClock
from tests.support.waiting import eventually

OTHERS = "test.others.queue"


class Ear:
    """What a listener heard. As long as `fails` it cannot read what is true."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.fails = False

    async def hear(self, heard: Heard) -> None:
        self.heard.append(heard)
        if self.fails:
            raise DatabaseUnavailable("away")

    @property
    def changes(self) -> list[Change]:
        return [one.change for heard in self.heard for one in heard.messages if isinstance(one, ThingChanged)]


@asynccontextmanager
async def listening(database: Database, ears: Sequence[Ear], clock: Clock | None = None) -> AsyncIterator[Bus]:
    """A bus on which the things have so many listeners."""
    (things,) = (queue for queue in TOPOLOGY.queues if queue.name == THINGS)
    queues = [replace(things, name=name) for name, _ in zip([THINGS, OTHERS], ears, strict=False)]
    bus = Bus(database, replace(TOPOLOGY, queues=tuple(queues)), clock or SystemClock(), lambda: True)
    async with anyio.create_task_group() as tasks:
        for queue, ear in zip(queues, ears, strict=True):
            loop = ListenerLoop(bus, Listener(queue.name, ThingChanged, queue.name, ear.hear))
            tasks.start_soon(loop.run)
        yield bus
        tasks.cancel_scope.cancel()


async def tell(bus: Bus, *changes: Change) -> None:
    async with bus.transaction() as transaction:
        for change in changes:
            transaction.publish(ThingChanged(change=change), root(), "test")


async def test_t20_every_listener_hears_every_change(database: Database) -> None:
    ears = [Ear(), Ear()]
    async with listening(database, ears) as bus:
        await tell(bus, Change.MADE)
        await tell(bus, Change.GONE, Change.MADE)
        for ear in ears:
            await eventually(lambda ear=ear: ear.changes == [Change.MADE, Change.GONE, Change.MADE])  # type: ignore[misc]


async def test_t21_who_could_not_read_what_is_true_reads_everything_later(database: Database) -> None:
    """T-07: and goes on listening."""
    clock, ear = VirtualClock(), Ear()
    async with listening(database, [ear], clock) as bus:
        ear.fails = True
        await tell(bus, Change.MADE)
        await eventually(lambda: len(ear.heard) == 1)
        ear.fails = False
        clock.advance(1)
        await eventually(lambda: len(ear.heard) == 2)
        assert ear.heard[1].missed
        await tell(bus, Change.GONE)
        await eventually(lambda: ear.changes == [Change.MADE, Change.GONE])


async def test_t21_of_more_than_memory_holds_it_is_told_that_everything_may_have_changed(database: Database) -> None:
    ear = Ear()
    async with listening(database, [ear]) as bus:
        await tell(bus, *[Change.MADE] * (MAX_MESSAGES + 1), Change.GONE)
        await eventually(lambda: ear.heard == [Heard((ThingChanged(change=Change.GONE),), missed=True)])
