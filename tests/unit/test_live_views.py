"""A reader is sent what happens in its order, whoever sends it: its own task, or who passes it on."""

from typing import Any, cast

import anyio

from attune.bus.broadcasts import Heard
from attune.bus.bus import Bus
from attune.bus.messages import Entity, Notification, NotificationCreated, NotificationType
from attune.bus.topology import TOPOLOGY
from attune.live.forms import unnamed
from attune.live.notes import Filter
from attune.live.views import KEPT_FOR, Kind, LiveViews, Reader
from tests.support.clock import VirtualClock


class Client:
    """A reader whose connection takes what it is sent, but for a number of refusals."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.live = LiveViews(Bus(cast("Any", None), TOPOLOGY, self.clock, lambda: True), "boot")
        self.sent: list[bytes] = []
        self.refusals = 0
        self.reader = Reader(Kind.SSE, unnamed, frozenset({Filter(frozenset(Entity))}), write=self._write)
        self._told = 0

    async def tell(self, times: int = 1) -> None:
        """Pass on that something has happened, one thing after the other before anybody else gets to do anything."""
        async with anyio.create_task_group() as tasks:
            for _ in range(times):
                self._told += 1
                one = Notification(NotificationType.RULE_CREATED, self._told, self.clock.now(), {})
                tasks.start_soon(self.live.hear, Heard([NotificationCreated(notifications=(one,))], missed=False))
            await anyio.wait_all_tasks_blocked()
            self.clock.advance(1)

    def _write(self, part: bytes) -> bool:
        if self.refusals:
            self.refusals -= 1
            return False
        self.sent.append(part)
        return True


async def test_what_is_sent_at_once_does_not_overtake_what_waits() -> None:
    client = Client()
    with client.live.reading(client.reader):
        await client.tell()
        # It was told to read again what it shows, and has not sent that yet.
        assert client.sent == []
        assert _ids((await client.live.take(client.reader)).parts) == [1]
        # It sends that now.
        await client.tell()
        assert client.sent == []
        assert _ids((await client.live.take(client.reader)).parts) == [2]

        async with anyio.create_task_group() as tasks:
            later: list[int] = []

            async def take() -> None:
                later.extend(_ids((await client.live.take(client.reader)).parts))

            tasks.start_soon(take)
            await anyio.wait_all_tasks_blocked()
            await client.tell()
            assert _ids(client.sent) == [3]
            client.sent.clear()
            client.refusals = 1
            await client.tell(2)

    assert (client.sent, later) == ([], [4, 5])


async def test_only_what_somebody_looks_at_is_told_and_who_begins_to_look_reads_first() -> None:
    clock = VirtualClock()
    bus = Bus(cast("Any", None), TOPOLOGY, clock, lambda: True)
    live = LiveViews(bus, "boot")

    def reader(*entities: Entity) -> Reader:
        return Reader(Kind.SSE, unnamed, frozenset({Filter(frozenset(entities))}))

    assert bus.watched == set()
    with live.reading(of_rules := reader(Entity.RULE)):
        assert bus.watched == {Entity.RULE}
        assert (await live.take(of_rules)).reset
        position = live.position
        with live.reading(reader(Entity.RULE), position):
            # Events were not told of until here, even if none was made.
            with live.reading(of_both := reader(Entity.RULE, Entity.EVENT), position):
                assert (await live.take(of_both)).reset
            assert bus.watched == {Entity.RULE, Entity.EVENT}
            with live.reading(again := reader(Entity.EVENT), position):
                assert (await live.take(again)).reset
        with live.reading(of_both := reader(Entity.RULE, Entity.EVENT), live.position):
            assert not of_both.changed.is_set()
            await _hear(live, clock, NotificationCreated(missed=frozenset({Entity.EVENT})))
            assert (await live.take(of_both)).reset
            assert not of_rules.changed.is_set()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(live.run)
            for _ in range(KEPT_FOR + 2):
                await anyio.wait_all_tasks_blocked()
                clock.advance(1)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        assert bus.watched == {Entity.RULE}


async def _hear(live: LiveViews, clock: VirtualClock, message: NotificationCreated) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(live.hear, Heard([message], missed=False))
        await anyio.wait_all_tasks_blocked()
        clock.advance(1)


def _ids(parts: list[bytes]) -> list[int]:
    return [
        int(line.partition(b'"id":')[2].partition(b"}")[0])
        for part in parts
        for line in part.split(b"\n")
        if b'"id":' in line
    ]
