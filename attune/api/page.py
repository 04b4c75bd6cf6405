"""The OpenAPI document as a page: one file without scripts, which needs nothing from anywhere."""

from collections.abc import Iterator, Mapping
from html import escape
from itertools import groupby
from typing import Any

from attune.base.json import dumps

STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem; }
code { font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
details { border: 1px solid #8886; border-radius: .3rem; margin: .4rem 0; padding: .3rem .7rem; }
summary { cursor: pointer; }
summary b { display: inline-block; min-width: 4.5rem; }
table { border-collapse: collapse; width: 100%; }
td, th { border-top: 1px solid #8884; padding: .2rem .6rem .2rem 0; text-align: left; vertical-align: top; }
nav a { margin-right: .8rem; }
"""


_BOUNDS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "at least {} long",
    "maxLength": "at most {} long",
}


def render(document: Mapping[str, Any]) -> str:
    """The page, as HTML."""
    operations = [
        (path, method.upper(), operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    operations.sort(key=_tag)
    groups = [(tag, list(found)) for tag, found in groupby(operations, key=_tag)]
    schemas = document["components"]["schemas"]
    title = f"{document['info']['title']} {document['info']['version']}"
    lines = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}: the HTTP API</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}: the HTTP API</h1><p>{_text(document['info']['description'])}</p>",
        '<p>For programs: <a href="/api-spec/openapi.json">the same as an OpenAPI document</a>.</p><nav>',
        *(f'<a href="#{escape(tag)}">{escape(tag)}</a>' for tag, _ in groups),
        "</nav><main>",
    ]
    for tag, found in groups:
        lines.append(f'<h2 id="{escape(tag)}">{escape(tag)}</h2>')
        for path, method, operation in found:
            lines += _operation(path, method, operation, schemas)
    return "\n".join([*lines, "</main></body></html>\n"])


def _tag(operation: tuple[str, str, Mapping[str, Any]]) -> str:
    return str(operation[2]["tags"][0])


def _operation(path: str, method: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[str]:
    yield f'<details id="{escape(operation["operationId"])}"><summary><b>{method}</b> <code>{escape(path)}</code>'
    yield f"{_text(operation['summary'])}</summary><p>{_text(operation['description'])}</p>"
    if operation["parameters"]:
        yield "<table><tr><th>Parameter</th><th>In</th><th></th></tr>"
        for one in operation["parameters"]:
            yield _row(one["name"], one["in"], _kind(one["schema"]), required=one["required"])
        yield "</table>"
    if "requestBody" in operation:
        body = schemas[operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]]
        yield "<table><tr><th>Field</th><th>In</th><th></th></tr>"
        for name, schema in body["properties"].items():
            yield _row(name, "body", _kind(schema), required=name in body.get("required", []))
        yield "</table>"
    yield f"<p>Answers: {escape('; '.join(_answers(operation['responses'])))}.</p></details>"


def _row(name: str, place: str, kind: str, *, required: bool) -> str:
    need = ", required" if required else ""
    return f"<tr><td><code>{escape(name)}</code></td><td>{place}</td><td>{escape(kind)}{need}</td></tr>"


def _kind(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_kind(choice) for choice in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(map(str, schema.get("enum", [schema.get("const")])))
    words = [str(schema.get("type", "any JSON"))]
    words += [text.format(schema[name]) for name, text in _BOUNDS.items() if name in schema]
    if schema.get("default") not in (None, "", {}):
        words.append(f"default {dumps(schema['default'])}")
    return ", ".join(words)


def _answers(responses: Mapping[str, Any]) -> Iterator[str]:
    for status, response in responses.items():
        if status != "default":
            yield f"{status} {response['description']}"


def _text(text: str) -> str:
    """A sentence; what stands between backticks is code."""
    parts = escape(text).split("`")
    return "".join(part if number % 2 == 0 else f"<code>{part}</code>" for number, part in enumerate(parts))
