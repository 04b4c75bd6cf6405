"""Conditions: what each operator makes of each type, what groups make of clauses, and what is refused beforehand."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attune.base.expressions import ExpressionError
from attune.base.json import Json
from attune.base.verdicts import Clause
from attune.rules.conditions import compile_condition, condition_problems, junction_of

ABSENT = object()
"""Stands for a field that is not in the payload."""

T, F, E = "true", "false", "error"


def names(payload: Json) -> dict[str, Json]:
    return {"event": {"id": 7, "trigger": "shop.sold", "payload": payload, "created": "2026-03-01T12:00:00Z"}}


def outcome(conditions: Json, payload: Json) -> str:
    """What matching comes to; explaining has to say the same."""
    condition = compile_condition(conditions)
    try:
        matched = T if condition.holds(names(payload)) else F
    except ExpressionError:
        matched = E
    assert condition.explain(names(payload)).outcome == matched
    return matched


def clause(operator: str, value: Any = ABSENT, field: str = "x") -> dict[str, Json]:
    return {"field": field, "operator": operator} | ({} if value is ABSENT else {"value": value})


TYPES: dict[str, Any] = {
    "string": "abc",
    "number": 5,
    "boolean": True,
    "null": None,
    "array": [1, "abc"],
    "object": {"abc": 1},
    "missing": ABSENT,
}

# The operator, its value, and what it comes to on a field of each of TYPES, in their order. A wrong type is an error
# that is told; a missing field is neither an error nor a match (T-73).
OPERATORS: list[tuple[str, Json, list[str]]] = [
    ("equals", "abc", [T, F, F, F, F, F, F]),
    ("equals", 5, [F, T, F, F, F, F, F]),
    ("equals", 5.0, [F, T, F, F, F, F, F]),  # JSON has one kind of number
    ("equals", "5", [F, F, F, F, F, F, F]),  # and a string is none
    ("equals", True, [F, F, T, F, F, F, F]),
    ("equals", 1, [F, F, F, F, F, F, F]),  # true is not 1
    ("equals", None, [F, F, F, T, F, F, F]),  # what is missing is not null
    ("equals", [1, "abc"], [F, F, F, F, T, F, F]),
    ("equals", ["abc", 1], [F, F, F, F, F, F, F]),  # the order counts
    ("equals", {"abc": 1}, [F, F, F, F, F, T, F]),
    ("not_equals", "abc", [F, T, T, T, T, T, F]),
    ("not_equals", None, [T, T, T, F, T, T, F]),
    ("contains", "abc", [T, E, E, E, T, T, F]),  # part of a string, element of an array, key of an object
    ("contains", "b", [T, E, E, E, F, F, F]),
    ("contains", 1, [E, E, E, E, T, E, F]),  # only strings are in strings and are keys
    ("contains", None, [E, E, E, E, F, E, F]),
    ("greater_than", 4, [E, T, E, E, E, E, F]),
    ("greater_than", 5, [E, F, E, E, E, E, F]),
    ("greater_than", "abb", [T, E, E, E, E, E, F]),
    ("greater_than_or_equal", 5, [E, T, E, E, E, E, F]),
    ("greater_than_or_equal", "abd", [F, E, E, E, E, E, F]),
    ("less_than", 5.5, [E, T, E, E, E, E, F]),
    ("less_than", 5, [E, F, E, E, E, E, F]),
    ("less_than", "abd", [T, E, E, E, E, E, F]),
    ("less_than_or_equal", 5, [E, T, E, E, E, E, F]),
    ("less_than_or_equal", "abb", [F, E, E, E, E, E, F]),
    ("in", ["abc", 5, True, None, [1, "abc"], {"abc": 1}], [T, T, T, T, T, T, F]),
    ("in", [1, "ab", False], [F, F, F, F, F, F, F]),
    ("in", [], [F, F, F, F, F, F, F]),
    ("exists", True, [T, T, T, T, T, T, F]),  # null is there
    ("exists", False, [F, F, F, F, F, F, T]),
    ("matches", "^a.c$", [T, E, E, E, E, E, F]),
    ("matches", "b", [T, E, E, E, E, E, F]),  # found anywhere
    ("matches", "^b", [F, E, E, E, E, E, F]),
]


@pytest.mark.parametrize(
    ("operator", "value", "kind", "expected"),
    [
        pytest.param(operator, value, kind, expected, id=f"{operator} {value!r} on {kind}")
        for operator, value, outcomes in OPERATORS
        for kind, expected in zip(TYPES, outcomes, strict=True)
    ],
)
def test_every_operator_says_what_it_says_on_every_type(operator: str, value: Json, kind: str, expected: str) -> None:
    payload: dict[str, Json] = {} if TYPES[kind] is ABSENT else {"x": TYPES[kind]}

    assert outcome([clause(operator, value)], payload) == expected


@pytest.mark.parametrize("payload", [None, {}, [], "x", 5, True], ids=repr)
@pytest.mark.parametrize("operator", sorted({operator for operator, _, _ in OPERATORS} - {"exists"}))
def test_a_payload_without_the_field_matches_nothing(operator: str, payload: Json) -> None:
    """T-73: neither an error nor a match, whatever the payload is."""
    value: Json = ["x"] if operator == "in" else "x"

    assert outcome([clause(operator, value)], payload) == F


@pytest.mark.parametrize("payload", [None, {}, [], "x", 5, True], ids=repr)
def test_a_field_can_be_asked_to_be_absent(payload: Json) -> None:
    assert outcome([clause("exists", False)], payload) == T
    assert outcome([clause("exists")], payload) == F


@pytest.mark.parametrize(
    ("field", "payload"),
    [
        ("user.name", {"user": {"name": 1}}),
        ("items.1.name", {"items": [{}, {"name": 1}]}),
        ("0", [1]),  # the payload itself may be an array
        ("codes.0", {"codes": {"0": 1}}),  # a number is a key where there is an object
        ("codes.007", {"codes": {"007": 1}}),  # and text where no index is written like that
        ("codes.٣", {"codes": {"٣": 1}}),  # digits of other scripts are text
        ("codes.123456789012345678901", {"codes": {"123456789012345678901": 1}}),  # no array is that long
        ("a-b.c d", {"a-b": {"c d": 1}}),
        ("and", {"and": 1}),  # words of the expression language are keys like others
        ("__class__", {"__class__": 1}),
        ("a..b", {"a": {"": {"b": 1}}}),
    ],
)
def test_a_dotted_path_finds_its_field(field: str, payload: Json) -> None:
    assert outcome([clause("equals", 1, field)], payload) == T


@pytest.mark.parametrize(
    ("field", "payload"),
    [
        ("items.2", {"items": [1, 2]}),  # past the end
        ("items.-1", {"items": [1, 2]}),  # no counting from the end
        ("items.name", {"items": [1]}),
        ("name.0", {"name": "abc"}),  # a string has no parts
        ("name.upper", {"name": "abc"}),  # and no methods
        ("a.b.c", {"a": None}),
        ("__class__", {}),
        ("items", []),
    ],
)
def test_a_path_that_leads_nowhere_is_missing(field: str, payload: Json) -> None:
    assert outcome([clause("exists", False, field)], payload) == T


@given(st.text(min_size=1).filter(lambda key: "." not in key and "\x00" not in key and key.isprintable()))
def test_any_text_can_be_a_field_and_is_nothing_but_a_key(key: str) -> None:
    assert outcome([clause("equals", 1, key)], {key: 1}) == T
    assert outcome([clause("exists", False, key)], {}) == T


@pytest.mark.parametrize("conditions", [None, [], {}], ids=repr)
@pytest.mark.parametrize("payload", [None, {"x": 1}], ids=repr)
def test_no_conditions_hold_always(conditions: Json, payload: Json) -> None:
    assert condition_problems(conditions, "/conditions") == []
    assert outcome(conditions, payload) == T


YES, NO, BROKEN = clause("equals", 1), clause("equals", 2), clause("greater_than", "a")
"""On the payload {"x": 1}."""


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([YES, YES], T),
        ([YES, NO], F),
        ({"all": [YES, YES]}, T),
        ({"all": [YES, NO]}, F),
        ({"any": [NO, YES]}, T),
        ({"any": [NO, NO]}, F),
        ({"any": [NO, {"all": [YES, {"any": [NO, YES]}]}]}, T),
        ({"all": [YES, {"any": [NO, {"all": [YES, NO]}]}]}, F),
        ([[YES, YES], {"any": [NO, YES]}], T),  # a list in a list means all of it
        ([{"expression": "event.payload.x == 1"}, YES], T),
        ({"any": [NO, {"expression": "event.payload.x > 0"}]}, T),
        # What comes after the decision does not matter, not even when it is broken; what comes before does.
        ([NO, BROKEN], F),
        ([BROKEN, NO], E),
        ({"any": [YES, BROKEN]}, T),
        ({"any": [BROKEN, YES]}, E),
        ([YES, BROKEN], E),
    ],
)
def test_groups_join_their_clauses(conditions: Json, expected: str) -> None:
    assert outcome(conditions, {"x": 1}) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("event.payload.x == 1 and event.trigger == 'shop.sold'", T),
        ("{{ event.payload.x == 1 }}", T),
        ("event.payload.nothing == 1", F),
        ("event.payload.nothing != 1", F),  # what is missing does not differ either
        ("not event.payload.nothing", T),
        ("event.payload.x", T),  # any value counts as true or false
        ("event.payload.x - 1", F),
        ("event.payload.x > 'a'", E),
        ("event.payload.x.y.z is defined", F),
        ("event.id == 7 and event.created > '2026'", T),
    ],
)
def test_an_expression_decides(text: str, expected: str) -> None:
    assert outcome({"expression": text}, {"x": 1}) == expected


def test_a_verdict_shows_what_was_expected_and_what_was_there() -> None:
    verdict = compile_condition(
        [clause("equals", "error", "level"), clause("greater_than", 3, "count"), clause("exists", True, "user")]
    ).explain(names({"level": "error", "count": 2}))

    assert verdict.as_json() == {
        "kind": "all",
        "text": "all",
        "outcome": "false",
        "clauses": [
            {
                "kind": "comparison",
                "text": 'level equals "error"',
                "outcome": "true",
                "operator": "equals",
                "actual": "error",
                "expected": "error",
            },
            {
                "kind": "comparison",
                "text": "count greater_than 3",
                "outcome": "false",
                "operator": "greater_than",
                "actual": 2,
                "expected": 3,
            },
            {"kind": "comparison", "text": "user exists true", "outcome": "skipped", "operator": "exists"},
        ],
    }


def test_a_verdict_tells_null_from_missing() -> None:
    condition = compile_condition({"any": [clause("equals", 1, "a"), clause("equals", 1, "b")]})

    shown = condition.explain(names({"a": None})).as_json()["clauses"]

    assert isinstance(shown, list)
    null, missing = shown
    assert isinstance(null, dict)
    assert isinstance(missing, dict)
    assert null["actual"] is None
    assert "actual" not in missing
    assert missing["actual_missing"] is True


def test_a_verdict_says_which_clause_broke_and_why() -> None:
    verdict = compile_condition([clause("greater_than", 3)]).explain(names({"x": "many"}))

    (broken,) = verdict.clauses
    assert (verdict.outcome, broken.outcome, broken.actual) == ("error", "error", "many")
    assert broken.error is not None
    assert "no order" in broken.error


def test_a_verdict_does_not_repeat_a_large_payload() -> None:
    verdict = compile_condition([clause("equals", "y" * 10_000)]).explain(names({"x": [0] * 10_000}))

    assert len(str(verdict.clauses[0].as_json()["actual"])) < 300
    assert len(str(verdict.clauses[0].as_json()["expected"])) < 300


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=5,
)
_ORDERED = st.integers(-3, 3) | st.text("ab", max_size=2)
_OPERANDS = {
    "equals": _VALUES,
    "not_equals": _VALUES,
    "contains": _VALUES,
    "greater_than": _ORDERED,
    "greater_than_or_equal": _ORDERED,
    "less_than": _ORDERED,
    "less_than_or_equal": _ORDERED,
    "in": st.lists(_VALUES, max_size=3),
    "exists": st.booleans(),
    "matches": st.sampled_from(["a", "^b", "", "a|b"]),
}
_FIELDS = st.sampled_from(["a", "b", "a.b", "a.0", "b.a.b"])
_CLAUSES = st.sampled_from(sorted(_OPERANDS)).flatmap(
    lambda operator: st.builds(lambda field, value: clause(operator, value, field), _FIELDS, _OPERANDS[operator])
)
_EXPRESSIONS = st.sampled_from(
    ["event.payload.a", "event.payload.a > event.payload.b", "not event.payload.b", "'a' in event.payload.a or true"]
).map(lambda text: {"expression": text})


def _groups(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    members = st.lists(parts, min_size=1, max_size=3)
    return members | st.builds(lambda junction, these: {junction: these}, st.sampled_from(["all", "any"]), members)


_CONDITIONS = _groups(st.recursive(_CLAUSES | _EXPRESSIONS, _groups, max_leaves=4))


@given(_CONDITIONS, _VALUES)
def test_matching_and_explaining_agree_in_every_group(conditions: Json, payload: Json) -> None:
    outcome(conditions, payload)
    _check_group(compile_condition(conditions).explain(names(payload)))


def _check_group(verdict: Clause) -> None:
    if verdict.kind not in {"all", "any"}:
        return
    passing = T if verdict.kind == "all" else F
    reached = [part.outcome for part in verdict.clauses if part.outcome != "skipped"]
    assert [part.outcome for part in verdict.clauses[len(reached) :]] == ["skipped"] * (
        len(verdict.clauses) - len(reached)
    )
    assert all(one == passing for one in reached[:-1])
    if reached:
        assert verdict.outcome == reached[-1]
    for part in verdict.clauses:
        _check_group(part)


_DEEP: Any = clause("exists")
for _ in range(30):
    _DEEP = [_DEEP]

# What is wrong, where, and what the author is told.
REFUSED: list[tuple[Any, str, str]] = [
    ("x > 1", "/conditions", "is no condition"),
    (5, "/conditions", "is no condition"),
    (False, "/conditions", "is no condition"),
    ("", "/conditions", "is no condition"),
    ({"expresion": "true"}, "/conditions", "is no condition"),
    ({"expression": 5}, "/conditions", "is no condition"),
    ({"expression": "true", "all": []}, "/conditions", "is no condition"),
    ({"expression": ""}, "/conditions/expression", "an expression is empty"),
    ({"expression": "event.payload.x ="}, "/conditions/expression", 'write "==" to compare'),
    ({"expression": "evnt.payload.x"}, "/conditions/expression", "did you mean 'event'?"),
    ({"expression": "pack.config.x"}, "/conditions/expression", "there are event"),
    ({"all": []}, "/conditions/all", "has no clauses"),
    ({"any": []}, "/conditions/any", "has no clauses"),
    ({"all": {}}, "/conditions", "is no condition"),
    # Nothing means always only where there are no conditions at all: in a group it is a clause that was forgotten.
    ([[]], "/conditions/0", "has no clauses"),
    ([{}], "/conditions/0", "is no condition"),
    ({"any": [None, clause("exists")]}, "/conditions/any/0", "is no condition"),
    ([clause("exists"), 5], "/conditions/1", "is no condition"),
    ([clause("equal", 1)], "/conditions/0/operator", "did you mean 'equals'?"),
    ([clause("~", 1)], "/conditions/0/operator", "there are equals, not_equals"),
    ([{"field": "x", "operator": ["equals"], "value": 1}], "/conditions/0/operator", "is unknown"),
    ([{"field": "x"}], "/conditions/0/operator", "is unknown"),
    ([{"operator": "equals", "value": 1}], "/conditions/0/field", "must be a path"),
    ([{"field": "", "operator": "exists"}], "/conditions/0/field", "must be a path"),
    ([{"field": 5, "operator": "exists"}], "/conditions/0/field", "must be a path"),
    ([{"field": "a\x00", "operator": "exists"}], "/conditions/0/field", "NUL"),
    ([{"field": "a" * 10_000, "operator": "exists"}], "/conditions/0/field", "at most 8,192"),
    ([clause("exists") | {"feild": "x"}], "/conditions/0/feild", "did you mean 'field'?"),
    ([clause("exists") | {"a/b~c": 1}], "/conditions/0/a~1b~0c", "there are field, operator, value"),
    ([clause("equals")], "/conditions/0/value", "is required for the operator equals"),
    ([clause("in")], "/conditions/0/value", "is required for the operator in"),
    ([clause("in", "abc")], "/conditions/0/value", "must be a list"),
    ([clause("exists", "yes")], "/conditions/0/value", "must be true or false"),
    ([clause("greater_than", [1])], "/conditions/0/value", "must be a number or a string"),
    ([clause("less_than", True)], "/conditions/0/value", "must be a number or a string"),
    ([clause("matches", 5)], "/conditions/0/value", "must be a regular expression"),
    ([clause("matches", "(")], "/conditions/0/value", "not RE2 syntax"),
    ([clause("matches", r"(a)\1")], "/conditions/0/value", "not RE2 syntax"),  # no back-tracking, no back-references
    ({"all": [{"any": [clause("exists"), clause("in", 1)]}]}, "/conditions/all/0/any/1/value", "must be a list"),
    (_DEEP, "/conditions" + "/0" * 21, "nested deeper than 20"),
    ([clause("exists")] * 1_001, "/conditions", "more than 1,000 clauses"),
    ({"any": [{"expression": "true"}] * 1_001}, "/conditions/any", "more than 1,000 clauses"),
]


@pytest.mark.parametrize(("conditions", "where", "what"), REFUSED)
def test_a_condition_that_means_nothing_is_refused_with_its_place(conditions: Json, where: str, what: str) -> None:
    problems = condition_problems(conditions, "/conditions")

    assert [(problem.where, what in problem.what) for problem in problems if problem.where == where] == [(where, True)]


def test_all_that_is_wrong_is_told_at_once() -> None:
    problems = condition_problems([clause("equal", 1), clause("in", 1), {"expression": "nope"}], "")

    assert [problem.where for problem in problems] == ["/0/operator", "/1/value", "/2/expression"]


def test_a_large_mistake_gets_a_short_answer() -> None:
    assert len(condition_problems([1] * 100_000, "")) == 1


def test_conditions_that_were_never_checked_are_an_error_of_theirs() -> None:
    """As those of an earlier release may be: the matcher records it, and goes on with the other rules."""
    with pytest.raises(ExpressionError, match="0/operator"):
        compile_condition([clause("resembles", 1)])


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [([], "all"), (None, "all"), ({"any": [YES]}, "any"), ({"all": [YES]}, "all"), ({"expression": "true"}, "all")],
)
def test_a_rule_says_whether_all_or_any_of_its_conditions_must_hold(conditions: Json, expected: str) -> None:
    assert junction_of(conditions) == expected
