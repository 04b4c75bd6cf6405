"""What every broker does, whichever it is: the hop from a commit to a consumer, bounded, and never the last word."""

from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from typing import Any, Self, TypeAlias
from uuid import UUID

import anyio
import pytest

from attune.base.clock import Clock
from attune.bus.broker import BATCH, MAX_BYTES, MAX_DELIVERIES, Broker, Load, MemoryBroker
from attune.bus.messages import Cause, Delivery, Envelope
from attune.database.ids import uuid7
from tests.bus.parts import Counted
from tests.support.clock import START, VirtualClock

MakeBroker: TypeAlias = Callable[[Load, Clock], Broker]

BROKERS: dict[str, MakeBroker] = {"memory": MemoryBroker}
"""Another implementation is added here, and has to pass everything."""

QUEUE = "numbers"
CAUSE = Cause(uuid7(), None, 0)


def delivery(number: int = 0, *, attempt: int = 1, text: str = "{}") -> Delivery[Any]:
    return Delivery(QUEUE, Envelope(uuid7(), CAUSE, START, "test", Counted(number_id=number)), text, attempt)


def deliveries(count: int) -> list[Delivery[Any]]:
    return [delivery(number) for number in range(count)]


class Table:
    """The truth: what is committed. `gate` keeps reads from being answered."""

    def __init__(self) -> None:
        self.rows: dict[UUID, Delivery[Any]] = {}
        self.reads: list[tuple[frozenset[UUID], int]] = []
        self.gate: anyio.Event | None = None

    def commit(self, *new: Delivery[Any]) -> Sequence[Delivery[Any]]:
        self.rows.update((one.id, one) for one in new)
        return new

    async def load(self, queue: str, except_ids: Collection[UUID], limit: int) -> Sequence[Delivery[Any]]:
        assert queue == QUEUE
        self.reads.append((frozenset(except_ids), limit))
        # As PostgreSQL does it: what is seen is what was there when the statement began.
        found = [self.rows[key] for key in sorted(self.rows) if key not in except_ids][:limit]
        if self.gate is not None:
            await self.gate.wait()
        return found

    def settle(self, broker: Broker, batch: Sequence[Delivery[Any]]) -> None:
        for one in batch:
            self.rows.pop(one.id, None)
        broker.settle(QUEUE, batch)


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture(params=BROKERS)
async def broker(request: pytest.FixtureRequest, table: Table, clock: VirtualClock) -> Broker:
    """A broker with one queue, which has read its empty table."""
    made = BROKERS[request.param](table.load, clock)
    made.declare(QUEUE)
    await idle(made)
    table.reads.clear()
    return made


async def idle(broker: Broker) -> None:
    """Let the consumer look; fails if there is anything for it."""
    with anyio.move_on_after(0.01):
        await broker.wait(QUEUE, BATCH)
        pytest.fail("the queue has a delivery")


async def next_batch(broker: Broker, limit: int = BATCH) -> list[int]:
    with anyio.fail_after(5):
        await broker.wait(QUEUE, limit)
    return [one.message.number_id for one in broker.take(QUEUE, limit)]


async def drain(broker: Broker, table: Table) -> list[int]:
    """Consume until nothing is left."""
    handled = []
    while table.rows:
        with anyio.fail_after(5):
            await broker.wait(QUEUE, BATCH)
        batch = broker.take(QUEUE, BATCH)
        handled += [one.message.number_id for one in batch if one.id in table.rows]
        table.settle(broker, batch)
    return handled


# Handing over and taking


async def test_what_is_handed_over_is_taken_in_order_and_without_asking_the_table(broker: Broker, table: Table) -> None:
    broker.hand_over(table.commit(*deliveries(3)))
    assert await next_batch(broker) == [0, 1, 2]
    assert table.reads == []


async def test_a_consumer_that_waits_is_woken(broker: Broker, table: Table) -> None:
    batches = []

    async def consume() -> None:
        batches.append(await next_batch(broker))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(consume)
        await anyio.wait_all_tasks_blocked()
        broker.hand_over(table.commit(delivery(7)))
    assert batches == [[7]]


