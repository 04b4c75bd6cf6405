"""The OpenAPI 3.1 document: written from the endpoints and the models that check what comes in."""

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from attune import __version__
from attune.api import problems
from attune.api.endpoints import Access, Answer, Endpoint
from attune.api.idempotency import HEADER, LONGEST, PATTERN, REPLAYED
from attune.api.paging import LARGEST_ID, PageQuery

PATH_PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "id": {"type": "integer", "minimum": 1, "maximum": LARGEST_ID},
    "stream": {"enum": ["stdout", "stderr"]},
    "correlation_id": {"type": "string", "format": "uuid"},
}
"""What is no plain name in a path."""

_INTRODUCTION = """\
Send a token as `Authorization: Bearer …`; `POST /auth/login` gives one for a password. An object is answered in
`data`, a list as a page with `data` and `pagination`, an error as `application/problem+json`. Unknown fields and query
parameters are refused. Every answer has an `X-Request-Id`."""

_KEY = {"type": "string", "minLength": 1, "maxLength": LONGEST, "pattern": PATTERN}
_WAS_REPLAYED = {"description": "The request was carried out before.", "schema": {"const": "true"}}
_INTEGER, _BOOLEAN = {"type": "integer"}, {"type": "boolean"}

_SHAPES: Final[dict[str, dict[str, Any]]] = {
    "Problem": problems.SCHEMA,
    "Deletion": {
        "type": "object",
        "properties": {"success": {"const": True}, "message": {"type": "string"}},
        "required": ["success", "message"],
        "additionalProperties": False,
    },
    "Object": {
        "type": "object",
        "properties": {"data": {"type": "object"}, "message": {"type": "string"}},
        "required": ["data"],
        "additionalProperties": False,
    },
    "List": {
        "type": "object",
        "properties": {
            "data": {"type": "array", "items": {"type": "object"}},
            "pagination": {"$ref": "#/components/schemas/Pagination"},
        },
        "required": ["data", "pagination"],
        "additionalProperties": False,
    },
    "Pagination": {
        "type": "object",
        "properties": {
            "page": _INTEGER,
            "page_size": _INTEGER,
            "total_items": _INTEGER,
            "total_pages": _INTEGER,
            "total_exact": {"const": False, "description": "Only there when the totals are estimates."},
            "has_next": _BOOLEAN,
            "has_previous": _BOOLEAN,
            "next_after": {"type": ["integer", "string", "null"], "description": "What `after` takes."},
        },
        "required": ["page", "page_size", "total_items", "total_pages", "has_next", "has_previous", "next_after"],
        "additionalProperties": False,
    },
}


