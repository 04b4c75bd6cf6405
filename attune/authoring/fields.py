"""What conditions and templates name, and whether their trigger has it."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches

from attune.base.errors import Problem
from attune.base.expressions import Expression, compile_expression
from attune.base.json import Json, JsonObject, pointer
from attune.base.schema import parameters, to_json_schema
from attune.catalog.formats import PackFile
from attune.catalog.model import Trigger
from attune.catalog.queries import RuleSpec
from attune.rules.evaluation import expressions

_OPEN = ("additionalProperties", "patternProperties", "allOf", "anyOf", "oneOf", "$ref", "if")
_SCALARS = ("string", "integer", "number", "boolean")


def unknown_fields(rule: RuleSpec, trigger: Trigger, pack: PackFile) -> Iterator[Problem]:
    """What the conditions and templates of a rule, which are well-formed, name and no event of the trigger has."""
    names = _names(trigger, pack)
    for where, path in _condition_paths(rule.conditions, "/conditions"):
        yield from _problem(names, path, where, trigger)
    for place, expression in expressions(rule.action_params):
        for path in _paths(expression):
            yield from _problem(names, path, "/action_params" + pointer(place), trigger)


def _names(trigger: Trigger, pack: PackFile) -> JsonObject:
    """A schema of all names. Of what it lists nothing else is there; what it lists nothing of may be anything."""
    payload: JsonObject = to_json_schema(trigger.out_schema, closed=True) if trigger.out_schema else {}
    # What the schema of a pack's config has and its config has not may still be said later.
    config: JsonObject = {**{name: {} for name in pack.config}, **parameters(pack.conf_schema)}
    return _object(
        event=_object(id={}, trigger={}, trigger_ref={}, created={}, payload=payload),
        pack=_object(config=_object(**config)),
        system=_object(timestamp={}, rule=_object(id={}, ref={})),
    )


def _object(**properties: Json) -> JsonObject:
    return {"properties": properties}


def _condition_paths(conditions: Json, where: str) -> Iterator[tuple[str, Sequence[str | int]]]:
    match conditions:
        case {"expression": str(text)}:
            for path in _paths(compile_expression(text)):
                yield f"{where}/expression", path
        case {"field": str(field)}:
            yield f"{where}/field", ("event", "payload", *field.split("."))
        case list(parts):
            for index, part in enumerate(parts):
                yield from _condition_paths(part, f"{where}/{index}")
        case {"all": list(parts)}:
            yield from _condition_paths(parts, f"{where}/all")
        case {"any": list(parts)}:
            yield from _condition_paths(parts, f"{where}/any")
        case _:
            pass


def _paths(expression: Expression) -> list[tuple[str | int, ...]]:
    return sorted(expression.paths, key=str)


def _problem(names: JsonObject, path: Sequence[str | int], where: str, trigger: Trigger) -> Iterator[Problem]:
    schema: Json = names
    for index, part in enumerate(path):
        if not isinstance(schema, dict):
            return
        around = ".".join(map(str, path[:index]))
        if schema.get("type") in _SCALARS:
            yield Problem(where, f"{around} has no {part!r}: {trigger.ref} says that it is of type {schema['type']}")
            return
        known = schema.get("properties")
        if str(part).isdecimal() and not isinstance(known, dict):
            schema = schema.get("items")
            continue
        if not isinstance(known, dict):
            return
        if str(part) not in known:
            # Names that nobody gives are told of by those who evaluate.
            if index and not any(schema.get(key) for key in _OPEN):
                yield Problem(where, _unknown(str(part), around, sorted(known), trigger))
            return
        schema = known[str(part)]


def _unknown(part: str, around: str, known: list[str], trigger: Trigger) -> str:
    close = get_close_matches(part, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known) or 'nothing'}"
    of = f" of {trigger.ref}" if around.startswith("event.payload") else ""
    return f"{around}{of} has no {part!r}; {hint}"
