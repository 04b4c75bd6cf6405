"""How much waits is known without asking, and what comes from outside is refused while that is too much."""

from collections.abc import Sequence

import pytest

from attune.base.errors import BacklogFull
from attune.bus.backlog import Backlog, BacklogLimit
from attune.bus.dead_letters import DeadLetters
from attune.bus.messages import Delivery
from attune.bus.outcomes import DONE, Outcome, Reject, Retry
from attune.bus.transaction import Transaction
from attune.bus.upkeep import Recount
from tests.bus.parts import NUMBERS, Counted, Rig, root
from tests.support.clock import VirtualClock
from tests.support.waiting import eventually


@pytest.fixture
def backlog() -> Backlog:
    return Backlog()


@pytest.fixture
def limit(backlog: Backlog, clock: VirtualClock) -> BacklogLimit:
    """At most a thousand deliveries."""
    return BacklogLimit(backlog, 1_000, clock)


def refusal(limit: BacklogLimit) -> BacklogFull:
    found = limit.refusal()
    assert found is not None
    return found


async def by_number(_: Transaction, batch: Sequence[Delivery[Counted]]) -> Sequence[Outcome]:
    """1 is done, 2 fails for now, 3 is refused."""
    outcomes: dict[int, Outcome] = {1: DONE, 2: Retry(30, "not yet"), 3: Reject("never")}
    return [outcomes[delivery.message.number_id] for delivery in batch]


async def test_the_backlog_is_what_stands_in_the_table_whatever_becomes_of_a_delivery(rig: Rig) -> None:
    await rig.listen()
    await rig.publish(1, 1, 2, 3)
    async with rig.bus.transaction() as transaction:
        transaction.publish(Counted(number_id=1), root(), "test", after=60)
    assert rig.bus.backlog.waiting == len(await rig.waiting()) == 5

    async with rig.consuming(by_number):
        await eventually(lambda: rig.bus.backlog.waiting == 2)
        assert len(await rig.waiting()) == 2

    # Replayed, it waits again; what cannot be read is put aside.
    (letter,) = await rig.dead()
    await DeadLetters(rig.bus, {}).replay([letter["id"]], "test")
    await rig.insert(4, kind="Unknown")
    rig.bus.broker.doubt(NUMBERS)
    await Recount(rig.bus).once()
    assert rig.bus.backlog.waiting == len(await rig.waiting()) == 4
    async with rig.consuming(by_number):
        await eventually(lambda: rig.bus.backlog.waiting == 2)
        assert len(await rig.waiting()) == 2


async def test_what_is_rolled_back_does_not_wait(rig: Rig) -> None:
    await rig.listen()

    async def fail() -> None:
        async with rig.bus.transaction() as transaction:
            transaction.publish(Counted(number_id=1), root(), "test")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()

    assert rig.bus.backlog.waiting == 0


async def test_a_recount_finds_what_nobody_has_added_up(rig: Rig) -> None:
    for number in range(3):
        await rig.insert(number)

    await Recount(rig.bus).once()

    assert rig.bus.backlog.waiting == 3


def test_above_the_limit_everything_is_refused_until_a_tenth_less_waits(backlog: Backlog, limit: BacklogLimit) -> None:
    refused = []
    for waiting in (0, 999, 1_000, 1_001, 1_000, 900, 899, 1_000, 1_001):
        backlog.waiting = waiting
        refused.append(limit.refusal() is not None)

    assert refused == [False, False, False, True, True, True, False, False, True]


def test_a_refusal_says_how_many_wait_how_many_may_and_where_to_look(backlog: Backlog, limit: BacklogLimit) -> None:
    backlog.waiting = 1_234

    said = refusal(limit).message

    assert "1,234 deliveries wait" in said
    assert "fewer than 900" in said
    assert "bus.max_backlog is 1,000" in said
    assert "attune bus queues" in said


# Deliveries that wait after so many seconds, and what a caller is told to wait then.
PACES: list[tuple[list[tuple[float, int]], int]] = [
    # Nothing is known yet, or it still grows.
    ([(0, 2_000)], 5),
    ([(0, 2_000), (10, 3_000)], 5),
    # 100 a second, and 900 too many.
    ([(0, 2_000), (2, 1_800)], 9),
    # It has turned since: what it did before does not count.
    ([(0, 1_100), (100, 2_000), (2, 1_800)], 9),
    # Nearly there, and far from it.
    ([(0, 2_000), (10, 901)], 1),
    ([(0, 2_000), (10, 1_999)], 60),
    # It stands still.
    ([(0, 2_000), (0, 2_000), (10, 1_900), (0, 1_900), (10, 1_899)], 60),
]


@pytest.mark.parametrize(("course", "seconds"), PACES)
def test_who_is_refused_is_told_when_it_is_worth_another_try(
    backlog: Backlog, limit: BacklogLimit, clock: VirtualClock, course: list[tuple[float, int]], seconds: int
) -> None:
    for pause, waiting in course:
        clock.advance(pause)
        backlog.waiting = waiting
        told = refusal(limit).retry_after

    assert told == seconds
