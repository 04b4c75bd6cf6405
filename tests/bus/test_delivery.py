"""The delivery protocol on a real database: the row is the truth, memory is a hint."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import pytest

from attune.bus.bus import Unroutable
from attune.bus.messages import Delivery, Message
from attune.bus.outcomes import DONE, Outcome, Reject, Retry
from attune.bus.transaction import Transaction
from attune.database.pool import DatabaseUnavailable, Row
from tests.bus.conftest import MakeRig
from tests.bus.parts import ANSWERS, NUMBERS, THINGS, Answered, Change, Counted, Rig, ThingChanged, Told, root
from tests.support.clock import VirtualClock
from tests.support.waiting import eventually, until


class _Boom(Exception):
    pass


async def transact(rig: Rig, change: Callable[[Transaction], Awaitable[None]]) -> None:
    """Make a change in a transaction of its own."""
    async with rig.bus.transaction() as transaction:
        await change(transaction)


# Publishing


async def test_a_message_is_committed_with_the_change_that_causes_it(rig: Rig) -> None:
    """T-24: the distributed implementation wrote the row first, and published if it could."""
    async with rig.consuming():
        async with rig.bus.transaction() as transaction:
            await transaction.connection.execute("INSERT INTO effect VALUES (1000)")
            transaction.publish(Counted(number_id=1), root(), "test")
            await anyio.sleep(0.02)
            assert rig.calls.batches == [], "it was handed over before the commit"
        await rig.until_effects([1, 1000])
    assert await rig.waiting() == []


async def test_a_message_is_rolled_back_with_the_change_that_causes_it(rig: Rig) -> None:
    """T-24."""

    async def change(transaction: Transaction) -> None:
        await transaction.connection.execute("INSERT INTO effect VALUES (1000)")
        transaction.publish(Counted(number_id=1), root(), "test")
        raise _Boom

    async with rig.consuming():
        with pytest.raises(_Boom):
            await transact(rig, change)
        await rig.publish(2)
        await rig.until_effects([2])
    assert rig.calls.batches == [[2]]
    assert await rig.waiting() == []


async def test_a_transaction_that_is_cancelled_publishes_nothing(rig: Rig) -> None:
    await rig.listen()
    with anyio.move_on_after(0.05):
        async with rig.bus.transaction() as transaction:
            transaction.publish(Counted(number_id=1), root(), "test")
            await anyio.sleep_forever()
    assert await rig.waiting() == []
    assert rig.bus.broker.depth(NUMBERS).waiting == 0


async def test_a_transaction_that_hides_a_failed_statement_is_no_success(rig: Rig) -> None:
    """PostgreSQL answers such a COMMIT with ROLLBACK, and calls it a success."""
    rig.consumer()
    hints: list[str] = []

    async def change(transaction: Transaction) -> None:
        await transaction.connection.execute("INSERT INTO effect VALUES (1)")
        transaction.after_commit(lambda: hints.append("committed"))
        with suppress(Exception):
            await transaction.connection.execute("SELECT 1 / 0")

    with pytest.raises(RuntimeError, match="nothing of it was committed"):
        await transact(rig, change)
    assert (hints, await rig.effects()) == ([], [])


async def test_hints_are_given_after_the_commit_and_only_then(rig: Rig) -> None:
    hints: list[str] = []

    async def change(transaction: Transaction) -> None:
        transaction.after_commit(lambda: hints.append("rolled back"))
        raise _Boom

    async with rig.bus.transaction() as transaction:
        transaction.after_commit(lambda: hints.append("committed"))
        assert hints == []
    assert hints == ["committed"]
    with pytest.raises(_Boom):
        await transact(rig, change)
    assert hints == ["committed"]


async def test_a_hint_that_fails_does_not_make_the_commit_look_failed(rig: Rig) -> None:
    """Whoever thinks that nothing was committed does it again."""
    hints: list[str] = []

    def fail() -> None:
        raise _Boom

    rig.consumer()
    async with rig.bus.transaction() as transaction:
        transaction.publish(Counted(number_id=1), root(), "test")
        transaction.after_commit(fail)
        transaction.after_commit(lambda: hints.append("the next one"))
    assert hints == ["the next one"]
    assert len(await rig.waiting()) == 1


async def test_a_message_is_refused_that_carries_more_than_ids_and_refs(rig: Rig) -> None:
    rig.consumer()
    with pytest.raises(ValueError, match="Counted: 80"):
        async with rig.bus.transaction() as transaction:
            transaction.publish(Counted(number_id=1, text="x" * 8_000), root(), "test")
    assert await rig.waiting() == []


@pytest.mark.parametrize(
    ("message", "told"),
    [
        # Nobody has made the queue of this receiver.
        (Told(worker_id=7), "told.7.queue does not exist"),
        # The class stands in no table.
        (type("Stray", (Message,), {}, exchange="test", key="stray")(), "Stray with key 'stray' on test reaches no"),
        # The queue has a row in the table, and nobody declared it.
        (Counted(number_id=1), f"{NUMBERS} does not exist"),
    ],
    ids=["receiver", "class", "queue"],
)
async def test_an_unroutable_message_is_an_error_and_takes_its_transaction_with_it(
    rig: Rig, message: Message, told: str
) -> None:
    """T-08: without `mandatory` such messages vanished."""

    async def change(transaction: Transaction) -> None:
        await transaction.connection.execute("INSERT INTO effect VALUES (1)")
        transaction.publish(message, root(), "test")

    with pytest.raises(Unroutable, match=told):
        await transact(rig, change)
    assert await rig.effects() == []
    assert rig.bus.counters.unroutable == {type(message).__name__: 1}


async def test_a_receiver_that_appears_can_be_reached(rig: Rig) -> None:
    with pytest.raises(Unroutable):
        rig.bus.route(Told(worker_id=7))
    rig.bus.broker.declare("told.7.queue")
    assert list(rig.bus.route(Told(worker_id=7))) == [("told.7.queue", True)]
    with pytest.raises(Unroutable):
        rig.bus.route(Told(worker_id=8))


async def test_a_broadcast_is_heard_and_is_no_row(rig: Rig) -> None:
    async with rig.bus.transaction() as transaction:
        transaction.publish(ThingChanged(change=Change.GONE), root(), "test")
    heard = await rig.bus.broadcasts.take(THINGS)
    assert (heard.messages, heard.missed) == ((ThingChanged(change=Change.GONE),), False)
    assert await rig.waiting() == []


async def test_what_was_published_is_counted_by_type_and_queue(rig: Rig) -> None:
    rig.consumer()
    await rig.publish(1, 2)
    async with rig.bus.transaction() as transaction:
        transaction.publish(ThingChanged(change=Change.MADE), root(), "test")
    assert rig.bus.counters.published == {("Counted", NUMBERS): 2, ("ThingChanged", THINGS): 1}


async def test_nothing_is_written_by_a_process_that_does_not_own_the_database(rig: Rig) -> None:
    rig.is_owned = False
    with pytest.raises(DatabaseUnavailable, match="owns it still"):
        async with rig.bus.transaction():
            pytest.fail("a transaction began")


# Consuming


async def test_effects_publications_and_the_deletion_commit_together(rig: Rig) -> None:
    async def answer(transaction: Transaction, batch: Sequence[Delivery[Counted]]) -> Sequence[Outcome]:
        for delivery in batch:
            transaction.publish(Answered(number_id=delivery.message.number_id), delivery.envelope.effect(), "counter")
        return await rig.effect(transaction, batch)

    (published,) = await published_before_anybody_listens(rig, 1)
    async with rig.consuming(answer):
        await rig.until_effects([1])
    (answered,) = await rig.waiting()
    assert (answered["queue"], answered["number"]) == (ANSWERS, "1")
    assert answered["correlation_id"] == published.envelope.cause.correlation_id
    assert answered["causation_id"] == published.id
    assert answered["depth"] == 1


async def test_a_row_that_somebody_else_settled_is_not_handled(rig: Rig) -> None:
    """T-10: what memory says counts for nothing."""
    deliveries = await published_before_anybody_listens(rig, 1, 2, 3)
    await rig.execute("DELETE FROM attune.delivery WHERE message_id = $1", deliveries[1].id)
    async with rig.consuming():
        await rig.until_effects([1, 3])
    assert rig.calls.numbers == {1: 1, 3: 1}


async def test_a_batch_of_which_nothing_is_left_is_settled(rig: Rig) -> None:
    deliveries = await published_before_anybody_listens(rig, 1, 2)
    await rig.execute("DELETE FROM attune.delivery")
    async with rig.consuming():
        await eventually(lambda: rig.bus.counters.of(NUMBERS).delivered == len(deliveries))
        await rig.publish(3)
        await rig.until_effects([3])
    assert rig.bus.broker.depth(NUMBERS).in_flight == 0


async def test_the_same_delivery_handed_over_again_is_not_handled_again(rig: Rig) -> None:
    """T-10."""
    await rig.listen()
    async with rig.consuming():
        deliveries = await rig.publish(1, 2)
        rig.bus.broker.hand_over(deliveries)
        await rig.until_effects([1, 2])
        rig.bus.broker.hand_over(deliveries)
        rig.bus.broker.hand_over(deliveries)
        await rig.publish(3)
        await rig.until_effects([1, 2, 3])
    assert rig.calls.numbers == {1: 1, 2: 1, 3: 1}


async def test_a_delivery_handed_over_again_does_not_undo_its_failed_attempts(
    slow_rig: Rig, clock: VirtualClock
) -> None:
    """The row waits for attempt 2; a hint of attempt 1 that comes late is a hint of something that is over."""
    rig = slow_rig

    async def later(transaction: Transaction, batch: Sequence[Delivery[Counted]]) -> Sequence[Outcome]:
        rig.calls.note(batch)
        return [Retry(60, "not yet")] * len(batch)

    await rig.listen()
    async with rig.consuming(later):
        deliveries = await rig.publish(1)
        await eventually(lambda: rig.bus.counters.of(NUMBERS).retried == 1)
        rig.bus.broker.hand_over(deliveries)
        await eventually(lambda: rig.bus.counters.of(NUMBERS).delivered == 2)
    assert rig.calls.attempts == [[1]]
    assert [(row["attempt"], row["available_at"]) for row in await rig.waiting()] == [
        (2, clock.now() + timedelta(seconds=60))
    ]


async def test_what_comes_at_once_is_handled_at_once(rig: Rig) -> None:
    await rig.listen()
    async with rig.consuming():
        await rig.publish(*range(50))
        await rig.until_effects(range(50))
    assert rig.calls.batches == [list(range(50))]


async def test_a_consumer_gets_no_more_than_it_has_room_for(rig: Rig) -> None:
    async def two() -> int:
        return 2

    await published_before_anybody_listens(rig, *range(5))
    async with rig.consuming(capacity=two):
        await rig.until_effects(range(5))
    assert [len(batch) for batch in rig.calls.batches] == [2, 2, 1]


async def test_a_consumer_without_room_gets_nothing(rig: Rig) -> None:
    room = anyio.Event()

    async def after_a_while() -> int:
        await room.wait()
        return 1

    async with rig.consuming(capacity=after_a_while):
        await rig.publish(1)
        await anyio.wait_all_tasks_blocked()
        assert rig.calls.batches == []
        room.set()
        await rig.until_effects([1])


async def test_a_consumer_that_loses_its_room_can_be_stopped(rig: Rig) -> None:
    """Waiting for room holds nothing that the shutdown would have to wait for."""
    answers = [1]

    async def once() -> int:
        if answers:
            return answers.pop()
        await anyio.sleep_forever()
        raise AssertionError

    await published_before_anybody_listens(rig, 1)
    with anyio.fail_after(5):
        async with rig.consuming(capacity=once):
            await anyio.wait_all_tasks_blocked()
    assert len(await rig.waiting()) == 1


async def test_more_than_memory_holds_is_delivered_exactly_once(rig: Rig) -> None:
    """3,000 at once spill the queue of 1,000; the others are read from the table."""
    async with rig.consuming():
        await rig.publish(*range(3_000))
        assert rig.bus.broker.depth(NUMBERS).spilled
        await rig.until_effects(range(3_000))
        await rig.publish(3_000)
        await rig.until_effects(range(3_001))
    assert set(rig.calls.numbers.values()) == {1}


async def test_commits_beside_a_refill_are_all_delivered(rig: Rig) -> None:
    """Ids commit out of order, and reads run while they do."""
    async with rig.consuming(), anyio.create_task_group() as publishers:
        for start in range(0, 4_000, 100):
            publishers.start_soon(rig.publish, *range(start, start + 100))
    async with rig.consuming():
        await rig.until_effects(range(4_000))


# Outcomes


async def test_each_delivery_of_a_batch_has_its_own_outcome(slow_rig: Rig, clock: VirtualClock) -> None:
    rig = slow_rig

    async def judge(transaction: Transaction, batch: Sequence[Delivery[Counted]]) -> Sequence[Outcome]:
        done = [delivery for delivery in batch if delivery.message.number_id < 10]
        await rig.effect(transaction, done)
        outcomes: dict[int, Outcome] = {10: Retry(2.5, "not yet"), 11: Reject("never")}
        return [outcomes.get(delivery.message.number_id, DONE) for delivery in batch]

    async with rig.consuming(judge):
        await rig.publish(1, 10, 11, 2)
        await rig.until_effects([1, 2])
    (again,) = await rig.waiting()
    assert (again["number"], again["attempt"], again["error"]) == ("10", 2, "not yet")
    assert again["available_at"] == clock.now() + timedelta(seconds=2.5)
    (letter,) = await rig.dead()
    assert (letter["subject"], letter["error"], letter["attempts"]) == ("number:11", "never", 1)
    counters = rig.bus.counters.of(NUMBERS)
    assert (counters.delivered, counters.done, counters.retried, counters.dead) == (4, 2, 1, 1)


async def test_t05_a_delivery_that_always_fails_comes_later_and_later_and_then_no_more(
    slow_rig: Rig, clock: VirtualClock
) -> None:
    """T-01, T-09: it ends among the dead letters, and holds up nobody meanwhile."""
    rig = slow_rig

    async def fail(transaction: Transaction, batch: Sequence[Delivery[Counted]]) -> Sequence[Outcome]:
        if 1 not in [delivery.message.number_id for delivery in batch]:
            return await rig.effect(transaction, batch)
        rig.calls.note(batch)
        raise _Boom("no ones")

    async def again(attempt: int) -> Row | None:
        return next((row for row in await rig.waiting() if row["attempt"] == attempt), None)

    async with rig.consuming(fail):
        await rig.publish(1, 2)
        for attempt, seconds in enumerate((1, 4, 16, 64), start=2):
            row = await until(partial(again, attempt))
            assert (row["available_at"] - clock.now(), row["error"]) == (timedelta(seconds=seconds), "_Boom: no ones")
            await rig.publish(attempt * 10)
            clock.advance(seconds)
        await eventually(lambda: rig.bus.counters.of(NUMBERS).dead == 1)
        clock.advance(10_000)
        await rig.publish(60)
        await rig.until_effects([2, 20, 30, 40, 50, 60])

    (letter,) = await rig.dead()
    assert (letter["subject"], letter["error"], letter["attempts"]) == ("number:1", "_Boom: no ones", 5)
    # Once with its neighbour, and once for each attempt.
    assert rig.calls.numbers[1] == 1 + 5


async def test_a_retry_comes_when_it_is_due_and_keeps_its_identity(slow_rig: Rig, clock: VirtualClock) -> None:
    rig = slow_rig
    seen: list[tuple[object, int]] = []

    async def at_the_second_attempt(transaction: Transaction, batch: Sequence[Delivery[Counted]]) -> Sequence[Outcome]:
        seen.extend((delivery.envelope, delivery.attempt) for delivery in batch)
        return [DONE if delivery.attempt > 1 else Retry(10, "not yet") for delivery in batch]

    async with rig.consuming(at_the_second_attempt):
        await rig.publish(1)
        await eventually(lambda: len(seen) == 1)
        clock.advance(9)
        await anyio.wait_all_tasks_blocked()
        assert len(seen) == 1
        clock.advance(1)
        await rig.until_empty()
    assert seen[0][0] == seen[1][0]
    assert [attempt for _, attempt in seen] == [1, 2]


async def test_a_handler_that_forgets_an_outcome_is_to_blame_itself(rig: Rig) -> None:
    async def forgetful(transaction: Transaction, batch: Sequence[Delivery[Counted]]) -> Sequence[Outcome]:
        await rig.effect(transaction, batch)
        return []

    async with rig.consuming(forgetful):
        await rig.publish(1)
        await eventually(lambda: rig.bus.counters.of(NUMBERS).retried == 1)
    assert await rig.effects() == []
    assert "ValueError" in (await rig.waiting())[0]["error"]


# Ends and beginnings


async def test_stopping_finishes_the_batch_that_is_in_its_transaction(rig: Rig) -> None:
    """T-27: messages were refused, and lost, at every restart."""
    handling, go_on = anyio.Event(), anyio.Event()

    async def slowly(transaction: Transaction, batch: Sequence[Delivery[Counted]]) -> Sequence[Outcome]:
        handling.set()
        await go_on.wait()
        return await rig.effect(transaction, batch)

    async with anyio.create_task_group() as tasks, rig.consuming(slowly):
        await rig.publish(1)
        await handling.wait()
        await rig.publish(2)
        tasks.start_soon(_set_soon, go_on)
    assert await rig.effects() == [1]
    assert [row["number"] for row in await rig.waiting()] == ["2"]


async def _set_soon(event: anyio.Event) -> None:
    await anyio.sleep(0.05)
    event.set()


async def test_a_new_life_delivers_what_the_last_one_left(make_rig: MakeRig) -> None:
    earlier = make_rig()
    earlier.consumer()
    await earlier.publish(*range(5))
    later = make_rig()
    async with later.consuming():
        await later.until_effects(range(5))
    assert set(later.calls.numbers.values()) == {1}


async def test_a_new_life_delivers_retries_when_they_are_due(make_rig: MakeRig, clock: VirtualClock) -> None:
    earlier = make_rig(clock)
    await earlier.insert(1, attempt=2, due=clock.now() + timedelta(seconds=30))
    await earlier.insert(2, attempt=3, due=clock.now() - timedelta(seconds=30))
    later = make_rig(clock)
    async with later.consuming():
        await later.bus.wake_for_retries()
        await later.until_effects([2])
        clock.advance(29)
        await anyio.wait_all_tasks_blocked()
        assert later.calls.attempts == [[3]]
        clock.advance(2)
        await later.until_effects([1, 2])
    assert later.calls.attempts == [[3], [2]]


async def test_a_clock_that_went_back_does_not_hold_up_what_was_due(make_rig: MakeRig, clock: VirtualClock) -> None:
    """A machine without a battery for its clock starts in the past."""
    earlier = make_rig(clock)
    earlier.consumer()
    await earlier.publish(1)
    clock.set(clock.now() - timedelta(days=1))
    later = make_rig(clock)
    async with later.consuming():
        await later.bus.wake_for_retries()
        await later.until_effects([1])


# By how many hours the clock is set, one after the other, while a retry waits for a minute.
JUMPS = [[2], [-2], [2, -2], [-2, 2]]


@pytest.mark.parametrize("hours", JUMPS)
async def test_a_clock_that_jumps_while_a_retry_waits_makes_nothing_lost_doubled_or_stuck(
    slow_rig: Rig, clock: VirtualClock, hours: list[int]
) -> None:
    rig = slow_rig
    due = clock.now() + timedelta(seconds=60)

    async def one_fails_once(transaction: Transaction, batch: Sequence[Delivery[Counted]]) -> Sequence[Outcome]:
        if batch[0].message.number_id == 1 and batch[0].attempt == 1:
            rig.calls.note(batch)
            return [Retry(60, "not yet")] * len(batch)
        return await rig.effect(transaction, batch)

    async with rig.consuming(one_fails_once):
        await rig.publish(1)
        await eventually(lambda: rig.calls.numbers == {1: 1})
        for jump in hours:
            clock.set(clock.now() + timedelta(hours=jump))
            # Somebody looks at the queues before its consumer does.
            rig.bus.broker.depth(NUMBERS)
        # What is published now is due now, whatever the clock says.
        await rig.publish(2)
        await eventually(lambda: 2 in rig.calls.numbers)
        while clock.now() < due:
            clock.advance(60)
            await anyio.wait_all_tasks_blocked()
        clock.advance(1)
        await rig.until_empty()

    assert rig.calls.numbers == {1: 2, 2: 1}
    assert await rig.effects() == [1, 2]
    assert await rig.sweep() == 0


async def test_deliveries_of_unknown_queues_are_left_alone(make_rig: MakeRig) -> None:
    """T-25: what was under way when queues were renamed had to be removed by hand."""
    rig = make_rig()
    await rig.insert(1)
    await rig.execute("UPDATE attune.delivery SET queue = 'of a later release', available_at = now() + '1 hour'")
    await rig.bus.wake_for_retries()
    async with rig.consuming():
        await rig.publish(2)
        await rig.until_effects([2])
    assert len(await rig.waiting()) == 1


async def published_before_anybody_listens(rig: Rig, *numbers: int) -> list[Delivery[Any]]:
    await rig.listen()
    return await rig.publish(*numbers)
