"""Holds what goes over the wire to the OpenAPI document: every test of the API tests the document as well."""

import json
import re
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

import httpx2
import jsonschema_rs
import orjson

from attune.api.openapi import document
from tests.api.routes import ENDPOINTS

DOCUMENT: dict[str, Any] = orjson.loads(orjson.dumps(document(ENDPOINTS)))

_PATTERNS = [
    (re.compile(re.sub(r"{\w+}", "[^/]+", path) + r"\Z"), path)
    for path in sorted(DOCUMENT["paths"], key=lambda path: path.count("{"))
]


async def check(response: httpx2.Response) -> None:
    """Fail when a request or its answer is not what the document says. For `event_hooks` of a client."""
    await response.aread()
    request = response.request
    path = request.url.raw_path.partition(b"?")[0].decode()
    method = "get" if request.method == "HEAD" else request.method.lower()
    operation = _operation(path, method)
    if operation is None:
        assert response.status_code in {404, 405, 400}, f"{request.method} {path} is not in the OpenAPI document"
        return
    _check_answer(f"{request.method} {path}", operation, response)
    if response.is_success:
        _check_request(f"{request.method} {path}", operation, request)


def _operation(path: str, method: str) -> dict[str, Any] | None:
    for pattern, template in _PATTERNS:
        if pattern.match(path) and method in DOCUMENT["paths"][template]:
            found: dict[str, Any] = DOCUMENT["paths"][template][method]
            return found
    return None


def _check_answer(what: str, operation: dict[str, Any], response: httpx2.Response) -> None:
    known = operation["responses"]
    status = str(response.status_code)
    assert status in known or not response.is_success, f"{what} answers {status}: say so in its Endpoint"
    content = known.get(status, known["default"]).get("content", {})
    kind = response.headers.get("content-type", "").partition(";")[0]
    assert kind in content or not (kind or content), f"{what} answers {status} as {kind}, not {list(content)}"
    if kind.endswith("json") and response.request.method != "HEAD":
        _validate(f"the answer of {what}", content[kind]["schema"], json.loads(response.content))


def _check_request(what: str, operation: dict[str, Any], request: httpx2.Request) -> None:
    known = {one["name"]: one["schema"] for one in operation["parameters"] if one["in"] == "query"}
    for name, text in parse_qsl(request.url.query.decode(), keep_blank_values=True):
        assert name in known, f"{what} takes {name}, which the OpenAPI document does not know"
        if known[name].get("type") == "integer":
            _validate(f"{name} of {what}", known[name], int(text))
        elif known[name].get("type") != "boolean":
            _validate(f"{name} of {what}", known[name], text)
    if "requestBody" in operation:
        body = orjson.loads(request.content)
        if "trigger_type" in body:
            # The name that other releases of the platform have for it.
            body["trigger_ref"] = body.pop("trigger_type")
        _validate(f"the body of {what}", operation["requestBody"]["content"]["application/json"]["schema"], body)


def _validate(what: str, schema: dict[str, Any], value: Any) -> None:
    found = problems(schema, value)
    assert not found, f"{what} is not what the OpenAPI document says: {found}"


def problems(schema: dict[str, Any], value: Any) -> list[str]:
    """What keeps a value from fitting a schema of the document."""
    return [f"{error.instance_path}: {error.message}" for error in _validator(json.dumps(schema)).iter_errors(value)]


@cache
def _validator(schema: str) -> Any:
    return jsonschema_rs.Draft202012Validator({**json.loads(schema), "components": DOCUMENT["components"]})
