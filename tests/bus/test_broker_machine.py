"""Any order of commits, hand-overs, reads, failures and time: nothing is lost, nothing doubled, memory is bounded."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import anyio
import pytest
from anyio.abc import TaskGroup
from hypothesis import given, settings
from hypothesis import strategies as st

from attune.bus.broker import BATCH, MAX_BYTES, MAX_DELIVERIES
from attune.bus.messages import Cause, Delivery, Envelope
from attune.database.ids import uuid7
from tests.bus.parts import Counted
from tests.bus.test_broker import BROKERS, QUEUE, MakeBroker
from tests.support.clock import START, VirtualClock

LARGE = "x" * 1_500_000
"""Three of these fill a queue, so that short scripts spill it."""
CAUSE = Cause(uuid7(), None, 0)


@dataclass
class Row:
    delivery: Delivery[Any]
    due: datetime


class World:
    """The table, the publishers and the consumer around a broker. What is in flight is up to the script."""

    def __init__(self, make: MakeBroker, tasks: TaskGroup) -> None:
        self.clock = VirtualClock()
        self.broker = make(self.load, self.clock)
        self.broker.declare(QUEUE)
        self.tasks = tasks
        self.table: dict[UUID, Row] = {}
        self.committed = 0
        self.not_handed_over: list[list[Delivery[Any]]] = []
        self.handed_over: list[list[Delivery[Any]]] = []
        self.reading: anyio.Event | None = None
        self.read_fails = False
        self.looking = False
        self.in_flight: Sequence[Delivery[Any]] = ()
        self.handled: Counter[UUID] = Counter()
        self.look()

    # What the broker sees

    async def load(self, queue: str, except_ids: Collection[UUID], limit: int) -> Sequence[Delivery[Any]]:
        now = self.clock.now()
        due = sorted(key for key, row in self.table.items() if row.due <= now and key not in except_ids)
        found = [self.table[key].delivery for key in due[:limit]]
        self.reading = anyio.Event()
        await self.reading.wait()
        if self.read_fails:
            self.read_fails = False
            raise OSError("away")
        return found

    def look(self) -> None:
        """The consumer waits on its queue."""
        if not self.looking and not self.in_flight:
            self.looking = True
            self.tasks.start_soon(self._look)

    async def _look(self) -> None:
        try:
            await self.broker.wait(QUEUE, BATCH)
        except OSError:
            pass
        finally:
            self.looking = False

    # What may happen

    def commit(self, size: int, large: bool) -> None:
        new = []
        for _ in range(size):
            self.committed += 1
            envelope = Envelope(uuid7(), CAUSE, START, "test", Counted(number_id=self.committed))
            new.append(Delivery(QUEUE, envelope, LARGE if large else "{}", 1))
        self.table.update((one.id, Row(one, self.clock.now())) for one in new)
        self.not_handed_over.append(new)

    def hand_over(self, which: int) -> None:
        if self.not_handed_over:
            batch = self.not_handed_over.pop(which % len(self.not_handed_over))
            self.broker.hand_over(batch)
            self.handed_over.append(batch)

    def hand_over_again(self, which: int) -> None:
        if self.handed_over:
            self.broker.hand_over(self.handed_over[which % len(self.handed_over)])

    def lose_the_answer(self, which: int) -> None:
        """The publisher does not know whether it committed. It did."""
        if self.not_handed_over:
            self.not_handed_over.pop(which % len(self.not_handed_over))
            self.broker.doubt(QUEUE)

    def answer(self) -> None:
        if self.reading is not None:
            self.reading.set()
            self.reading = None

    def fail_the_read(self) -> None:
        self.read_fails = self.reading is not None
        self.answer()

    def take(self, limit: int) -> None:
        if self.looking or self.in_flight:
            return
        batch = self.broker.take(QUEUE, limit)
        assert len(batch) <= min(limit, BATCH)
        assert len({one.id for one in batch}) == len(batch)
        assert len(batch) <= 1 or all(one.attempt == 1 for one in batch)
        self.in_flight = batch

    def settle(self, retries: int) -> None:
        """Commit the batch in flight: the first few are tried again later, the others are done."""
        for index, one in enumerate(self.in_flight):
            row = self.table.get(one.id)
            if row is None or row.delivery.attempt != one.attempt:
                continue
            if index < retries and one.attempt < 3:
                row.delivery = one._replace(attempt=one.attempt + 1)
                row.due = self.clock.now() + timedelta(seconds=3)
                self.broker.wake_at(QUEUE, row.due)
            else:
                del self.table[one.id]
                self.handled[one.id] += 1
        self.broker.settle(QUEUE, self.in_flight)
        self.in_flight = ()

    def pass_time(self, seconds: int) -> None:
        self.clock.advance(seconds)

    # What must hold at all times

    def check(self) -> None:
        depth = self.broker.depth(QUEUE)
        assert 0 <= depth.waiting <= MAX_DELIVERIES
        assert 0 <= depth.bytes < MAX_BYTES + len(LARGE) + 1_000
        assert depth.in_flight == len(self.in_flight)
        silent = {one.id for batch in self.not_handed_over for one in batch}
        for key, row in self.table.items():
            if row.due <= self.clock.now() and key not in silent:
                assert self.broker.knows(QUEUE, key), "a row is due, and the broker will never look for it"

    async def finish(self) -> None:
        while self.not_handed_over:
            self.hand_over(0)
        for _ in range(100 + 10 * self.committed):
            if not self.table:
                break
            self.look()
            await run_others()
            self.answer()
            await run_others()
            self.take(BATCH)
            self.settle(0)
            self.pass_time(1)
        assert not self.table, "rows were lost"
        assert len(self.handled) == self.committed
        assert set(self.handled.values()) <= {1}


Step = Callable[[World], None]


def step(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, tuple[Any, ...]]]:
    return st.tuples(st.just(name), st.tuples(*arguments))


INDEX = st.integers(0, 5)
STEPS = st.lists(
    st.one_of(
        step("commit", st.integers(1, 3), st.booleans()),
        step("commit", st.just(600), st.just(False)),
        step("hand_over", INDEX),
        step("hand_over_again", INDEX),
        step("lose_the_answer", INDEX),
        step("look"),
        step("answer"),
        step("fail_the_read"),
        step("take", st.sampled_from([1, 2, 1_000])),
        step("settle", st.integers(0, 2)),
        step("pass_time", st.integers(1, 4)),
    ),
    max_size=40,
)


async def run_others() -> None:
    await anyio.wait_all_tasks_blocked()


async def play(make: MakeBroker, script: Sequence[tuple[str, tuple[Any, ...]]]) -> None:
    async with anyio.create_task_group() as tasks:
        world = World(make, tasks)
        for name, arguments in script:
            getattr(world, name)(*arguments)
            await run_others()
            world.check()
        await world.finish()
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("make", BROKERS.values(), ids=BROKERS)
@given(script=STEPS)
@settings(max_examples=150)
def test_whatever_happens_each_row_is_settled_exactly_once(
    make: MakeBroker, script: Sequence[tuple[str, tuple[Any, ...]]]
) -> None:
    anyio.run(play, make, script)
