"""Why a rule fired for an event, or why not: for every rule of the trigger, also when it is not what it was."""

from typing import Any

from attune.base.clock import SystemClock
from attune.base.verdicts import Clause
from attune.engine import Engine
from attune.rules.evaluation import Decision
from attune.rules.explain import Explained, Explanation, explain
from tests.pipeline.shop import matched, new_rule, new_trigger, rows, settled
from tests.support.engines import emit


async def why(engine: Engine, event: int) -> Explanation:
    async with engine.database.acquire() as connection:
        explanation = await explain(connection, event, SystemClock().now())
    assert explanation is not None
    return explanation


async def the_one(engine: Engine, trigger: str, payload: Any = None) -> Explained:
    """What the one rule of a trigger makes of a new event."""
    event = await emit(engine, trigger, payload)
    await settled(engine, event)
    (explained,) = (await why(engine, event)).rules
    return explained


def leaves(clause: Clause | None) -> list[Clause]:
    assert clause is not None
    return [leaf for part in clause.clauses for leaf in leaves(part)] if clause.clauses else [clause]


async def test_a_match_tells_its_parameters_and_what_became_of_it(engine: Engine) -> None:
    trigger = new_trigger()
    rule = await new_rule(
        engine,
        trigger,
        "core.echo",
        conditions=[{"field": "item", "operator": "equals", "value": "tea"}],
        action_params={"message": "{{ event.payload.item }} at {{ system.timestamp }}"},
    )

    explained = await the_one(engine, trigger, {"item": "tea"})

    assert (explained.verdict.rule, explained.verdict.decision) == (rule, Decision.MATCHED)
    assert explained.consequence is not None
    assert (explained.consequence.enforcement_status, explained.consequence.execution_status) == (
        "processed",
        "completed",
    )
    (execution,) = await rows(
        engine, "SELECT config FROM attune.execution WHERE id = $1", explained.consequence.execution
    )
    # To the microsecond: what is computed again is what was computed then.
    assert explained.verdict.parameters is not None
    assert str(explained.verdict.parameters["message"]) in execution["config"]


async def test_no_match_tells_the_clause_with_what_was_expected_and_what_was_there(engine: Engine) -> None:
    trigger = new_trigger()
    await new_rule(
        engine,
        trigger,
        conditions=[
            {"field": "item", "operator": "equals", "value": "tea"},
            {"field": "price", "operator": "less_than", "value": 3},
            {"field": "shop.open", "operator": "equals", "value": True},
        ],
    )

    explained = await the_one(engine, trigger, {"item": "tea", "price": 5})

    assert (explained.verdict.decision, explained.consequence) == (Decision.NOT_MATCHED, None)
    first, second, third = leaves(explained.verdict.clause)
    assert (first.outcome, first.expected, first.actual) == ("true", "tea", "tea")
    assert (second.outcome, second.operator, second.expected, second.actual) == ("false", "less_than", 3, 5)
    assert third.outcome == "skipped"


async def test_t73_no_match_for_want_of_a_field_says_that_it_is_missing(engine: Engine) -> None:
    trigger = new_trigger()
    await new_rule(engine, trigger, conditions=[{"field": "item", "operator": "equals", "value": None}])

    explained = await the_one(engine, trigger, {})

    (clause,) = leaves(explained.verdict.clause)
    assert (explained.verdict.decision, clause.outcome, clause.actual_missing) == (Decision.NOT_MATCHED, "false", True)


async def test_a_rule_that_was_disabled_says_so(engine: Engine) -> None:
    trigger = new_trigger()
    await new_rule(engine, trigger, enabled=False)

    explained = await the_one(engine, trigger)

    assert (explained.verdict.decision, explained.verdict.clause) == (Decision.DISABLED, None)


async def test_t06_conditions_that_err_say_where(engine: Engine) -> None:
    trigger = new_trigger()
    await new_rule(engine, trigger, conditions={"expression": "event.payload.n / 0 > 1"})

    explained = await the_one(engine, trigger, {"n": 1})

    assert (explained.verdict.decision, explained.consequence) == (Decision.ERROR, None)
    assert [clause.error for clause in leaves(explained.verdict.clause)] == [
        "In `event.payload.n / 0`: the divisor is zero."
    ]


async def test_templates_that_cannot_be_filled_in_say_which_beside_the_conditions_that_held(engine: Engine) -> None:
    trigger = new_trigger()
    await new_rule(engine, trigger, "core.echo", action_params={"message": "{{ -event.payload.n }}"})

    explained = await the_one(engine, trigger, {"n": "x"})

    assert (explained.verdict.decision, explained.verdict.parameters) == (Decision.ERROR, None)
    assert leaves(explained.verdict.clause)[0].outcome == "true"
    assert explained.consequence is not None
    assert (explained.consequence.enforcement_status, explained.consequence.execution) == ("failed", None)
    assert explained.consequence.reason == explained.verdict.error
    assert "-event.payload.n" in str(explained.verdict.error)


