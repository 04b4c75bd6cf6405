"""Bad input: a clear error in the one shape, on every route, and nothing is done."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import httpx2
import pytest

from attune.api.endpoints import Answer, Endpoint
from attune.api.paging import PageQuery
from tests.api.routes import ENDPOINTS, methods
from tests.api.sites import Site

JSON = {"Content-Type": "application/json"}

# A good body for every route that takes one, with names of things that exist where the check comes before the look-up.
GOOD: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/auth/login"): {"login": "nobody", "password": "nothing at all"},
    ("POST", "/auth/refresh"): {"refresh_token": "x"},
    ("POST", "/api/v1/identities"): {"login": "never"},
    ("PUT", "/api/v1/identities/{login}/password"): {"password": "nothing at all"},
    ("POST", "/api/v1/rules"): {
        "ref": "shop.never",
        "pack_ref": "shop",
        "label": "Never",
        "trigger_ref": "shop.sold",
        "action_ref": "core.echo",
    },
    **{
        (method, f"/api/v1/{kind}s/{{ref}}"): {"label": "Never"}
        for kind in ("pack", "trigger", "action")
        for method in ("PUT", "PATCH")
    },
    ("PUT", "/api/v1/rules/{ref}"): {"label": "Never"},
    ("PATCH", "/api/v1/rules/{ref}"): {"label": "Never"},
    ("POST", "/api/v1/events"): {"trigger_ref": "shop.sold"},
    ("POST", "/api/v1/executions/execute"): {"action_ref": "core.noop"},
    ("POST", "/api/v1/executions/{id}/rerun"): {"parameters": {}},
    ("POST", "/api/v1/inquiries"): {"execution": 9_000_000_000, "prompt": "Shall we?"},
    ("PUT", "/api/v1/inquiries/{id}"): {"status": "cancelled"},
    ("PATCH", "/api/v1/inquiries/{id}"): {"status": "cancelled"},
    ("POST", "/api/v1/inquiries/{id}/respond"): {"response": True},
    ("POST", "/api/v1/bus/dead-letters/replay"): {"ids": [9_000_000_000]},
    ("POST", "/api/v1/bus/dead-letters/discard"): {"ids": [9_000_000_000]},
}
WITH_BODY = [(method, one.path) for one in ENDPOINTS if one.body for method in methods(one)]

# Nothing that exists.
PARAMETERS = {
    "{login}": "nobody-at-all",
    "{ref}": "no.such",
    "{pack}": "none",
    "{trigger}": "no.such",
    "{action}": "no.such",
    "{id}": "9000000000",
    "{stream}": "stdout",
    "{status}": "nothing",
    "{correlation_id}": "00000000-0000-0000-0000-000000000000",
}


def test_every_route_with_a_body_has_a_good_one() -> None:
    assert sorted(GOOD) == sorted(WITH_BODY)


def beside(good: dict[str, Any], raw: str) -> bytes:
    """A good body with a field `extra` beside it, whose value is this text."""
    return (json.dumps(good)[:-1] + f', "extra": {raw}}}').encode()


# What is sent instead of a good body, and the pointers of the errors (None: it is not about fields).
BODIES: list[tuple[str, Callable[[dict[str, Any]], bytes], list[str] | None]] = [
    ("nothing", lambda good: b"", None),
    ("blanks", lambda good: b" \n", None),
    ("half of it", lambda good: json.dumps(good)[:-1].encode(), None),
    ("two of it", lambda good: json.dumps(good).encode() * 2, None),
    ("no JSON", lambda good: b"login=admin", None),
    ("a list", lambda good: b"[]", [""]),
    ("text", lambda good: b'"x"', [""]),
    ("a number", lambda good: b"1", [""]),
    ("null", lambda good: b"null", [""]),
    ("an unknown field", lambda good: beside(good, "1"), ["/extra"]),
    ("a NUL", lambda good: beside(good, r'"\u0000"'), ["/extra"]),
    ("a NUL in a key", lambda good: beside(good, r'{"a\u0000": 1}'), ["/extra"]),
    ("a bare NUL", lambda good: beside(good, '"\x00"'), None),
    ("half a surrogate", lambda good: beside(good, r'"\ud800"'), ["/extra"]),
    ("half a surrogate as key", lambda good: beside(good, r'{"\udc00": 1}'), ["/extra"]),
    ("a fault below such a key", lambda good: beside(good, r'{"\ud800": "\u0000"}'), ["/extra", "/extra/?"]),
    ("NaN", lambda good: beside(good, "NaN"), ["/extra"]),
    ("Infinity", lambda good: beside(good, "[1, -Infinity]"), ["/extra/1"]),
    ("a number beyond all", lambda good: beside(good, "1e400"), ["/extra"]),
    # It would come back as another number.
    ("65 bits", lambda good: beside(good, str(2**64)), ["/extra"]),
    ("5,000 digits", lambda good: beside(good, "9" * 5000), None),
    # One of the two would be lost.
    ("a key twice", lambda good: beside(good, '1, "extra": 2'), ["/extra"]),
    ("a key twice, deeper", lambda good: beside(good, '[{"a/b": 1, "a/b": 1}]'), ["/extra/0/a~1b"]),
    ("201 levels", lambda good: beside(good, "[" * 200 + "]" * 200), ["/extra" + "/0" * 199]),
    ("five thousand levels", lambda good: beside(good, "[" * 5000 + "]" * 5000), None),
    ("no UTF-8", lambda good: beside(good, '"\xe9"').decode().encode("latin-1"), None),
    ("UTF-16", lambda good: json.dumps(good).encode("utf-16"), None),
    ("a byte order mark", lambda good: b"\xef\xbb\xbf{}", None),
]


@pytest.mark.parametrize(("make", "pointers"), [row[1:] for row in BODIES], ids=[row[0] for row in BODIES])
async def test_a_body_that_cannot_be_read_is_refused_by_every_route(
    site: Site, make: Callable[[dict[str, Any]], bytes], pointers: list[str] | None
) -> None:
    for (method, path), good in GOOD.items():
        answer = await site.ask(method, _concrete(path), content=make(good), headers=JSON)

        problem = _problem(answer, 422, "VALIDATION_ERROR")
        found = None if "errors" not in problem else sorted(one["pointer"] for one in problem["errors"])
        assert found == pointers, f"{method} {path}: {answer.text}"


async def test_two_megabytes_are_refused_by_every_route(site: Site) -> None:
    for endpoint in ENDPOINTS:
        for method in methods(endpoint):
            answer = await site.ask(method, _concrete(endpoint.path), content=b" " * 2**21, headers=JSON)
            _problem(answer, 413, "PAYLOAD_TOO_LARGE")


async def test_who_has_not_signed_in_cannot_make_the_server_read_much(site: Site) -> None:
    for path in ("/auth/login", "/auth/refresh"):
        answer = await site.remote.post(path, content=b"[" * 20_000, headers=JSON)
        _problem(answer, 413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/jsonp"},
        {**JSON, "Content-Encoding": "gzip"},
    ],
    ids=str,
)
async def test_a_body_of_another_kind_is_refused_by_every_route(site: Site, headers: dict[str, str]) -> None:
    for (method, path), good in GOOD.items():
        answer = await site.ask(method, _concrete(path), content=json.dumps(good), headers=headers)
        _problem(answer, 415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize("kind", ["application/json;charset=utf-8", "APPLICATION/JSON", "application/cloudevents+json"])
async def test_a_kind_of_json_is_json(site: Site, kind: str) -> None:
    body = json.dumps(GOOD["POST", "/api/v1/events"])

    assert (await site.ask("POST", "/api/v1/events", content=body, headers={"Content-Type": kind})).status_code == 201


# Fields of the wrong type or length; each pointer once.
FIELDS: list[tuple[str, str, dict[str, Any], list[str]]] = [
    ("POST", "/auth/login", {}, ["/login", "/password"]),
    ("POST", "/auth/login", {"login": 1, "password": None}, ["/login", "/password"]),
    ("POST", "/auth/login", {"login": "", "password": "x" * 1025}, ["/login", "/password"]),
    ("POST", "/auth/refresh", {"refresh_token": ["x"]}, ["/refresh_token"]),
    ("POST", "/api/v1/identities", {"login": "x", "administrator": "yes"}, ["/administrator"]),
    ("POST", "/api/v1/identities", {"login": "x" * 256, "display_name": 1}, ["/display_name", "/login"]),
    ("POST", "/api/v1/identities", {"login": "a b"}, ["/login"]),
    ("POST", "/api/v1/identities", {"login": "a/b"}, ["/login"]),
    ("POST", "/api/v1/identities", {"login": "a\u202eb"}, ["/login"]),
    ("PUT", "/api/v1/identities/admin/password", {"password": "short"}, ["/password"]),
    ("PUT", "/api/v1/identities/admin/password", {"password": "x" * 129}, ["/password"]),
    ("PUT", "/api/v1/identities/admin/password", {"password": 12345678}, ["/password"]),
    ("POST", "/api/v1/events", {"trigger_ref": 1}, ["/trigger_ref"]),
    ("POST", "/api/v1/events", {"trigger_ref": "shop.sold", "trigger_type": "shop.sold"}, ["/trigger_type"]),
    ("POST", "/api/v1/events", {"trigger_ref": "shop.sold", "trigger_instance_id": "rule_x"}, ["/trigger_instance_id"]),
    (
        "POST",
        "/api/v1/events",
        {"trigger_ref": "shop.typed", "payload": {"price": -1}},
        ["/payload/item", "/payload/price"],
    ),
    ("POST", "/api/v1/events", {"trigger_ref": "shop.typed", "payload": 1}, ["/payload"]),
    ("POST", "/api/v1/executions/execute", {"action_ref": "core.noop", "parameters": []}, ["/parameters"]),
    (
        "POST",
        "/api/v1/executions/execute",
        {"action_ref": "shop.charge", "parameters": {"amount": -1, "pin": "x", "cart": 1}},
        ["/parameters/amount", "/parameters/cart", "/parameters/pin"],
    ),
    # A secret that was copied from an answer, mask and all.
    (
        "POST",
        "/api/v1/executions/execute",
        {"action_ref": "shop.charge", "parameters": {"card": "********"}},
        ["/parameters/card"],
    ),
    ("PUT", "/api/v1/rules/shop.thank", {"label": None, "enabled": None}, ["/enabled", "/label"]),
    ("PATCH", "/api/v1/rules/shop.thank", {"label": "", "enabled": 1}, ["/enabled", "/label"]),
    ("PUT", "/api/v1/rules/shop.thank", {"ref": "shop.other"}, ["/ref"]),
]


@pytest.mark.parametrize(("method", "path", "body", "pointers"), FIELDS, ids=str)
async def test_a_field_that_is_wrong_is_refused_with_its_pointer(
    site: Site, method: str, path: str, body: dict[str, Any], pointers: list[str]
) -> None:
    answer = await site.ask(method, path, json=body)

    assert sorted(one["pointer"] for one in _problem(answer, 422, "VALIDATION_ERROR")["errors"]) == pointers


# What a rule cannot be like: the fields beside the good ones, the pointer, and a word of the reason.
RULES: list[tuple[dict[str, Any], str, str]] = [
    ({"ref": "Shop.Never"}, "/ref", "no ref"),
    ({"ref": "never"}, "/ref", "no ref"),
    ({"ref": "core.never"}, "/ref", "must begin with the pack"),
    ({"action_params": {"message": 5}}, "/action_params/message", "string"),
    ({"action_params": {"massage": "hi"}}, "/action_params/massage", "did you mean 'message'"),
    ({"action_params": {"message": "{{ event.payload. }}"}}, "/action_params/message", "column"),
    ({"action_params": {"message": "********"}}, "/action_params/message", "mask"),
    ({"action_ref": "shop.charge", "action_params": {"currency": "DM"}}, "/action_params/currency", "EUR"),
    ({"trigger_params": {"x": 1}, "trigger_ref": "core.intervaltimer"}, "/trigger_params/x", "unknown"),
    ({"conditions": {"expression": "1 +"}}, "/conditions/expression", "ends too early"),
    ({"conditions": {"expression": "event.payload.x", "extra": 1}}, "/conditions", "expression"),
    (
        {"trigger_ref": "core.crontimer", "trigger_params": {"expression": "* * * * * * *"}},
        "/trigger_params/expression",
        "7 fields",
    ),
    ({"trigger_ref": "core.crontimer", "trigger_params": {}}, "/trigger_params/expression", "required"),
    (
        {"trigger_ref": "core.crontimer", "trigger_params": {"expression": "61 * * * *"}},
        "/trigger_params/expression",
        "61",
    ),
    (
        {"trigger_ref": "core.crontimer", "trigger_params": {"expression": "@hourly", "timezone": "Mars/Olympus"}},
        "/trigger_params/timezone",
        "Mars/Olympus",
    ),
    (
        {"trigger_ref": "core.intervaltimer", "trigger_params": {"interval": 0}},
        "/trigger_params/interval",
        "1",
    ),
    ({"trigger_ref": "core.datetimetimer", "trigger_params": {"fire_at": "soon"}}, "/trigger_params/fire_at", "soon"),
]


@pytest.mark.parametrize(("fields", "pointer", "reason"), RULES, ids=str)
@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_rule_that_cannot_work_is_refused_with_place_and_reason(
    site: Site, fields: dict[str, Any], pointer: str, reason: str, method: str
) -> None:
    good = GOOD["POST", "/api/v1/rules"]
    if method == "POST":
        answer = await site.ask("POST", "/api/v1/rules", json=good | fields)
    else:
        if "ref" in fields:
            return  # a rule keeps its ref
        await site.ask("POST", "/api/v1/rules", json=good | {"ref": "shop.changing"})
        answer = await site.ask("PUT", "/api/v1/rules/shop.changing", json=fields)

    (problem,) = _problem(answer, 422, "VALIDATION_ERROR")["errors"]
    assert problem["pointer"] == pointer
    assert reason in problem["detail"]
    assert (await site.ask("GET", "/api/v1/rules/shop.never")).status_code == 404


# Refs of what does not exist, in bodies.
UNKNOWN = [
    ("/api/v1/rules", {"pack_ref": "none", "ref": "none.x"}, "There is no pack none."),
    ("/api/v1/rules", {"trigger_ref": "shop.none"}, "There is no trigger shop.none."),
    ("/api/v1/rules", {"action_ref": "shop.none"}, "There is no action shop.none."),
    ("/api/v1/events", {"trigger_ref": "shop.none"}, "There is no trigger shop.none."),
    ("/api/v1/executions/execute", {"action_ref": "shop.none"}, "There is no action shop.none."),
]


@pytest.mark.parametrize(("path", "fields", "detail"), UNKNOWN, ids=str)
async def test_a_ref_of_nothing_is_not_found(site: Site, path: str, fields: dict[str, Any], detail: str) -> None:
    answer = await site.ask("POST", path, json=GOOD["POST", path] | fields)

    assert _problem(answer, 404, "NOT_FOUND")["detail"] == detail


async def test_nobody_else_makes_events_that_say_what_goes_wrong(site: Site) -> None:
    answer = await site.ask("POST", "/api/v1/events", json={"trigger_ref": "core.alert", "payload": {}})

    assert "Nobody but Attune itself" in _problem(answer, 403, "FORBIDDEN")["detail"]
    assert await site.data("GET", "/api/v1/events?trigger_ref=core.alert") == []


async def test_what_exists_already_or_is_switched_off_is_a_conflict(site: Site) -> None:
    rule = GOOD["POST", "/api/v1/rules"] | {"ref": "shop.twice"}
    await site.data("POST", "/api/v1/rules", json=rule)

    _problem(await site.ask("POST", "/api/v1/rules", json=rule), 409, "CONFLICT")
    _problem(await site.ask("POST", "/api/v1/identities", json={"login": "admin"}), 409, "CONFLICT")
    _problem(await site.ask("POST", "/api/v1/events", json={"trigger_ref": "shop.closed"}), 409, "CONFLICT")
    # What a pack brings is changed in its files.
    _problem(await site.ask("PUT", "/api/v1/rules/shop.thank", json={"label": "No"}), 409, "CONFLICT")
    _problem(await site.ask("DELETE", "/api/v1/rules/shop.thank"), 409, "CONFLICT")


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: f"{endpoint.method} {endpoint.path}")
async def test_every_route_refuses_what_it_does_not_know(site: Site, endpoint: Endpoint) -> None:
    for method in methods(endpoint):
        url = _concrete(endpoint.path)
        unknown = await site.ask(method, f"{url}?extra=1", json=GOOD.get((method, endpoint.path)))
        twice = await site.ask(method, f"{url}?extra=1&extra=1")
        (problem,) = _problem(unknown, 422, "VALIDATION_ERROR")["errors"]
        assert problem["pointer"] == "/extra"
        _problem(twice, 422, "VALIDATION_ERROR")
        _problem(await site.ask(method, f"{url}?page=%00"), 422, "VALIDATION_ERROR")
        if endpoint.body is None:
            _problem(await site.ask(method, url, json={"extra": 1}), 422, "VALIDATION_ERROR")


# The answer of a stream has no end.
@pytest.mark.parametrize(
    "endpoint",
    [endpoint for endpoint in ENDPOINTS if endpoint.answer is not Answer.STREAM],
    ids=lambda endpoint: f"{endpoint.method} {endpoint.path}",
)
async def test_an_idempotency_key_is_taken_or_refused_but_not_ignored_where_something_is_done(
    site: Site, endpoint: Endpoint
) -> None:
    for method in methods(endpoint):
        url, body = _concrete(endpoint.path), GOOD.get((method, endpoint.path))
        answer = await site.ask(method, url, json=body, headers={"Idempotency-Key": f"{method} {url}"})
        if method == "GET" or endpoint.replay is not None:
            assert answer.status_code != 422, answer.text
        else:
            assert "takes no Idempotency-Key" in _problem(answer, 422, "VALIDATION_ERROR")["detail"]


@pytest.mark.parametrize("path", sorted({endpoint.path for endpoint in ENDPOINTS}))
async def test_a_method_that_a_path_does_not_know_is_answered_with_those_it_knows(site: Site, path: str) -> None:
    url = _concrete(path)
    known = {
        method for one in ENDPOINTS if _concrete(one.path) == url or _shadows(one, path) for method in methods(one)
    }
    allowed = known | ({"HEAD"} if "GET" in known else set())
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"} - known:
        answer = await site.ask(method, url)

        _problem(answer, 405, "METHOD_NOT_ALLOWED")
        assert set(answer.headers["Allow"].split(", ")) == allowed


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api",
        "/api/v1",
        "/api/v1/nothing",
        "/api/v1/rules/",
        "/health/",
        "/API/V1/rules",
        "/api/v1/rules/a/b/c",
        "/%00",
    ],
)
async def test_a_path_that_leads_nowhere_is_not_found(site: Site, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = await site.ask(method, path)
        assert not _problem(answer, 404, "NOT_FOUND").get("errors")
        assert not answer.has_redirect_location


IDS = ["0", "-1", str(2**63), "9" * 5000, "abc", "1.0", "1e3", "0x1", "%20", "%EF%BC%91", "%00"]


@pytest.mark.parametrize("given", IDS)
async def test_an_id_that_nothing_can_have_is_not_found(site: Site, given: str) -> None:
    for endpoint in (one for one in ENDPOINTS if "{id}" in one.path):
        url = _concrete(endpoint.path.replace("{id}", given))
        body = GOOD.get((endpoint.method, endpoint.path))
        _problem(await site.ask(endpoint.method, url, json=body), 404, "NOT_FOUND")


@pytest.mark.parametrize("given", ["abc", "0", "%00", "00000000-0000-0000-0000-00000000000g"])
async def test_a_correlation_id_that_nothing_can_have_is_not_found(site: Site, given: str) -> None:
    _problem(await site.ask("GET", f"/api/v1/bus/trace/{given}"), 404, "NOT_FOUND")


@pytest.mark.parametrize("given", ["..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "..%5cpasswd", "shop%2f..%2f.."])
async def test_t99_no_name_in_a_path_leads_to_a_file(site: Site, given: str) -> None:
    """No route takes the path of a file; what looks like one is the name of nothing."""
    for endpoint in ENDPOINTS:
        body = GOOD.get((endpoint.method, endpoint.path))
        for name in re.findall(r"{\w+}", endpoint.path):
            url = _concrete(endpoint.path.replace(name, given))
            assert (await site.ask(endpoint.method, url, json=body)).status_code == 404, url
    assert not [endpoint.path for endpoint in ENDPOINTS if ":path" in endpoint.path]


async def test_every_path_with_a_name_of_nothing_is_not_found(site: Site) -> None:
    for endpoint in ENDPOINTS:
        if "{" in endpoint.path:
            body = GOOD.get((endpoint.method, endpoint.path))
            _problem(await site.ask(endpoint.method, _concrete(endpoint.path), json=body), 404, "NOT_FOUND")


def _sizes() -> Iterator[tuple[str, str]]:
    yield "page=0", "/page"
    yield "page=-1", "/page"
    yield "page=x", "/page"
    yield f"page={'9' * 5000}", "/page"
    yield "page_size=0", "/page_size"
    yield "page_size=1001", "/page_size"
    yield "per_page=1001", "/per_page"
    yield "page_size=10&per_page=20", ""
    yield "page=2&page=3", "/page"


@pytest.mark.parametrize(("query", "pointer"), list(_sizes()), ids=lambda value: str(value)[:40])
async def test_a_page_that_cannot_be_is_refused_by_every_list(site: Site, query: str, pointer: str) -> None:
    for endpoint in (one for one in ENDPOINTS if issubclass(one.query, PageQuery)):
        answer = await site.ask("GET", f"{_concrete(endpoint.path)}?{query}")
        (problem,) = _problem(answer, 422, "VALIDATION_ERROR")["errors"]
        assert problem["pointer"] == pointer


async def test_after_all_this_the_server_does_its_work(site: Site) -> None:
    assert (await site.ask("GET", "/health/ready")).status_code == 200
    done = await site.data("POST", "/api/v1/executions/execute?wait=30", json={"action_ref": "core.noop"})
    assert done["status"] == "completed"


def _problem(answer: httpx2.Response, status: int, code: str) -> Any:
    """The body of an error, which must have the shape that all errors have."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem.keys() - {"errors"} == {"type", "title", "status", "detail", "instance", "error", "code"}
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["title"]
    assert problem["detail"] == problem["error"] != ""
    assert str(UUID(problem["instance"])) == answer.headers["X-Request-Id"] == problem["instance"]
    for one in problem.get("errors", ()):
        assert one.keys() == {"pointer", "detail"}
        assert one["pointer"] == "" or one["pointer"].startswith("/")
        assert one["detail"]
    return problem


def _concrete(path: str) -> str:
    for parameter, value in PARAMETERS.items():
        path = path.replace(parameter, value)
    return path


def _shadows(endpoint: Endpoint, path: str) -> bool:
    """Whether an endpoint with a parameter is also reached under a path of fixed text."""
    ours, theirs = endpoint.path.split("/"), path.split("/")
    return len(ours) == len(theirs) and all(a == b or a.startswith("{") for a, b in zip(ours, theirs, strict=True))
