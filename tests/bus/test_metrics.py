"""What the bus tells of itself, in numbers that are right."""

from collections.abc import Sequence

import anyio
import pytest
from prometheus_client import Metric

from attune.bus.bus import Unroutable
from attune.bus.messages import Delivery
from attune.bus.outcomes import DONE, Outcome, Reject, Retry
from attune.bus.transaction import Transaction
from attune.database.pool import Connection
from attune.telemetry.metrics import OTHER
from attune.upkeep.metrics import BusMetrics, Metrics
from tests.bus.parts import ANSWERS, NUMBERS, THINGS, Change, Counted, Rig, ThingChanged, Told, root
from tests.support.clock import VirtualClock
from tests.support.databases import pool_on
from tests.support.scrapes import Scrape
from tests.support.waiting import eventually

# Its labels, in the order of their names.
COUNTED = ("Counted", NUMBERS)


def metrics_of(rig: Rig) -> Metrics:
    metrics, on_bus = Metrics(rig.database), BusMetrics(rig.bus)
    metrics.register(on_bus.collect)
    metrics.register(rig.instruments.collect)
    metrics.register_read(on_bus.read)
    return metrics


async def scraped(rig: Rig) -> Scrape:
    return Scrape(await metrics_of(rig).text())


async def test_a_message_is_published_once_and_routed_to_each_of_its_queues(rig: Rig) -> None:
    await rig.listen()
    await rig.publish(1, 2, 3)
    async with rig.bus.transaction() as transaction:
        transaction.publish(ThingChanged(change=Change.MADE), root(), "test")

    found = await scraped(rig)

    assert {kind: count for kind, count in found["attune_bus_published_total"].items() if count} == {
        ("Counted",): 3,
        ("ThingChanged",): 1,
    }
    assert found["attune_bus_routed_total"] == {("Answered", ANSWERS): 0, COUNTED: 3, ("ThingChanged", THINGS): 1}


async def test_what_a_transaction_published_that_was_rolled_back_is_not_counted(rig: Rig) -> None:
    async def publish() -> None:
        async with rig.bus.transaction() as transaction:
            transaction.publish(Counted(number_id=1), root(), "test")
            transaction.publish(Told(worker_id=7), root(), "test")

    await rig.listen()
    with pytest.raises(Unroutable):
        await publish()

    found = await scraped(rig)

    assert set(found["attune_bus_published_total"].values()) == {0}
    assert found["attune_bus_unroutable_total"]["Told",] == 1


async def test_each_outcome_is_counted_by_queue_and_message_type(rig: Rig) -> None:
    async def judge(transaction: Transaction, batch: Sequence[Delivery[Counted]]) -> Sequence[Outcome]:
        outcomes: dict[int, Outcome] = {10: Retry(1_000, "not yet"), 11: Reject("never")}
        return [outcomes.get(delivery.message.number_id, DONE) for delivery in batch]

    async with rig.consuming(judge):
        await rig.publish(1, 10, 11, 2)
        await eventually(lambda: rig.bus.counters.of(NUMBERS).delivered == 4)
    rig.bus.counters.of(NUMBERS).rescued = 5

    found = await scraped(rig)

    outcomes = ("delivered", "done", "retried", "dead", "rescued")
    assert [found[f"attune_bus_{outcome}_total"][COUNTED] for outcome in outcomes] == [4, 2, 1, 1, 5]
    assert found["attune_bus_dead_letters"] == {(): 1}
    # The one that is to be tried again.
    assert found["attune_bus_waiting"][COUNTED] == 1
    rig.bus.counters.of(NUMBERS).rescued = 0


async def test_a_hop_lasts_from_its_publication_to_its_end(slow_rig: Rig, clock: VirtualClock) -> None:
    rig = slow_rig
    await rig.listen()
    await rig.publish(1, 2)
    clock.advance(4)
    await rig.publish(3)
    clock.advance(3)

    async with rig.consuming():
        await rig.until_effects([1, 2, 3])
        await eventually(lambda: rig.bus.counters.of(NUMBERS).done == 3)

    found = await scraped(rig)
    hops = found["attune_bus_hop_seconds_bucket"]
    assert [hops["counter", bound] for bound in ("2.5", "5.0", "10.0", "+Inf")] == [0, 1, 3, 3]
    assert found["attune_bus_hop_seconds_sum"] == {("counter",): 7 + 7 + 3}
    assert found["attune_bus_handler_seconds_count"] == {("counter",): 1}