async def test_a_batch_has_at_most_the_number_asked_for(broker: Broker, table: Table) -> None:
    broker.hand_over(table.commit(*deliveries(5)))
    assert [await next_batch(broker, 2), await next_batch(broker, 2), await next_batch(broker, 2)] == [
        [0, 1],
        [2, 3],
        [4],
    ]


async def test_a_batch_is_never_larger_than_what_keeps_the_loop_responsive(broker: Broker, table: Table) -> None:
    broker.hand_over(table.commit(*deliveries(BATCH + 1)))
    assert len(await next_batch(broker, 1_000_000)) == BATCH


@pytest.mark.parametrize(
    ("attempts", "batches"),
    [
        # First attempts go together.
        ([1, 1, 1], [[0, 1, 2]]),
        # A later attempt is alone, wherever it stands.
        ([2], [[0]]),
        ([2, 1, 1], [[0], [1, 2]]),
        ([1, 2, 1], [[0], [1], [2]]),
        ([1, 1, 3], [[0, 1], [2]]),
        ([2, 2, 5], [[0], [1], [2]]),
    ],
)
async def test_first_attempts_go_together_and_a_later_attempt_alone(
    broker: Broker, table: Table, attempts: list[int], batches: list[list[int]]
) -> None:
    broker.hand_over(table.commit(*(delivery(number, attempt=attempt) for number, attempt in enumerate(attempts))))
    assert [await next_batch(broker) for _ in batches] == batches


async def test_handed_over_twice_is_delivered_once(broker: Broker, table: Table) -> None:
    """T-10."""
    one = delivery(1)
    broker.hand_over(table.commit(one))
    broker.hand_over([one, one])
    assert await next_batch(broker) == [1]
    broker.hand_over([one])  # in flight
    await idle(broker)


async def test_the_depth_tells_what_waits_and_what_is_in_flight(broker: Broker, table: Table) -> None:
    broker.hand_over(table.commit(*deliveries(5)))
    await broker.wait(QUEUE, 2)
    taken = broker.take(QUEUE, 2)
    depth = broker.depth(QUEUE)
    assert (depth.waiting, depth.in_flight, depth.spilled) == (3, 2, False)
    assert depth.bytes == 3 * taken[0].size
    table.settle(broker, taken)
    assert broker.depth(QUEUE).in_flight == 0


async def test_a_delivery_is_known_until_it_is_settled(broker: Broker, table: Table) -> None:
    one = delivery()
    assert not broker.knows(QUEUE, one.id)
    broker.hand_over(table.commit(one))
    assert broker.knows(QUEUE, one.id)
    taken = broker.take(QUEUE, 1)
    assert broker.knows(QUEUE, one.id)
    table.settle(broker, taken)
    assert not broker.knows(QUEUE, one.id)


async def test_queues_are_there_once_they_are_declared(broker: Broker) -> None:
    broker.declare("others")
    broker.declare("others")
    assert list(broker.queues()) == [QUEUE, "others"]
    assert broker.has("others")
    assert not broker.has("nobody's")
    assert not broker.knows("nobody's", uuid7())


async def test_declaring_a_queue_again_loses_nothing_of_it(broker: Broker, table: Table) -> None:
    broker.hand_over(table.commit(delivery(4)))
    broker.declare(QUEUE)
    assert await next_batch(broker) == [4]


# The table behind it


@pytest.mark.parametrize("make", BROKERS.values(), ids=BROKERS)
async def test_a_new_queue_delivers_what_an_earlier_life_left(make: MakeBroker, table: Table, clock: Clock) -> None:
    table.commit(*deliveries(3))
    broker = make(table.load, clock)
    broker.declare(QUEUE)
    assert sorted(await next_batch(broker)) == [0, 1, 2]


