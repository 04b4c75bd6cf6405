"""The metrics, for Prometheus and what reads its format."""

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from attune.api.endpoints import Access, Answer, Call, Endpoint, NoQuery, Permission
from attune.upkeep.metrics import Metrics


class MetricsRoutes:
    def __init__(self, metrics: Metrics, *, public: bool) -> None:
        self._metrics = metrics
        self._public = public

    def endpoints(self) -> list[Endpoint]:
        access = Access.PUBLIC if self._public else Permission("metrics", "read")
        return [
            Endpoint("GET", "/metrics", access, self.metrics, "Metrics in Prometheus's text format", answer=Answer.TEXT)
        ]

    async def metrics(self, _: Call[NoQuery, None]) -> Response:
        return Response(await self._metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})
