"""The functions on numbers, and the conversions between types."""

import math
import re
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any, Final

from attune.base.expressions.operators import checked
from attune.base.expressions.run import Run
from attune.base.expressions.values import NUMBERS, OperationError, Value, described, described_type, type_name

_NUMBER: Final = re.compile(r"[+-]?\d{1,400}(\.\d{1,400})?([eE][+-]?\d{1,4})?", re.ASCII)
_WORDS: Final = {
    "true": True, "yes": True, "on": True, "1": True,
    "false": False, "no": False, "off": False, "0": False, "": False,
}  # fmt: skip
_PRECISE: Final = Context(prec=50)
_MAX_DIGITS: Final = 15


def string(run: Run, value: Value) -> str:
    """`value` as text: strings as they are, null as nothing, the rest as compact JSON."""
    return run.text(value)


def number(_run: Run, value: Value) -> int | float:
    """`value` as a number: of a string that holds one, of true (1) and false (0)."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str):
        raise OperationError(f"{described(value)} cannot be made a number")
    match = _NUMBER.fullmatch(value.strip()) if len(value) <= 1000 else None
    if match is None:
        raise OperationError("the string does not hold a number")
    return checked(float(match[0]) if match[1] or match[2] else int(match[0]))


def whole(run: Run, value: Value) -> int:
    """`value` as a whole number, what is behind the point cut off."""
    return int(checked(int(number(run, value))))


def floating(run: Run, value: Value) -> float:
    """`value` as a number with a decimal point."""
    return float(number(run, value))


def boolean(_run: Run, value: Value) -> bool:
    """`value` as true or false: of a string, what the word says; of the rest, whether it is empty, zero or missing."""
    if not isinstance(value, str):
        return bool(value)
    word = value.strip().lower() if len(value) < 10 else "?"
    if word not in _WORDS:
        raise OperationError("the string says neither true nor false")
    return _WORDS[word]


def type_of(_run: Run, value: Value) -> str:
    """The JSON type of `value`: null, boolean, number, string, array, object; or missing."""
    return type_name(value)


def absolute(_run: Run, value: float) -> int | float:
    return checked(abs(value))


def floor(_run: Run, value: float) -> int | float:
    return checked(math.floor(value))


def ceil(_run: Run, value: float) -> int | float:
    return checked(math.ceil(value))


def rounded(_run: Run, value: float, digits: int = 0) -> int | float:
    """`value` rounded as people do it: 2.5 is 3, -2.5 is -3. A whole number without `digits`."""
    if not 0 <= digits <= _MAX_DIGITS:
        raise OperationError(f"round keeps 0 to {_MAX_DIGITS} digits behind the point")
    # Of the shortest text that means the number: 2.675 is 2.68, though the binary fraction is a little less.
    exact = Decimal(repr(value))
    if isinstance(value, int) or exact.adjusted() > 2 * _MAX_DIGITS:
        return value if digits else checked(int(value))
    result = exact.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP, _PRECISE)
    return checked(float(result) if digits else int(result))


def total(run: Run, values: list[Any]) -> int | float:
    """The sum of an array of numbers; 0 of an empty one."""
    run.spend(len(values) << 1)
    if not set(map(type, values)) <= NUMBERS:
        raise OperationError("sum wants an array of numbers only")
    try:
        return checked(sum(values))
    except OverflowError as error:
        raise OperationError("the result is not a finite number") from error


def smallest(run: Run, first: Value, *others: Value) -> Value:
    """The smallest of the arguments, or of one array: all numbers or all strings."""
    result: Value = min(_candidates(run, "min", first, others))
    return result


def largest(run: Run, first: Value, *others: Value) -> Value:
    """The largest of the arguments, or of one array: all numbers or all strings."""
    result: Value = max(_candidates(run, "max", first, others))
    return result


def _candidates(run: Run, name: str, first: Any, others: tuple[Any, ...]) -> list[Any]:
    values = first if isinstance(first, list) and not others else [first, *others]
    if not values:
        raise OperationError(f"an empty array has no {name}")
    orderable(run, name, values)
    return values


def orderable(run: Run, name: str, values: list[Any]) -> None:
    """Refuse `values` that are neither all numbers nor all strings."""
    run.spend(len(values) << 1)
    types = set(map(type, values))
    if not (types <= NUMBERS or types == {str}):
        seen = sorted(map(described_type, types))
        raise OperationError(f"{name} wants numbers only or strings only, not {', '.join(seen)}")
