"""One evaluation: the names it sees, and how much it may still do.

The engine has one event loop, so no expression may hold it up. Every operation whose cost grows with its operands pays
for it in units of about 50 ns before it works; nothing is built that would be larger than MAX_SIZE. Both are counted,
not timed: the same expression on the same values always ends the same way.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

import orjson

from attune.base.expressions.values import CONTAINERS, MISSING, OperationError, Value
from attune.base.json import Json

Container = TypeVar("Container", bound="dict[str, Json] | list[Json]")

MAX_WORK: Final = 1_000_000
MAX_SIZE: Final = 1 << 20
MAX_DEPTH: Final = 200


class Run:
    """What one evaluation carries through every operation. Stands in for Jinja's Context in the compiled code."""

    __slots__ = ("at", "left", "names", "patterns", "sizes", "taps", "vars")

    def __init__(self, names: Mapping[str, Json]) -> None:
        self.names = names
        self.left = MAX_WORK
        self.at = 0
        self.vars: dict[str, Value] = {}
        self.patterns: frozenset[str] = frozenset()
        self.sizes: dict[int, tuple[Value, int]] = {}
        self.taps: dict[int, tuple[Value, Value, bool | None]] = {}

    def resolve_or_missing(self, name: str) -> Value:
        """Part of Jinja's Context that compiled code binds; translated expressions never call it."""
        return self.names.get(name, MISSING)

    def spend(self, units: int) -> None:
        """Pay `units` of about 50 ns for what comes next; raises OperationError when the share is used up."""
        self.left -= units
        if self.left < 0:
            raise OperationError("this is more work than one evaluation may do; use smaller values or fewer steps")

    def room(self, size: int) -> None:
        """Refuse to build a value of more than MAX_SIZE characters."""
        if size > MAX_SIZE:
            raise OperationError(f"the result would be longer than {MAX_SIZE:,} characters")

    def size(self, value: Value) -> int:
        """About how many characters `value` has as JSON text; measured once for each array and object."""
        kind = type(value)
        if kind not in CONTAINERS:
            # Numbers and words: some are longer, but none much.
            return len(value) + 2 if isinstance(value, str) else 5
        known = self.sizes.get(id(value))
        if known is None:
            # Holding the value keeps its id from being used for another one.
            known = self.sizes[id(value)] = (value, len(self.dumps(value)))
        return known[1]

    def dumps(self, value: Value) -> bytes:
        """`value` as compact JSON text."""
        try:
            text = orjson.dumps(value)
        except TypeError as error:
            raise OperationError(f"a value cannot be written as JSON ({error})") from error
        self.spend((len(text) >> 3) + 30)
        return text

    def text(self, value: Value) -> str:
        """`value` as people write it: strings as they are, null and missing as nothing, the rest as compact JSON."""
        if isinstance(value, str):
            return value
        if value is None or value is MISSING:
            return ""
        if type(value) is int:
            return str(value)
        return self.dumps(value).decode()

    def built(self, value: Container) -> Container:
        """`value`, an array or object made of finished parts, unless it is too large or nested too deeply."""
        parts: Iterable[Json] = value.values() if isinstance(value, dict) else value
        size, nested = sum(map(len, value)) if isinstance(value, dict) else 0, False
        self.spend(len(value) << 2)
        for part in parts:
            nested = nested or type(part) in CONTAINERS
            size += self.size(part) + 1
        self.room(size)
        if nested:
            text = self.dumps(value)
            self.room(len(text))
            self.sizes[id(value)] = (value, len(text))
            # Text holds at least as many brackets as it is deep, and counting them is cheap.
            if text.count(b"[") + text.count(b"{") > MAX_DEPTH:
                self._refuse_depth(value)
        return value

    def _refuse_depth(self, value: Any) -> None:
        level = [value]
        for _ in range(MAX_DEPTH):
            below: list[Any] = []
            for container in level:
                self.spend(len(container) + 25)
                parts = container.values() if type(container) is dict else container
                below.extend(part for part in parts if type(part) in CONTAINERS)
            if not below:
                return
            level = below
        raise OperationError(f"the result would be nested deeper than {MAX_DEPTH} levels")
