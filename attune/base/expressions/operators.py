"""What the operators of the language do.

Each is a Jinja filter that gets the Run first. `at` is the number of the place in the expression, for the message when
it fails.
"""

import operator as python
from collections.abc import Callable
from math import isfinite
from typing import Any, Final

from jinja2 import pass_context

from attune.base.expressions.equality import holds, same
from attune.base.expressions.run import Run
from attune.base.expressions.values import MISSING, NUMBERS, MissingOperandError, OperationError, Value, described
from attune.base.json import Json

Comparison = Callable[[Run, Value, Value], bool]


def step(value: Any, key: Any) -> Any:
    """What is under `key` in `value`: data only, never an attribute of a Python object."""
    kind = type(value)
    if kind is dict:
        return value.get(str(key) if type(key) is int else key, MISSING) if type(key) in {str, int} else MISSING
    if kind is list and type(key) is int and -len(value) <= key < len(value):
        return value[key]
    return MISSING


@pass_context
def path(run: Run, root: str, *keys: Any) -> Any:
    """`root.key.key`, from the names of the evaluation."""
    value: Any = run.names.get(root, MISSING)
    for key in keys:
        value = value.get(key, MISSING) if type(value) is dict and type(key) is str else step(value, key)
    return value


@pass_context
def get(_run: Run, value: Any, *keys: Any) -> Any:
    """`(value).key.key`."""
    for key in keys:
        value = step(value, key)
    return value


@pass_context
def missing(_run: Run, _at: int) -> Value:
    """What `x if false` is."""
    return MISSING


@pass_context
def array(run: Run, at: int, *items: Value) -> Json:
    """`[item, …]`; a missing item is null."""
    run.at = at
    return run.built([None if item is MISSING else item for item in items])


@pass_context
def object_(run: Run, at: int, *pairs: Value) -> Json:
    """`{key: value, …}`; a missing value is null."""
    run.at = at
    result: dict[str, Json] = {}
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if not isinstance(key, str):
            raise OperationError(f'the keys of an object are strings, not {described(key)}; write {{"key": value}}')
        result[key] = None if value is MISSING else value
    return run.built(result)


@pass_context
def concat(run: Run, at: int, *parts: Value) -> str:
    """`part ~ part`."""
    run.at = at
    texts = [run.text(part) for part in parts]
    length = sum(map(len, texts))
    run.room(length)
    run.spend(length >> 6)
    return "".join(texts)


def checked(value: complex) -> int | float:
    """`value`, a number that came out of arithmetic, if JSON and 64 bits can hold it."""
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise OperationError("the result does not fit into 64 bits")
        return value
    if isinstance(value, float) and isfinite(value):
        return value
    raise OperationError("the result is not a finite number")


def _unfit(verb: str, left: Any, right: Any) -> OperationError:
    if left is MISSING:
        return MissingOperandError(0)
    if right is MISSING:
        return MissingOperandError(1)
    return OperationError(f"{described(left)} and {described(right)} cannot be {verb}")


@pass_context
def add(run: Run, at: int, left: Any, right: Any) -> Any:
    """`left + right`: two numbers, two strings or two arrays."""
    run.at = at
    if type(left) in NUMBERS and type(right) in NUMBERS:
        return checked(left + right)
    if type(left) is not type(right) or type(left) not in {str, list}:
        raise _unfit("added", left, right)
    run.spend(len(left) + len(right) >> 3)
    run.room(run.size(left) + run.size(right))
    return left + right


@pass_context
def multiply(run: Run, at: int, left: Any, right: Any) -> Any:
    """`left * right`: two numbers, or a string or array and how often it is repeated."""
    run.at = at
    if type(left) in NUMBERS and type(right) in NUMBERS:
        return checked(left * right)
    if type(left) is int:
        left, right = right, left
    if type(left) not in {str, list} or type(right) is not int:
        raise _unfit("multiplied", left, right)
    times = max(right, 0)
    run.room(run.size(left) * times)
    run.spend(len(left) * times >> 3)
    return left * times


