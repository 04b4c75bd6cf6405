"""What the metrics cost: pipelines a second with them and without, in alternating rounds of one server."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import anyio

from attune.app import Serving
from attune.bench.figures import Recorder
from attune.bench.pipeline import MOST_IN_FLIGHT, WARM_UP, flood
from attune.bench.surroundings import bench_server, temporary_folder
from attune.settings import Settings
from attune.telemetry.metrics import Instruments

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Round:
    """`cpu_us`: microseconds that this process computed for each pipeline; who else uses the machine changes less about
    it than about the rate."""

    pipelines_per_second: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Report:
    """The medians of all rounds with metrics and of all without. What the metrics cost is the median over the pairs of
    rounds that followed each other, in percent of the one without."""

    python: str
    cpus: int
    in_flight: int
    rounds_with: list[Round]
    rounds_without: list[Round]
    with_metrics: Round
    without: Round
    rate_cost_percent: float
    cpu_cost_percent: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Switched(Instruments):
    """Instruments that can be switched off."""

    enabled = True

    def handled(self, consumer: str, seconds: float) -> None:
        if self.enabled:
            super().handled(consumer, seconds)

    def done(self, consumer: str, published: Iterable[datetime], now: datetime) -> None:
        if self.enabled:
            super().done(consumer, published, now)

    def started(self, events: Iterable[datetime], now: datetime) -> None:
        if self.enabled:
            super().started(events, now)

    def fired(self, instants: Iterable[datetime], now: datetime) -> None:
        if self.enabled:
            super().fired(instants, now)

    def ended(self, ends: Iterable[tuple[str, str]]) -> None:
        if self.enabled:
            super().ended(ends)

    def lagged(self, seconds: float) -> None:
        if self.enabled:
            super().lagged(seconds)


async def measure(settings: Settings, seconds: float, rounds: int, say: Say) -> Report:
    """Measure `rounds` pairs of rounds of `seconds` each; which comes first alternates as well."""
    instruments = Switched()
    measured: dict[bool, list[Round]] = {True: [], False: []}
    with temporary_folder() as folder:
        say("starting a server of its own …")
        async with bench_server(settings, folder, Recorder(), instruments) as server:
            await flood(server, MOST_IN_FLIGHT, WARM_UP)
            for number in range(rounds):
                for enabled in (True, False) if number % 2 else (False, True):
                    instruments.enabled = enabled
                    measured[enabled].append(await _round(server, seconds, scraped=enabled))
                on, off = measured[True][-1], measured[False][-1]
                say(f"  {on.pipelines_per_second:,.0f} a second with metrics, {off.pipelines_per_second:,.0f} without")
    pairs = list(zip(measured[True], measured[False], strict=True))
    return Report(
        python=platform.python_version(),
        cpus=os.cpu_count() or 1,
        in_flight=MOST_IN_FLIGHT,
        rounds_with=measured[True],
        rounds_without=measured[False],
        with_metrics=_middle(measured[True]),
        without=_middle(measured[False]),
        rate_cost_percent=_percent(off.pipelines_per_second / on.pipelines_per_second for on, off in pairs),
        cpu_cost_percent=_percent(on.cpu_us / off.cpu_us for on, off in pairs),
    )


def _middle(rounds: Sequence[Round]) -> Round:
    return Round(
        statistics.median(one.pipelines_per_second for one in rounds), statistics.median(one.cpu_us for one in rounds)
    )


def _percent(ratios: Iterable[float]) -> float:
    return round(100 * (statistics.median(ratios) - 1), 1)


async def _round(server: Serving, seconds: float, *, scraped: bool) -> Round:
    """What is reached with or without somebody who reads the metrics meanwhile."""
    begun, computed = time.perf_counter(), time.process_time()
    async with anyio.create_task_group() as tasks:
        if scraped:
            tasks.start_soon(server.engine.metrics.text)
        took = await flood(server, MOST_IN_FLIGHT, seconds)
        tasks.cancel_scope.cancel()
    computed, elapsed = time.process_time() - computed, time.perf_counter() - begun
    return Round(round(len(took) / elapsed, 1), round(1e6 * computed / len(took), 1))
