"""The OpenAPI document and the page made of it. That answers are as it says is checked with every request of these
tests, in `contract.py`; here is the rest."""

import base64
import hashlib
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import orjson
import pytest

from attune.api import page
from attune.api.openapi import document
from tests.api.contract import DOCUMENT, problems
from tests.api.routes import ENDPOINTS, methods
from tests.api.sites import Site

OPERATIONS = [(path, method, found) for path, each in DOCUMENT["paths"].items() for method, found in each.items()]
NAMES = [found["operationId"] for _, _, found in OPERATIONS]

# What is tried for a field of a body, and for a query parameter.
VALUES: list[Any] = [None, True, 0, -1, 1.5, "", "no.such", "x" * 2000, [], [1], {}, {"a": 1}]
TEXTS = ["", "0", "-1", "1.5", "x", "true", "1001", "9" * 30, "a.*"]


def test_the_document_has_every_route_and_no_other() -> None:
    routes = {(path.partition(":")[0], method) for path, method in _routes()}

    assert {(path, method.upper()) for path, method, _ in OPERATIONS} == routes


def test_the_document_shows_which_routes_take_an_idempotency_key() -> None:
    """And that their answers say when they are replayed."""
    taking = [
        (method, path, list(operation["responses"]["201"]["headers"]))
        for path, method, operation in OPERATIONS
        for one in operation["parameters"]
        if (one["in"], one["name"], one["required"]) == ("header", "Idempotency-Key", False)
    ]

    assert sorted(taking) == [
        ("post", "/api/v1/events", ["Idempotency-Replayed"]),
        ("post", "/api/v1/executions/execute", ["Idempotency-Replayed"]),
    ]


async def test_the_server_answers_with_this_document(site: Site) -> None:
    answer = await site.remote.get("/api-spec/openapi.json")

    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == DOCUMENT


def test_the_document_names_the_public_url() -> None:
    assert DOCUMENT["servers"] == [{"url": "/"}]
    assert document(ENDPOINTS, public_url="https://attune.test")["servers"] == [{"url": "https://attune.test"}]


def test_every_reference_leads_somewhere_and_every_schema_is_one() -> None:
    text = orjson.dumps(DOCUMENT).decode()
    schemas = DOCUMENT["components"]["schemas"]

    assert set(re.findall(r'"\$ref":"#/components/schemas/(\w+)"', text)) == set(schemas)
    assert text.count('"$ref"') == text.count('"$ref":"#/components/schemas/')
    for schema in [*schemas.values(), *(one["schema"] for _, _, found in OPERATIONS for one in found["parameters"])]:
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS, ids=NAMES)
def test_an_operation_is_named_once_and_declares_its_path(path: str, method: str, operation: dict[str, Any]) -> None:
    assert NAMES.count(operation["operationId"]) == 1
    in_path = [one["name"] for one in operation["parameters"] if one["in"] == "path"]
    assert in_path == re.findall(r"{(\w+)}", path)
    assert operation["summary"]
    assert operation["responses"]["default"]["content"].keys() == {"application/problem+json"}
    assert (operation.get("security") == []) == operation["description"].startswith("For everybody")


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS, ids=NAMES)
async def test_what_the_document_forbids_is_refused(
    site: Site, path: str, method: str, operation: dict[str, Any]
) -> None:
    url = _concrete(path)
    for schema, body in _bodies(operation):
        if problems(schema, body):
            answer = await site.ask(method.upper(), url, json=body)
            assert answer.status_code == 422, f"{body}: {answer.text}"
    for name, schema in _in_query(operation):
        for text in TEXTS:
            if problems(schema, _read(text, schema)):
                answer = await site.ask(method.upper(), url, params={name: text})
                assert answer.status_code == 422, f"{name}={text}: {answer.text}"


async def test_the_page_shows_every_operation_and_needs_nothing_from_anywhere(site: Site) -> None:
    answer = await site.remote.get("/docs")
    text = answer.text

    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    for name in NAMES:
        assert f'<details id="{name}">' in text
    # No script, no image, no frame, no style from elsewhere: nothing is fetched.
    assert not re.findall(r"<(?:script|img|link|iframe|object|embed)\b|@import|url\(|https?://|\son\w+=", text)
    anchors = re.findall(r'href="#([^"]+)"', text)
    assert anchors
    assert all(f'id="{anchor}"' in text for anchor in anchors)


async def test_the_browser_is_told_to_run_and_to_load_nothing_but_the_style(site: Site) -> None:
    answer = await site.remote.get("/docs")
    (style,) = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()

    policy = answer.headers["Content-Security-Policy"].split("; ")

    assert "default-src 'none'" in policy
    assert f"style-src 'sha256-{digest}'" in policy
    assert not re.search(r"<[^>]+ style=", answer.text)


def test_what_stands_in_the_document_is_no_markup() -> None:
    hostile = orjson.loads(orjson.dumps(DOCUMENT).replace(b"Show a rule", b"Show <script>alert(1)</script> & `<b>`"))

    text = page.render(hostile)

    assert "<script" not in text
    assert "Show &lt;script&gt;alert(1)&lt;/script&gt; &amp; <code>&lt;b&gt;</code>" in text


def _routes() -> Iterator[tuple[str, str]]:
    for endpoint in ENDPOINTS:
        for method in methods(endpoint):
            yield endpoint.path, method


def _concrete(path: str) -> str:
    filled = {"id": "9000000000", "stream": "stdout", "correlation_id": "00000000-0000-0000-0000-000000000000"}
    return re.sub(r"{(\w+)}", lambda found: filled.get(found[1], "no.such"), path)


def _bodies(operation: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Any]]:
    """The schema of the body, and bodies: complete but for one field."""
    if "requestBody" not in operation:
        return
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    body = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    complete = dict.fromkeys(body.get("required", []), "no.such")
    for name in body["properties"]:
        for value in VALUES:
            yield schema, {**complete, name: value}
    for name in body.get("required", []):
        yield schema, {known: value for known, value in complete.items() if known != name}
    yield from ((schema, value) for value in [*VALUES, {**complete, "unknown": 1}])


def _in_query(operation: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    # Every operation refuses what it does not know.
    known = [(one["name"], one["schema"]) for one in operation["parameters"] if one["in"] == "query"]
    return [*known, ("unknown", {"not": {}})]


def _read(text: str, schema: dict[str, Any]) -> Any:
    """The value that a query parameter's text stands for."""
    if schema.get("type") == "boolean":
        return {"true": True, "1": True, "false": False, "0": False}.get(text, text)
    try:
        return int(text) if schema.get("type") == "integer" else text
    except ValueError:
        return text