def _arithmetic(verb: str, compute: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """An operator on two numbers."""

    @pass_context
    def operator(run: Run, at: int, left: Any, right: Any) -> Any:
        run.at = at
        if type(left) not in NUMBERS or type(right) not in NUMBERS:
            raise _unfit(verb, left, right)
        try:
            return checked(compute(left, right))
        except ZeroDivisionError as error:
            raise OperationError("the divisor is zero") from error
        except OverflowError as error:
            raise OperationError("the result is not a finite number") from error

    return operator


def _divide(left: Any, right: Any) -> Any:
    if type(left) is int and type(right) is int and left % right == 0:
        return left // right
    return left / right


def _power(left: Any, right: Any) -> Any:
    # 2 ** 10**6 takes a megabyte: what cannot fit is refused before it is computed.
    if type(left) is int and type(right) is int and abs(left) > 1 and right > 64:
        raise OperationError("the result does not fit into 64 bits")
    return left**right


@pass_context
def negative(run: Run, at: int, value: Any) -> Any:
    """`-value`."""
    run.at = at
    if type(value) in NUMBERS:
        return checked(-value)
    raise (
        MissingOperandError(0)
        if value is MISSING
        else OperationError(f"{described(value)} has no sign; only a number has")
    )


def _ordering(compare: Callable[[Any, Any], bool]) -> Comparison:
    """A comparison of two numbers or two strings; false of what is missing."""

    def ordered(run: Run, left: Any, right: Any) -> bool:
        if type(left) in NUMBERS and type(right) in NUMBERS:
            return compare(left, right)
        if type(left) is str and type(right) is str:
            run.spend(len(left) >> 8)
            return compare(left, right)
        if left is MISSING or right is MISSING:
            return False
        raise OperationError(f"{described(left)} and {described(right)} have no order; two numbers or two strings have")

    return ordered


def _differs(run: Run, left: Any, right: Any) -> bool:
    return left is not MISSING and right is not MISSING and not same(run, left, right)


def _within(run: Run, left: Any, right: Any) -> bool:
    return holds(run, right, left)


def _without(run: Run, left: Any, right: Any) -> bool:
    return left is not MISSING and right is not MISSING and not holds(run, right, left)


COMPARISONS: Final[dict[str, Comparison]] = {
    "eq": same,
    "ne": _differs,
    "lt": _ordering(python.lt),
    "lteq": _ordering(python.le),
    "gt": _ordering(python.gt),
    "gteq": _ordering(python.ge),
    "in": _within,
    "notin": _without,
}


def _comparison(compare: Comparison) -> Callable[..., bool]:
    @pass_context
    def operator(run: Run, at: int, left: Value, right: Value) -> bool:
        run.at = at
        return compare(run, left, right)

    return operator


@pass_context
def chain(run: Run, at: int, *operands: Any) -> bool:
    """`a < b < c`, given as a, "lt", b, "lt", c: true when each neighbour compares as its operator says."""
    run.at = at
    return all(COMPARISONS[operands[i]](run, operands[i - 1], operands[i + 1]) for i in range(1, len(operands), 2))


@pass_context
def tap(run: Run, key: int, value: Value) -> Value:
    """`value`, noted under `key` for the explanation."""
    run.taps[key] = (value, MISSING, None)
    return value


@pass_context
def tap_comparison(run: Run, key: int, at: int, *operands: Any) -> bool:
    """What `chain` gives, with each pair noted under `key` and the numbers that follow it."""
    run.at = at
    for i in range(1, len(operands), 2):
        left, right = operands[i - 1], operands[i + 1]
        run.taps[key] = (left, right, None)
        outcome = COMPARISONS[operands[i]](run, left, right)
        run.taps[key] = (left, right, outcome)
        if not outcome:
            return False
        key += 1
    return True


OPERATORS: Final[dict[str, Callable[..., Any]]] = {
    "path": path,
    "get": get,
    "missing": missing,
    "array": array,
    "object": object_,
    "concat": concat,
    "add": add,
    "sub": _arithmetic("subtracted", lambda left, right: left - right),
    "mul": multiply,
    "div": _arithmetic("divided", _divide),
    "floordiv": _arithmetic("divided", lambda left, right: left // right),
    "mod": _arithmetic("divided", lambda left, right: left % right),
    "pow": _arithmetic("raised to a power", _power),
    "neg": negative,
    "chain": chain,
    "tap": tap,
    "tap_comparison": tap_comparison,
    **{name: _comparison(compare) for name, compare in COMPARISONS.items()},
}
