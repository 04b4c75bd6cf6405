"""The API, described: for programs as an OpenAPI document, for people as a page."""

import base64
import hashlib
from collections.abc import Iterable
from http import HTTPStatus

from starlette.responses import HTMLResponse, Response

from attune.api import page
from attune.api.answers import json_response
from attune.api.endpoints import Access, Answer, Call, Endpoint, NoQuery
from attune.api.openapi import document


def described(endpoints: Iterable[Endpoint], *, public_url: str = "") -> tuple[Endpoint, ...]:
    """The endpoints, and with them those that describe all of them."""
    digest = base64.b64encode(hashlib.sha256(page.STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; frame-ancestors 'none'"

    async def openapi(_: Call[NoQuery, None]) -> Response:
        return json_response(whole, HTTPStatus.OK)

    async def docs(_: Call[NoQuery, None]) -> Response:
        return HTMLResponse(text, headers={"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"})

    every = (
        *endpoints,
        Endpoint(
            "GET",
            "/api-spec/openapi.json",
            Access.PUBLIC,
            openapi,
            "This API as an OpenAPI document",
            answer=Answer.OBJECT,
        ),
        Endpoint("GET", "/docs", Access.PUBLIC, docs, "This API as a page to read", answer=Answer.PAGE),
    )
    whole = document(every, public_url=public_url)
    text = page.render(whole)
    return every
