"""What a rule makes of an event: pure functions, the same verdict for the matcher and for the one who asks why."""

from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attune.base.expressions import ExpressionError
from attune.base.json import Json, JsonObject, loads
from attune.catalog.model import Rule
from attune.catalog.queries import RuleSpec
from attune.catalog.rules import spec_of
from attune.events.model import Event
from attune.rules.evaluation import Compiled, Decision, concerned, judge, names_of, parameters, problems

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
CONFIG: JsonObject = {"region": "eu", "limits": {"high": 10}}


def rule(**fields: Any) -> Rule:
    values: dict[str, Any] = {
        "id": 5,
        "ref": "shop.thank",
        "label": "Thank",
        "description": None,
        "created": NOW,
        "updated": NOW,
        "pack": 1,
        "pack_ref": "shop",
        "action": 2,
        "action_ref": "core.echo",
        "trigger": 3,
        "trigger_ref": "shop.sold",
        "conditions": [],
        "action_params": {},
        "trigger_params": {},
        "enabled": True,
        "overlap": "allow",
        "is_adhoc": True,
        "owner_identity": None,
    }
    return Rule(**{**values, **fields})


def event(payload: Json = None, **fields: Any) -> Event:
    values: dict[str, Any] = {
        "id": 7,
        "trigger": 3,
        "trigger_ref": "shop.sold",
        "config": None,
        "payload": payload,
        "source_ref": "api",
        "rule": None,
        "rule_ref": None,
        "correlation_id": UUID(int=1),
        "causation_id": None,
        "depth": 0,
        "created": NOW,
    }
    return Event(**{**values, **fields})


def filled(action_params: JsonObject, payload: Json = None) -> JsonObject:
    one = rule(action_params=action_params)
    return parameters(one, names_of(event(payload)), CONFIG, NOW)


def test_a_rule_that_matches_gives_its_parameters() -> None:
    verdict = judge(
        rule(
            conditions=[{"field": "item", "operator": "equals", "value": "tea"}],
            action_params={"message": "sold {{ event.payload.item }}"},
        ),
        event({"item": "tea"}),
        CONFIG,
        NOW,
    )

    assert (verdict.decision, verdict.parameters, verdict.error) == (
        Decision.MATCHED,
        {"message": "sold tea"},
        None,
    )
    assert verdict.clause is not None
    assert verdict.clause.outcome == "true"


def test_a_rule_that_does_not_match_says_which_clause_was_to_blame() -> None:
    verdict = judge(rule(conditions=[{"field": "a", "operator": "in", "value": [1]}]), event({"a": 2}), CONFIG, NOW)

    assert (verdict.decision, verdict.parameters) == (Decision.NOT_MATCHED, None)
    assert verdict.clause is not None
    assert [(part.text, part.outcome, part.actual) for part in verdict.clause.clauses] == [("a in [1]", "false", 2)]


def test_a_disabled_rule_is_not_even_evaluated() -> None:
    verdict = judge(rule(enabled=False, conditions={"expression": "1 / 0"}), event(), CONFIG, NOW)

    assert (verdict.decision, verdict.clause, verdict.error) == (Decision.DISABLED, None, None)


def test_conditions_that_cannot_be_decided_are_an_error_with_the_place() -> None:
    verdict = judge(rule(conditions={"expression": "event.payload.a > 1"}), event({"a": "x"}), CONFIG, NOW)

    assert (verdict.decision, verdict.error) == (Decision.ERROR, "the conditions cannot be decided")
    assert verdict.clause is not None
    assert verdict.clause.error is not None
    assert "no order" in verdict.clause.error


def test_conditions_of_an_earlier_release_are_an_error_and_no_crash() -> None:
    verdict = judge(rule(conditions=[{"field": "a", "operator": "resembles", "value": 1}]), event(), CONFIG, NOW)

    assert verdict.decision is Decision.ERROR
    assert verdict.error is not None
    assert "resembles" in verdict.error


def test_parameters_that_cannot_be_filled_in_are_an_error_beside_the_conditions_that_held() -> None:
    verdict = judge(rule(action_params={"n": "{{ event.payload.a + 1 }}"}), event({"a": "x"}), CONFIG, NOW)

    assert (verdict.decision, verdict.parameters) == (Decision.ERROR, None)
    assert verdict.clause is not None
    assert verdict.clause.outcome == "true"
    assert verdict.error is not None
    assert verdict.error.startswith("the parameters cannot be filled in: ")