async def test_an_execution_that_failed_says_why(engine: Engine) -> None:
    trigger = new_trigger()
    await new_rule(engine, trigger, "shop.charge", action_params={"amount": "{{ event.payload.n }}"})

    explained = await the_one(engine, trigger, {"n": -1})

    assert explained.consequence is not None
    assert explained.consequence.execution_status == "failed"
    assert "/amount" in str(explained.consequence.error)


async def test_what_is_explained_is_the_rule_as_it_was(engine: Engine) -> None:
    trigger = new_trigger()
    conditions = [{"field": "n", "operator": "equals", "value": 1}]
    changed, deleted, moved = [await new_rule(engine, trigger, conditions=conditions) for _ in range(3)]
    event = await emit(engine, trigger, {"n": 1})
    await settled(engine, event)

    await engine.rules.update(changed.ref, {"conditions": [{"field": "n", "operator": "equals", "value": 2}]})
    await engine.rules.delete(deleted.ref)
    await engine.rules.update(moved.ref, {"trigger_ref": new_trigger()})
    later = await new_rule(engine, trigger)

    explanation = await why(engine, event)
    assert [(one.verdict.rule, one.verdict.decision) for one in explanation.rules] == [
        (rule, Decision.MATCHED) for rule in (changed, deleted, moved)
    ]
    # And the next event is explained by what is there now.
    event = await emit(engine, trigger, {"n": 1})
    await settled(engine, event)
    assert [(one.verdict.rule.id, one.verdict.decision) for one in (await why(engine, event)).rules] == [
        (changed.id, Decision.NOT_MATCHED),
        (later.id, Decision.MATCHED),
    ]


async def test_an_event_for_one_rule_is_explained_for_that_one_alone(engine: Engine) -> None:
    trigger = new_trigger()
    named = await new_rule(engine, trigger)
    await new_rule(engine, trigger)
    event = await emit(engine, trigger, rule=named.id)
    await settled(engine, event)

    explanation = await why(engine, event)

    assert [one.verdict.rule for one in explanation.rules] == [named]
    assert explanation.note == f"The event is for the rule {named.ref} alone."


async def test_t70_an_event_for_a_rule_that_was_deleted_says_so(engine: Engine) -> None:
    trigger = new_trigger()
    named = await new_rule(engine, trigger)
    await new_rule(engine, trigger)
    await engine.rules.delete(named.ref)
    event = await emit(engine, trigger, rule=named.id)
    await settled(engine, event)

    explanation = await why(engine, event)

    assert explanation.rules == ()
    assert explanation.note == (
        f"The event is for the rule with the id {named.id} alone, which was deleted or given another trigger."
    )


async def test_an_event_without_rules_says_so(engine: Engine) -> None:
    trigger = new_trigger()
    event = await emit(engine, trigger)
    assert await matched(engine, event) == []

    explanation = await why(engine, event)

    assert (explanation.rules, explanation.note) == ((), f"No rule is on the trigger {trigger}.")


async def test_an_event_that_the_matcher_has_not_taken_is_explained_as_it_would_be_now(engine: Engine) -> None:
    trigger = new_trigger()
    rule = await new_rule(engine, trigger)
    # What the matcher needs is locked: it waits.
    async with engine.bus.transaction() as transaction:
        await transaction.connection.execute("LOCK TABLE attune.event_match IN SHARE MODE")
        event = await emit(engine, trigger)
        waiting = await why(engine, event)
    await settled(engine, event)

    assert (waiting.state, waiting.matched_at) == ("waiting", None)
    assert [(one.verdict.rule, one.verdict.decision) for one in waiting.rules] == [(rule, Decision.MATCHED)]
    assert (await why(engine, event)).state == "matched"


async def test_an_event_that_the_matcher_gave_up_names_the_dead_letter(engine: Engine) -> None:
    event = await emit(engine, new_trigger())
    await settled(engine, event)
    # As after the last attempt.
    await rows(engine, "DELETE FROM attune.event_match WHERE event = $1", event)
    (letter,) = await rows(
        engine,
        """
        INSERT INTO attune.dead_letter (queue, message_id, correlation_id, depth, message_type, version, source,
                                        payload, subject, attempts, error, published_at, created)
        SELECT 'attune.events.queue', correlation_id, correlation_id, depth, 'EventCreated', '1.0', 'test', '{}',
               'event:' || id, 5, 'no', created, created
          FROM attune.event WHERE id = $1
        RETURNING id
        """,
        event,
    )

    explanation = await why(engine, event)

    assert (explanation.state, explanation.dead_letter) == ("dead", letter["id"])