async def test_a_queue_spills_at_a_thousand_deliveries(broker: Broker, table: Table) -> None:
    broker.hand_over(table.commit(*deliveries(MAX_DELIVERIES)))
    assert not broker.depth(QUEUE).spilled
    broker.hand_over(table.commit(delivery()))
    depth = broker.depth(QUEUE)
    assert (depth.waiting, depth.spilled) == (MAX_DELIVERIES, True)


async def test_a_queue_spills_at_four_megabytes(broker: Broker, table: Table) -> None:
    text = "x" * 1_000_000
    for number in range(6):
        broker.hand_over(table.commit(delivery(number, text=text)))
    depth = broker.depth(QUEUE)
    assert depth.spilled
    assert MAX_BYTES <= depth.bytes < MAX_BYTES + 2_000_000
    assert sorted(await drain(broker, table)) == [0, 1, 2, 3, 4, 5]


async def test_what_was_spilled_is_delivered_once_and_then_the_queue_is_as_before(broker: Broker, table: Table) -> None:
    broker.hand_over(table.commit(*deliveries(3 * MAX_DELIVERIES)))
    assert sorted(await drain(broker, table)) == list(range(3 * MAX_DELIVERIES))
    await idle(broker)
    assert not broker.depth(QUEUE).spilled
    table.reads.clear()
    broker.hand_over(table.commit(delivery(5)))
    assert await next_batch(broker) == [5]
    assert table.reads == []


async def test_a_refill_leaves_out_what_is_in_memory(broker: Broker, table: Table) -> None:
    waiting = deliveries(10)
    broker.hand_over(table.commit(*waiting))
    broker.take(QUEUE, 4)
    broker.doubt(QUEUE)
    await broker.wait(QUEUE, BATCH)
    ((excluded, limit),) = table.reads
    assert excluded == {one.id for one in waiting}
    assert limit == MAX_DELIVERIES - 6


async def test_a_full_queue_does_not_ask_the_table(broker: Broker, table: Table) -> None:
    broker.hand_over(table.commit(*deliveries(MAX_DELIVERIES + 1)))
    await broker.wait(QUEUE, 1_000_000)
    assert table.reads == []


async def test_a_commit_during_the_refill_keeps_the_queue_spilled(broker: Broker, table: Table) -> None:
    """The refill came back short, but its snapshot is older than the commit: only another one finds that row."""
    broker.doubt(QUEUE)
    table.commit(delivery(1))
    table.gate = anyio.Event()
    batches = []

    async def consume() -> None:
        batches.append(await next_batch(broker))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(consume)
        await anyio.wait_all_tasks_blocked()  # the statement has begun and is not answered
        broker.hand_over(table.commit(delivery(2)))
        table.gate.set()
    assert batches == [[1]]
    assert broker.depth(QUEUE).spilled
    assert await next_batch(broker) == [2]


async def test_a_row_that_the_refill_saw_before_its_hand_over_is_delivered_once(broker: Broker, table: Table) -> None:
    early = delivery(1)
    table.commit(early)
    broker.doubt(QUEUE)
    assert await next_batch(broker) == [1]
    assert not broker.depth(QUEUE).spilled
    broker.hand_over([early])
    await idle(broker)


async def test_a_refill_that_was_full_keeps_the_queue_spilled(broker: Broker, table: Table) -> None:
    table.commit(*deliveries(MAX_DELIVERIES))
    broker.doubt(QUEUE)
    await broker.wait(QUEUE, BATCH)
    # There were exactly as many as had room: whether there are more, nobody knows.
    assert broker.depth(QUEUE).spilled


async def test_a_refill_that_fails_leaves_the_queue_spilled(broker: Broker, table: Table, clock: VirtualClock) -> None:
    failing = [OSError("away")]

    async def load(queue: str, except_ids: Collection[UUID], limit: int) -> Sequence[Delivery[Any]]:
        if failing:
            raise failing.pop()
        return await table.load(queue, except_ids, limit)

    other = type(broker)(load, clock)  # type: ignore[call-arg]  # an implementation, not the interface
    other.declare(QUEUE)
    table.commit(delivery(3))
    with pytest.raises(OSError, match="away"):
        await other.wait(QUEUE, BATCH)
    assert await next_batch(other) == [3]


