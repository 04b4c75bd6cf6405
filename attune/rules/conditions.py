"""Conditions of rules: an expression, or clauses on fields of the payload, joined by `all` or `any`.

    []                                                              always
    {"expression": "event.payload.level == 'error'"}                the expression language
    [{"field": "level", "operator": "equals", "value": "error"}]    every clause holds
    {"any": [clause, {"all": [clause, clause]}]}                    groups, nested at will

A clause is an expression too, so both forms agree about what equals what. A field that is not there is missing: it
matches nothing but `exists: false`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Literal, Protocol, TypeAlias, cast

from attune.base.errors import Problem
from attune.base.expressions import MISSING, Expression, ExpressionError, Missing, compile_expression
from attune.base.json import Json, dumps, loads, pointer
from attune.base.verdicts import Clause, Outcome, brief

Names: TypeAlias = Mapping[str, Json]
Junction: TypeAlias = Literal["all", "any"]

_MAX_DEPTH = 20
_MAX_CLAUSES = 1_000
# How JSON writes a number that can be an index: "007" and longer ones are keys.
_INDEX = re.compile(r"0|[1-9][0-9]{0,17}")
_CLAUSE_KEYS = ("field", "operator", "value")

_OPERATORS = {
    "equals": "{field} == value",
    "not_equals": "{field} != value",
    "contains": "value in {field}",
    "greater_than": "{field} > value",
    "greater_than_or_equal": "{field} >= value",
    "less_than": "{field} < value",
    "less_than_or_equal": "{field} <= value",
    "in": "{field} in value",
    "exists": "({field} is defined) == value",
    "matches": "{field} is defined and match(value, {field})",
}


class Condition(Protocol):
    """A compiled condition, on names among which is `event`."""

    def holds(self, names: Names) -> bool:
        """Whether it holds. Raises ExpressionError when that cannot be said."""
        ...

    def explain(self, names: Names) -> Clause:
        """The verdict on every clause, with what was expected and what was there."""
        ...


class Always:
    """No condition."""

    def holds(self, names: Names) -> bool:  # noqa: ARG002 - a Condition
        return True

    def explain(self, names: Names) -> Clause:  # noqa: ARG002 - a Condition
        return Clause("always", "no conditions", "true")


@dataclass(frozen=True, slots=True)
class Written:
    """A condition that somebody wrote as an expression."""

    expression: Expression

    def holds(self, names: Names) -> bool:
        return bool(self.expression.evaluate(names))

    def explain(self, names: Names) -> Clause:
        return self.expression.explain(names)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A clause on one field."""

    field: Expression
    operator: str
    value: Json
    test: Expression
    text: str

    def holds(self, names: Names) -> bool:
        return bool(self.test.evaluate({**names, "value": self.value}))

    def explain(self, names: Names) -> Clause:
        actual = self.field.evaluate(names)
        outcome: Outcome = "error"
        error = None
        try:
            outcome = "true" if self.holds(names) else "false"
        except ExpressionError as failure:
            error = failure.message
        return Clause(
            "comparison",
            self.text,
            outcome,
            self.operator,
            brief(self.value),
            None if isinstance(actual, Missing) else brief(actual),
            actual is MISSING,
            error,
        )


@dataclass(frozen=True, slots=True)
class Group:
    """Conditions that must hold all, or any of them."""

    junction: Junction
    parts: tuple[Condition, ...]

    def holds(self, names: Names) -> bool:
        join = all if self.junction == "all" else any
        return join(part.holds(names) for part in self.parts)

    def explain(self, names: Names) -> Clause:
        passing: Outcome = "true" if self.junction == "all" else "false"
        outcome: Outcome = passing
        clauses = []
        for part in self.parts:
            clause = part.explain(names)
            if outcome != passing:
                # It was decided before this one.
                clause = Clause(clause.kind, clause.text, "skipped", clause.operator)
            clauses.append(clause)
            outcome = clause.outcome if outcome == passing else outcome
        return Clause(self.junction, self.junction, outcome, clauses=tuple(clauses))


