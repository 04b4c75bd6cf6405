"""Writes `docs/http.md` from the routes: `python -m tests.docs.endpoints`."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from attune.api.endpoints import Access, Endpoint
from attune.api.idempotency import HEADER
from tests.api.routes import ENDPOINTS, methods

PATH = Path(__file__).resolve().parents[2] / "docs" / "http.md"

_INTRODUCTION = """\
# The HTTP API

This page is written from the routes by `python -m tests.docs.endpoints`; a test keeps it true.

## Asking

Bodies are JSON in UTF-8 (`Content-Type: application/json`), at most `server.max_body_size` bytes, from who has not
signed in at most 16 kB. Nothing is silently ignored: an unknown field or query parameter, a key that stands twice in
an object, an integer of more than 64 bits, a NUL character, half a surrogate pair, NaN: each is refused, by name. In
updates what is absent stays and `null` clears; `PATCH` is the same as `PUT`. No path ends with a slash.

Send a token (`Authorization: Bearer …`), which `POST /auth/login` gives for a password. An access token is good for
`auth.access_token_lifetime` seconds; `POST /auth/refresh` takes the refresh token and gives two new ones. A new
password ends all tokens of its identity. [Security](security.md) says who else may ask.

```sh
attune identity passwd admin
token=$(curl -s http://127.0.0.1:8080/auth/login -H 'Content-Type: application/json' \\
    -d '{"login": "admin", "password": "…"}' |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["data"]["access_token"])')
curl -s http://127.0.0.1:8080/api/v1/executions -H "Authorization: Bearer $token"
```

