"""The functions on strings."""

from typing import Any

from attune.base.expressions.run import Run
from attune.base.expressions.values import OperationError, Value


def _work(run: Run, value: str) -> None:
    # ASCII is mapped a word at a time, everything else character by character.
    run.spend(len(value) >> (4 if value.isascii() else 2))


def lower(run: Run, value: str) -> str:
    _work(run, value)
    return value.lower()


def upper(run: Run, value: str) -> str:
    _work(run, value)
    result = value.upper()
    run.room(len(result))
    return result


def title(run: Run, value: str) -> str:
    """`value` with every word beginning in upper case."""
    run.spend(len(value) >> 1)
    result = value.title()
    run.room(len(result))
    return result


def capitalize(run: Run, value: str) -> str:
    """`value` with its first letter in upper case and the others in lower case."""
    run.spend(len(value) >> 2)
    return value.capitalize()


def trim(run: Run, value: str) -> str:
    """`value` without white space at its ends."""
    run.spend(len(value) >> 4)
    return value.strip()


def split(run: Run, value: str, separator: str | None = None) -> Value:
    """The parts of `value` between its separators; without one, its words."""
    if separator == "":
        raise OperationError("split wants a separator that is not empty")
    run.spend(len(value) >> 3)
    pieces = value.count(separator) + 1 if separator else len(value) // 2 + 1
    run.spend(pieces)
    run.room(len(value) + 3 * pieces)
    return [*value.split(separator)]


def join(run: Run, values: list[Any], separator: str = "") -> str:
    """The items of an array as one text."""
    run.spend(len(values) << 3)
    texts = [run.text(value) for value in values]
    length = sum(map(len, texts)) + len(separator) * len(texts)
    run.room(length)
    run.spend(length >> 5)
    return separator.join(texts)


def replace(run: Run, value: str, old: str, new: str) -> str:
    """`value` with every `old` replaced by `new`."""
    if not old:
        raise OperationError("replace wants a text to look for that is not empty")
    run.spend(len(value) >> 3)
    found = value.count(old)
    length = len(value) + found * (len(new) - len(old))
    run.room(length)
    run.spend(found + (length >> 5))
    return value.replace(old, new)


def starts_with(run: Run, value: str, prefix: str) -> bool:
    run.spend(len(prefix) >> 8)
    return value.startswith(prefix)


def ends_with(run: Run, value: str, suffix: str) -> bool:
    run.spend(len(suffix) >> 8)
    return value.endswith(suffix)


def truncate(run: Run, value: str, length: int = 255, end: str = "...") -> str:
    """`value`, or its beginning and `end` when it is longer than `length` characters, `end` included."""
    if length < len(end):
        raise OperationError(f"truncate wants a length of at least {len(end)}, to hold the end")
    run.spend(len(value) >> 6)
    return value if len(value) <= length else value[: length - len(end)] + end


def to_json(run: Run, value: Value) -> str:
    """`value` as compact JSON text."""
    text = run.dumps(value).decode()
    run.room(len(text))
    return text
