"""Rules that fire themselves are stopped, with an explanation; chains that take their time are not."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from attune.base.traces import Parent
from attune.bus.messages import Cause
from attune.catalog.model import Rule
from attune.database.ids import uuid7
from attune.database.pool import Database
from attune.engine import Engine
from attune.events.model import ALERT, NewEvent
from attune.executions import queries as executions
from attune.executions.model import Origin
from attune.rules.explain import explain
from attune.rules.history import history
from tests.pipeline.shop import SHOP, new_rule, new_trigger, rows, settled
from tests.pipeline.test_alerts import alerts, until_over
from tests.support.clock import START, VirtualClock
from tests.support.engines import emit, engine_on, pack

MOST = 3


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def engine(shared_database: Database, tmp_path: Path, clock: VirtualClock) -> AsyncIterator[Engine]:
    settings = {"rules": {"max_loops": MOST}}
    packs = [pack(tmp_path, "shop", SHOP)]
    async with (
        engine_on(shared_database, tmp_path, packs=packs, clock=clock, settings=settings) as engine,
        engine.running(),
    ):
        yield engine


async def origin(engine: Engine, execution: int) -> Origin:
    """Where that comes from which an execution asks for."""
    (row,) = await rows(engine, "SELECT correlation_id FROM attune.execution WHERE id = $1", execution)
    async with engine.database.acquire() as connection:
        found = await executions.origin(connection, Parent(row["correlation_id"], execution))
    assert found is not None
    return found


async def caused(engine: Engine, execution: int, trigger: str) -> int:
    """The id of an event that an execution causes."""
    where = await origin(engine, execution)
    definition = engine.definitions.triggers.by_ref[trigger]
    new = NewEvent(definition.id, trigger, None, "test", where.cause, execution=where.execution)
    return (await engine.ingest.accept(new)).id


async def fired(engine: Engine, event: int) -> list[int]:
    """The executions that follow from an event."""
    return [row["id"] for row in await settled(engine, event) if row["id"] is not None]


async def turn(engine: Engine, rule: Rule, times: int) -> int:
    """The last event of a chain in which the action of a rule causes, so many times, the event that fires it."""
    event = await emit(engine, rule.trigger_ref)
    for _ in range(times):
        (execution,) = await fired(engine, event)
        event = await caused(engine, execution, rule.trigger_ref)
    return event


async def test_a_rule_that_fires_itself_is_stopped_with_the_reason(engine: Engine) -> None:
    rule = await new_rule(engine, new_trigger())

    event = await turn(engine, rule, MOST)

    (row,) = await settled(engine, event)
    assert (row["enforcement_status"], row["id"]) == ("failed", None)
    ran = await rows(engine, "SELECT id FROM attune.execution ORDER BY id")
    assert len(ran) == MOST
    assert row["reason"] == (
        f"a loop: the rule {rule.ref} has caused the event that fires it {MOST} times within 0 s, through executions "
        f"{', '.join(str(one['id']) for one in ran)}, and is stopped here; rules.max_loops sets how often it may"
    )


async def test_both_ways_to_ask_why_tell_of_the_loop(engine: Engine, clock: VirtualClock) -> None:
    rule = await new_rule(engine, new_trigger())
    event = await turn(engine, rule, MOST)
    (row,) = await settled(engine, event)

    async with engine.database.acquire() as connection:
        explanation = await explain(connection, event, clock.now())
        found = await history(connection, rule, START, clock, has_timer=False)

    assert explanation is not None
    (one,) = explanation.rules
    assert one.consequence is not None
    assert one.consequence.reason == row["reason"]
    assert [(reason.text, reason.event) for reason in found.not_run.listed()] == [(row["reason"], event)]


async def test_what_takes_its_time_is_not_stopped(engine: Engine, clock: VirtualClock) -> None:
    rule = await new_rule(engine, new_trigger())
    event = await emit(engine, rule.trigger_ref)

    for _ in range(3 * MOST):
        (execution,) = await fired(engine, event)
        clock.advance(21)
        event = await caused(engine, execution, rule.trigger_ref)

    assert len(await fired(engine, event)) == 1


async def test_two_rules_that_fire_each_other_are_stopped(engine: Engine) -> None:
    ping, pong = await new_rule(engine, new_trigger()), await new_rule(engine, new_trigger())
    event, ran = await emit(engine, ping.trigger_ref), 0

    while execution := await fired(engine, event):
        ran += 1
        assert ran <= 2 * MOST
        event = await caused(engine, execution[0], (pong if ran % 2 else ping).trigger_ref)

    assert ran == 2 * MOST
    (row,) = await settled(engine, event)
    assert row["reason"].startswith(f"a loop: the rule {ping.ref} ")


async def test_a_loop_that_doubles_is_stopped(engine: Engine) -> None:
    rule = await new_rule(engine, new_trigger())
    events = [await emit(engine, rule.trigger_ref)]
    generations = []

    while executions_now := [execution for event in events for execution in await fired(engine, event)]:
        generations.append(len(executions_now))
        assert len(generations) <= MOST
        events = [await caused(engine, one, rule.trigger_ref) for one in executions_now for _ in range(2)]

    assert generations == [1, 2, 4]


async def test_a_loop_through_an_execution_that_another_asks_for_is_stopped(engine: Engine) -> None:
    rule = await new_rule(engine, new_trigger())
    event, ran = await emit(engine, rule.trigger_ref), 0

    while execution := await fired(engine, event):
        ran += 1
        assert ran <= MOST
        child = await engine.requests.execute("core.noop", {}, None, origin=await origin(engine, execution[0]))
        await until_over(engine)
        event = await caused(engine, child, rule.trigger_ref)

    assert ran == MOST


async def test_a_rule_that_only_stands_at_the_end_of_a_loop_is_not_stopped(engine: Engine) -> None:
    looping = await new_rule(engine, new_trigger())
    event = await turn(engine, looping, MOST - 1)
    (execution,) = await fired(engine, event)
    innocent = await new_rule(engine, looping.trigger_ref)

    last = await caused(engine, execution, looping.trigger_ref)

    statuses = {row["rule"]: row["enforcement_status"] for row in await settled(engine, last)}
    assert statuses == {looping.id: "failed", innocent.id: "processed"}


async def test_of_a_rule_that_was_stopped_people_are_told(engine: Engine) -> None:
    rule = await new_rule(engine, new_trigger())
    await settled(engine, event := await turn(engine, rule, MOST))

    assert await engine.alerts.once() == 1

    (alert,) = await alerts(engine)
    assert (alert["kind"], alert["subject"], alert["rule"], alert["event"]) == (
        "loop",
        f"rule:{rule.ref}",
        rule.ref,
        event,
    )
    assert alert["message"] == (
        f"The rule {rule.ref} causes the events that fire it; it was stopped once, at last for event {event}."
    )
    # Within the hour there is no more than one.
    await settled(engine, await turn(engine, rule, MOST))
    assert await engine.alerts.once() == 0


async def test_a_loop_that_an_alert_has_caused_is_stopped_and_raises_none(engine: Engine) -> None:
    rule = await new_rule(engine, new_trigger())
    await new_rule(engine, ALERT)
    await settled(engine, await turn(engine, rule, MOST))
    assert await engine.alerts.once() == 1
    (alert,) = await alerts(engine)
    (execution,) = await fired(engine, alert["id"])
    other = await new_rule(engine, new_trigger())

    event = await caused(engine, execution, other.trigger_ref)
    for _ in range(MOST):
        (execution,) = await fired(engine, event)
        event = await caused(engine, execution, other.trigger_ref)

    (row,) = await settled(engine, event)
    assert row["enforcement_status"] == "failed"
    assert await engine.alerts.once() == 0


async def test_only_what_is_named_in_its_own_chain_is_an_origin(engine: Engine) -> None:
    rule = await new_rule(engine, new_trigger())
    (execution,) = await fired(engine, await emit(engine, rule.trigger_ref))
    (row,) = await rows(engine, "SELECT * FROM attune.execution WHERE id = $1", execution)
    chain = row["correlation_id"]

    async with engine.database.acquire() as connection:
        known = await executions.origin(connection, Parent(chain, execution))
        assert await executions.origin(connection, Parent(uuid7(), execution)) is None
        assert await executions.origin(connection, Parent(chain, execution + 1)) is None

    assert known == Origin(execution, Cause(chain, row["causation_id"], row["depth"] + 1))
