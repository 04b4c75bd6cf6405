"""Conditions that can never hold, as far as that can be told without trying all there is."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attune.base.errors import Problem
from attune.base.expressions import ExpressionError, compile_expression
from attune.base.json import Json, dumps
from attune.rules.conditions import compile_condition

# Whether the value itself is left out.
_LOWER = {"greater_than": True, "greater_than_or_equal": False}
_UPPER = {"less_than": True, "less_than_or_equal": False}


@dataclass(frozen=True, slots=True)
class _Clause:
    where: str
    clause: Mapping[str, Json]

    @property
    def field(self) -> str:
        return str(self.clause["field"])

    @property
    def operator(self) -> str:
        return str(self.clause["operator"])

    @property
    def value(self) -> Any:
        return self.clause.get("value", True)

    def __str__(self) -> str:
        return f"{self.field} {self.operator} {dumps(self.value)}"

    def holds_for(self, value: Json) -> bool:
        """Whether the clause holds for a value of its field, as the matcher would say."""
        try:
            return compile_condition([{**self.clause, "field": "x"}]).holds({"event": {"payload": {"x": value}}})
        except ExpressionError:
            return False


def contradiction(conditions: Json, where: str) -> Problem | None:
    """Why conditions, which are well-formed, can never hold; None when they may."""
    match conditions:
        case {"expression": str(text)}:
            return _constant(text, f"{where}/expression")
        case {"any": list(parts)}:
            found = [contradiction(part, f"{where}/any/{index}") for index, part in enumerate(parts)]
            return found[0] if all(found) else None
        case list() | {"all": list()} | {"field": _}:
            return _conjunction(conditions, where)
        case _:
            return None


def _constant(text: str, where: str) -> Problem | None:
    expression = compile_expression(text)
    if expression.roots:
        return None
    try:
        holds = bool(expression.evaluate({}))
    except ExpressionError as error:
        return Problem(where, f"can never be decided: {error.message}")
    return None if holds else Problem(where, "is never true, whatever the event")


def _conjunction(conditions: Json, where: str) -> Problem | None:
    by_field: dict[str, list[_Clause]] = defaultdict(list)
    for part_where, part in _flattened(conditions, where):
        if isinstance(part, dict) and "field" in part:
            clause = _Clause(part_where, part)
            by_field[clause.field].append(clause)
        elif (found := contradiction(part, part_where)) is not None:
            return found
    return next((found for clauses in by_field.values() if (found := _impossible(clauses)) is not None), None)


def _flattened(conditions: Json, where: str) -> Iterator[tuple[str, Json]]:
    """The parts that must hold all, whatever lists they stand in."""
    match conditions:
        case list(parts):
            place = where
        case {"all": list(parts)}:
            place = f"{where}/all"
        case _:
            yield where, conditions
            return
    for index, part in enumerate(parts):
        yield from _flattened(part, f"{place}/{index}")


def _impossible(clauses: Sequence[_Clause]) -> Problem | None:
    """Why clauses on one field can never hold together."""
    absent = next((one for one in clauses if one.operator == "exists" and one.value is False), None)
    if absent is not None:
        other = next((one for one in clauses if one.operator != "exists" or one.value is True), None)
        return None if other is None else _both(absent, other)
    return _no_candidate(clauses) or _empty_range(clauses)


def _no_candidate(clauses: Sequence[_Clause]) -> Problem | None:
    """Some clauses name all values that they hold for: one of them must suit all the others."""
    naming = [one for one in clauses if one.operator in {"equals", "in"}]
    if not naming:
        return None
    first = min(naming, key=lambda one: 1 if one.operator == "equals" else len(one.value))
    candidates: list[Json] = [first.value] if first.operator == "equals" else list(first.value)
    if not candidates:
        return Problem(f"{first.where}/value", f"{first}: no value is in an empty list")
    for one in clauses:
        if one is not first and not any(map(one.holds_for, candidates)):
            return _both(first, one)
    if any(all(one.holds_for(candidate) for one in clauses) for candidate in candidates):
        return None
    return Problem(first.where, f"no value of {first.field} suits all clauses on it")


def _empty_range(clauses: Sequence[_Clause]) -> Problem | None:
    for low in clauses:
        for high in clauses:
            if low.operator in _LOWER and high.operator in _UPPER and _is_empty(low, high):
                return _both(low, high)
    return None


def _is_empty(low: _Clause, high: _Clause) -> bool:
    if isinstance(low.value, str) != isinstance(high.value, str):
        return True
    strict = _LOWER[low.operator] or _UPPER[high.operator]
    return bool(low.value > high.value or (strict and low.value == high.value))


def _both(one: _Clause, other: _Clause) -> Problem:
    return Problem(other.where, f"{one} and {other} can never both hold")
