"""Parameter schemas: a flat map of names, as packs write them, or a JSON Schema object (draft 2020-12).

A flat entry is JSON Schema with `required`, `secret`, `position` and `default` beside its keywords:
`{"name": {"type": "string", "required": true}}`.
"""

from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice

import jsonschema_rs
from jsonschema_rs import ValidationErrorKind

from attune.base.errors import BadInput, Problem
from attune.base.json import Json, JsonObject, dumps, loads, pointer

_ENTRY_KEYS = ("secret", "position")
# The vocabulary of draft 2020-12. A misspelt keyword would mean nothing there, and nobody would be told.
_VOCABULARY = (
    "$anchor $comment $defs $dynamicAnchor $dynamicRef $id $ref $schema $vocabulary additionalProperties allOf anyOf "
    "const contains contentEncoding contentMediaType contentSchema default dependentRequired dependentSchemas "
    "deprecated description else enum examples exclusiveMaximum exclusiveMinimum format if items maxContains maxItems "
    "maxLength maxProperties maximum minContains minItems minLength minProperties minimum multipleOf not oneOf pattern "
    "patternProperties prefixItems properties propertyNames readOnly required then title type unevaluatedItems "
    "unevaluatedProperties uniqueItems writeOnly"
)
_MANY = 20
"""Problems that are told, at most."""
_LARGE = 10_000
"""Characters of JSON text; of larger values only the first problem is looked for: a megabyte has so many that finding
them all takes seconds, in which nothing else runs."""


def check_schema(schema: Json, where: str = "") -> list[Problem]:
    """What is wrong with a parameter schema, with JSON Pointers below `where`; nothing if it can be used."""
    if not isinstance(schema, dict):
        return [Problem(where, "a schema is a map of parameter names")]
    is_flat = not is_json_schema(schema)
    place = where if is_flat else f"{where}/properties"
    problems = [
        problem
        for name, entry in parameters(schema).items()
        for problem in _entry_problems(entry, place + pointer((name,)), is_flat=is_flat)
    ]
    if problems:
        return problems
    try:
        _compiled(dumps(schema), closed=True, mask=None)
        return [*_default_problems(schema, place)]
    except jsonschema_rs.ValidationError as error:
        # The way to what is wrong leads through the JSON Schema that a flat map becomes.
        path = error.instance_path[1:] if is_flat else error.instance_path
        return [Problem(where + pointer(tuple(path)), f"is no schema: {error.message}")]
    except (jsonschema_rs.ReferencingError, ValueError) as error:
        return [Problem(where, f"is no schema: {error}")]


def _entry_problems(entry: Json, where: str, *, is_flat: bool) -> Iterator[Problem]:
    """What is wrong with the keys of a parameter, as far as JSON Schema does not mind."""
    if not isinstance(entry, dict):
        if is_flat:
            yield Problem(where, "a parameter is a map like {type: string}")
        return
    if is_flat:
        yield from _unknown_keys(entry, where)
        # A list is the keyword of JSON Schema, about the keys of an object.
        if not isinstance(entry.get("required", False), bool | list):
            yield Problem(f"{where}/required", "must be true or false")
    if not isinstance(entry.get("secret", False), bool):
        yield Problem(f"{where}/secret", "must be true or false")
    position = entry.get("position", 1)
    if not isinstance(position, int) or isinstance(position, bool):
        yield Problem(f"{where}/position", "must be a whole number")


