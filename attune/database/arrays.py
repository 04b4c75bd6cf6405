"""Columns as arrays: what costs time on the way to the database is each element, so a column that is the same for all
rows goes as one value, and one that is null for all rows as nothing."""

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

T = TypeVar("T")
Key = TypeVar("Key", bound=Hashable)


def grouped(rows: Sequence[T], key: Callable[[T], Key]) -> dict[Key, list[T]]:
    """The rows by what they have in common, in the order of their first appearance."""
    groups: dict[Key, list[T]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def nullable(values: list[T]) -> list[T]:
    """A column for `unnest`, which makes nulls of what a shorter array lacks: empty if all its values are None."""
    return [] if all(value is None for value in values) else values
