"""What a condition came to, clause by clause, so that a person sees why a rule matched or did not."""

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from attune.base.json import Json, JsonObject

ClauseKind: TypeAlias = Literal["all", "any", "not", "comparison", "value", "always"]
Outcome: TypeAlias = Literal["true", "false", "error", "skipped"]

_LONGEST: Final = 200
_LARGEST: Final = 1000


@dataclass(frozen=True, slots=True)
class Clause:
    """One part of a condition. `all`, `any` and `not` have clauses; the others are leaves.

    A comparison compares the `actual` value, its left operand, with the `expected` one. An operand that is missing is
    None like one that is null: `actual_missing` and `expected_missing` tell them apart. `skipped` means that the
    outcome was certain before this clause was reached.
    """

    kind: ClauseKind
    text: str
    outcome: Outcome
    operator: str | None = None
    expected: Json = None
    actual: Json = None
    actual_missing: bool = False
    error: str | None = None
    clauses: "tuple[Clause, ...]" = ()
    expected_missing: bool = False

    @property
    def has_actual(self) -> bool:
        """Whether it looked at a single value: `actual`, unless that was missing."""
        return self.kind in {"comparison", "value"} and self.outcome != "skipped"

    def as_json(self) -> JsonObject:
        """The clause as JSON, without what is empty. Null operands are shown, missing ones are marked as missing."""
        result: JsonObject = {"kind": self.kind, "text": self.text, "outcome": self.outcome}
        if self.operator is not None:
            result["operator"] = self.operator
        if self.has_actual:
            result |= _operand("actual", self.actual, self.actual_missing, self._known)
        if self.kind == "comparison" and self.outcome != "skipped":
            result |= _operand("expected", self.expected, self.expected_missing, self._known)
        if self.error is not None:
            result["error"] = self.error
        if self.clauses:
            result["clauses"] = [clause.as_json() for clause in self.clauses]
        return result

    @property
    def _known(self) -> bool:
        """Whether a None among the operands is a null, and not just a value that could not be had."""
        return self.outcome != "error"


def _operand(name: str, value: Json, missing: bool, known: bool) -> JsonObject:
    if missing:
        return {f"{name}_missing": True}
    return {name: value} if known or value is not None else {}


def brief(value: Json) -> Json:
    """`value` as a verdict shows it: a long string is cut, a large array or object is only described."""
    if isinstance(value, str):
        return value if len(value) <= _LONGEST else f"{value[:_LONGEST]}… ({len(value):,} characters)"
    if isinstance(value, list) and _is_large(value):
        return f"(an array of {len(value):,} items)"
    if isinstance(value, dict) and _is_large(value):
        return f"(an object of {len(value):,} keys)"
    return value


def _is_large(value: Any) -> bool:
    size, pending = 0, [value]
    while pending and size <= _LARGEST:
        item = pending.pop()
        size += len(item) + 1 if isinstance(item, str | list | dict) else 1
        if size <= _LARGEST and isinstance(item, list | dict):
            pending.extend(item if isinstance(item, list) else (*item, *item.values()))
    return size > _LARGEST