def _unknown_keys(entry: JsonObject, where: str) -> Iterator[Problem]:
    known = {*_ENTRY_KEYS, *_VOCABULARY.split()}
    for key in sorted(entry.keys() - known):
        close = get_close_matches(key, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        yield Problem(where + pointer((key,)), f"is no keyword of JSON Schema{hint}")


def _default_problems(schema: JsonObject, place: str) -> Iterator[Problem]:
    """What is wrong with the defaults, each looked at alone: what else is required does not matter."""
    checker = Checker(to_json_schema(schema, closed=False) | {"required": []})
    for name, default in checker.defaults.items():
        for problem in checker.problems({name: default}):
            if (problem.where + "/").startswith(f"{pointer((name,))}/"):
                yield Problem(f"{place}{pointer((name,))}/default", f"the default does not fit: {problem.what}")


class Checker:
    """A parameter schema, compiled: for those who check many values against one."""

    def __init__(self, schema: JsonObject, *, closed: bool = True) -> None:
        self._schema = schema
        self._validator = _validator(dumps(schema), closed) if schema else None
        self.defaults: JsonObject = {
            name: entry["default"]
            for name, entry in parameters(schema).items()
            if isinstance(entry, dict) and "default" in entry
        }

    def complete(self, values: JsonObject) -> JsonObject:
        """`values` and, for what is absent, the defaults."""
        return {**self.defaults, **values} if self.defaults else values

    def problems(self, values: Mapping[str, Json], where: str = "", skip: Collection[str] = ()) -> list[Problem]:
        """What is wrong with `values`, with JSON Pointers below `where`; the values themselves are not quoted, they may
        be secret or long. Parameters in `skip` count as present and right."""
        if self._validator is None:
            return []
        checked = {name: value for name, value in values.items() if name not in skip} if skip else values
        if self._validator.is_valid(checked):
            return []
        found = (
            problem
            for error in _errors(self._validator, checked)
            for problem in _problems(error, self._schema, where, skip)
        )
        problems = list(islice(found, _MANY + 1))
        if len(problems) > _MANY:
            problems[_MANY] = Problem(where, "has more problems than these")
        return problems


def validate(
    values: Mapping[str, Json], schema: JsonObject, *, where: str = "", closed: bool = True, skip: Collection[str] = ()
) -> list[Problem]:
    """What is wrong with `values`, with JSON Pointers below `where`.

    `closed` refuses names that the schema does not have. Parameters in `skip` count as present and right: their values
    are not known yet. An empty schema takes anything.
    """
    return Checker(schema, closed=closed).problems(values, where, skip)


def with_defaults(values: JsonObject, schema: JsonObject) -> JsonObject:
    """`values` and, for what is absent, the defaults of the schema."""
    return Checker(schema).complete(values)


def secret_names(schema: JsonObject) -> frozenset[str]:
    """The parameters whose values nobody may see."""
    return frozenset(
        name for name, entry in parameters(schema).items() if isinstance(entry, dict) and entry.get("secret") is True
    )


def to_json_schema(schema: JsonObject, *, closed: bool) -> JsonObject:
    """The JSON Schema of a parameter schema."""
    if is_json_schema(schema):
        return schema
    properties: JsonObject = {}
    required: list[Json] = []
    for name, entry in schema.items():
        assert isinstance(entry, dict)
        ours = (*_ENTRY_KEYS, "required") if isinstance(entry.get("required"), bool) else _ENTRY_KEYS
        properties[name] = {key: value for key, value in entry.items() if key not in ours}
        if entry.get("required") is True and "default" not in entry:
            required.append(name)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": not closed}


def is_json_schema(schema: JsonObject) -> bool:
    """Whether a schema is one as a whole, and no flat map of parameters."""
    return schema.get("type") == "object" and isinstance(schema.get("properties"), dict)


def parameters(schema: JsonObject) -> JsonObject:
    """The parameters that a schema describes, with what it says of each."""
    if not is_json_schema(schema):
        return schema
    properties = schema["properties"]
    assert isinstance(properties, dict)
    return properties


@lru_cache(maxsize=1024)
def _validator(schema: str, closed: bool) -> jsonschema_rs.Validator:
    return _compiled(schema, closed=closed, mask="it")


def _compiled(schema: str, *, closed: bool, mask: str | None) -> jsonschema_rs.Validator:
    """`mask` is what messages say instead of a value."""
    return jsonschema_rs.validator_for(
        to_json_schema(loads(schema), closed=closed),
        # Linear time, so that no pattern stops the loop; and nothing is fetched from anywhere.
        pattern_options=jsonschema_rs.RegexOptions(),
        retriever=_refuse_reference,
        mask=mask,
    )


def _refuse_reference(uri: str) -> Json:
    raise ValueError(f"a schema may not refer to {uri}")


def _errors(validator: jsonschema_rs.Validator, values: Mapping[str, Json]) -> Iterator[jsonschema_rs.ValidationError]:
    if len(dumps(values)) <= _LARGE:
        yield from validator.iter_errors(values)
        return
    try:
        validator.validate(values)
    except jsonschema_rs.ValidationError as error:
        yield error


def _problems(
    error: jsonschema_rs.ValidationError, schema: JsonObject, where: str, skip: Collection[str]
) -> Iterator[Problem]:
    place = where + pointer(tuple(error.instance_path))
    kind = error.kind
    if isinstance(kind, ValidationErrorKind.Required):
        if not (kind.property in skip and not error.instance_path):
            yield Problem(f"{place}{pointer((kind.property,))}", "is required")
    elif isinstance(kind, ValidationErrorKind.AdditionalProperties):
        known = list(parameters(schema)) if not error.instance_path else []
        for name in kind.unexpected:
            yield Problem(f"{place}{pointer((name,))}", _unknown(name, known))
    elif isinstance(kind, ValidationErrorKind.FalseSchema):
        yield Problem(place, "is not allowed here")
    else:
        yield Problem(place, error.message)


def _unknown(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    if close:
        return f"is unknown; did you mean {close[0]!r}?"
    return f"is unknown; known are {', '.join(sorted(known))}" if known else "is unknown"


def refuse(message: str, problems: list[Problem]) -> None:
    """Raise BadInput if there are problems."""
    if problems:
        raise BadInput(message, problems)
