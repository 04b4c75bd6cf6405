"""What the server is, where it has its things, and how it is doing."""

import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from starlette.responses import Response

from attune import __version__
from attune.api.answers import one
from attune.api.endpoints import Call, Endpoint, NoQuery, Permission
from attune.base.clock import Clock
from attune.base.errors import Problem
from attune.bus import queries
from attune.bus.bus import Bus
from attune.catalog.folders import Broken, PackFolders
from attune.catalog.yamls import FileProblem
from attune.database import migrate
from attune.database.pool import Connection
from attune.database.storage import Storage
from attune.events.ingress import Ingress
from attune.executions import listing_queries
from attune.people import queries as people
from attune.sources.timers import queries as timers
from attune.upkeep.recovery import Recovery, report

_DAY = timedelta(days=1)
_SHOWN = 10
# Among so many of the newest executions those that failed are looked for: no index tells.
_AMONG = 10_000


@dataclass(frozen=True, slots=True)
class About:
    """What does not change while the server runs. `database` says where it is, without a password."""

    url: str
    pid: int
    data: str
    database: str
    started_at: datetime
    demo: bool
    anonymous: str


class SystemRoutes:
    def __init__(
        self,
        about: About,
        bus: Bus,
        ingress: Ingress,
        storage: Storage,
        clock: Clock,
        running: Callable[[], int],
        timers: Callable[[], int],
        folders: PackFolders,
        recovery: Recovery,
    ) -> None:
        """`running` and `timers` count the executions that run and the timers that wait."""
        self._about = about
        self._bus = bus
        self._ingress = ingress
        self._storage = storage
        self._clock = clock
        self._running = running
        self._timers = timers
        self._folders = folders
        self._recovery = recovery

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                "GET", "/api/v1/system/status", Permission("system", "read"), self.status, "How the server is doing"
            ),
            Endpoint(
                "GET",
                "/api/v1/system/recovery",
                Permission("system", "read"),
                self.recovery,
                "What this start found unfinished, and what became of it",
            ),
        ]

    async def status(self, _: Call[NoQuery, None]) -> Response:
        async with self._bus.database.acquire() as connection:
            waiting = await queries.waiting_by_queue(connection)
            dead = await queries.count_dead_letters(connection)
            asked = await people.count_pending(connection)
            doing = await self._doing(connection)
        about = self._about
        status: dict[str, Any] = {
            "version": __version__,
            "url": about.url,
            "pid": about.pid,
            "data": about.data,
            "database": about.database,
            "started_at": about.started_at,
            "uptime_seconds": round((self._clock.now() - about.started_at).total_seconds()),
            "demo": about.demo,
            "anonymous": about.anonymous,
            "running_executions": self._running(),
            "waiting_timers": self._timers(),
            "waiting_deliveries": sum(count for count, _ in waiting.values()),
            "dead_letters": dead,
            "open_inquiries": asked,
            "ingress_closed": [
                {"reason": reason, "detail": refusal.message} for reason, refusal in self._ingress.refusals().items()
            ],
            "storage": {"free": self._storage.free, "min_free": self._storage.min_free},
            "broken_packs": [broken_pack(broken) for broken in self._folders.broken],
            "queues": [
                {"name": name, "waiting": count, "oldest": oldest} for name, (count, oldest) in sorted(waiting.items())
            ],
            **doing,
        }
        return one(status)

    async def recovery(self, _: Call[NoQuery, None]) -> Response:
        return one(recovery_view(self._recovery))

    async def _doing(self, connection: Connection) -> dict[str, Any]:
        """What runs, what failed in the last day, what comes next, and what all this runs on."""
        failing = await listing_queries.failing(connection, self._clock.now() - _DAY, _AMONG, _SHOWN)
        postgresql, migration = await migrate.versions(connection)
        return {
            "running": [dict(row) for row in await listing_queries.running(connection, _SHOWN)],
            "failing": [dict(row) for row in failing],
            "timers": [dict(row) for row in await timers.upcoming(connection, _SHOWN)],
            "versions": {
                "attune": __version__,
                "python": platform.python_version(),
                "postgresql": postgresql,
                "migration": migration,
            },
        }


def recovery_view(found: Recovery) -> dict[str, Any]:
    """What a start found, as data and as the sentences of its report."""
    return {
        "at": found.at,
        "clean": found.predecessor is None,
        "predecessor": None if found.predecessor is None else asdict(found.predecessor),
        "interrupted": [asdict(one) for one in found.interrupted],
        "waiting": [asdict(one) for one in found.waiting],
        "deliveries": found.deliveries,
        "dead_letters": found.letters,
        "report": list(report(found)),
    }


def broken_pack(broken: Broken) -> dict[str, Any]:
    """A pack that is not loaded, with the place of all that is wrong."""
    return {
        "folder": str(broken.folder),
        "since": broken.since,
        "problems": [_problem(problem) for problem in broken.problems],
    }


def _problem(problem: Problem) -> dict[str, Any]:
    if isinstance(problem, FileProblem):
        return {"file": str(problem.file), "line": problem.line, "key": problem.key, "detail": problem.detail}
    return {"file": problem.where, "line": None, "key": "", "detail": problem.what}