async def test_doubt_makes_the_broker_look(broker: Broker, table: Table) -> None:
    table.commit(delivery(9))
    await idle(broker)
    broker.doubt(QUEUE)
    assert await next_batch(broker) == [9]


async def test_doubt_wakes_a_consumer_that_waits(broker: Broker, table: Table) -> None:
    batches = []

    async def consume() -> None:
        batches.append(await next_batch(broker))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(consume)
        await anyio.wait_all_tasks_blocked()
        table.commit(delivery(9))
        broker.doubt(QUEUE)
    assert batches == [[9]]


# Waiting for a moment


async def test_the_broker_looks_at_the_moment_it_was_told(broker: Broker, table: Table, clock: VirtualClock) -> None:
    table.commit(delivery(3, attempt=2))
    broker.wake_at(QUEUE, START + timedelta(seconds=4))
    batches = []

    async def consume() -> None:
        batches.append(await next_batch(broker))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(consume)
        for _ in range(3):
            await anyio.wait_all_tasks_blocked()
            clock.advance(1)
        await anyio.wait_all_tasks_blocked()
        assert (batches, table.reads) == ([], [])
        clock.advance(1)
    assert batches == [[3]]


async def test_a_moment_is_never_looked_at_too_early(broker: Broker, table: Table, clock: VirtualClock) -> None:
    """Moments are whole seconds, rounded up: what becomes due within the second is due when the broker looks."""
    broker.wake_at(QUEUE, START + timedelta(seconds=1, microseconds=1))
    clock.advance(1)
    await idle(broker)
    assert table.reads == []
    clock.advance(1)
    await idle(broker)
    assert len(table.reads) == 1


async def test_a_storm_of_moments_is_a_look_a_second(broker: Broker, table: Table, clock: VirtualClock) -> None:
    for milliseconds in range(3000):
        broker.wake_at(QUEUE, START + timedelta(milliseconds=milliseconds + 1))
    for _ in range(10):
        clock.advance(0.5)
        await idle(broker)
    assert len(table.reads) == 3


async def test_a_clock_that_jumps_forward_makes_the_broker_look(
    broker: Broker, table: Table, clock: VirtualClock
) -> None:
    table.commit(delivery(3, attempt=2))
    broker.wake_at(QUEUE, START + timedelta(hours=1))
    batches = []

    async def consume() -> None:
        batches.append(await next_batch(broker))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(consume)
        await anyio.wait_all_tasks_blocked()
        clock.set(START + timedelta(hours=2))
    assert batches == [[3]]


async def test_a_row_whose_moment_has_come_is_known_although_nobody_has_looked_yet(
    broker: Broker, table: Table, clock: VirtualClock
) -> None:
    """A consumer without capacity does not wait on its queue. Its row is late, but not forgotten."""
    (row,) = table.commit(delivery(3, attempt=2))
    broker.wake_at(QUEUE, START + timedelta(seconds=1))
    assert not broker.knows(QUEUE, row.id)
    clock.advance(1)
    assert broker.knows(QUEUE, row.id)
    assert broker.depth(QUEUE).spilled


# Bounds


async def test_memory_is_bounded_however_much_is_handed_over(broker: Broker) -> None:
    """T-16."""
    alive = 0

    class Text(str):
        __slots__ = ()

        def __new__(cls) -> Self:
            nonlocal alive
            alive += 1
            return super().__new__(cls, "{}")

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    envelope = delivery().envelope
    for _ in range(200_000):
        broker.hand_over([Delivery(QUEUE, envelope._replace(message_id=uuid7()), Text(), 1)])
    assert alive == MAX_DELIVERIES
    depth = broker.depth(QUEUE)
    assert (depth.waiting, depth.in_flight, depth.spilled) == (MAX_DELIVERIES, 0, True)
