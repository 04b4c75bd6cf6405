"""What happens when more events come than can be handled: how large the backlog gets, and what it costs in memory."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import anyio

from attune.app import Serving
from attune.bench.limit import PAYLOAD
from attune.bench.pipeline import MOST_IN_FLIGHT, WARM_UP, flood
from attune.bench.surroundings import TRIGGER, bench_server, resident, temporary_folder
from attune.bus import queries
from attune.bus.messages import Cause
from attune.database.ids import uuid7
from attune.events.model import NewEvent
from attune.settings import Settings
from attune.telemetry.stages import Stages

Say = Callable[[str], None]

_LOOK_EVERY = 0.2
_MOST_WAITING = 100_000_000
_MUCH = 10_000


@dataclass(frozen=True, slots=True)
class Report:
    """`accepted_per_second`: while `senders` tasks sent events as fast as they were taken. `memory_growth_mb`: of the
    server's process, its most during the run less what it had before, in MB (10^6 bytes). `drained_s`: from the last
    accepted event to the last completed execution."""

    events: int
    senders: int
    accepted_per_second: float
    peak_backlog: int
    memory_growth_mb: float
    drained_s: float
    pipelines_per_second: float
    rescued: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class _Peaks:
    memory: int = 0
    backlog: int = 0


async def measure(settings: Settings, events: int, say: Say) -> Report:
    """Send so many events as fast as they are taken, and wait until all have been handled."""
    unlimited = settings.bus.model_copy(update={"max_backlog": _MOST_WAITING})
    settings = settings.model_copy(update={"bus": unlimited})
    with temporary_folder() as folder:
        say("starting a server of its own …")
        async with bench_server(settings, folder, Stages(visible=False, debug=False)) as server:
            await flood(server, MOST_IN_FLIGHT, WARM_UP)
            return await _measure(server, events, say)


async def _measure(server: Serving, events: int, say: Say) -> Report:
    peaks, before = _Peaks(), resident()
    begun = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_watch, server, peaks)
        await _send(server, events)
        accepted = time.perf_counter()
        say(f"  {events:,} events accepted in {accepted - begun:.1f} s; {server.engine.bus.backlog.waiting:,} wait …")
        await _drained(server)
        drained = time.perf_counter()
        tasks.cancel_scope.cancel()
    return Report(
        events=events,
        senders=MOST_IN_FLIGHT,
        accepted_per_second=round(events / (accepted - begun), 1),
        peak_backlog=peaks.backlog,
        memory_growth_mb=round((peaks.memory - before) / 1e6, 1),
        drained_s=round(drained - accepted, 1),
        pipelines_per_second=round(events / (drained - begun), 1),
        rescued=sum(queue.rescued for queue in server.engine.bus.counters.queues.values()),
    )


async def _send(server: Serving, events: int) -> None:
    """Send from many tasks, each the next event as soon as its last one was accepted: as many clients over HTTP would,
    without what HTTP costs, which only slows them down."""
    trigger = server.engine.definitions.triggers.by_ref[TRIGGER]
    left = iter(range(events))

    async def one_after_another() -> None:
        for _ in left:
            await server.engine.ingest.accept(
                NewEvent(trigger.id, trigger.ref, PAYLOAD, "bench", Cause(uuid7(), None, 0))
            )

    async with anyio.create_task_group() as tasks:
        for _ in range(MOST_IN_FLIGHT):
            tasks.start_soon(one_after_another)


async def _drained(server: Serving) -> None:
    """Return when nothing waits. To count is dear while much waits, and what was added up is not exact."""
    while server.engine.bus.backlog.waiting > _MUCH or await _counted(server):  # noqa: ASYNC110 - nobody tells
        await anyio.sleep(_LOOK_EVERY)


async def _counted(server: Serving) -> int:
    async with server.engine.database.acquire() as connection:
        return await queries.count_deliveries(connection)


async def _watch(server: Serving, peaks: _Peaks) -> None:
    while True:
        peaks.memory = max(peaks.memory, resident())
        peaks.backlog = max(peaks.backlog, server.engine.bus.backlog.waiting)
        await anyio.sleep(_LOOK_EVERY)