async def test_only_what_the_consumer_handles_counts_as_handled(slow_rig: Rig, clock: VirtualClock) -> None:
    """A batch that fails is handled again one by one; to write down who was to blame is none of the consumer's work."""
    rig = slow_rig

    async def poisoned(transaction: Transaction, batch: Sequence[Delivery[Counted]]) -> Sequence[Outcome]:
        clock.advance(2)
        if any(delivery.message.number_id == 13 for delivery in batch):
            raise ArithmeticError
        return [DONE] * len(batch)

    await rig.listen()
    await rig.publish(1, 13)
    async with rig.consuming(poisoned):
        await eventually(lambda: rig.bus.counters.of(NUMBERS).retried == 1)

    found = await scraped(rig)
    assert found["attune_bus_handler_seconds_count"] == {("counter",): 3}
    assert found["attune_bus_handler_seconds_sum"] == {("counter",): 6}
    assert found["attune_bus_hop_seconds_count"] == {("counter",): 1}


async def test_what_waits_is_told_with_its_age_for_every_queue(slow_rig: Rig, clock: VirtualClock) -> None:
    rig = slow_rig
    await rig.listen()
    await rig.publish(1)
    clock.advance(40)
    await rig.publish(2)
    clock.advance(2)

    found = await scraped(rig)

    assert found["attune_bus_waiting"] == {COUNTED: 2, ("Answered", ANSWERS): 0}
    assert found["attune_bus_oldest_seconds"] == {COUNTED: 42, ("Answered", ANSWERS): 0}


async def test_queues_that_nobody_knows_share_a_label(slow_rig: Rig, clock: VirtualClock) -> None:
    """An earlier release may have left some; they are seen, and cannot become thousands of time series."""
    rig = slow_rig
    await rig.listen()
    for number in range(20):
        await rig.insert(number)
        clock.advance(1)
    await rig.execute("UPDATE attune.delivery SET queue = 'gone.' || (payload->>'number_id') || '.queue'")

    found = await scraped(rig)

    assert found["attune_bus_waiting"] == {(OTHER, OTHER): 20, COUNTED: 0, ("Answered", ANSWERS): 0}
    assert found["attune_bus_oldest_seconds"][OTHER, OTHER] == 20


async def test_each_addressed_queue_has_the_type_of_its_row(rig: Rig) -> None:
    for number in (7, 12):
        rig.bus.broker.declare(f"told.{number}.queue")
    # Of no row.
    rig.bus.broker.declare("told.x.queue")

    found = await scraped(rig)

    told = {queue for message, queue in found["attune_bus_delivered_total"] if message == "Told"}
    assert told == {"told.7.queue", "told.12.queue"}


async def test_those_who_ask_at_once_read_one_after_the_other(rig: Rig) -> None:
    metrics = metrics_of(rig)
    reading = 0
    at_once: list[int] = []

    async def read(connection: Connection) -> list[Metric]:
        nonlocal reading
        reading += 1
        at_once.append(reading)
        await connection.execute("SELECT 1")
        reading -= 1
        return []

    metrics.register_read(read)
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(metrics.text)

    assert at_once == [1] * 10


async def test_when_no_connection_is_free_in_time_the_rest_is_told(rig: Rig) -> None:
    async with pool_on(rig.database.dsn, max_connections=1) as database, database.acquire():
        metrics = Metrics(database)
        on_bus = BusMetrics(rig.bus)
        metrics.register(on_bus.collect)
        metrics.register_read(on_bus.read)

        found = Scrape(await metrics.text())

    assert found["attune_database_up"] == {(): 0}
    assert found["attune_bus_published_total"]["Counted",] == 0
    assert "attune_bus_waiting" not in found.families
    assert found["process_start_time_seconds"]
