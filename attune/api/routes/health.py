"""Whether the server lives, and whether it can work."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from starlette.responses import Response

from attune import __version__
from attune.api.answers import json_response
from attune.api.endpoints import Access, Answer, Call, Endpoint, Handler, NoQuery

Check = Callable[[], Awaitable[str | None]]
"""What is wrong, or None."""


class HealthRoutes:
    """`checks` by the name of what they check; `database` is one of them."""

    def __init__(self, checks: dict[str, Check]) -> None:
        self._checks = checks

    def endpoints(self) -> list[Endpoint]:
        return [
            self._endpoint("/health", self.health, "Whether the server answers", Answer.OBJECT),
            self._endpoint(
                "/health/detailed", self.detailed, "What works and what does not", Answer.OBJECT, fails=True
            ),
            self._endpoint("/health/ready", self.ready, "Whether the server can do its work", fails=True),
            self._endpoint("/health/live", self.live, "Whether the process lives"),
        ]

    def _endpoint(
        self, path: str, handler: Handler, summary: str, answer: Answer = Answer.NOTHING, *, fails: bool = False
    ) -> Endpoint:
        failure = HTTPStatus.SERVICE_UNAVAILABLE if fails else None
        return Endpoint("GET", path, Access.PUBLIC, handler, summary, answer=answer, failure=failure)

    async def health(self, _: Call[NoQuery, None]) -> Response:
        return json_response({"status": "ok"}, HTTPStatus.OK)

    async def live(self, _: Call[NoQuery, None]) -> Response:
        return Response()

    async def ready(self, _: Call[NoQuery, None]) -> Response:
        failures = await self._failures()
        return Response(status_code=HTTPStatus.SERVICE_UNAVAILABLE if failures else HTTPStatus.OK)

    async def detailed(self, _: Call[NoQuery, None]) -> Response:
        failures = await self._failures()
        body = {
            "status": "error" if failures else "ok",
            "version": __version__,
            "database": "disconnected" if "database" in failures else "connected",
            "checks": {name: failures.get(name, "ok") for name in self._checks},
        }
        if failures:
            body["error"] = "; ".join(failures.values())
        return json_response(body, HTTPStatus.SERVICE_UNAVAILABLE if failures else HTTPStatus.OK)

    async def _failures(self) -> dict[str, str]:
        found = {name: await check() for name, check in self._checks.items()}
        return {name: what for name, what in found.items() if what is not None}