def document(endpoints: Sequence[Endpoint], *, public_url: str = "") -> dict[str, Any]:
    """The document for some endpoints, as JSON."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        for method in (endpoint.method, *endpoint.aliases):
            paths.setdefault(template(endpoint.path), {})[method.lower()] = _operation(method, endpoint)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Attune", "version": __version__, "description": _INTRODUCTION},
        "servers": [{"url": public_url or "/"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": {**_SHAPES, **_bodies(endpoints)},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def template(path: str) -> str:
    """Starlette's path as OpenAPI's."""
    return re.sub(r"{(\w+):\w+}", r"{\1}", path)


def _bodies(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    models: list[type[BaseModel]] = [endpoint.body for endpoint in endpoints if endpoint.body is not None]
    _, found = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    return dict(found.get("$defs", {}))


def _operation(method: str, endpoint: Endpoint) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _name(method, endpoint.path),
        "tags": [_words(endpoint.path)[0]],
        "summary": endpoint.summary,
        "description": _for_whom(endpoint),
        "parameters": [*_in_path(endpoint.path), *_in_query(endpoint), *_in_header(endpoint)],
        "responses": _responses(endpoint),
    }
    if endpoint.body is not None:
        schema = {"$ref": f"#/components/schemas/{endpoint.body.__name__}"}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    if endpoint.access is Access.PUBLIC:
        operation["security"] = []
    return operation


def _name(method: str, path: str) -> str:
    return "_".join([method.lower(), *(re.sub(r"\W+", "_", word).strip("_") for word in _words(path))])


def _words(path: str) -> list[str]:
    return [word for word in template(path).split("/") if word not in {"", "api", "v1"}]


def _for_whom(endpoint: Endpoint) -> str:
    match endpoint.access:
        case Access.PUBLIC:
            return "For everybody."
        case Access.IDENTITY:
            return "For who has signed in."
        case permission:
            readers = ", and for anonymous readers where the settings allow them" if permission.anonymous else ""
            return f"For who has the permission `{permission.resource}:{permission.action}`{readers}."


def _in_path(path: str) -> list[dict[str, Any]]:
    names = re.findall(r"{(\w+)}", template(path))
    return [_parameter("path", name, PATH_PARAMETERS.get(name, {"type": "string"}), required=True) for name in names]


def _in_query(endpoint: Endpoint) -> list[dict[str, Any]]:
    schema = endpoint.query.model_json_schema(ref_template="#/components/schemas/{model}")
    enums, required = schema.get("$defs", {}), schema.get("required", [])
    return [
        _parameter("query", name, _present(value, enums), required=name in required)
        for name, value in schema.get("properties", {}).items()
    ]


def _in_header(endpoint: Endpoint) -> list[dict[str, Any]]:
    return [] if endpoint.replay is None else [_parameter("header", HEADER, _KEY, required=False)]


def _parameter(place: str, name: str, schema: Any, *, required: bool) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required, "schema": schema}


def _present(schema: dict[str, Any], enums: dict[str, Any]) -> dict[str, Any]:
    """The schema of a query parameter that is there: what may be left out is null to pydantic."""
    choices = [choice for choice in schema.get("anyOf", [schema]) if choice.get("type") != "null"]
    (choice,) = choices
    if "$ref" in choice:
        choice = enums[choice["$ref"].rpartition("/")[2]]
    kept = {**choice, **({"default": schema["default"]} if schema.get("default") is not None else {})}
    return {name: value for name, value in kept.items() if name != "title"}


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    good = {"description": endpoint.status.phrase, **_content(endpoint)}
    if endpoint.replay is not None:
        good["headers"] = {REPLAYED: _WAS_REPLAYED}
    responses = {str(endpoint.status.value): good}
    if endpoint.failure is not None:
        responses[str(endpoint.failure.value)] = {**good, "description": endpoint.failure.phrase}
    schema = {"$ref": "#/components/schemas/Problem"}
    content = {"application/problem+json": {"schema": schema}}
    for status in _refusals(endpoint):
        responses[str(status.value)] = {"description": status.phrase, "content": content}
    responses["default"] = {"description": "Any other error", "content": content}
    return responses


def _refusals(endpoint: Endpoint) -> list[HTTPStatus]:
    """The errors that a caller has to expect; others are told in the same shape."""
    found = [HTTPStatus.UNPROCESSABLE_ENTITY]
    if endpoint.access is not Access.PUBLIC:
        found += [HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN]
    if "{" in endpoint.path:
        found.append(HTTPStatus.NOT_FOUND)
    if endpoint.method != "GET":
        found.append(HTTPStatus.CONFLICT)
    return sorted(found)


def _content(endpoint: Endpoint) -> dict[str, Any]:
    match endpoint.answer:
        case Answer.NOTHING:
            return {}
        case Answer.TEXT:
            return {"content": {"text/plain": {"schema": {"type": "string"}}}}
        case Answer.PAGE:
            return {"content": {"text/html": {"schema": {"type": "string"}}}}
        case Answer.FILE:
            return {"content": {"application/yaml": {"schema": {"type": "string"}}}}
        case Answer.ARCHIVE:
            return {"content": {"application/gzip": {"schema": {"type": "string"}}}}
        case Answer.STREAM:
            return {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
        case Answer.OBJECT:
            return {"content": {"application/json": {"schema": {"type": "object"}}}}
        case Answer.DATA:
            shape = "Deletion" if endpoint.method == "DELETE" else "Object"
            shape = "List" if issubclass(endpoint.query, PageQuery) else shape
            return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{shape}"}}}}
