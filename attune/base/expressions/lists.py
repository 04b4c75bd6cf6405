"""The functions on arrays and objects, and those that take a string as well."""

from typing import Any, Final, TypeAlias

from attune.base.expressions.equality import holds, identity, position
from attune.base.expressions.numeric import orderable
from attune.base.expressions.run import Run
from attune.base.expressions.values import MISSING, OperationError, Value, described
from attune.base.json import Json

MAX_RANGE: Final = 10_000

Array: TypeAlias = list[Json]
Object: TypeAlias = dict[str, Json]


def length(_run: Run, value: str | Array | Object) -> int:
    """How many characters, items or keys `value` has."""
    return len(value)


def keys(run: Run, value: Object) -> Array:
    run.spend(len(value))
    return list(value)


def values(run: Run, value: Object) -> Array:
    run.spend(len(value))
    return list(value.values())


def contains(run: Run, container: Value, item: Value) -> bool:
    """What `item in container` gives."""
    return holds(run, container, item)


def reverse(run: Run, value: str | Array) -> str | Array:
    run.spend(len(value) >> 2)
    return value[::-1]


def sort(run: Run, value: list[Any], descending: bool = False) -> Array:
    """An array of numbers or of strings in order."""
    orderable(run, "sort", value)
    run.spend(len(value) * len(value).bit_length() >> 1)
    return sorted(value, reverse=descending)


def unique(run: Run, value: Array) -> Array:
    """The items of an array, each once, in the order in which they first appear."""
    run.spend(len(value) << 4)
    seen: dict[object, Json] = {}
    for item in value:
        seen.setdefault(identity(run, item), item)
    return list(seen.values())


def flat(run: Run, value: Array) -> Array:
    """The items of an array, those of its arrays one level up."""
    run.spend(len(value) << 2)
    result: Array = []
    for item in value:
        if isinstance(item, list):
            run.spend(len(item) >> 3)
            result.extend(item)
        else:
            result.append(item)
    return result


def zipped(run: Run, left: Array, right: Array) -> Array:
    """Pairs of the items of two arrays, as many as the shorter one has."""
    pairs = min(len(left), len(right))
    run.spend(pairs << 3)
    run.room(run.size(left) + run.size(right) + 3 * pairs)
    return run.built([[a, b] for a, b in zip(left, right, strict=False)])


def span(run: Run, first: int, end: int | None = None) -> Array:
    """The whole numbers from 0 to `first`, or from `first` to `end`, the last one left out."""
    numbers = range(first) if end is None else range(first, end)
    if numbers and numbers[-1] - numbers[0] >= MAX_RANGE:
        raise OperationError(f"range makes at most {MAX_RANGE:,} numbers")
    run.spend(len(numbers))
    return list(numbers)


def part(run: Run, value: str | Array, start: int, end: int | None = None) -> str | Array:
    """The characters or items from `start` to before `end`; negative ones count from the end."""
    run.spend(len(value) >> 3)
    return value[start:end]


def index_of(run: Run, value: str | Array, item: Value) -> int:
    """Where `item` is first found in a string or an array; -1 when it is not."""
    if isinstance(value, list):
        return position(run, value, item)
    return value.find(_sought(run, value, item))


def count(run: Run, value: str | Array | Object, item: Value = MISSING) -> int:
    """How often `item` is in a string or an array; without it, how many items there are."""
    if item is MISSING:
        return len(value)
    if isinstance(value, str):
        return value.count(_sought(run, value, item))
    if isinstance(value, dict):
        raise OperationError("count looks for an item in a string or an array, not in an object")
    wanted = identity(run, item)
    run.spend(len(value) << 3)
    return sum(identity(run, element) == wanted for element in value)


def _sought(run: Run, value: str, item: Value) -> str:
    if not isinstance(item, str):
        raise OperationError(f"only a string can be in a string, not {described(item)}")
    run.spend(len(value) // 10)
    return item


def merge(run: Run, left: Object, right: Object) -> Object:
    """One object with the keys of both; where both have a key, `right` wins."""
    run.spend(len(left) + len(right) << 1)
    run.room(run.size(left) + run.size(right))
    return left | right


def chunks(run: Run, value: Array, size: int) -> Array:
    """An array cut into arrays of `size` items; the last one may be shorter."""
    if size < 1:
        raise OperationError("chunks wants a size of at least 1")
    run.spend(len(value) >> 1)
    run.spend(len(value) // size << 3)
    return run.built([value[i : i + size] for i in range(0, len(value), size)])


def first(_run: Run, value: str | Array) -> Value:
    """The first character or item; missing when there is none."""
    return value[0] if value else MISSING


def last(_run: Run, value: str | Array) -> Value:
    """The last character or item; missing when there is none."""
    return value[-1] if value else MISSING


def as_list(run: Run, value: str | Array | Object) -> Array:
    """An array as it is, the characters of a string, the keys of an object."""
    if isinstance(value, list):
        return value
    run.spend(len(value))
    run.room(4 * len(value))
    return list(value)


def default(_run: Run, value: Value, fallback: Value = "", also_when_false: bool = False) -> Value:
    """`value`, or `fallback` when it is missing; with `also_when_false`, when it is null, false, zero or empty too."""
    return fallback if value is MISSING or (also_when_false and not value) else value
