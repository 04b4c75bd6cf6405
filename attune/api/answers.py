"""Answers: one envelope for an object, one for a list."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from starlette.responses import Response

from attune.api.paging import PageQuery
from attune.database.paging import Page

_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS


def json_response(
    body: Any, status: HTTPStatus, headers: Mapping[str, str] | None = None, media_type: str = "application/json"
) -> Response:
    """`body` as JSON; JSON text from the database goes in unread, as an orjson.Fragment."""
    # str: asyncpg has a UUID class of its own, which orjson does not know.
    return Response(orjson.dumps(body, default=str, option=_OPTIONS), status, headers, media_type=media_type)


def one(value: Any, message: str | None = None, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """A single object."""
    body = {"data": value}
    if message is not None:
        body["message"] = message
    return json_response(body, status)


def deleted(message: str) -> Response:
    """A deletion."""
    return json_response({"success": True, "message": message}, HTTPStatus.OK)


def many(items: Sequence[Any], page: Page, query: PageQuery, cursor: Any) -> Response:
    """A page of a list; `cursor` is what `after` takes for the page that follows."""
    pages = -(-page.total // query.size)
    pagination: dict[str, Any] = {
        "page": query.page,
        "page_size": query.size,
        "total_items": page.total,
        "total_pages": pages,
        "has_next": page.has_next,
        "has_previous": query.page > 1 or query.after is not None,
        "next_after": cursor if page.has_next else None,
    }
    if not page.total_is_exact:
        pagination["total_exact"] = False
    return json_response({"data": items, "pagination": pagination}, HTTPStatus.OK)


def fragment(text: str | None) -> Any:
    """JSON text from the database, to be sent as it is."""
    return None if text is None else orjson.Fragment(text)
