"""JSON values, as they come from people and go to PostgreSQL.

Inside, JSON is a plain Python value; at the edges it is text. PostgreSQL's jsonb takes no NUL character, and JSON has
no NaN, no infinity and no lone surrogates: `parse` refuses all of them with the place, before anything was done.
"""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from math import isfinite
from typing import Any, TypeAlias

import orjson

from attune.base.errors import BadInput, Problem

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
JsonObject: TypeAlias = dict[str, Json]

_MAX_DEPTH = 200
_KINDS = {dict, list, str, int, float, bool, type(None)}


def dumps(value: Any) -> str:
    """`value` as compact JSON text, ready for a jsonb column."""
    return orjson.dumps(value).decode()


def loads(text: str | bytes | None) -> Any:
    """The value of JSON text that PostgreSQL or Attune itself wrote; None for SQL null."""
    return None if text is None else orjson.loads(text)


def parse(body: bytes | str) -> Json:
    """The value of JSON text that came from outside.

    Raises BadInput naming line and column when it is not JSON, or a JSON Pointer to a value that cannot be stored.
    """
    # Not orjson: it keeps the last of two keys, rounds large numbers, and cannot tell where half a surrogate stands.
    try:
        text = body.decode() if isinstance(body, bytes) else body
        value: Json = json.loads(text, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise BadInput(f"The body is not UTF-8: see byte {error.start}.") from error
    except json.JSONDecodeError as error:
        raise BadInput(f"The body is not JSON: {error}.") from error
    except RecursionError as error:
        raise BadInput(f"The body is nested deeper than {_MAX_DEPTH} levels.") from error
    except ValueError as error:
        raise BadInput("The body holds a number of thousands of digits.") from error
    problems = list(unstorable(value))
    if problems:
        raise BadInput("The body holds values that cannot be stored.", problems)
    return value


class _Repeating(dict[str, Json]):
    """An object that says some keys more than once: all but the last value would be lost."""

    def __init__(self, pairs: list[tuple[str, Json]]) -> None:
        super().__init__(pairs)
        self.repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]


def _object(pairs: list[tuple[str, Json]]) -> JsonObject:
    value = dict(pairs)
    return value if len(value) == len(pairs) else _Repeating(pairs)


def unstorable(value: Json, where: str = "") -> Iterator[Problem]:
    """Every place in `value` that jsonb would refuse or change, as JSON Pointers below `where`."""
    if not _is_storable(value):
        yield from _unstorable(value, where)


def _is_storable(value: Json) -> bool:
    """A look at all of it, level by level, without keeping track of places: that is quick, and nearly always enough."""
    level: list[Any] = [value]
    for _ in range(_MAX_DEPTH):
        kinds: dict[Any, list[Any]] = {
            kind: [item for item in level if type(item) is kind] for kind in set(map(type, level))
        }
        objects = kinds.get(dict, [])
        try:
            texts = "".join(chain(kinds.get(str, ()), *objects))
        except TypeError:
            # A key that is no text. YAML has those.
            return False
        numbers = kinds.get(int, [0])
        if not (
            kinds.keys() <= _KINDS
            and _is_text(texts)
            and _fits(min(numbers))
            and _fits(max(numbers))
            and all(map(isfinite, kinds.get(float, ())))
        ):
            return False
        level = [*chain(*kinds.get(list, ()), *map(dict.values, objects))]
        if not level:
            return True
    return False


def _unstorable(value: Json, where: str) -> Iterator[Problem]:
    stack: list[tuple[Json, str, int]] = [(value, where, 0)]
    while stack:
        item, path, depth = stack.pop()
        if isinstance(item, dict | list):
            if depth == _MAX_DEPTH:
                yield Problem(path, f"is nested deeper than {_MAX_DEPTH} levels")
                continue
            if isinstance(item, _Repeating):
                yield from (Problem(f"{path}/{_escape(key)}", "stands there twice") for key in item.repeated)
            for key, child in item.items() if isinstance(item, dict) else enumerate(item):
                if isinstance(key, str) and not _is_text(key):
                    yield Problem(path, f"has a key with {_no_text(key)}: {key!r}")
                stack.append((child, f"{path}/{_escape(str(key))}", depth + 1))
        elif isinstance(item, str) and not _is_text(item):
            yield Problem(path, f"holds {_no_text(item)}, which PostgreSQL cannot store")
        elif isinstance(item, int | float) and not _fits(item):
            yield Problem(path, _no_number(item))


def _is_text(value: str) -> bool:
    if "\x00" in value:
        return False
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False


def _no_text(value: str) -> str:
    return "a NUL character" if "\x00" in value else "half of a surrogate pair"


def _no_number(number: float) -> str:
    return "has more than 64 bits; send it as text" if isinstance(number, int) else "is NaN, infinite, or too large"


def _fits(number: float) -> bool:
    return -(1 << 63) <= number < 1 << 64 if isinstance(number, int) else isfinite(number)


def pointer(path: tuple[str | int, ...]) -> str:
    """A JSON Pointer (RFC 6901) to `path`; the empty string for the whole document."""
    return "".join(f"/{_escape(str(part))}" for part in path)


def _escape(part: str) -> str:
    # An answer that names the place of half a surrogate must be able to say so.
    return part.encode("utf-8", "replace").decode().replace("~", "~0").replace("/", "~1")
