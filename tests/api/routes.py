"""Every endpoint, without a server; `test_access` proves that the application has the same."""

from typing import Any

from attune.api.endpoints import Endpoint
from attune.api.routes.auth import AuthRoutes
from attune.api.routes.bus import BusRoutes
from attune.api.routes.catalog import CatalogRoutes
from attune.api.routes.dead_letters import DeadLetterRoutes
from attune.api.routes.description import described
from attune.api.routes.doctor import DoctorRoutes
from attune.api.routes.enforcements import EnforcementRoutes
from attune.api.routes.events import EventRoutes
from attune.api.routes.executions import ExecutionRoutes
from attune.api.routes.explain import ExplainRoutes
from attune.api.routes.health import HealthRoutes
from attune.api.routes.identities import IdentityRoutes
from attune.api.routes.inquiries import InquiryRoutes
from attune.api.routes.metrics import MetricsRoutes
from attune.api.routes.rules import RuleRoutes
from attune.api.routes.space import SpaceRoutes
from attune.api.routes.streams import StreamRoutes
from attune.api.routes.system import SystemRoutes
from attune.api.routes.timers import TimerRoutes

_NOTHING: Any = None

ENDPOINTS: tuple[Endpoint, ...] = described(
    endpoint
    for routes in (
        HealthRoutes({}),
        StreamRoutes(_NOTHING, _NOTHING),
        AuthRoutes(_NOTHING),
        IdentityRoutes(_NOTHING),
        CatalogRoutes(_NOTHING, _NOTHING),
        RuleRoutes(_NOTHING, _NOTHING, _NOTHING, _NOTHING),
        TimerRoutes(_NOTHING, _NOTHING),
        EventRoutes(_NOTHING, _NOTHING, _NOTHING, _NOTHING),
        EnforcementRoutes(_NOTHING, _NOTHING),
        ExplainRoutes(_NOTHING, _NOTHING, _NOTHING, _NOTHING),
        ExecutionRoutes(_NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING),
        InquiryRoutes(_NOTHING, _NOTHING),
        BusRoutes(_NOTHING),
        DeadLetterRoutes(_NOTHING, _NOTHING),
        MetricsRoutes(_NOTHING, public=False),
        DoctorRoutes(_NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING, anonymous=False),
        SpaceRoutes(_NOTHING, _NOTHING, _NOTHING),
        SystemRoutes(_NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING),
    )
    for endpoint in routes.endpoints()
)


def methods(endpoint: Endpoint) -> tuple[str, ...]:
    """The methods that an endpoint answers, HEAD apart."""
    return (endpoint.method, *endpoint.aliases)
