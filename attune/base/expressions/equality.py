"""When two JSON values are the same: deeply, and without coercion. `true` is not `1`; `1` is `1.0`."""

from itertools import starmap
from typing import Any

import orjson

from attune.base.expressions.run import Run
from attune.base.expressions.values import CONTAINERS, MISSING, NUMBERS, SCALARS, OperationError, Value, described

_LONG = 1024


def same(run: Run, left: Value, right: Value) -> bool:
    """Whether two values are equal as JSON. Missing equals nothing."""
    kind = type(left)
    if kind is not type(right):
        return kind in NUMBERS and type(right) in NUMBERS and left == right
    if kind in SCALARS:
        if isinstance(left, str) and len(left) > _LONG:
            run.spend(len(left) >> 8)
        return left == right
    return kind in CONTAINERS and _same_containers(run, left, right)


def _same_containers(run: Run, left: Any, right: Any) -> bool:
    if left is right:
        return True
    if len(left) != len(right):
        return False
    run.spend(min(run.size(left), run.size(right)) >> 4)
    # Python's own comparison is fast and only ever too generous: to it, true is 1.
    return bool(left == right) and _alike(run, left, right)


def _alike(run: Run, left: Any, right: Any) -> bool:
    """Whether two values that Python calls equal hold booleans at the same places."""
    run.spend(4)
    if type(left) is dict:
        run.spend(len(left) << 2)
        return all(_alike(run, value, right[key]) for key, value in left.items())
    if type(left) is list:
        run.spend(len(left) << 2)
        return all(starmap(lambda a, b: _alike(run, a, b), zip(left, right, strict=True)))
    return (type(left) is bool) is (type(right) is bool)


def holds(run: Run, container: Value, item: Value) -> bool:
    """Whether `container` has `item`: an element of an array, a part of a string, a key of an object."""
    if container is MISSING or item is MISSING:
        return False
    if isinstance(container, list):
        return position(run, container, item) >= 0
    if not isinstance(container, str | dict):
        raise OperationError(f"{described(container)} has no parts to look in; an array, a string or an object has")
    if not isinstance(item, str):
        what = "a string" if isinstance(container, str) else "an object"
        raise OperationError(f"only a string can be in {what}, not {described(item)}")
    if isinstance(container, str):
        run.spend(len(container) // 10)
    return item in container


def position(run: Run, array: list[Any], item: Value) -> int:
    """The index of the first element of `array` that equals `item`; -1 when there is none."""
    if type(item) in CONTAINERS:
        run.spend(run.size(array) >> 4)
    run.spend(len(array))
    index = -1
    while True:
        try:
            index = array.index(item, index + 1)
        except ValueError:
            return -1
        run.spend(10)
        if same(run, array[index], item):
            return index


def identity(run: Run, value: Any) -> object:
    """Something hashable that is equal for equal values only."""
    if type(value) in CONTAINERS:
        run.spend(run.size(value) >> 3)
        return orjson.dumps(_canonical(run, value), option=orjson.OPT_SORT_KEYS)
    return (type(value) is bool, value)


def _canonical(run: Run, value: Any) -> Any:
    """`value` with every number in the one form that its equals share."""
    if type(value) is dict:
        run.spend((len(value) << 2) + 10)
        return {key: _canonical(run, item) for key, item in value.items()}
    if type(value) is list:
        run.spend((len(value) << 2) + 10)
        return [_canonical(run, item) for item in value]
    if type(value) is float and value.is_integer() and -(1 << 63) <= value < 1 << 64:
        return int(value)
    return value
