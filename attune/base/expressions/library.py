"""The functions, filters and tests of the language, by name."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from attune.base.expressions import lists, numeric, patterns, strings
from attune.base.expressions.functions import (
    ANY,
    ANY_OR_MISSING,
    ARRAY,
    BOOLEAN,
    COLLECTION,
    INTEGER,
    NUMBER,
    OBJECT,
    SEQUENCE,
    STRING,
    Function,
)
from attune.base.expressions.values import MISSING

_of = Function.of

FUNCTIONS: Final[Mapping[str, Function]] = MappingProxyType(
    {
        "string": _of(numeric.string, ANY),
        "number": _of(numeric.number, ANY),
        "int": _of(numeric.whole, ANY),
        "bool": _of(numeric.boolean, ANY_OR_MISSING),
        "type_of": _of(numeric.type_of, ANY_OR_MISSING),
        "length": _of(lists.length, COLLECTION),
        "keys": _of(lists.keys, OBJECT),
        "values": _of(lists.values, OBJECT),
        "abs": _of(numeric.absolute, NUMBER),
        "floor": _of(numeric.floor, NUMBER),
        "ceil": _of(numeric.ceil, NUMBER),
        "round": _of(numeric.rounded, NUMBER, INTEGER),
        "min": _of(numeric.smallest, ANY, ANY),
        "max": _of(numeric.largest, ANY, ANY),
        "sum": _of(numeric.total, ARRAY),
        "lower": _of(strings.lower, STRING),
        "upper": _of(strings.upper, STRING),
        "trim": _of(strings.trim, STRING),
        "split": _of(strings.split, STRING, STRING),
        "join": _of(strings.join, ARRAY, STRING),
        "replace": _of(strings.replace, STRING, STRING, STRING),
        "starts_with": _of(strings.starts_with, STRING, STRING),
        "ends_with": _of(strings.ends_with, STRING, STRING),
        "match": _of(patterns.match, STRING, STRING),
        "contains": _of(lists.contains, COLLECTION, ANY),
        "reversed": _of(lists.reverse, SEQUENCE),
        "sort": _of(lists.sort, ARRAY, BOOLEAN),
        "unique": _of(lists.unique, ARRAY),
        "flat": _of(lists.flat, ARRAY),
        "zip": _of(lists.zipped, ARRAY, ARRAY),
        "range": _of(lists.span, INTEGER, INTEGER),
        "slice": _of(lists.part, SEQUENCE, INTEGER, INTEGER),
        "index_of": _of(lists.index_of, SEQUENCE, ANY),
        "count": _of(lists.count, COLLECTION, ANY),
        "merge": _of(lists.merge, OBJECT, OBJECT),
        "chunks": _of(lists.chunks, ARRAY, INTEGER),
    }
)

_SHARED = ("string", "int", "bool", "length", "count", "abs", "round", "min", "max", "sum", "lower", "upper", "trim")
_DEFAULT = _of(lists.default, ANY_OR_MISSING, ANY_OR_MISSING, BOOLEAN)

FILTERS: Final[Mapping[str, Function]] = MappingProxyType(
    {name: FUNCTIONS[name] for name in (*_SHARED, "split", "join", "replace", "sort", "unique")}
    | {
        "default": _DEFAULT,
        "d": _DEFAULT,
        "float": _of(numeric.floating, ANY),
        "title": _of(strings.title, STRING),
        "capitalize": _of(strings.capitalize, STRING),
        "truncate": _of(strings.truncate, STRING, INTEGER, STRING),
        "tojson": _of(strings.to_json, ANY),
        "first": _of(lists.first, SEQUENCE),
        "last": _of(lists.last, SEQUENCE),
        "reverse": FUNCTIONS["reversed"],
        "list": _of(lists.as_list, COLLECTION),
    }
)

# A test asks about a value: of what is missing only `defined` and `undefined` say anything, negated or not.
_TESTS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "none": lambda value: value is None,
    "null": lambda value: value is None,
    "boolean": lambda value: type(value) is bool,
    "true": lambda value: value is True,
    "false": lambda value: value is False,
    "number": lambda value: type(value) in {int, float},
    "integer": lambda value: type(value) is int,
    "float": lambda value: type(value) is float,
    "string": lambda value: type(value) is str,
    "array": lambda value: type(value) is list,
    "object": lambda value: type(value) is dict,
    "mapping": lambda value: type(value) is dict,
}


def _of_present(test: Callable[[Any], bool], wanted: bool) -> Callable[[Any], bool]:
    return lambda value: value is not MISSING and test(value) is wanted


def _tests() -> dict[str, Callable[[Any], bool]]:
    tests: dict[str, Callable[[Any], bool]] = {}
    for name, test in _TESTS.items():
        tests[name] = _of_present(test, True)
        tests[f"not {name}"] = _of_present(test, False)
    tests["defined"] = tests["not undefined"] = lambda value: value is not MISSING
    tests["undefined"] = tests["not defined"] = lambda value: value is MISSING
    return tests


TESTS: Final[Mapping[str, Callable[[Any], bool]]] = MappingProxyType(_tests())
