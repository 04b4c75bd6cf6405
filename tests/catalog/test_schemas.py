"""Schemas of parameters: what can be one, and what is said about values that do not fit."""

import pytest

from attune.base.json import Json, JsonObject
from attune.base.schema import check_schema, secret_names, validate, with_defaults

FLAT: JsonObject = {
    "name": {"type": "string", "required": True, "position": 1},
    "tries": {"type": "integer", "minimum": 1, "default": 3, "required": True},
    "level": {"type": "string", "enum": ["low", "high"]},
    "tags": {"type": "array", "items": {"type": "string"}},
    "address": {"type": "object", "properties": {"street": {"type": "string"}}, "required": ["street"]},
    "password": {"type": "string", "secret": True, "pattern": "^[a-z]+$"},
}
JSON_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "password": {"type": "string", "secret": True}, "tries": {"default": 3}},
    "required": ["name"],
    "additionalProperties": False,
}


def told(values: JsonObject, schema: JsonObject = FLAT, *, closed: bool = True) -> list[str]:
    return [str(problem) for problem in validate(values, schema, closed=closed)]


@pytest.mark.parametrize(
    ("values", "problems"),
    [
        ({"name": "ada"}, []),
        # What has a default is not required.
        ({}, ["/name: is required"]),
        ({"name": 3}, ['/name: it is not of type "string"']),
        ({"name": "ada", "tries": 0}, ["/tries: it is less than the minimum of 1"]),
        # To a schema, a whole number may be written as a float.
        ({"name": "ada", "tries": 2.0}, []),
        ({"name": "ada", "tries": 2.5}, ['/tries: it is not of type "integer"']),
        ({"name": "ada", "tries": True}, ['/tries: it is not of type "integer"']),
        ({"name": "ada", "level": "medium"}, ['/level: it is not one of "low" or "high"']),
        ({"name": "ada", "tags": ["a", 2]}, ['/tags/1: it is not of type "string"']),
        ({"name": "ada", "address": {}}, ["/address/street: is required"]),
        ({"name": "ada", "trys": 1}, ["/trys: is unknown; did you mean 'tries'?"]),
        (
            {"name": "ada", "zzz": 1},
            ["/zzz: is unknown; known are address, level, name, password, tags, tries"],
        ),
        # All problems at once, and a name with a slash as a JSON Pointer has it.
        ({"a/b": 1, "tries": "x"}, ["/a~1b", "/name: is required", '/tries: it is not of type "integer"']),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(values: JsonObject, problems: list[str]) -> None:
    found = sorted(told(values))
    assert len(found) == len(problems)
    assert all(one.startswith(expected) for one, expected in zip(found, problems, strict=True)), found


@pytest.mark.parametrize(
    ("values", "problems"),
    [
        ({"name": "ada"}, []),
        ({"name": "ada", "password": "x"}, []),
        ({}, ["/name: is required"]),
        ({"name": "ada", "nam": "b"}, ["/nam: is unknown; did you mean 'name'?"]),
    ],
)
def test_a_json_schema_is_taken_as_it_stands(values: JsonObject, problems: list[str]) -> None:
    assert told(values, JSON_SCHEMA) == problems


def test_both_kinds_have_defaults_and_secrets() -> None:
    for schema in (FLAT, JSON_SCHEMA):
        assert with_defaults({"name": "ada"}, schema) == {"name": "ada", "tries": 3}
        assert with_defaults({"name": "ada", "tries": 5}, schema) == {"name": "ada", "tries": 5}
        assert secret_names(schema) == {"password"}


def test_an_open_schema_takes_names_that_it_does_not_have() -> None:
    assert told({"name": "ada", "other": 1}, closed=False) == []


def test_an_empty_schema_takes_anything() -> None:
    assert told({"whatever": [1]}, {}) == []


def test_parameters_that_are_not_known_yet_count_as_present_and_right() -> None:
    assert validate({"tries": "{{ event.payload.n }}"}, FLAT, skip={"tries", "name"}) == []


@pytest.mark.parametrize("value", ["Hunter2", ["Hunter2"], {"Hunter2": "Hunter2"}, 4711])
@pytest.mark.parametrize("name", ["password", "level", "tries", "tags"])
def test_t92_no_message_quotes_a_value(name: str, value: Json) -> None:
    assert not any("Hunter2" in one or "4711" in one for one in told({"name": "ada", name: value}))


def test_no_more_than_twenty_problems_are_told() -> None:
    values: JsonObject = {"name": "ada", "tags": [1] * 21}
    assert len(told({**values, "tags": [1] * 20})) == 20
    found = told(values)
    assert len(found) == 21
    assert found[-1] == "has more problems than these"


def test_of_a_large_value_the_first_problem_is_told() -> None:
    assert told({"name": "ada", "tags": [1] * 100_000}) == ['/tags/0: it is not of type "string"']


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        (["name"], "a schema is a map of parameter names"),
        ({"name": "string"}, "/name: a parameter is a map like {type: string}"),
        ({"name": {"type": "strng"}}, "/name/type: is no schema: "),
        ({"name": {"type": "string", "required": "yes"}}, "/name/required: must be true or false"),
        ({"name": {"secret": "yes"}}, "/name/secret: must be true or false"),
        ({"name": {"position": "first"}}, "/name/position: must be a whole number"),
        ({"name": {"position": True}}, "/name/position: must be a whole number"),
        # A misspelt secret would be shown to everybody.
        ({"name": {"secert": True}}, "/name/secert: is no keyword of JSON Schema; did you mean 'secret'?"),
        ({"name": {"colour": "red"}}, "/name/colour: is no keyword of JSON Schema"),
        ({"n": {"type": "integer", "default": "x"}}, '/n/default: the default does not fit: it is not of type "int'),
        ({"n": {"minimum": "1"}}, "/n/minimum: is no schema: "),
        # Neither a file nor an address is ever looked up.
        ({"n": {"$ref": "https://example.com/schema"}}, "is no schema: "),
        ({"n": {"$ref": "file:///etc/passwd"}}, "is no schema: "),
        # Patterns run in linear time: those that cannot are refused.
        ({"n": {"type": "string", "pattern": "(a)\\1"}}, "/n/pattern: is no schema: "),
        # The same, in a JSON Schema.
        ({"type": "object", "properties": {"n": {"secret": 1}}}, "/properties/n/secret: must be true or false"),
        ({"type": "object", "properties": {"n": {"type": "strng"}}}, "/properties/n/type: is no schema: "),
        ({"type": "object", "properties": {"n": {"default": 1, "maximum": 0}}}, "/properties/n/default: the default "),
        ({"type": "object", "properties": {}, "required": "n"}, "/required: is no schema: "),
    ],
)
def test_what_is_no_schema_is_told_with_its_place(schema: Json, problem: str) -> None:
    (found,) = map(str, check_schema(schema))
    assert found.startswith(problem), found


@pytest.mark.parametrize(
    "schema",
    [
        {},
        FLAT,
        JSON_SCHEMA,
        # Parameters may be called like the keywords of a JSON Schema.
        {"type": {"type": "string"}, "properties": {"type": "object"}, "required": {"type": "boolean"}},
        # `required` as JSON Schema has it, about the keys of an object.
        {"address": {"type": "object", "required": ["street"]}},
        # A default need not bring along what else is required.
        {"a": {"required": True}, "b": {"default": 1}},
        {"tree": {"$defs": {"node": {"type": "object"}}}},
    ],
)
def test_what_is_a_schema_is_taken(schema: Json) -> None:
    assert check_schema(schema) == []
