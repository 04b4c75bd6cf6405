"""Errors, in one shape whatever they come from: RFC 9457 with the fields of the platform's contract beside it."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final

from starlette.responses import Response

from attune.api.answers import json_response
from attune.base.errors import (
    AttuneError,
    BacklogFull,
    BadInput,
    Conflict,
    Forbidden,
    NotFound,
    Problem,
    Unauthenticated,
    Unavailable,
)

_STATUS: Final[dict[type[AttuneError], HTTPStatus]] = {
    BadInput: HTTPStatus.UNPROCESSABLE_ENTITY,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    BacklogFull: HTTPStatus.TOO_MANY_REQUESTS,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}

_CODE: Final[dict[HTTPStatus, str]] = {
    HTTPStatus.BAD_REQUEST: "BAD_REQUEST",
    HTTPStatus.UNAUTHORIZED: "UNAUTHORIZED",
    HTTPStatus.FORBIDDEN: "FORBIDDEN",
    HTTPStatus.NOT_FOUND: "NOT_FOUND",
    HTTPStatus.METHOD_NOT_ALLOWED: "METHOD_NOT_ALLOWED",
    HTTPStatus.REQUEST_TIMEOUT: "REQUEST_TIMEOUT",
    HTTPStatus.CONFLICT: "CONFLICT",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "PAYLOAD_TOO_LARGE",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "UNSUPPORTED_MEDIA_TYPE",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "HEADERS_TOO_LARGE",
    HTTPStatus.INTERNAL_SERVER_ERROR: "INTERNAL_SERVER_ERROR",
}


SCHEMA: Final = {
    "type": "object",
    "description": "RFC 9457. `error` is the same as `detail`; `instance` is the id of the request.",
    "properties": {
        "type": {"const": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "format": "uuid"},
        "error": {"type": "string"},
        "code": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
                "required": ["pointer", "detail"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["type", "title", "status", "detail", "instance", "error", "code"],
    "additionalProperties": False,
}
"""Of every error, whatever it comes from."""


class HttpError(AttuneError):
    """An error that only exists in HTTP."""

    def __init__(self, status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})


def problem_response(error: AttuneError, instance: str) -> Response:
    """The answer that tells a caller about an error; `instance` is the id of the request."""
    if isinstance(error, HttpError):
        return _response(error.status, error.message, _CODE[error.status], instance, headers=error.headers)
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), HTTPStatus.INTERNAL_SERVER_ERROR)
    headers = {}
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    problems = error.problems if isinstance(error, BadInput) else ()
    return _response(status, error.message, error.code, instance, problems, headers)


def unexpected_response(instance: str) -> Response:
    """The answer to a request that met a defect; what it was stands in the log under `instance`."""
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    return _response(
        status,
        f"Something went wrong that should not; the log tells more under request={instance}.",
        _CODE[status],
        instance,
    )


def _response(
    status: HTTPStatus,
    detail: str,
    code: str,
    instance: str,
    problems: Sequence[Problem] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    body: dict[str, object] = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "instance": instance,
        "error": detail,
        "code": code,
    }
    if problems:
        body["errors"] = [{"pointer": problem.where, "detail": problem.what} for problem in problems]
    headers = {**(headers or {}), "X-Request-Id": instance}
    return json_response(body, status, headers, media_type="application/problem+json")
