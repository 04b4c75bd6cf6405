"""The metrics of a pipeline agree with its rows."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from attune.bus.messages import Cause, EnforcementCreated
from attune.database.embedded import Cluster
from attune.database.ids import uuid7
from attune.engine import Engine
from attune.telemetry.families import Family
from tests.docs.reference import FAMILIES
from tests.pipeline.shop import SHOP, TRIGGERS, new_rule, rows, settled
from tests.support.databases import new_database, pool_on
from tests.support.engines import emit, engine_on, pack
from tests.support.scrapes import Scrape
from tests.support.waiting import eventually

GOOD, REFUSED, POISON = TRIGGERS[:3]


@pytest.fixture(scope="module")
async def engine(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    """An engine that has stopped: executions went through it, and a failed attempt, and a dead letter."""
    folder: Path = tmp_path_factory.mktemp("engine")
    async with (
        new_database(cluster) as dsn,
        pool_on(dsn) as database,
        engine_on(database, folder, packs=[pack(folder, "shop", SHOP)]) as engine,
    ):
        async with engine.running():
            await new_rule(engine, GOOD)
            await new_rule(engine, REFUSED, "shop.charge", action_params={"amount": "{{ event.payload.n }}"})
            for event in [await emit(engine, trigger, {"n": -1}) for trigger in (GOOD, GOOD, GOOD, REFUSED)]:
                await settled(engine, event)
            await engine.requests.execute("core.noop", {}, None)
            await _reject(engine)
            await _fail(engine)
            completed = engine.bus.counters.of("attune.execution.completed.queue")
            await eventually(lambda: completed.done == 5)
        yield engine


@pytest.fixture
async def scrape(engine: Engine) -> Scrape:
    return Scrape(await engine.metrics.text())


async def _reject(engine: Engine) -> None:
    """A message about nothing: a dead letter at once."""
    message = EnforcementCreated(enforcement_id=10**15, event_id=1, rule_id=1, rule_ref="a.b", trigger_ref="a.b")
    async with engine.bus.transaction() as transaction:
        transaction.publish(message, Cause(uuid7(), None, 0), "test")
    await eventually(lambda: engine.bus.counters.of("attune.executions.queue").dead == 1)


async def _fail(engine: Engine) -> None:
    """An event whose enforcement cannot be stored: it is to be tried again."""
    await rows(engine, f"ALTER TABLE attune.enforcement ADD CHECK (trigger_ref <> '{POISON}')")
    await new_rule(engine, POISON)
    await emit(engine, POISON)
    await eventually(lambda: engine.bus.counters.of("attune.events.queue").retried > 0)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
async def test_every_family_is_told_with_its_kind_its_text_and_its_labels(scrape: Scrape, family: Family) -> None:
    told = scrape.families[family.name.removesuffix("_total")]

    assert (told.type, told.documentation) == (family.kind, family.text)
    assert {frozenset(one.labels) - {"le"} for one in told.samples} == {frozenset(family.labels)}


async def test_nothing_is_told_that_the_table_of_families_does_not_know(scrape: Scrape) -> None:
    own = {name for name in scrape.families if not name.startswith(("process_", "python_"))}
    assert own == {family.name.removesuffix("_total") for family in FAMILIES}


async def test_executions_are_counted_by_how_they_ended_and_by_their_action(scrape: Scrape, engine: Engine) -> None:
    found = await rows(engine, "SELECT action_ref, status, count(*) FROM attune.execution GROUP BY 1, 2")

    counted = {(row["action_ref"], row["status"]): row["count"] for row in found}
    assert scrape["attune_executions_ended_total"] == counted
    assert counted == {("core.noop", "completed"): 4, ("shop.charge", "failed"): 1}


async def test_from_event_to_start_is_what_the_rows_say(scrape: Scrape, engine: Engine) -> None:
    (row,) = await rows(
        engine,
        """
        SELECT count(*), sum(extract(epoch FROM e.started_at - v.created))::float8 AS seconds
          FROM attune.execution e
          JOIN attune.enforcement n ON n.id = e.enforcement
          JOIN attune.event v ON v.id = n.event
         WHERE e.started_at IS NOT NULL
        """,
    )

    # Neither the one that was refused nor the one that a person asked for.
    assert scrape["attune_event_to_start_seconds_count"] == {(): 3} == {(): row["count"]}
    assert scrape["attune_event_to_start_seconds_sum"][()] == pytest.approx(row["seconds"])


async def test_hops_are_those_of_the_trace(scrape: Scrape, engine: Engine) -> None:
    found = await rows(
        engine,
        """
        SELECT consumer, count(*), sum(extract(epoch FROM done_at - published_at))::float8 AS seconds
          FROM attune.trace WHERE outcome = 'done' GROUP BY consumer
        """,
    )

    counted, seconds = scrape["attune_bus_hop_seconds_count"], scrape["attune_bus_hop_seconds_sum"]
    assert {labels: count for labels, count in counted.items() if count} == {
        (row["consumer"],): row["count"] for row in found
    }
    # The trace is written just before the commit.
    for row in found:
        assert row["seconds"] <= seconds[row["consumer"],] < row["seconds"] + 10


async def test_outcomes_are_those_of_the_trace(scrape: Scrape, engine: Engine) -> None:
    found = await rows(engine, "SELECT message_type, queue, outcome, count(*) FROM attune.trace GROUP BY 1, 2, 3")

    told = {
        (*labels, outcome): count
        for name, outcome in (("done", "done"), ("retried", "retry"), ("dead", "dead"))
        for labels, count in scrape[f"attune_bus_{name}_total"].items()
        if count
    }
    assert told == {(row["message_type"], row["queue"], row["outcome"]): row["count"] for row in found}
    assert {outcome for _, _, outcome in told} == {"done", "retry", "dead"}


async def test_what_is_left_is_told(scrape: Scrape) -> None:
    waiting = {labels: count for labels, count in scrape["attune_bus_waiting"].items() if count}
    assert waiting == {("EventCreated", "attune.events.queue"): 1}
    assert scrape["attune_bus_dead_letters"] == {(): 1}
    assert set(scrape["attune_bus_rescued_total"].values()) == {0}


async def test_slots_and_connections_are_told(scrape: Scrape, engine: Engine) -> None:
    assert scrape["attune_worker_slots"] == {(): 32}
    assert scrape["attune_worker_slots_busy"] == {(): 0}
    assert scrape["attune_database_connections_max"] == {(): 8}
    assert 1 <= scrape["attune_database_connections"][()] <= 8
    assert scrape["attune_database_connections_idle"][()] <= scrape["attune_database_connections"][()]
    assert scrape["attune_event_loop_lag_seconds_count"][()] > 0
