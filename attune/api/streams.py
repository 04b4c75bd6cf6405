"""Answers that do not end by themselves: server-sent events, in the format of the HTML standard.

`sse-starlette` is not used: it makes an event anew for each reader, keeps a task for the pings of each, and learns of a
stop by replacing a handler of uvicorn's that is not called here.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from attune.api.protocol import ABORT_SCOPE, WRITE_SCOPE
from attune.base.errors import Forbidden, Unauthenticated, Unavailable
from attune.live.forms import RETRY_MS, event
from attune.live.views import LiveViews, Reader, Taken

Renew = Callable[[], Awaitable[object]]
"""Raises Unauthenticated or Forbidden when a caller may not read any more."""

_RETRY: Final = b"retry: %d\n\n" % RETRY_MS


async def lost_right(renew: Renew) -> str | None:
    """Why a caller may not read any more. While the database is away nobody knows, and nothing happens either."""
    try:
        await renew()
    except (Unauthenticated, Forbidden) as error:
        return error.message
    except Unavailable:
        return None
    return None


class EventStream(Response):
    """Sends a reader what it wants until it goes, is cut, or may not read any more."""

    media_type = "text/event-stream"

    def __init__(self, live: LiveViews, reader: Reader, last: str | None, renew: Renew) -> None:
        """`last` is the position after which the reader has missed what came."""
        # A proxy that gathers what it passes on would gather for ever.
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["Content-Length"]
        self._live = live
        self._reader = reader
        self._last = last
        self._renew = renew

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] != "HEAD":
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._until_gone, receive, tasks.cancel_scope)
                tasks.start_soon(self._until_stuck, scope, tasks.cancel_scope)
                self._reader.write = scope[WRITE_SCOPE]
                with self._live.reading(self._reader, self._last):
                    await self._write(send)
                tasks.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b""})

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.body", "body": _RETRY, "more_body": True})
        end = None
        while end is None:
            taken = await self._live.take(self._reader)
            end = taken.end or (await lost_right(self._renew) if taken.pulse else None)
            text = _text(taken) + (b"" if end is None else event("error", {"error": end}))
            await send({"type": "http.response.body", "body": text, "more_body": True})

    async def _until_gone(self, receive: Receive, scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async def _until_stuck(self, scope: Scope, cancel: anyio.CancelScope) -> None:
        await self._reader.stuck.wait()
        cancel.cancel()
        scope[ABORT_SCOPE]()


def _text(taken: Taken) -> bytes:
    """What a reader has to send."""
    begin = b"" if taken.reset is None else event("reset", {"reason": taken.reset}, taken.position)
    # So that it does not seem to have missed what it did not want. An event without data is none.
    end = b": I am here.\nid: %b\n\n" % taken.position.encode() if taken.pulse else b""
    return begin + b"".join(taken.parts) + end
