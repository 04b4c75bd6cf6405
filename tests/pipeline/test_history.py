"""What became of a rule's events over a time: counted exactly, evaluated again within bounds, and honest about both."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from attune.base.clock import SystemClock
from attune.catalog.model import Rule
from attune.engine import Engine
from attune.rules.history import COUNTED, EVALUATED, History, Reason, Reasons, history
from tests.pipeline.shop import new_rule, new_trigger, rows, settled
from tests.support.clock import VirtualClock
from tests.support.engines import emit

DAY = timedelta(days=1)


async def told(engine: Engine, rule: Rule, *, since: timedelta = DAY, has_timer: bool = False) -> History:
    clock = SystemClock()
    async with engine.database.acquire() as connection:
        return await history(connection, rule, clock.now() - since, clock, has_timer=has_timer)


async def happened(engine: Engine, trigger: str, *payloads: Any) -> list[int]:
    """The ids of events with these payloads, when nothing is to be done about them any more."""
    found = [await emit(engine, trigger, payload) for payload in payloads]
    for event in found:
        await settled(engine, event)
    return found


def counted(reasons: list[Reason]) -> list[tuple[str, int]]:
    return [(reason.text, reason.count) for reason in reasons]


# Conditions, a payload, and the clause that the history names.
DECIDED: list[tuple[str, Any, dict[str, Any], str]] = [
    (
        "the first that failed of a list",
        [
            {"field": "item", "operator": "equals", "value": "tea"},
            {"field": "price", "operator": "less_than", "value": 3},
        ],
        {"item": "tea", "price": 5},
        "price less_than 3",
    ),
    (
        "all of a group of which one would do",
        {
            "any": [
                {"field": "a", "operator": "equals", "value": 1},
                {"all": [{"field": "b", "operator": "equals", "value": 2}, {"field": "c", "operator": "exists"}]},
            ]
        },
        {"a": 0},
        "a equals 1 or (b equals 2 and c exists true)",
    ),
    ("a part of an expression", {"expression": "event.payload.a and event.payload.b > 1"}, {"a": 1, "b": 1}, "b > 1"),
    ("what was denied", {"expression": "not event.payload.a"}, {"a": 1}, "not event.payload.a"),
]


@pytest.mark.parametrize(("conditions", "payload", "clause"), [row[1:] for row in DECIDED], ids=[r[0] for r in DECIDED])
async def test_the_clause_that_decided_is_named(
    engine: Engine, conditions: Any, payload: dict[str, Any], clause: str
) -> None:
    trigger = new_trigger()
    rule = await new_rule(engine, trigger, conditions=conditions)
    await happened(engine, trigger, payload)

    (reason,) = (await told(engine, rule)).not_matched.listed()

    assert reason.text.removeprefix("event.payload.") == clause


async def test_every_event_is_counted_once_by_what_became_of_it(engine: Engine) -> None:
    trigger = new_trigger()
    rule = await new_rule(
        engine,
        trigger,
        "shop.charge",
        conditions={"expression": "event.payload.n > 0 and event.payload.item == 'tea'"},
        action_params={"amount": "{{ 10 - event.payload.n }}", "currency": "{{ 1 / (event.payload.n - 5) }}"},
    )
    none, coffee, _, milk, broken, ok = await happened(
        engine,
        trigger,
        {"n": 0},
        {"n": 1, "item": "coffee"},
        {"n": 1, "item": "water"},
        {"n": 1},
        {"n": "x"},
        {"n": 2, "item": "tea"},
    )
    (unfilled,) = await happened(engine, trigger, {"n": 5, "item": "tea"})
    await engine.rules.update(rule.ref, {"enabled": False})
    await happened(engine, trigger, {"n": 2, "item": "tea"})

    found = await told(engine, rule)

    assert (found.events, found.fired, found.waiting, found.disabled, found.unexamined) == (8, 2, 0, 1, 0)
    assert found.complete
    assert counted(found.not_matched.listed()) == [
        ('event.payload.item == "tea"', 3),
        ("event.payload.n > 0", 1),
    ]
    often, once = found.not_matched.listed()
    # The newest of them, and what was there then.
    assert (often.event, often.actual, often.actual_missing) == (milk, None, True)
    assert (once.event, once.actual, once.actual_missing) == (none, 0, False)
    (error,) = found.errors.listed()
    assert (error.event, error.count, "no order" in error.text) == (broken, 1, True)
    (unfilled_reason,) = found.not_run.listed()
    assert (unfilled_reason.event, "the divisor is zero" in unfilled_reason.text) == (unfilled, True)
    assert found.last_fired == unfilled > ok > coffee
    assert sum(found.executions.values()) == 1


async def test_executions_are_counted_by_how_they_ended_with_the_reasons(engine: Engine) -> None:
    trigger = new_trigger()
    rule = await new_rule(engine, trigger, "shop.charge", action_params={"amount": "{{ event.payload.n }}"})
    *_, last = await happened(engine, trigger, {"n": 1}, {"n": -1}, {"n": -1})

    found = await told(engine, rule)

    assert found.executions == {"completed": 1, "failed": 2}
    (failure,) = found.failures.listed()
    assert (failure.count, failure.event, "/amount" in failure.text) == (2, last, True)


async def test_what_came_before_the_rule_or_long_ago_is_not_counted(engine: Engine) -> None:
    trigger = new_trigger()
    (early,) = await happened(engine, trigger, {"n": 1})
    rule = await new_rule(engine, trigger, conditions={"expression": "event.payload.n == 2"})

    before = await told(engine, rule)
    (late,) = await happened(engine, trigger, {"n": 1})
    after, nothing = await told(engine, rule), await told(engine, rule, since=timedelta(days=-1))

    assert (before.events, before.newest and before.newest[0]) == (0, early)
    assert (after.events, counted(after.not_matched.listed())) == (1, [("event.payload.n == 2", 1)])
    assert (nothing.events, nothing.newest and nothing.newest[0]) == (0, late)


async def test_what_is_counted_is_the_rule_as_it_was_at_each_event(engine: Engine) -> None:
    trigger = new_trigger()
    rule = await new_rule(engine, trigger, conditions={"expression": "event.payload.n == 1"})
    await happened(engine, trigger, {"n": 0})
    await engine.rules.update(rule.ref, {"conditions": {"expression": "event.payload.n == 2"}})
    await happened(engine, trigger, {"n": 0})

    found = await told(engine, rule)

    assert sorted(counted(found.not_matched.listed())) == [("event.payload.n == 1", 1), ("event.payload.n == 2", 1)]


async def test_a_rule_with_a_timer_is_told_from_its_own_events(engine: Engine) -> None:
    """Of a timer's trigger there may be thousands of rules; nobody reads the events of all of them."""
    interval = {"unit": "hours", "interval": 1}
    mine, other = [await new_rule(engine, "core.intervaltimer", trigger_params=interval) for _ in range(2)]
    now = SystemClock().now()
    for rule, hours in ((mine, (1, 2, 30)), (other, (1, 2, 3))):
        for hour in hours:
            await _fired(engine, rule, now - timedelta(hours=hour))

    found = await told(engine, mine, has_timer=True)

    assert (found.events, found.fired) == (2, 0)
    # The rule has no conditions: what was not matched was not because of them.
    assert (found.waiting, found.not_matched.listed()) == (2, [])


