"""What retention costs: how much slower pipelines are while old rows go, how fast they go, and whether sizes level off.

Time is compressed: rows are written as if it was months ago, and each day of them is over in a moment.
"""

import os
import platform
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio

from attune.app import Serving
from attune.base.clock import SystemClock
from attune.base.states import EnforcementStatus
from attune.bench.figures import Spread, spread
from attune.bench.pipeline import run_one
from attune.bench.surroundings import RULE, TRIGGER, bench_server, temporary_folder
from attune.bus.bus import Bus
from attune.bus.messages import Cause
from attune.bus.topology import TOPOLOGY
from attune.database import space
from attune.database.compact import compact
from attune.database.ids import uuid7
from attune.database.pool import Connection
from attune.events import queries as events
from attune.events.model import NewEvent
from attune.executions import enforcement_queries as enforcements
from attune.executions import queries as executions
from attune.executions.model import Finished, NewEnforcement, NewExecution
from attune.executions.queries import Tenure
from attune.executions.states import Step
from attune.rules import queries as rules
from attune.rules.queries import EventMatch
from attune.settings import Retention as Limits
from attune.settings import Settings
from attune.telemetry.stages import Stages
from attune.upkeep.kept import TABLES
from attune.upkeep.retention import Retention
from attune.workers.logs import Logs

Say = Callable[[str], None]

_TABLES = 4
"""An event is a row in so many tables."""
_BATCH = 500
_DAYS = 30
_PORTIONS = 10
_TIMEOUT = 600.0
_RESULT = '{"duration_ms":0,"succeeded":true,"exit_code":0}'


@dataclass(frozen=True, slots=True)
class Report:
    """`quiet_ms`, `removing_ms`: of whole pipelines at a steady rate, while nothing was removed and while much was.
    `full_mb`: the files of history with a full period in them; `churned_mb`: after another that pushed it out."""

    python: str
    cpus: int
    rows: int
    pipelines_per_second: float
    quiet_ms: Spread
    removing_ms: Spread
    p99_ratio: float
    rows_removed_per_second: float
    full_mb: float
    churned_mb: float
    level_off: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class _Shifted(SystemClock):
    """The clock of the machine, so many days ahead."""

    days = 0.0

    def now(self) -> datetime:
        return super().now() + timedelta(days=self.days)


async def measure(settings: Settings, rows: int, rate: float, seconds: float, say: Say) -> Report:
    """Make `rows` old rows and let them go, at `rate` pipelines a second; every other round of some seconds none goes.
    Then let as many come and go for a period of retention."""
    keeping = settings.model_copy(update={"retention": Limits(days=36_500, max_bytes=10**15, dead_letter_days=36_500)})
    with temporary_folder() as folder:
        say("starting a server of its own …")
        async with bench_server(keeping, folder, Stages(visible=False, debug=False)) as server:
            say(f"making {rows:,} old rows …")
            bench = _Bench(server, folder, say)
            await bench.fill(rows, since=120, days=_DAYS)
            quiet, removing, per_second = await bench.compare(seconds, rate)
            say("letting as many come and go …")
            full, churned = await bench.churn(rows)
    return Report(
        python=platform.python_version(),
        cpus=os.cpu_count() or 1,
        rows=rows,
        pipelines_per_second=rate,
        quiet_ms=quiet,
        removing_ms=removing,
        p99_ratio=round(removing.p99 / quiet.p99, 2) if quiet.p99 else 0.0,
        rows_removed_per_second=round(per_second, 1),
        full_mb=round(full / 1e6, 1),
        churned_mb=round(churned / 1e6, 1),
        level_off=round(churned / full, 2),
    )