class _Parser:
    """Compiles a condition and collects what is wrong with it."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._clauses = 0

    def conditions(self, value: Json, where: str) -> Condition:
        """The condition that all of a rule's `conditions` are."""
        if value in (None, [], {}):
            return Always()
        return self._condition(value, where, 0)

    def _condition(self, value: Json, where: str, depth: int) -> Condition:
        if depth > _MAX_DEPTH:
            return self._wrong(where, f"is nested deeper than {_MAX_DEPTH} levels")
        match value:
            case list():
                return self._group("all", value, where, depth)
            case {"expression": str(text), **rest} if not rest:
                return self._expression(text, f"{where}/expression")
            case {"all": list(parts), **rest} if not rest:
                return self._group("all", parts, f"{where}/all", depth)
            case {"any": list(parts), **rest} if not rest:
                return self._group("any", parts, f"{where}/any", depth)
            case {"field": _} | {"operator": _}:
                return self._comparison(cast("dict[str, Json]", value), where)
            case _:
                return self._wrong(
                    where,
                    'is no condition: write {"expression": "…"}, a list of {"field", "operator", "value"}, '
                    'or {"all": […]} or {"any": […]}',
                )

    def _group(self, junction: Junction, parts: Sequence[Json], where: str, depth: int) -> Condition:
        if not parts:
            return self._wrong(where, "has no clauses; leave the conditions out if there are none")
        self._clauses += len(parts)
        if self._clauses > _MAX_CLAUSES:
            return self._wrong(where, f"with this there are more than {_MAX_CLAUSES:,} clauses")
        return Group(
            junction,
            tuple(self._condition(part, f"{where}/{index}", depth + 1) for index, part in enumerate(parts)),
        )

    def _expression(self, text: str, where: str) -> Condition:
        try:
            expression = compile_expression(text)
        except ExpressionError as error:
            return self._wrong(where, error.message)
        for name in unknown_names(expression, CONDITION_NAMES):
            self._wrong(where, name)
        return Written(expression)

    def _comparison(self, clause: Mapping[str, Json], where: str) -> Condition:
        field, operator = clause.get("field"), clause.get("operator")
        for key in sorted(clause.keys() - set(_CLAUSE_KEYS)):
            self._wrong(where + pointer((key,)), f"the key {_unknown(key, _CLAUSE_KEYS)}")
        if not isinstance(field, str) or not field:
            return self._wrong(f"{where}/field", "must be a path into the payload, such as user.name")
        if not isinstance(operator, str) or operator not in _OPERATORS:
            return self._wrong(f"{where}/operator", _unknown(str(operator), _OPERATORS))
        if "value" not in clause and operator != "exists":
            return self._wrong(f"{where}/value", f"is required for the operator {operator}")
        value = clause.get("value", True)
        wrong = _value_problem(operator, value)
        if wrong is not None:
            return self._wrong(f"{where}/value", wrong)
        path = _path(field)
        try:
            return Comparison(
                compile_expression(path),
                operator,
                value,
                compile_expression(_OPERATORS[operator].format(field=path)),
                f"{field} {operator} {dumps(value)}",
            )
        except ExpressionError as error:
            return self._wrong(f"{where}/field", error.message)

    def _wrong(self, where: str, what: str) -> Condition:
        self.problems.append(Problem(where, what))
        return Always()


CONDITION_NAMES = ("event",)


def compile_condition(conditions: Json) -> Condition:
    """The condition that a rule's `conditions` are. They were checked when the rule was made."""
    return _compiled(dumps(conditions))


@lru_cache(maxsize=4096)
def _compiled(text: str) -> Condition:
    parser = _Parser()
    condition = parser.conditions(loads(text), "")
    if parser.problems:
        raise ExpressionError("; ".join(str(problem) for problem in parser.problems), parser.problems)
    return condition


def condition_problems(conditions: Json, where: str) -> list[Problem]:
    """What is wrong with conditions, as JSON Pointers below `where`."""
    parser = _Parser()
    parser.conditions(conditions, where)
    return parser.problems


def junction_of(conditions: Json) -> Junction:
    """Whether all or any of a rule's conditions must hold."""
    return "any" if isinstance(conditions, dict) and "any" in conditions else "all"


def unknown_names(expression: Expression, known: Iterable[str]) -> list[str]:
    """What to tell about names that an expression uses and nobody gives it."""
    names = list(known)
    return [f"the name {_unknown(root, names)}" for root in sorted(expression.roots - set(names))]


def _unknown(name: str, known: Iterable[str]) -> str:
    names = list(known)
    close = get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}"
    return f"{name!r} is unknown; {hint}"


def _value_problem(operator: str, value: Json) -> str | None:
    match operator:
        case "in" if not isinstance(value, list):
            return "must be a list for the operator in"
        case "exists" if not isinstance(value, bool):
            return "must be true or false for the operator exists"
        case "greater_than" | "greater_than_or_equal" | "less_than" | "less_than_or_equal" if not _is_ordered(value):
            return f"must be a number or a string for the operator {operator}"
        case "matches":
            return _pattern_problem(value)
        case _:
            return None


def _is_ordered(value: Json) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def _pattern_problem(value: Json) -> str | None:
    if not isinstance(value, str):
        return "must be a regular expression (RE2) for the operator matches"
    try:
        compile_expression("match(value, '')").evaluate({"value": value})
    except ExpressionError as error:
        return error.message
    return None


def _path(field: str) -> str:
    """A dotted path as an expression: `items.0.name` is `event.payload["items"][0]["name"]`."""
    parts = (f"[{part}]" if _INDEX.fullmatch(part) else f"[{dumps(part)}]" for part in field.split("."))
    return "event.payload" + "".join(parts)
