"""How many pipelines a second, and how long each takes: from an event that comes in to the end of core.noop."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from typing import Any

import anyio

from attune.app import Serving
from attune.bench.figures import Recorder, Spread, spread
from attune.bench.limit import PAYLOAD, Limit, Subjects
from attune.bench.surroundings import RULE, TRIGGER, bench_server, temporary_folder
from attune.bus import queries as bus
from attune.bus.messages import Cause
from attune.database.ids import uuid7
from attune.engine import Engine
from attune.events.model import NewEvent
from attune.settings import Settings
from attune.telemetry.lag import LoopLag

Say = Callable[[str], None]

MOST_IN_FLIGHT = 500

WARM_UP = 2.0
"""Seconds."""

_LAG_EVERY = 0.01


@dataclass(frozen=True, slots=True)
class Round:
    """What was measured with so many pipelines in flight. `hops_ms`: from publication to done, by consumer."""

    in_flight: int
    pipelines_per_second: float
    whole_ms: Spread
    hops_ms: dict[str, Spread]
    loop_lag_ms: Spread


@dataclass(frozen=True, slots=True)
class Report:
    """`limit_per_second`: the same row operations over `limit_connections` plain connections; `ratio_to_limit`: the
    median of the pipelines a second with the most in flight, over the median of the limit, in alternating rounds."""

    python: str
    postgres: str
    cpus: int
    rounds: list[Round]
    accepted_to_started_ms: Spread
    pipelines_per_second: float
    limit_per_second: float
    limit_connections: int
    ratio_to_limit: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


async def measure(settings: Settings, seconds: float, rounds: int, say: Say) -> Report:
    """Measure for about `seconds` a round; the most in flight, and the limit, in `rounds` alternating rounds."""
    recorder = Recorder()
    with temporary_folder() as folder:
        say("starting a server of its own …")
        async with bench_server(settings, folder, recorder) as server:
            await flood(server, MOST_IN_FLIGHT, WARM_UP)
            recorder.enabled = True
            measured = [await _round(server, 1, seconds, say)]
            recorder.enabled = False
            measured.append(await _round(server, 50, seconds, say))
            limit = _limit(server)
            many, alone, both = [], [], []
            for _ in range(rounds):
                many.append(await _round(server, MOST_IN_FLIGHT, seconds, say))
                alone.append(await limit.rate(1, seconds / 2))
                both.append(await limit.rate(2, seconds / 2))
                say(f"  the limit: {alone[-1]:,.0f} a second over one connection, {both[-1]:,.0f} over two")
            version = await _version(server)
    rates = [one.pipelines_per_second for one in many]
    middle = sorted(many, key=lambda one: one.pipelines_per_second)[len(many) // 2]
    best = max(statistics.median(alone), statistics.median(both))
    return Report(
        python=platform.python_version(),
        postgres=version,
        cpus=os.cpu_count() or 1,
        rounds=[*measured, middle],
        accepted_to_started_ms=spread(recorder.between("event accepted", "execution started")),
        pipelines_per_second=round(statistics.median(rates), 1),
        limit_per_second=round(best, 1),
        limit_connections=1 if statistics.median(alone) >= statistics.median(both) else 2,
        ratio_to_limit=round(statistics.median(rates) / best, 3),
    )


async def _round(server: Serving, in_flight: int, seconds: float, say: Say) -> Round:
    lags: list[float] = []
    begun_at = server.engine.bus.clock.now()
    begun = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(LoopLag(lags.append, _LAG_EVERY).run)
        took = await flood(server, in_flight, seconds)
        tasks.cancel_scope.cancel()
    elapsed = time.perf_counter() - begun
    async with server.engine.database.acquire() as connection:
        hops = await bus.hop_times(connection, begun_at)
    measured = Round(
        in_flight,
        round(len(took) / elapsed, 1),
        spread(took),
        {consumer: spread(times) for consumer, times in hops.items()},
        spread(lags),
    )
    say(
        f"  {in_flight:>3} in flight: {measured.pipelines_per_second:,.0f} pipelines a second, "
        f"p50 {measured.whole_ms.p50:.1f} ms, p99 {measured.whole_ms.p99:.1f} ms"
    )
    return measured


async def flood(server: Serving, in_flight: int, seconds: float, triggers: Sequence[str] = (TRIGGER,)) -> list[float]:
    """Keep so many pipelines going for some time, from one trigger after the other; the seconds that each took."""
    taking_turns = cycle(triggers)
    deadline = time.perf_counter() + seconds
    took: list[float] = []

    async def one_after_another() -> None:
        while time.perf_counter() < deadline:
            took.append(await run_one(server.engine, next(taking_turns)))

    async with anyio.create_task_group() as tasks:
        for _ in range(in_flight):
            tasks.start_soon(one_after_another)
    return took


async def run_one(engine: Engine, trigger_ref: str = TRIGGER) -> float:
    """The seconds that one pipeline takes, from asking for its event to the end of its execution."""
    trigger = engine.definitions.triggers.by_ref[trigger_ref]
    begun = time.perf_counter()
    accepted = await engine.ingest.accept(NewEvent(trigger.id, trigger.ref, PAYLOAD, "bench", Cause(uuid7(), None, 0)))
    with engine.waiters.expect(f"event:{accepted.id}") as ended:
        await ended.wait()
    return time.perf_counter() - begun


def _limit(server: Serving) -> Limit:
    definitions = server.engine.definitions
    trigger = definitions.triggers.by_ref[TRIGGER]
    rule = definitions.rules.by_ref[RULE]
    action = definitions.actions.by_ref["core.noop"]
    worker = server.engine.worker.worker_id
    subjects = Subjects(trigger.id, trigger.ref, rule.id, rule.ref, action.id, action.ref, worker)
    return Limit(server.engine.database.dsn, subjects)


async def _version(server: Serving) -> str:
    async with server.engine.database.acquire() as connection:
        version: str = await connection.fetchval("SHOW server_version")
        return version