A request has 20 seconds to arrive, its body more: a second for each kB. 512 connections are open at once, and 100
requests may wait behind one another on one. An offer of another protocol (`Upgrade`) is ignored, but for a
WebSocket at `/ws`: [live views](live.md#a-websocket) has its protocol, and that of the streams.

## Sending again

Who hears no answer does not know whether the request was carried out. With a name of its own (`Idempotency-Key: …`,
1 to 255 printable ASCII characters, such as a UUID) it can be sent again and is carried out once, whatever breaks in
between:

```sh
curl -s http://127.0.0.1:8080/api/v1/events -H "Authorization: Bearer $token" -H 'Content-Type: application/json' \\
    -H 'Idempotency-Key: order-4711' -d '{"trigger_ref": "shop.sold", "payload": {"order": 4711}}'
```

- The same request again has the first answer again, with `Idempotency-Replayed: true`. What is left out of a body and
  what has its default there are the same.
- Another request with the same key is refused (422).
- While the first is under way, all others are refused (409): send it again later.
- A request that was refused leaves its key free.
- A key belongs to who sent it, and to the route. It is kept for 24 hours from the first request on, then forgotten.
- If Attune, or its database, went away before there was an answer, a later one shows what the request has made as it
  is then.

Routes that take a key say so below; the others that change something refuse one (422), and `GET` has no use for it.
`attune event emit` and `attune run` have `--idempotency-key`.

## On behalf of an execution

`POST /api/v1/events`, `POST /api/v1/executions/execute` and a re-run read the header `traceparent` of the
[W3C trace context](https://www.w3.org/TR/trace-context/). If it names an execution of this server as the parent, and
the chain of that execution as the trace, what is made belongs to that chain: an event has the `execution` that has
caused it, an execution has it as its `parent`. Anything else in the header is no error: it is as if it were not there.
[Actions](actions.md#what-a-script-is-given) get the value as `TRACEPARENT`.

## Answers

An object is `{"data": {…}}`; a deletion `{"success": true, "message": "…"}`. Times are RFC 3339 in UTC. Every answer
has an `X-Request-Id`. A secret is `********`.

A list is a page: `{"data": […], "pagination": {"page", "page_size", "total_items", "total_pages", "has_next",
"has_previous", "next_after"}}`.

| Every list takes | |
|---|---|
| `page`, with `page_size` or `per_page` | which page, from 1 (1), and how long it is, at most 1000 (50) |
| `after` | instead of `page`: go on after the `next_after` of the page before; this stays quick in long lists |
| `total=exact` | count exactly; otherwise totals above 10,000 are estimates, with `"total_exact": false` |

An error is `application/problem+json` (RFC 9457): `type`, `title`, `status`, `detail`, `instance` (the request id),
`error` (the same as `detail`) and `code`; what is wrong with fields stands in `errors`, each with a JSON Pointer:

```json
{"type": "about:blank", "title": "Unprocessable Entity", "status": 422, "detail": "The body is wrong.",
 "instance": "01a213b2-2906-76b6-a8ca-d1b8a9bde858", "error": "The body is wrong.", "code": "VALIDATION_ERROR",
 "errors": [{"pointer": "/trigger_ref", "detail": "should be a valid string"}]}
```

| Status | Code | |
|---|---|---|
| 400 | `BAD_REQUEST` | this is no HTTP, or has no single `Host` |
| 401 | `UNAUTHORIZED` | nobody said who asks, or the token is wrong, has expired, or was revoked |
| 403 | `FORBIDDEN` | who asks may not, or a page of another site asks |
| 404 | `NOT_FOUND` | there is no such thing, or no such path |
| 405 | `METHOD_NOT_ALLOWED` | `Allow` says what the path knows |
| 408 | `REQUEST_TIMEOUT` | the request did not arrive in time |
| 409 | `CONFLICT` | it exists already, or its state does not allow this |
| 413 | `PAYLOAD_TOO_LARGE` | the body is too large |
| 415 | `UNSUPPORTED_MEDIA_TYPE` | the body is no JSON by its headers |
| 422 | `VALIDATION_ERROR` | what was sent is wrong; `errors` says where |
| 429 | `BACKLOG_FULL` | too much waits already ([overload](overload.md)); `Retry-After` says when |
| 431 | `HEADERS_TOO_LARGE` | the headers have more than 64 kB |
| 500 | `INTERNAL_SERVER_ERROR` | a defect; the log tells more under the request id |
| 503 | `SERVICE_UNAVAILABLE`, `DATABASE_UNAVAILABLE`, `STORAGE_FULL` | not now; `Retry-After` says when |
"""

_WHO = {Access.PUBLIC: "everybody", Access.IDENTITY: "who has signed in"}
_PAGING = {"page", "page_size", "per_page", "after", "total"}


def render() -> str:
    """The page."""
    lines = [_INTRODUCTION]
    for noun, grouped in groupby(sorted(ENDPOINTS, key=_noun), key=_noun):
        endpoints = list(grouped)
        lines += [f"## {noun}\n", "| | | For whom |", "|---|---|---|", *map(_row, endpoints), ""]
        for one in endpoints:
            lines += _details(one)
    return "\n".join(lines).rstrip() + "\n"


def _noun(endpoint: Endpoint) -> str:
    """What a route is about: the last word of its path that is a plural, or the first word."""
    words = [word for word in endpoint.path.split("/") if word not in {"", "api", "v1"}]
    return words[2] if len(words) == 3 and words[2] in {"triggers", "actions", "rules"} else words[0]


def _row(endpoint: Endpoint) -> str:
    verbs = " ".join(f"`{method}`" for method in methods(endpoint))
    access = endpoint.access
    if isinstance(access, Access):
        who = _WHO[access]
    else:
        who = f"`{access.resource}:{access.action}`{', and anonymous readers' if access.anonymous else ''}"
    return f"| {verbs} `{endpoint.path}` | {endpoint.summary} | {who} |"


def _details(endpoint: Endpoint) -> Iterator[str]:
    own = {name: field for name, field in _fields(endpoint.query) if name not in _PAGING}
    if own:
        yield f"`{endpoint.method} {endpoint.path}` can be asked with {_list(own)}.\n"
    if endpoint.body is not None:
        fields = dict(_fields(endpoint.body))
        yield f"`{endpoint.method} {endpoint.path}` takes {_list(fields)}.\n"
    if endpoint.replay is not None:
        yield f"`{endpoint.method} {endpoint.path}` takes an [`{HEADER}`](#sending-again).\n"


def _fields(model: type[BaseModel]) -> list[tuple[str, Any]]:
    return list(model.model_fields.items())


def _list(fields: dict[str, Any]) -> str:
    return ", ".join(f"`{name}`{' (required)' if field.is_required() else ''}" for name, field in fields.items())


if __name__ == "__main__":
    PATH.write_text(render())
