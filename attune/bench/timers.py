"""How late timers are: many intervals with their phases spread, and as many crons that are due in the same second."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import anyio

from attune.app import Serving
from attune.base.json import JsonObject
from attune.bench.figures import Recorder, Spread, spread
from attune.bench.surroundings import bench_server, temporary_folder
from attune.catalog import queries as catalog
from attune.catalog.queries import RuleSpec
from attune.events import queries as events
from attune.settings import Settings

Say = Callable[[str], None]

INTERVAL = 10

_RULES_AT_ONCE = 10
"""An interval begins when its rule is made: made by the ten, the timers are due at a thousand different instants."""
_ACCEPTED = "event accepted"
_SETTLE = 5.0
_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Report:
    """`interval_lateness_ms`: from the instant of an interval to its committed event. `cron_all_committed_ms`: from the
    instant at which all crons are due to the last committed event."""

    timers: int
    interval_fires: int
    interval_lateness_ms: Spread
    cron_fires: int
    cron_all_committed_ms: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


async def measure(settings: Settings, timers: int, seconds: float, say: Say) -> Report:
    """Measure `timers` intervals of ten seconds for some time, then as many crons, once. All run core.noop."""
    late = await _intervals(settings, timers, seconds, say)
    cron = await _crons(settings, timers, say)
    return Report(timers, len(late), spread(late), len(cron), round(1000 * max(cron, default=0.0), 1))


async def _intervals(settings: Settings, timers: int, seconds: float, say: Say) -> list[float]:
    """Seconds from instant to committed event."""
    recorder = Recorder()
    with temporary_folder() as folder:
        async with bench_server(settings, folder, recorder) as server:
            say(f"making {timers:,} interval timers …")
            await _make(server, timers, "core.intervaltimer", {"unit": "seconds", "interval": INTERVAL})
            await anyio.sleep(INTERVAL)
            say(f"  watching them for {seconds:g} s …")
            recorder.enabled = True
            await anyio.sleep(seconds)
            recorder.enabled = False
            async with server.engine.database.acquire() as connection:
                instants = await events.instants(connection, list(recorder.reached))
    return [
        stages[_ACCEPTED] - instants[event].timestamp()
        for event, stages in recorder.reached.items()
        if _ACCEPTED in stages and event in instants
    ]


async def _crons(settings: Settings, timers: int, say: Say) -> list[float]:
    """Seconds from the instant at which all are due to each committed event."""
    recorder = Recorder()
    with temporary_folder() as folder:
        async with bench_server(settings, folder, recorder) as server:
            say(f"making {timers:,} cron timers that are due in the same second …")
            await _make(server, timers, "core.crontimer", {"expression": "0 * * * * *"})
            due = 60 * (int(time.time() + _SETTLE) // 60 + 1)
            say(f"  waiting for {time.strftime('%H:%M:%S', time.localtime(due))} …")
            await anyio.sleep(due - 1 - time.time())
            recorder.enabled = True
            with anyio.move_on_after(due - time.time() + _PATIENCE):
                while len(recorder.reached) < timers:  # noqa: ASYNC110 - a measurement looks from outside
                    await anyio.sleep(0.05)
    return [stages[_ACCEPTED] - due for stages in recorder.reached.values() if _ACCEPTED in stages]


async def _make(server: Serving, count: int, trigger: str, parameters: JsonObject) -> None:
    engine = server.engine
    for start in range(0, count, _RULES_AT_ONCE):
        async with engine.bus.transaction() as transaction:
            version = await catalog.raise_version(transaction.connection)
            for number in range(start, min(start + _RULES_AT_ONCE, count)):
                spec = RuleSpec(
                    ref=f"bench.timer_{number}",
                    pack_ref="bench",
                    label=f"Timer {number}",
                    description=None,
                    action_ref="core.noop",
                    trigger_ref=trigger,
                    conditions=[],
                    action_params={},
                    trigger_params=parameters,
                    enabled=True,
                    overlap="allow",
                )
                await engine.rules.create_in(transaction, version, spec, owner=None, is_adhoc=True)
