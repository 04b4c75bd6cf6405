"""What holds for every expression and every value."""

import operator
import re
from types import NoneType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attune.base.expressions import (
    MISSING,
    STANDARD,
    ExpressionError,
    Function,
    Missing,
    Value,
    compile_expression,
    compile_template,
    has_template,
    problems,
    resolve,
)
from attune.base.expressions.library import FILTERS, FUNCTIONS, TESTS
from attune.base.expressions.source import constant, render
from attune.base.expressions.syntax import TextError, normalised, parse
from attune.base.json import Json, dumps, unstorable
from attune.base.verdicts import Clause

names = st.sampled_from(["a", "b", "c", "event", "payload", "nope"])
texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
numbers = st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-3, 9) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | texts | st.sampled_from(["a", "1", "ab", "true", ","])


def _containers(children: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    return st.lists(children, max_size=5) | st.dictionaries(names | texts, children, max_size=5)


values: st.SearchStrategy[Json] = st.recursive(scalars, _containers, max_leaves=12)
# Two in three names hold what most functions want, so that many expressions have a value.
worlds = st.fixed_dictionaries(
    {"a": st.lists(numbers, max_size=5), "b": texts | st.sampled_from(["a,b", "12"]), "event": numbers},
    optional={"c": st.dictionaries(names, values, max_size=3), "payload": values},
)

literals = st.none() | st.booleans() | st.integers(0, 9) | st.floats(0, 1e6) | texts | st.integers(0, (1 << 63) - 1)


_BINARY = ["and", "or", "+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in"]


def _compound(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Expressions made of expressions, each kind of the grammar once."""
    binary = st.sampled_from(_BINARY)
    arguments = st.lists(inner, max_size=3).map(", ".join)
    return st.one_of(
        st.tuples(inner, binary, inner).map(lambda parts: f"({' '.join(parts)})"),
        st.tuples(inner, binary, inner, binary, inner).map(" ".join),
        inner.map(lambda text: f"(not {text})"),
        inner.map(lambda text: f"-({text})"),
        st.tuples(inner, names).map(lambda parts: f"({parts[0]}).{parts[1]}"),
        st.tuples(inner, inner).map(lambda parts: f"({parts[0]})[{parts[1]}]"),
        st.sampled_from(sorted(FUNCTIONS)).flatmap(lambda name: _call(name, FUNCTIONS[name], inner)),
        st.sampled_from(sorted(FILTERS)).flatmap(lambda name: _filtered(name, FILTERS[name], inner)),
        st.tuples(inner, st.sampled_from(sorted(TESTS))).map(lambda parts: f"({parts[0]}) is {parts[1]}"),
        st.tuples(inner, inner, inner).map(lambda parts: f"({parts[0]} if {parts[1]} else {parts[2]})"),
        arguments.map(lambda text: f"[{text}]"),
        st.tuples(texts, inner).map(lambda parts: f"{{{constant(parts[0])}: {parts[1]}}}"),
    )


def _call(name: str, function: Function, inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    arguments = st.lists(inner, min_size=function.least, max_size=3 if function.most is None else function.most)
    return arguments.map(lambda parts: f"{name}({', '.join(parts)})")


def _filtered(name: str, function: Function, inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    arguments = st.lists(inner, min_size=function.least, max_size=3 if function.most is None else function.most)
    return arguments.map(lambda parts: f"(({parts[0]}) | {name}({', '.join(parts[1:])}))")


expressions = st.recursive(names | literals.map(constant), _compound, max_leaves=10)

# Pieces of the language, thrown together: most of it is refused, each time somewhere else.
_PIECES = re.split(
    " ",
    "a b.c ['x'] [0] . .. 1 1.5 1e5 0x1f 'x' \"y\" \\ ' \" ( ) [ ] { } {{ }} {% %} {# #} + - * / // % ** ~ | & = == "
    "=== != < <= > >= , : ; ! ? @ # $ ` \n \r \t é 😀 ² and or not in is if else true null none __class__ _ lower( "
    "length split match(' \\d | upper |default( defined is not self loop range( 9999999999999999999 \\u00 \\ud800",
)
pieces = st.lists(st.sampled_from(_PIECES) | st.characters(), max_size=30).map("".join)
joined = st.lists(st.sampled_from(_PIECES), max_size=20).map(" ".join)


def outcome(text: str, world: dict[str, Json]) -> "Value | ExpressionError":
    """The value, or how it was refused; anything else is a failure of the test."""
    try:
        return compile_expression(text).evaluate(world)
    except ExpressionError as error:
        return error


@given(st.text() | pieces | joined)
@settings(max_examples=150)
def test_any_text_compiles_or_is_refused(text: str) -> None:
    result = outcome(text, {})
    if isinstance(result, ExpressionError):
        assert result.message.encode()


@given(st.text() | pieces | joined)
@settings(max_examples=150)
def test_any_text_is_a_template_or_is_refused(text: str) -> None:
    refused = None
    try:
        compile_template(text)
    except ExpressionError as error:
        refused = error.message
    assert [problem.what for problem in problems({"a": text})] == ([refused] if refused else [])


@given(expressions, worlds)
@settings(max_examples=200)
def test_a_value_can_be_stored_or_is_missing_or_is_refused(text: str, world: dict[str, Json]) -> None:
    _check_storable(outcome(text, world))


def _check_storable(result: "Value | ExpressionError") -> None:
    if not isinstance(result, Missing | ExpressionError):
        assert list(unstorable(result)) == []
        assert dumps(result)


_OF_TYPE: dict[type, st.SearchStrategy[Json]] = {
    NoneType: st.none(),
    bool: st.booleans(),
    int: st.integers(-3, 20) | st.integers(-(1 << 63), (1 << 63) - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: texts | st.sampled_from(["a", "a b a", "12", "-1.5e3", "[a-z]+"]),
    list: st.sampled_from([numbers, texts, values]).flatmap(lambda items: st.lists(items, max_size=6)),
    dict: st.dictionaries(names, values, max_size=4),
}


@given(st.data(), st.sampled_from(sorted(FUNCTIONS) + [f"| {name}" for name in FILTERS]))
@settings(max_examples=300)
def test_a_function_on_arguments_of_its_kinds_gives_a_value_or_refuses_them(data: st.DataObject, name: str) -> None:
    function = FILTERS[name[2:]] if name[0] == "|" else FUNCTIONS[name]
    count = data.draw(st.integers(function.least, 3 if function.most is None else function.most))
    world: dict[str, Json] = {}
    for index in range(count):
        types = function.kinds[min(index, len(function.kinds) - 1)].types & set(_OF_TYPE)
        world[f"x{index}"] = data.draw(st.one_of([_OF_TYPE[kind] for kind in sorted(types, key=str)]))
    first, *others = world
    text = f"{first} {name}({', '.join(others)})" if name[0] == "|" else f"{name}({', '.join(world)})"
    _check_storable(outcome(text.replace("()", ""), world))


@given(expressions, worlds)
@settings(max_examples=150)
def test_evaluating_twice_gives_the_same_and_changes_nothing(text: str, world: dict[str, Json]) -> None:
    before = dumps(world)
    first, second = outcome(text, world), outcome(text, world)
    assert str(first) == str(second)
    assert dumps(world) == before


@given(expressions, worlds)
@settings(max_examples=150)
def test_an_explanation_agrees_with_the_value(text: str, world: dict[str, Json]) -> None:
    result = outcome(text, world)
    try:
        expression = compile_expression(text)
    except ExpressionError:
        return
    verdict = expression.explain(world)
    expected = "error" if isinstance(result, ExpressionError) else "true" if result else "false"
    assert verdict.outcome == expected
    assert dumps(verdict.as_json())
    errors = [clause.error for clause in _leaves(verdict) if clause.outcome == "error"]
    assert len(errors) == (expected == "error")
    assert all(errors)


def _leaves(clause: Clause) -> list[Clause]:
    return [leaf for inner in clause.clauses for leaf in _leaves(inner)] if clause.clauses else [clause]


@given(expressions)
@settings(max_examples=150)
def test_a_rendered_expression_is_the_same_expression(text: str) -> None:
    try:
        tree = parse(STANDARD.environment, normalised(text))
    except TextError:
        return
    rendered = render(tree)
    again = parse(STANDARD.environment, rendered)
    assert render(again) == rendered


@given(expressions, worlds)
@settings(max_examples=150)
def test_a_rendered_expression_has_the_same_value(text: str, world: dict[str, Json]) -> None:
    result = outcome(text, world)
    if isinstance(result, ExpressionError):
        return
    rendered = render(parse(STANDARD.environment, normalised(text)))
    assert outcome(rendered, world) == result


@given(values, values)
def test_equality_is_that_of_json_text(left: Json, right: Json) -> None:
    world: dict[str, Json] = {"a": left, "b": right}
    equal = _exact(left) == _exact(right)
    assert outcome("a == b", world) is equal
    assert outcome("a != b", world) is not equal
    assert outcome("a in [b]", world) is equal
    assert outcome("length(unique([a, b])) == 1", world) is equal
    assert outcome("count([a, b], a)", world) == 1 + equal
    assert outcome("a == a", world) is True


def _exact(value: Json) -> object:
    """`value` in a form that Python compares as JSON does: true is not 1."""
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, dict):
        return {key: _exact(item) for key, item in value.items()}
    return [_exact(item) for item in value] if isinstance(value, list) else value


@given(numbers, numbers, st.sampled_from(["+", "-", "*", "<", "<=", ">", ">="]))
def test_arithmetic_is_that_of_python_where_the_result_fits(left: float, right: float, sign: str) -> None:
    functions = {
        "+": operator.add, "-": operator.sub, "*": operator.mul,
        "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    }  # fmt: skip
    result = outcome(f"a {sign} b", {"a": left, "b": right})
    if not isinstance(result, ExpressionError):
        assert result == functions[sign](left, right)


@given(values, st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "in", "not in"]))
def test_t73_no_comparison_with_a_missing_value_holds(value: Json, sign: str) -> None:
    assert outcome(f"a {sign} gone", {"a": value}) is False
    assert outcome(f"gone.x {sign} a", {"a": value}) is False
    assert outcome(f"gone {sign} gone", {"a": value}) is False


@given(values, st.lists(st.one_of(names, st.integers(-3, 3)), max_size=4))
def test_a_path_finds_what_is_there_and_nothing_else(value: Json, path: list[str | int]) -> None:
    expected: Value = value
    for key in path:
        if isinstance(expected, dict):
            expected = expected.get(str(key), MISSING)
        elif isinstance(expected, list) and isinstance(key, int) and -len(expected) <= key < len(expected):
            expected = expected[key]
        else:
            expected = MISSING
    text = "a" + "".join(f"[{key!r}]" for key in path)
    assert outcome(text, {"a": value}) == expected


@given(values)
def test_a_tree_without_placeholders_resolves_to_itself(value: Json) -> None:
    if not has_template(value):
        assert resolve(value, {}) == value


@given(values)
def test_a_whole_placeholder_keeps_its_value(value: Json) -> None:
    assert resolve({"x": ["{{ a }}"]}, {"a": value}) == {"x": [value]}


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=50))
def test_any_text_can_be_written_as_a_literal(text: str) -> None:
    assert outcome(constant(text), {}) == text
    assert compile_template(f"<{{{{ {constant(text)} }}}}>").render({}) == f"<{text}>"


@pytest.mark.long
@pytest.mark.timeout(900)
@given(expressions, worlds)
@settings(max_examples=20_000)
def test_long_a_value_can_be_stored_or_is_missing_or_is_refused(text: str, world: dict[str, Json]) -> None:
    _check_storable(outcome(text, world))