class _Bench:
    def __init__(self, server: Serving, folder: Path, say: Say) -> None:
        self._engine = server.engine
        self._say = say
        self._clock = _Shifted()
        self._vacuumed: Counter[str] = Counter()
        bus = Bus(self._engine.database, TOPOLOGY, self._clock, lambda: True)
        logs = Logs(folder / "logs")
        self._retention = Retention(bus, self._engine.definitions, logs, Limits(days=_DAYS, max_bytes=10**15))

    async def fill(self, rows: int, *, since: float, days: float) -> None:
        """Make old rows: of so many days, the first of them that many days ago."""
        count = max(rows // _TABLES // _BATCH, 1)
        begun = self._clock.now() - timedelta(days=since)
        async with self._engine.database.acquire() as connection:
            for number in range(count):
                await self._write(connection, begun + timedelta(days=days * number / count))

    async def _write(self, connection: Connection, at: datetime) -> None:
        """A batch of events with all that became of them, as the pipeline leaves it."""
        definitions = self._engine.definitions
        trigger, rule = definitions.triggers.by_ref[TRIGGER], definitions.rules.by_ref[RULE]
        action = definitions.actions.by_ref["core.noop"]
        worker = self._engine.worker.worker_id
        causes = [Cause(uuid7(), None, 0) for _ in range(_BATCH)]
        new = [NewEvent(trigger.id, trigger.ref, '{"level":"info","value":42}', "bench", cause) for cause in causes]
        ids = await events.insert_events(connection, new, at)
        matches = [EventMatch(event, 1, 1, 0) for event in ids]
        await rules.insert_matches(connection, matches, definitions.version, at)
        wanted = [
            NewEnforcement(rule.id, rule.ref, trigger.ref, event, "{}", cause)
            for event, cause in zip(ids, causes, strict=True)
        ]
        made = await enforcements.insert_enforcements(connection, wanted, at)
        asked = [
            NewExecution(action.id, action.ref, "{}", made[event, rule.id], None, cause)
            for event, cause in zip(ids, causes, strict=True)
        ]
        ran = list((await executions.insert_executions(connection, asked, at)).values())
        await enforcements.resolve_enforcements(
            connection, EnforcementStatus.PROCESSED, dict.fromkeys(made.values()), at
        )
        await executions.dispatch(connection, ran, worker, at)
        await executions.start(connection, ran, [_TIMEOUT] * _BATCH, Tenure(worker, uuid7(), 0.0), at)
        ends = [Finished(one, action.ref, None, Step.COMPLETE, _RESULT, causes[0]) for one in ran]
        await executions.finish(connection, Step.COMPLETE, ends, at)

    async def compare(self, seconds: float, rate: float) -> tuple[Spread, Spread, float]:
        """How long pipelines take while nothing goes, and while old rows do; and how many of those go a second."""
        took: dict[bool, list[float]] = {False: [], True: []}
        await self._steadily(rate, 3.0)
        spent, more = 0.0, True
        while more:
            took[False] += await self._steadily(rate, seconds)
            before = self._retention.account.ended_at
            begun = time.perf_counter()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._retention.once)
                took[True] += await self._steadily(rate, seconds)
                tasks.cancel_scope.cancel()
            more = self._retention.account.ended_at is before
            self._say(f"  {self._retention.account.removed.total():,} rows are gone")
            spent += time.perf_counter() - begun if more else self._retention.account.seconds
        return spread(took[False]), spread(took[True]), self._retention.account.removed.total() / spent

    async def _steadily(self, rate: float, seconds: float) -> list[float]:
        """The seconds that each of so many pipelines a second took, however long the others took."""
        took: list[float] = []

        async def one() -> None:
            took.append(await run_one(self._engine))

        begun = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            for number in range(round(rate * seconds)):
                await anyio.sleep(max(begun + number / rate - time.perf_counter(), 0))
                tasks.start_soon(one)
        return took

    async def churn(self, rows: int) -> tuple[int, int]:
        """Bytes of the tables with a full period in them, and after another that has pushed the first one out."""
        portion, days = rows // _PORTIONS, _DAYS / _PORTIONS
        # What there is by now goes first, and the room that it leaves: it has later dates than what comes.
        self._clock.days += _DAYS + 1
        await self._retention.once()
        await compact(self._engine.database.dsn, None, self._say)
        for number in range(_PORTIONS):
            await self.fill(portion, since=_DAYS - number * days, days=days)
        await self._vacuum()
        full = await self._size()
        for _ in range(_PORTIONS):
            self._clock.days += days
            await self.fill(portion, since=days, days=days)
            await self._retention.once()
            await self._vacuum()
        return full, await self._size()

    async def _vacuum(self) -> None:
        """Do what autovacuum would have done by now: it looks every minute, and the days of this are shorter."""
        removed = self._retention.account.removed
        async with self._engine.database.acquire() as connection:
            for table, key in TABLES.items():
                rows = sum(stratum.rows for stratum in await space.strata(connection, table, key))
                if await space.vacuum_if_due(connection, table, rows, removed[table] - self._vacuumed[table]):
                    self._vacuumed[table] = removed[table]

    async def _size(self) -> int:
        async with self._engine.database.acquire() as connection:
            return sum(one.data + one.indexes for one in await space.files(connection) if one.table in TABLES)
