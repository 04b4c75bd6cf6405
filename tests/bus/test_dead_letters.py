"""What was given up is tried again once, or discarded once, and never both; and nothing of it can get lost."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from attune.base.errors import AttuneError, Conflict, NotFound
from attune.bus.dead_letters import DeadLetters, Discard, Handled
from attune.bus.messages import Delivery, Letter
from attune.bus.outcomes import DONE, Outcome, Reject, Retry
from attune.bus.queries import letter_of
from attune.bus.transaction import Transaction
from attune.database.pool import DatabaseUnavailable, Row
from tests.bus.conftest import MakeRig
from tests.bus.parts import ANSWERS, NUMBERS, Answered, Counted, Rig
from tests.bus.proxy import Failure, proxy_to
from tests.support.clock import VirtualClock
from tests.support.databases import pool_on
from tests.support.waiting import eventually, until


class _Boom(Exception):
    pass


async def note(transaction: Transaction, delivery: Delivery[Counted], letter: Letter) -> str:
    """Ends what a number was to move on: its effect is its negative, and everybody hears of it."""
    number = delivery.message.number_id
    await transaction.connection.execute("INSERT INTO effect VALUES ($1)", -number)
    transaction.publish(Answered(number_id=number), delivery.envelope.effect(), "dead letters")
    return f"number {number} is over"


def store(rig: Rig, discard: Discard[Counted] = note) -> DeadLetters:
    return DeadLetters(rig.bus, {Counted: discard})


async def give_up(rig: Rig, *numbers: int) -> list[int]:
    """The dead letters of numbers that a consumer has rejected."""

    async def reject(_: Transaction, batch: Sequence[Delivery[Counted]]) -> Sequence[Outcome]:
        return [Reject("a poisonous number")] * len(batch)

    async def dead() -> dict[str, int] | None:
        letters = {row["subject"]: row["id"] for row in await rig.dead()}
        return letters if letters.keys() >= {f"number:{number}" for number in numbers} else None

    async with rig.consuming(reject):
        await rig.publish(*numbers)
        letters = await until(dead)
        await eventually(lambda: rig.bus.broker.depth(NUMBERS).in_flight == 0)
    return [letters[f"number:{number}"] for number in numbers]


async def insert_letters(
    rig: Rig, count: int = 1, *, queue: str = NUMBERS, kind: str = "Counted", payload: str = '{"number_id": #}'
) -> list[int]:
    """Dead letters as another release may have left them; `#` in their payload is their number."""
    rows = await rig.fetch(
        """
        INSERT INTO attune.dead_letter (queue, message_id, correlation_id, depth, message_type, version, source,
                                        payload, attempts, error, published_at, created)
        SELECT $1, gen_random_uuid(), gen_random_uuid(), 0, $2, '1.0', 'test', replace($3, '#', number::text)::jsonb, 5,
               'broken', now(), now()
          FROM generate_series(1, $4) AS number
        RETURNING id
        """,
        queue,
        kind,
        payload,
        count,
    )
    return [row["id"] for row in rows]


def told(handled: Handled) -> dict[int, str]:
    return {number: error.message for number, error in handled.failures.items()}


# Replay


async def test_a_poisonous_message_is_handled_once_when_what_was_wrong_is_mended(make_rig: MakeRig) -> None:
    rig = make_rig(max_attempts=1)
    is_mended = False

    async def handle(transaction: Transaction, batch: Sequence[Delivery[Counted]]) -> Sequence[Outcome]:
        if not is_mended and 2 in [delivery.message.number_id for delivery in batch]:
            raise _Boom("no twos")
        return await rig.effect(transaction, batch)

    async def dead() -> Row | None:
        return next(iter(await rig.dead()), None)

    await rig.listen()
    async with rig.consuming(handle):
        await rig.publish(1, 2, 3)
        letter = await until(dead)
        assert letter["error"] == "_Boom: no twos"
        is_mended = True
        handled = await store(rig).replay([letter["id"]], "ann")
        await rig.until_effects([1, 2, 3])

    assert handled == Handled({letter["id"]: f"it waits in {NUMBERS} again"}, {})
    assert rig.calls.numbers == {1: 1, 2: 1, 3: 1}
    assert (await rig.dead(), await rig.waiting()) == ([], [])


async def test_what_is_replayed_is_the_message_that_it_was_at_its_first_attempt(
    slow_rig: Rig, clock: VirtualClock
) -> None:
    rig = slow_rig
    seen: list[Delivery[Counted]] = []
    outcomes: list[Outcome] = [Retry(60, "not yet"), Reject("never"), DONE]

    def given_up() -> bool:
        clock.advance(1)
        return rig.bus.counters.of(NUMBERS).dead == 1

    async def one_after_the_other(_: Transaction, batch: Sequence[Delivery[Counted]]) -> Sequence[Outcome]:
        seen.extend(batch)
        return [outcomes.pop(0) for _ in batch]

    async with rig.consuming(one_after_the_other):
        (published,) = await rig.publish(1)
        await eventually(given_up)
        clock.advance(3600)
        (letter,) = await rig.dead()
        await store(rig).replay([letter["id"]], "ann")
        await rig.until_empty()

    assert [delivery.envelope for delivery in seen] == [published.envelope] * 3
    assert [delivery.attempt for delivery in seen] == [1, 2, 1]
    # Its way is told in the order in which it went it.
    hops = await rig.trace(published.envelope.cause.correlation_id)
    assert [(hop["outcome"], hop["attempt"]) for hop in hops] == [("retry", 1), ("dead", 2), ("done", 1)]


async def test_what_is_replayed_is_due_even_if_the_clock_goes_back_and_attune_is_started_again(
    make_rig: MakeRig, clock: VirtualClock
) -> None:
    earlier = make_rig(clock)
    letters = await give_up(earlier, 1)
    clock.advance(60)
    await store(earlier).replay(letters, "ann")
    clock.set(clock.now() - timedelta(days=1))

    later = make_rig(clock)
    async with later.consuming():
        await later.bus.wake_for_retries()
        await later.until_effects([1])


async def test_more_than_memory_holds_is_replayed_exactly_once(rig: Rig) -> None:
    letters = await insert_letters(rig, 1_200)
    async with rig.consuming():
        handled = await store(rig).replay(letters, "ann")
        await rig.until_effects(range(1, 1_201))
    assert len(handled.became) == 1_200
    assert set(rig.calls.numbers.values()) == {1}


async def test_a_second_replay_finds_nothing_and_delivers_nothing(rig: Rig) -> None:
    letters = await give_up(rig, 1)
    first = await store(rig).replay(letters, "ann")
    second = await store(rig).replay(letters, "ann")
    async with rig.consuming():
        await rig.until_effects([1])
        await rig.until_empty()

    assert (len(first.became), second.became) == (1, {})
    assert isinstance(second.failures[letters[0]], NotFound)
    assert rig.calls.numbers == {1: 1}


@pytest.mark.parametrize(
    ("letter", "reason"),
    [
        ({"kind": "Forgotten"}, "Message type Forgotten is unknown to this release."),
        ({"payload": '{"number": 1}'}, "The payload is none of Counted"),
        ({"payload": '"{\\"number_id\\": \\"\\\\u0000\\"}"'}, "The payload is none of Counted"),
        ({"queue": "test.old.queue"}, "There is no queue test.old.queue any more."),
        # A queue that is there, and holds other messages.
        ({"queue": ANSWERS}, f"There is no queue {ANSWERS} any more."),
        ({"queue": "told.7.queue", "kind": "Told", "payload": '{"worker_id": 7}'}, "There is no queue told.7.queue"),
    ],
    ids=["type", "payload", "no payload", "queue", "another's queue", "receiver"],
)
async def test_a_letter_that_cannot_go_back_is_refused_with_the_reason_and_stays(
    rig: Rig, letter: dict[str, Any], reason: str
) -> None:
    rig.consumer()
    (number,) = await insert_letters(rig, **letter)
    others = await give_up(rig, 7)

    handled = await store(rig).replay([number, *others], "ann")

    assert isinstance(handled.failures[number], Conflict)
    assert told(handled)[number].startswith(f"Dead letter {number} cannot be replayed: {reason}")
    assert list(handled.became) == others
    assert [row["id"] for row in await rig.dead()] == [number]
    assert [row["number"] for row in await rig.waiting()] == ["7"]
    assert rig.bus.counters.unroutable == {}


@pytest.mark.parametrize("failure", [Failure.LOST, Failure.UNANSWERED])
async def test_a_replay_whose_commit_nobody_hears_of_is_found_by_the_broker(
    make_rig: MakeRig, shared_dsn: str, failure: Failure
) -> None:
    """And not by the sweep, of which there is none here."""
    letters = await give_up(make_rig(), 1)
    async with proxy_to(shared_dsn) as proxy, pool_on(proxy.url) as through:
        rig = Rig(through)
        await rig.listen()
        async with rig.consuming():
            proxy.next_commit = failure
            with pytest.raises(DatabaseUnavailable):
                await store(rig).replay(letters, "ann")
            if failure is Failure.LOST:
                await store(rig).replay(letters, "ann")
            await rig.until_effects([1])
        assert rig.calls.numbers == {1: 1}
        assert (await rig.sweep(), rig.rescued) == (0, 0)


async def test_a_replay_and_a_discard_of_the_same_letters_at_once_do_one_of_both(rig: Rig) -> None:
    letters = await give_up(rig, *range(1, 31))
    answers: list[Handled] = []

    async def do(handle: Any, numbers: list[int]) -> None:
        answers.append(await handle(numbers, "ann"))

    async with rig.consuming(), anyio.create_task_group() as tasks:
        for start in range(0, 30, 5):
            for handle in (store(rig).replay, store(rig).discard):
                tasks.start_soon(do, handle, letters[start : start + 5])
                tasks.start_soon(do, handle, letters[start : start + 5])
    async with rig.consuming():
        await until(lambda: _answered(rig))

    done = sorted(number for answer in answers for number in answer.became)
    assert done == sorted(letters)
    assert all(isinstance(error, NotFound) for answer in answers for error in answer.failures.values())
    assert [abs(number) for number in sorted(await rig.effects(), key=abs)] == list(range(1, 31))
    assert await rig.dead() == []


async def _answered(rig: Rig) -> bool | None:
    """Whether only the answers, which nobody takes here, wait."""
    return True if all(row["queue"] == ANSWERS for row in await rig.waiting()) else None


# Discard


async def test_t26_a_discard_ends_what_waits_and_says_so_in_the_transaction_that_removes_the_letter(rig: Rig) -> None:
    (letter,) = await give_up(rig, 1)
    (row,) = await rig.dead()

    handled = await store(rig).discard([letter], "ann")

    assert handled == Handled({letter: "number 1 is over"}, {})
    assert (await rig.dead(), await rig.effects()) == ([], [-1])
    (answer,) = await rig.waiting()
    assert (answer["queue"], answer["number"], answer["source"]) == (ANSWERS, "1", "dead letters")
    assert (answer["causation_id"], answer["depth"]) == (row["message_id"], row["depth"] + 1)


async def test_t26_a_discard_that_fails_changes_nothing_and_does_not_keep_the_others(rig: Rig) -> None:
    letters = await give_up(rig, 1, 2, 3)

    async def fail_at_two(transaction: Transaction, delivery: Delivery[Counted], letter: Letter) -> str:
        became = await note(transaction, delivery, letter)
        if delivery.message.number_id == 2:
            raise _Boom("no twos")
        return became

    with capture_logs() as logged:
        handled = await store(rig, fail_at_two).discard(letters, "ann")

    assert list(handled.became) == [letters[0], letters[2]]
    assert type(handled.failures[letters[1]]) is AttuneError
    assert "_Boom: no twos. It is as it was" in told(handled)[letters[1]]
    assert [row["id"] for row in await rig.dead()] == [letters[1]]
    assert await rig.effects() == [-3, -1]
    assert sorted(row["number"] for row in await rig.waiting()) == ["1", "3"]
    assert "a dead letter cannot be discarded" in [line["event"] for line in logged]


async def test_a_second_discard_finds_nothing_and_ends_nothing(rig: Rig) -> None:
    letters = await give_up(rig, 1)
    await store(rig).discard(letters, "ann")
    second = await store(rig).discard(letters, "ann")

    assert isinstance(second.failures[letters[0]], NotFound)
    assert await rig.effects() == [-1]


async def test_the_database_that_goes_away_is_no_fault_of_a_letter(rig: Rig) -> None:
    letters = await give_up(rig, 1, 2)

    async def away(_: Transaction, __: Delivery[Counted], ___: Letter) -> str:
        raise DatabaseUnavailable("gone")

    with pytest.raises(DatabaseUnavailable):
        await store(rig, away).discard(letters, "ann")
    assert [row["id"] for row in await rig.dead()] == sorted(letters)


@pytest.mark.parametrize(
    ("letter", "became"),
    [
        ({"kind": "Forgotten"}, "only the letter was removed: Message type Forgotten is unknown to this release."),
        ({"payload": "[]"}, "only the letter was removed: The payload is none of Counted"),
        ({"kind": "Answered"}, "only the letter was removed: nothing waits for Answered"),
        # What could not be replayed any more can still come to its end.
        ({"queue": "test.old.queue"}, "number 1 is over"),
    ],
    ids=["type", "payload", "nothing waits", "queue"],
)
async def test_whatever_a_letter_holds_it_can_be_discarded(rig: Rig, letter: dict[str, Any], became: str) -> None:
    (number,) = await insert_letters(rig, **letter)

    handled = await store(rig).discard([number], "ann")

    assert handled.became[number].startswith(became)
    assert await rig.dead() == []


async def test_the_log_tells_who_did_what_with_which_letter(rig: Rig) -> None:
    one, other = await give_up(rig, 1, 2)
    with capture_logs() as logged:
        await store(rig).replay([one], "ann")
        await store(rig).discard([other, one], "joe")

    about = {"queue": NUMBERS, "log_level": "info"}
    assert logged == [
        {"event": "a dead letter was replayed", "dead_letter": one, "subject": "number:1", "by": "ann", **about},
        {
            "event": "a dead letter was discarded",
            "dead_letter": other,
            "subject": "number:2",
            "by": "joe",
            "became": "number 2 is over",
            **about,
        },
    ]


async def test_the_way_of_a_letter_is_that_of_its_message(rig: Rig) -> None:
    rig.consumer()
    await insert_letters(rig)
    await insert_letters(rig, kind="Forgotten")
    known, unknown = [letter_of(row) for row in await rig.dead()]

    assert store(rig).route(known) == ("test", "number.counted", "counter", None)
    assert store(rig).route(unknown)[:3] == (None, None, None)


async def test_nothing_is_done_by_a_process_that_does_not_own_the_database(rig: Rig) -> None:
    letters = await give_up(rig, 1)
    rig.is_owned = False
    for handle in (store(rig).replay, store(rig).discard):
        with pytest.raises(DatabaseUnavailable):
            await handle(letters, "ann")
    assert len(await rig.dead()) == 1