async def _fired(engine: Engine, rule: Rule, instant: datetime) -> None:
    await rows(
        engine,
        """
        INSERT INTO attune.event (trigger, trigger_ref, source_ref, rule, scheduled_at, correlation_id, depth, created)
        VALUES (1, $1, 'test', $2, $3, gen_random_uuid(), 0, $3)
        """,
        rule.trigger_ref,
        rule.id,
        instant,
    )


async def test_of_a_hundred_thousand_events_all_are_counted_and_the_newest_are_evaluated(engine: Engine) -> None:
    trigger = new_trigger()
    rule = await new_rule(engine, trigger, conditions={"expression": "event.payload.n == 1"})
    await _many(engine, trigger, COUNTED + 1)

    found = await told(engine, rule)

    assert (found.events, found.complete) == (COUNTED, False)
    assert counted(found.not_matched.listed()) == [("event.payload.n == 1", EVALUATED)]
    assert (found.unexamined, found.fired) == (COUNTED - EVALUATED, 0)


async def test_evaluating_ends_when_it_takes_too_long(engine: Engine) -> None:
    class Hurried(VirtualClock):
        """Every look at it takes four seconds."""

        def monotonic(self) -> float:
            self.advance(4)
            return super().monotonic()

    trigger = new_trigger()
    rule = await new_rule(engine, trigger, conditions={"expression": "event.payload.n == 1"})
    await _many(engine, trigger, 100)

    async with engine.database.acquire() as connection:
        found = await history(connection, rule, SystemClock().now() - DAY, Hurried(), has_timer=False)

    (reason,) = found.not_matched.listed()
    assert 0 < reason.count < 100
    assert (found.events, found.unexamined) == (100, 100 - reason.count)


def test_reasons_that_are_all_different_do_not_pile_up() -> None:
    reasons = Reasons()
    for number in range(300):
        reasons.add(f"exit code 1: {number} is no number", number)

    assert len(reasons.listed()) == 51
    assert counted(reasons.listed())[0] == ("for other reasons", 250)


async def _many(engine: Engine, trigger: str, count: int) -> None:
    """Events that the matcher took and no rule matched."""
    await rows(
        engine,
        """
        WITH new AS (
            INSERT INTO attune.event (trigger, trigger_ref, source_ref, payload, correlation_id, depth, created)
            SELECT 1, $1, 'test', '{"n": 0}', gen_random_uuid(), 0, now()
              FROM generate_series(1, $2::int)
            RETURNING id
        )
        INSERT INTO attune.event_match (event, definition_version, rules, matched, failed, created)
        SELECT id, (SELECT version FROM attune.definition_version), 1, 0, 0, now() FROM new
        """,
        trigger,
        count,
    )
