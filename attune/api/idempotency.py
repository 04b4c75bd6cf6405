"""The Idempotency-Key header: a request that is sent again is not carried out again, and has the first answer."""

import hashlib
import re
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, Final

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from attune.access.model import Caller
from attune.api.endpoints import SAFE_METHODS, Call, Endpoint
from attune.base.errors import BadInput
from attune.events.idempotency import Keys, Taken
from attune.events.model import Kept, Key

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotency-Replayed"
LONGEST: Final = 255
PATTERN: Final = r"^[ -~]+$"


def key_of(
    request: Request, endpoint: Endpoint, caller: Caller, query: BaseModel, body: BaseModel | None
) -> Key | None:
    """The key of a request. Raises BadInput for one that is none, and on a route that takes none but changes things."""
    given = request.headers.getlist(HEADER)
    if not given or request.method in SAFE_METHODS:
        return None
    if endpoint.replay is None:
        raise BadInput(f"This route takes no {HEADER}; leave it away.")
    if len(given) > 1:
        raise BadInput(f"Send one {HEADER}.")
    if len(given[0]) > LONGEST or not re.fullmatch(PATTERN, given[0]):
        raise BadInput(f"The {HEADER} must be 1 to {LONGEST} printable ASCII characters.")
    scope = f"{caller.how if caller.id is None else caller.id} {endpoint.method} {endpoint.path}"
    return Key(scope, given[0], _fingerprint(request, query, body))


def _fingerprint(request: Request, query: BaseModel, body: BaseModel | None) -> bytes:
    # Without what is as if it had not been sent: a release that knows more fields takes the request for the same.
    said = [None if model is None else model.model_dump(exclude_defaults=True) for model in (query, body)]
    text = orjson.dumps([request.method, request.scope["path"], *said], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).digest()


async def answer_once(keys: Keys, endpoint: Endpoint, call: Call[Any, Any]) -> Response:
    """The answer to a request: the first one again, if it was carried out before."""
    key = call.key
    if key is None:
        return await endpoint.handler(call)
    with keys.held(key):
        while (kept := await keys.kept(key)) is None:
            # Taken meanwhile by a write that its caller did not wait for: that one has a row now.
            with suppress(Taken):
                return await _keeping(keys, key, endpoint.handler(call))
        return await _again(keys, key, endpoint, call, kept)


async def _again(keys: Keys, key: Key, endpoint: Endpoint, call: Call[Any, Any], kept: Kept) -> Response:
    if kept.answer is not None:
        response = Response(kept.answer, endpoint.status, media_type="application/json")
    else:
        assert endpoint.replay is not None, "only such a route takes keys"
        response = await _keeping(keys, key, endpoint.replay(call, kept.subject))
    response.headers[REPLAYED] = "true"
    return response


async def _keeping(keys: Keys, key: Key, answering: Awaitable[Response]) -> Response:
    response = await answering
    await keys.keep(key, bytes(response.body).decode())
    return response
