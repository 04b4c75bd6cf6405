"""What is wrong with the server, for `attune doctor`."""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import anyio.to_thread
from starlette.responses import Response

from attune.access import queries as access
from attune.api.answers import one
from attune.api.endpoints import Call, Endpoint, NoQuery, Permission
from attune.base.clock import Clock
from attune.bus import queries
from attune.bus.bus import Bus
from attune.catalog.definitions import Definitions
from attune.database import connecting, migrate
from attune.events.ingress import Ingress
from attune.executions import queries as executions
from attune.sources.timers import queries as timers
from attune.upkeep.doctor import STUCK, Facts, Finding, examine
from attune.upkeep.recovery import Recovery


class DoctorRoutes:
    def __init__(
        self,
        bus: Bus,
        ingress: Ingress,
        definitions: Definitions,
        recovery: Recovery,
        clock: Clock,
        overdue: Callable[[], timedelta],
        *,
        anonymous: bool,
    ) -> None:
        """`overdue` tells how far retention is behind."""
        self._bus = bus
        self._ingress = ingress
        self._definitions = definitions
        self._recovery = recovery
        self._clock = clock
        self._overdue = overdue
        self._anonymous = anonymous

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                "GET",
                "/api/v1/system/doctor",
                Permission("system", "read"),
                self.doctor,
                "What is wrong with the server, and what to do",
            )
        ]

    async def doctor(self, _: Call[NoQuery, None]) -> Response:
        facts = await self._facts()
        # It looks at the files of all actions.
        found = await anyio.to_thread.run_sync(examine, facts, self._definitions)
        return one({"findings": [finding_view(finding) for finding in found]})

    async def _facts(self) -> Facts:
        counters = self._bus.counters
        async with self._bus.database.acquire() as connection:
            return Facts(
                database_now=await connecting.time_of(connection),
                now=self._clock.now(),
                recovery=self._recovery,
                stuck=await executions.stuck(connection, self._clock.now() - STUCK),
                settings=await connecting.settings(connection),
                applied=await migrate.applied(connection),
                migrations=[migration.name for migration in migrate.read(migrate.directory())],
                refusals=[refusal.message for refusal in self._ingress.refusals().values()],
                dead_letters=await queries.count_dead_letters(connection),
                unroutable=dict(counters.unroutable),
                rescued={name: queue.rescued for name, queue in counters.queues.items()},
                waiting=await queries.waiting_by_queue(connection),
                timers=await timers.timers(connection),
                overdue=self._overdue(),
                is_root=os.geteuid() == 0,
                anonymous=self._anonymous,
                has_administrator=await access.has_administrator(connection),
            )


def finding_view(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "level": finding.level,
        "found": finding.found,
        "remedy": finding.remedy,
    }