# A parameter, the payload, and what the action gets.
TEMPLATES: list[tuple[Json, Json, Json]] = [
    ("plain", None, "plain"),
    (5, None, 5),
    (None, None, None),
    ("{{ event.payload.n }}", {"n": 5}, 5),  # one placeholder keeps the type
    ("{{ event.payload.n }}", {"n": 5.5}, 5.5),
    ("{{ event.payload.n }}", {"n": True}, True),
    ("{{ event.payload.n }}", {"n": None}, None),
    ("{{ event.payload.n }}", {"n": [1, {"a": None}]}, [1, {"a": None}]),
    ("{{ event.payload }}", {"n": {}}, {"n": {}}),
    ("{{event.payload.n}}", {"n": "5"}, "5"),
    ("n is {{ event.payload.n }}.", {"n": 5}, "n is 5."),  # in text everything is text
    ("{{ event.payload.n }}{{ event.payload.n }}", {"n": 5}, "55"),
    ("n is {{ event.payload.n }}", {"n": [1, True]}, "n is [1,true]"),
    ("{{ event.payload.missing }}", {}, None),  # missing is null as a whole, and nothing in text
    ("<{{ event.payload.missing }}>", {}, "<>"),
    ("<{{ event.payload.a.b.c }}>", None, "<>"),
    ("{{ event.payload.items.1.name }}", {"items": [{}, {"name": "x"}]}, "x"),
    (["{{ event.payload.n }}", {"deep": ["{{ event.payload.n }}"]}], {"n": 5}, [5, {"deep": [5]}]),
    ({"{{ key }}": 1}, None, {"{{ key }}": 1}),  # keys are no templates
    ("{{ event.id }}", None, 7),
    ("{{ event.trigger }}", None, "shop.sold"),
    ("{{ event.trigger_ref }}", None, "shop.sold"),
    ("{{ event.created }}", None, "2026-03-01T12:00:00.123456Z"),
    ("{{ pack.config.region }}", None, "eu"),
    ("{{ pack.config.limits.high }}", None, 10),
    ("{{ pack.config.nothing }}", None, None),
    ("{{ system.timestamp }}", None, "2026-03-01T12:00:00.123456Z"),
    ("{{ system.rule.id }}", None, 5),
    ("{{ system.rule.ref }}", None, "shop.thank"),
    ("{{ upper(event.payload.n) ~ '!' }}", {"n": "a"}, "A!"),  # the same language as in conditions
]


@pytest.mark.parametrize(("template", "payload", "expected"), TEMPLATES)
def test_templates_become_values(template: Json, payload: Json, expected: Json) -> None:
    value = filled({"p": template}, payload)["p"]

    assert value == expected
    assert type(value) is type(expected)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53), 2**53)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_a_payload_passes_through_a_template_unchanged(payload: Json) -> None:
    """Above all: what looks like a template in a payload is data."""
    assert filled({"p": "{{ event.payload }}"}, payload) == {"p": payload}


def test_a_template_in_a_payload_is_never_filled_in() -> None:
    assert filled({"p": "<{{ event.payload }}>"}, "{{ system.rule.ref }}") == {"p": "<{{ system.rule.ref }}>"}


def test_names_that_nobody_gives_are_refused_when_the_rule_is_made() -> None:
    wrong = spec(
        conditions={"expression": "pack.config.x"},
        action_params={
            "a": "{{ evnt.payload.x }}",
            "b": ["x", {"c/d": "{{ trigger.payload.x }}"}],  # what other platforms call it
            "e": "{{ event.id }} {{ key.secret }} {{ system.rule }}",
        },
    )

    assert [(problem.where, problem.what) for problem in problems(wrong)] == [
        ("/conditions/expression", "the name 'pack' is unknown; there are event"),
        ("/action_params/a", "the name 'evnt' is unknown; did you mean 'event'?"),
        ("/action_params/b/1/c~1d", "the name 'trigger' is unknown; there are event, pack, system"),
        ("/action_params/e", "the name 'key' is unknown; there are event, pack, system"),
    ]


def test_what_is_right_has_no_problems() -> None:
    right = spec(
        conditions=[{"field": "a", "operator": "exists"}],
        action_params={"a": "{{ event.payload.a }} {{ pack.config.b }} {{ system.timestamp }}", "b": [1, None]},
    )

    assert [*problems(right)] == []


def spec(**fields: Any) -> RuleSpec:
    return replace(spec_of(rule()), **fields)


CASES: list[tuple[Any, JsonObject, Json]] = [
    ([], {}, None),
    ([], {"a": 1}, {"x": 1}),
    ([], {"a": "{{ event.payload.x }}"}, {"x": 1}),
    ([{"field": "x", "operator": "equals", "value": 1}], {"a": "{{ event.payload }}"}, {"x": 1}),
    ([{"field": "x", "operator": "equals", "value": 1}], {}, {"x": 2}),
    ({"expression": "event.payload.x > 1"}, {}, {"x": "a"}),
    ({"any": [{"expression": "true"}]}, {"a": "{{ event.payload.x / 0 }}"}, {"x": 1}),
    ([{"field": "x", "operator": "resembles", "value": 1}], {}, {"x": 1}),
]


@pytest.mark.parametrize(("conditions", "action_params", "payload"), CASES)
def test_the_matcher_and_the_explanation_agree(conditions: Json, action_params: JsonObject, payload: Json) -> None:
    one = rule(conditions=conditions, action_params=action_params)
    verdict = judge(one, event(payload), CONFIG, NOW)

    try:
        matched = Compiled(one).match(names_of(event(payload)), CONFIG, NOW)
    except ExpressionError:
        assert verdict.decision is Decision.ERROR
    else:
        assert verdict.decision is (Decision.NOT_MATCHED if matched is None else Decision.MATCHED)
        assert verdict.parameters == loads(matched)


@pytest.mark.parametrize(("conditions", "action_params", "payload"), CASES)
def test_evaluation_changes_nothing_and_always_says_the_same(
    conditions: Json, action_params: JsonObject, payload: Json
) -> None:
    one, happened = rule(conditions=conditions, action_params=action_params), event(payload)
    before = deepcopy((one, happened, CONFIG))

    first, second = (judge(one, happened, CONFIG, NOW) for _ in range(2))

    assert first == second
    assert (one, happened, CONFIG) == before


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (rule(), True),
        (rule(trigger_ref="shop.other"), False),  # it was given another trigger since
        (None, False),  # it was deleted since
    ],
)
def test_an_event_concerns_the_rule_that_it_names_only_as_long_as_that_is_on_its_trigger(
    named: Rule | None, expected: bool
) -> None:
    """T-70: and never any other."""
    assert concerned(event(rule=5), named) is expected
