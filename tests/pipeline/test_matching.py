"""Which rules an event matches, and what they give their actions."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from attune.base.json import Json, JsonObject
from attune.bus.consumers import ConsumerLoop
from attune.bus.messages import Cause, EnforcementCreated
from attune.catalog import queries as catalog
from attune.catalog.model import Rule
from attune.database.ids import uuid7
from attune.database.pool import Database
from attune.engine import Engine
from attune.executions import enforcement_queries
from attune.executions.model import NewEnforcement
from tests.pipeline.shop import SHOP, matched, new_rule, new_trigger, outcome, parameters, rows, settled
from tests.support.engines import emit, engine_on, pack, rule

# Candidates


async def test_an_event_is_for_all_enabled_rules_of_its_trigger_and_for_no_other(engine: Engine) -> None:
    trigger, other = new_trigger(), new_trigger()
    ours = [await new_rule(engine, trigger) for _ in range(3)]
    await new_rule(engine, trigger, enabled=False)
    await new_rule(engine, other)

    assert await matched(engine, await emit(engine, trigger)) == [rule.id for rule in ours]


async def test_t70_an_event_that_names_a_rule_is_for_that_rule_alone(engine: Engine) -> None:
    trigger = new_trigger()
    named = await new_rule(engine, trigger)
    await new_rule(engine, trigger)

    assert await matched(engine, await emit(engine, trigger, rule=named.id)) == [named.id]


@pytest.mark.parametrize("fate", ["deleted", "disabled", "given another trigger", "never made"])
async def test_t70_an_event_for_a_rule_that_is_gone_is_for_nobody(engine: Engine, fate: str) -> None:
    trigger = new_trigger()
    named, other = await new_rule(engine, trigger), await new_rule(engine, trigger)
    number = named.id
    match fate:
        case "deleted":
            await engine.rules.delete(named.ref)
        case "disabled":
            await engine.rules.update(named.ref, {"enabled": False})
        case "given another trigger":
            await engine.rules.update(named.ref, {"trigger_ref": new_trigger()})
        case _:
            number = 10**15

    assert await matched(engine, await emit(engine, trigger, rule=number)) == []
    assert await matched(engine, await emit(engine, trigger, rule=other.id)) == [other.id]


async def test_an_event_without_rules_is_taken_all_the_same(engine: Engine) -> None:
    assert await matched(engine, await emit(engine, new_trigger())) == []


async def test_an_event_is_matched_by_the_rules_as_they_were_answered_before_it(engine: Engine) -> None:
    """T-21: lifecycle messages are hints; what counts is read in the transaction of the batch."""
    trigger = new_trigger()
    for round_ in range(10):
        made = await new_rule(engine, trigger)
        assert await matched(engine, await emit(engine, trigger)) == [made.id], round_
        changed = await engine.rules.update(made.ref, {"conditions": [{"field": "a", "operator": "exists"}]})
        assert await matched(engine, await emit(engine, trigger, {"b": 1})) == []
        assert await matched(engine, await emit(engine, trigger, {"a": 1})) == [changed.rule.id]
        await engine.rules.delete(made.ref)
        assert await matched(engine, await emit(engine, trigger, {"a": 1})) == []


async def test_the_matcher_needs_no_hint_to_see_what_was_answered(database: Database, tmp_path: Path) -> None:
    """T-21: here nobody listens to RuleChanged."""
    trigger = new_trigger()
    async with engine_on(database, tmp_path, packs=[pack(tmp_path, "shop", SHOP)]) as engine:
        matcher = next(loop for loop in engine._loops if isinstance(loop, ConsumerLoop))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(engine.writer.run)
            tasks.start_soon(matcher.run)
            made = await new_rule(engine, trigger)
            assert await matched(engine, await emit(engine, trigger)) == [made.id]
            await engine.rules.update(made.ref, {"conditions": [{"field": "a", "operator": "exists"}]})
            assert await matched(engine, await emit(engine, trigger, {"b": 1})) == []
            assert await matched(engine, await emit(engine, trigger, {"a": 1})) == [made.id]
            await engine.rules.delete(made.ref)
            assert await matched(engine, await emit(engine, trigger, {"a": 1})) == []
            tasks.cancel_scope.cancel()


# Conditions

LEVEL: list[Json] = [{"field": "level", "operator": "equals", "value": "error"}]

# Conditions, a payload, and whether the rule matches.
CONDITIONS: list[tuple[Json, JsonObject | None, bool]] = [
    ([], None, True),
    ([], {"level": "info"}, True),
    ({}, {}, True),
    (None, {}, True),
    (LEVEL, {"level": "error"}, True),
    (LEVEL, {"level": "info"}, False),
    (LEVEL, {}, False),  # T-73: missing is missing, no error and no match
    (LEVEL, None, False),  # T-73: and a null payload is no match either
    ([{"field": "level", "operator": "not_equals", "value": "error"}], {}, False),  # it does not differ either
    ([{"field": "level", "operator": "exists", "value": False}], {}, True),
    ([*LEVEL, {"field": "n", "operator": "greater_than", "value": 3}], {"level": "error", "n": 3}, False),
    ([*LEVEL, {"field": "n", "operator": "greater_than", "value": 3}], {"level": "error", "n": 4}, True),
    ({"any": [*LEVEL, {"field": "n", "operator": "in", "value": [1, 2]}]}, {"n": 2}, True),
    ({"any": [*LEVEL, {"field": "n", "operator": "in", "value": [1, 2]}]}, {"n": 3}, False),
    ({"expression": "event.payload.level == 'error'"}, {"level": "error"}, True),
    ({"expression": "event.payload.level == 'error'"}, {}, False),
    ({"expression": "event.payload.level == 'error'"}, None, False),
    ({"expression": "event.trigger_ref and event.id > 0"}, None, True),
]


async def test_conditions_decide(engine: Engine) -> None:
    expected = []
    for conditions, payload, holds in CONDITIONS:
        trigger = new_trigger()
        rule = await new_rule(engine, trigger, conditions=conditions)
        event = await emit(engine, trigger, payload)
        expected.append((event, [rule.id] if holds else [], (conditions, payload)))
    for event, rules, case in expected:
        assert await matched(engine, event) == rules, case


async def test_t06_a_condition_that_errs_is_recorded_and_stops_no_other_rule(engine: Engine) -> None:
    trigger = new_trigger()
    first = await new_rule(engine, trigger)
    await new_rule(engine, trigger, conditions={"expression": "event.payload.n / 0 > 1"})
    last = await new_rule(engine, trigger)
    event = await emit(engine, trigger, {"n": 1})

    assert await matched(engine, event) == [first.id, last.id]
    (record,) = await rows(engine, "SELECT rules, matched, failed FROM attune.event_match WHERE event = $1", event)
    assert dict(record) == {"rules": 3, "matched": 2, "failed": 1}


async def test_conditions_that_were_stored_by_somebody_else_stop_no_other_rule(engine: Engine) -> None:
    """A rule that an earlier release took, or that somebody wrote with psql."""
    trigger = new_trigger()
    broken, whole = await new_rule(engine, trigger), await new_rule(engine, trigger)
    await rows(engine, "UPDATE attune.rule SET conditions = '[{\"field\": 1}]' WHERE id = $1", broken.id)
    await _new_revision(engine, broken)

    assert await matched(engine, await emit(engine, trigger)) == [whole.id]


# Parameters


async def test_templates_take_values_from_the_event_the_pack_and_the_rule(engine: Engine) -> None:
    trigger = new_trigger()
    rule = await new_rule(
        engine,
        trigger,
        "core.echo",
        action_params={
            "message": "{{ event.payload.item }} for {{ event.payload.price }} {{ pack.config.currency }}",
            "data": ["{{ event.payload.price }}", "{{ event.payload.nothing }}", "{{ system.rule.ref }}", "plain"],
        },
    )

    given = await parameters(engine, trigger, {"item": "tea", "price": 2.5})

    assert given == {"message": "tea for 2.5 EUR", "data": [2.5, None, rule.ref, "plain"]}


async def test_defaults_of_the_action_complete_the_parameters(engine: Engine) -> None:
    trigger = new_trigger()
    await new_rule(engine, trigger, "shop.charge", action_params={"amount": "{{ event.payload.n }}"})

    assert await parameters(engine, trigger, {"n": 3}) == {"amount": 3, "currency": "EUR"}


async def test_templates_that_cannot_be_filled_in_fail_the_enforcement_and_nothing_is_run(engine: Engine) -> None:
    """T-06: the rule matched, so that it came to nothing is to be seen."""
    trigger = new_trigger()
    broken = await new_rule(engine, trigger, action_params={"message": "{{ event.payload.n / 0 }}"}, action="core.echo")
    whole = await new_rule(engine, trigger)

    failed, completed = await outcome(engine, trigger, {"n": 1})

    assert (failed["rule"], failed["enforcement_status"], failed["id"]) == (broken.id, "failed", None)
    assert failed["reason"] == "the parameters cannot be filled in: In `event.payload.n / 0`: the divisor is zero."
    assert (completed["rule"], completed["status"]) == (whole.id, "completed")


async def test_an_enforcement_that_failed_is_closed_and_sends_no_message(engine: Engine) -> None:
    trigger = new_trigger()
    await new_rule(engine, trigger, "core.echo", action_params={"message": "{{ -event.payload.n }}"})
    event = await emit(engine, trigger, {"n": "x"})
    await settled(engine, event)

    (enforcement,) = await rows(engine, "SELECT * FROM attune.enforcement WHERE event = $1", event)
    assert enforcement["resolved_at"] == enforcement["created"]
    sent = await rows(
        engine,
        "SELECT message_type FROM attune.trace WHERE correlation_id = $1 UNION ALL "
        "SELECT message_type FROM attune.delivery WHERE correlation_id = $1",
        enforcement["correlation_id"],
    )
    assert [row["message_type"] for row in sent] == ["EventCreated"]


async def test_parameters_that_do_not_fit_the_action_fail_the_execution_with_the_place(engine: Engine) -> None:
    trigger = new_trigger()
    await new_rule(engine, trigger, "shop.charge", action_params={"amount": "{{ event.payload.n }}"})

    (row,) = await outcome(engine, trigger, {"n": "a lot"})

    assert (row["enforcement_status"], row["status"]) == ("processed", "failed")
    assert "do not fit shop.charge: /amount: " in row["result"]


async def test_t93_an_execution_is_credited_to_the_owner_of_its_rule_or_to_nobody(engine: Engine) -> None:
    trigger = new_trigger()
    (identity,) = await rows(
        engine,
        "INSERT INTO attune.identity (login, created, updated) VALUES ($1, now(), now()) RETURNING id",
        trigger,
    )
    spec = rule("shop.owned", trigger, "core.noop")
    owned = (await engine.rules.create(spec, identity["id"])).rule
    nobodys = await new_rule(engine, trigger)
    event = await emit(engine, trigger)
    await settled(engine, event)

    found = await rows(
        engine,
        "SELECT n.rule, e.executor FROM attune.execution e JOIN attune.enforcement n ON n.id = e.enforcement "
        "WHERE n.event = $1",
        event,
    )
    assert {row["rule"]: row["executor"] for row in found} == {owned.id: identity["id"], nobodys.id: None}


# Changes between the match and its consequences


async def _delete(engine: Engine, rule: Rule) -> None:
    await engine.rules.delete(rule.ref)


async def _disable(engine: Engine, rule: Rule) -> None:
    await engine.rules.update(rule.ref, {"enabled": False})


async def _lose_the_action(engine: Engine, rule: Rule) -> None:
    await rows(engine, "UPDATE attune.rule SET action_ref = 'shop.gone', action = NULL WHERE id = $1", rule.id)
    await _new_revision(engine, rule)


async def _lose_the_trigger(engine: Engine, rule: Rule) -> None:
    await rows(engine, "UPDATE attune.rule SET trigger_ref = 'shop.gone', trigger = NULL WHERE id = $1", rule.id)
    await _new_revision(engine, rule)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_delete, "the rule {ref} was deleted"),
        (_disable, "the rule {ref} was disabled"),
        (_lose_the_action, "there is no action shop.gone"),
        (_lose_the_trigger, "there is no trigger shop.gone"),
    ],
)
async def test_an_enforcement_whose_rule_is_not_what_it_was_is_disabled_with_the_reason(
    engine: Engine, change: Callable[[Engine, Rule], Awaitable[None]], reason: str
) -> None:
    rule = await new_rule(engine, new_trigger())
    await change(engine, rule)

    event = await _enforce(engine, rule)

    (row,) = await settled(engine, event)
    assert (row["enforcement_status"], row["reason"], row["id"]) == ("disabled", reason.format(ref=rule.ref), None)


async def _new_revision(engine: Engine, rule: Rule) -> None:
    """Make known what was written behind the back of Attune."""
    async with engine.bus.transaction() as transaction:
        version = await catalog.raise_version(transaction.connection)
        await catalog.record_revision(transaction.connection, version, "rule", rule.id, transaction.now)


async def _enforce(engine: Engine, rule: Rule) -> int:
    """An event that a rule has matched a while ago, with the message about it that only comes now."""
    event = await emit(engine, rule.trigger_ref, rule=10**15)
    cause = Cause(uuid7(), None, 1)
    async with engine.bus.transaction() as transaction:
        new = NewEnforcement(rule.id, rule.ref, rule.trigger_ref, event, "{}", cause)
        ids = await enforcement_queries.insert_enforcements(transaction.connection, [new], transaction.now)
        transaction.publish(
            EnforcementCreated(
                enforcement_id=ids[event, rule.id],
                event_id=event,
                rule_id=rule.id,
                rule_ref=rule.ref,
                trigger_ref=rule.trigger_ref,
            ),
            cause,
            "test",
        )
    return event
