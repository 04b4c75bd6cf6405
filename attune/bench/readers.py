"""What readers of live views cost: pipelines a second with them and without, in alternating rounds of one server; and
how long a committed change takes to a reader."""

import os
import platform
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from attune.app import Serving
from attune.bench.figures import Recorder, Spread, spread
from attune.bench.listeners import PROBE
from attune.bench.pipeline import MOST_IN_FLIGHT, WARM_UP, flood
from attune.bench.surroundings import bench_server, temporary_folder
from attune.bus.messages import NotificationType
from attune.settings import Settings

Say = Callable[[str], None]

_EVERY = 0.05
_SLICES = 4


@dataclass(frozen=True, slots=True)
class Round:
    """`cpu_us`: microseconds that this process computed for each pipeline. `notifications`: how many the readers got a
    second. `latency_ms`: from the commit of a change to its reader."""

    pipelines_per_second: float
    cpu_us: float
    notifications_per_second: float
    latency_ms: Spread


@dataclass(frozen=True, slots=True)
class Report:
    """The medians of all rounds with readers and of all without. What they cost is the median over the pairs of rounds
    that followed each other. `quiet_latency_ms`: with as many readers, while nothing else happens."""

    python: str
    cpus: int
    in_flight: int
    readers: int
    rounds_with: list[Round]
    rounds_without: list[Round]
    pipelines_with: float
    pipelines_without: float
    rate_cost_percent: float
    cpu_cost_percent: float
    latency_ms: Spread
    quiet_latency_ms: Spread

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class _Listeners:
    """Readers in a process of their own. What they got is known when they have gone."""

    def __init__(self) -> None:
        self.notifications = 0
        self.latencies: list[float] = []


async def measure(settings: Settings, readers: int, seconds: float, rounds: int, say: Say) -> Report:
    """Measure `rounds` pairs of rounds of `seconds` each, in slices that alternate: a machine changes more within a
    minute than readers cost. Each reader follows the executions of a rule of its own: together they are told of every
    state of every one."""
    pairs, seconds = rounds * _SLICES, seconds / _SLICES
    measured: dict[bool, list[Round]] = {True: [], False: []}
    with temporary_folder() as folder:
        say("starting a server of its own …")
        async with bench_server(settings, folder, Recorder(), files=_rules(readers)) as server:
            triggers = [f"bench.t{number:04}" for number in range(readers)]
            await flood(server, MOST_IN_FLIGHT, WARM_UP, triggers)
            async with _listening(server, folder, readers) as quiet:
                await anyio.sleep(seconds)
            for number in range(pairs):
                for is_read in (True, False) if number % 2 else (False, True):
                    measured[is_read].append(await _round(server, folder, readers if is_read else 0, seconds, triggers))
                on, off = measured[True][-1], measured[False][-1]
                say(
                    f"  {on.pipelines_per_second:,.0f} a second with {readers} readers "
                    f"({on.notifications_per_second:,.0f} notifications, p99 {on.latency_ms.p99:.1f} ms, "
                    f"{on.cpu_us:,.0f} µs each), {off.pipelines_per_second:,.0f} without ({off.cpu_us:,.0f} µs)"
                )
    both = list(zip(measured[True], measured[False], strict=True))
    return Report(
        python=platform.python_version(),
        cpus=os.cpu_count() or 1,
        in_flight=MOST_IN_FLIGHT,
        readers=readers,
        rounds_with=measured[True],
        rounds_without=measured[False],
        pipelines_with=statistics.median(one.pipelines_per_second for one in measured[True]),
        pipelines_without=statistics.median(one.pipelines_per_second for one in measured[False]),
        rate_cost_percent=_percent(1 - on.pipelines_per_second / off.pipelines_per_second for on, off in both),
        cpu_cost_percent=_percent(on.cpu_us / off.cpu_us - 1 for on, off in both),
        latency_ms=_middle([one.latency_ms for one in measured[True]]),
        quiet_latency_ms=spread(quiet.latencies),
    )


def _rules(count: int) -> Mapping[str, str]:
    files = {}
    for number in range(count):
        trigger = f"bench.t{number:04}"
        files[f"triggers/t{number:04}.yaml"] = f"ref: {trigger}\nlabel: Trigger\n"
        files[f"rules/r{number:04}.yaml"] = (
            f"ref: bench.r{number:04}\nlabel: Rule\ntrigger_ref: {trigger}\naction_ref: core.noop\n"
        )
    return files


async def _round(server: Serving, folder: Path, readers: int, seconds: float, triggers: Sequence[str]) -> Round:
    # As it is when nobody has looked for minutes.
    server.engine.live.look_away(after=0)
    assert not server.engine.bus.watched, "somebody else looks"
    async with _listening(server, folder, readers) as listeners:
        begun, computed = time.perf_counter(), time.process_time()
        took = await flood(server, MOST_IN_FLIGHT, seconds, triggers)
        computed, elapsed = time.process_time() - computed, time.perf_counter() - begun
    return Round(
        round(len(took) / elapsed, 1),
        round(1e6 * computed / len(took), 1),
        round(listeners.notifications / elapsed, 1),
        spread(listeners.latencies),
    )


@asynccontextmanager
async def _listening(server: Serving, folder: Path, readers: int) -> AsyncIterator[_Listeners]:
    """So many readers for the block, each of the executions of a rule, and one of probes."""
    listeners = _Listeners()
    if not readers:
        yield listeners
        return
    paths = [f"/api/v1/stream?entity=execution&ref=bench.r{number:04}" for number in range(readers - 1)]
    command = [sys.executable, "-m", "attune.bench.listeners", str(folder / "data/run/attune.sock")]
    async with await anyio.open_process([*command, *paths, f"/api/v1/stream?ref={PROBE}"], stderr=None) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert (await process.stdout.receive()).strip() == b"ready", "the listeners say why not"
        async with anyio.create_task_group() as tasks:
            committed: dict[int, float] = {}
            tasks.start_soon(_probe, server, committed)
            yield listeners
            tasks.cancel_scope.cancel()
        await process.stdin.aclose()
        said = b"".join([chunk async for chunk in process.stdout]).decode().split()
    listeners.notifications = int(said[0])
    came = {int(number): float(at) for number, at in (one.split(":") for one in said[1:])}
    listeners.latencies = [at - committed[number] for number, at in came.items() if number in committed]


async def _probe(server: Serving, committed: dict[int, float]) -> None:
    """Commit a change again and again, and note when that was."""
    while True:
        number = len(committed) + 1
        async with server.engine.bus.transaction() as transaction:
            transaction.notify(NotificationType.RULE_UPDATED, number, {"ref": PROBE})
            transaction.after_commit(partial(_note, committed, number))
        await anyio.sleep(_EVERY)


def _note(committed: dict[int, float], number: int) -> None:
    committed[number] = time.time()


def _middle(spreads: Sequence[Spread]) -> Spread:
    return Spread(statistics.median(one.p50 for one in spreads), statistics.median(one.p99 for one in spreads))


def _percent(shares: Iterable[float]) -> float:
    return round(100 * statistics.median(shares), 1)
