"""Timers on a test database, whose time passes when a test says so."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from attune.base.json import loads
from attune.catalog.rules import Saved
from attune.database.pool import Database, Row
from attune.database.storage import Storage
from attune.engine import Engine
from attune.sources.timers.service import Timers
from tests.support.clock import START, VirtualClock
from tests.support.engines import engine_on, make_rule, rule
from tests.support.waiting import until

TRIGGERS = {
    "interval": "core.intervaltimer",
    "expression": "core.crontimer",
    "fire_at": "core.datetimetimer",
    "dtstart": "core.rruletimer",
}


@dataclass(frozen=True)
class Timeline:
    """An engine that runs, and its clock, which begins at START."""

    engine: Engine
    clock: VirtualClock

    async def rule(self, name: str = "tick", *, enabled: bool = True, **params: Any) -> Saved:
        """A new rule `hello.name` on the timer trigger that has such parameters."""
        (trigger,) = (trigger for param, trigger in TRIGGERS.items() if param in params)
        saved = await make_rule(self.engine, rule(f"hello.{name}", trigger, trigger_params=params, enabled=enabled))
        await self.settled()
        return saved

    async def change(self, name: str = "tick", **changes: Any) -> Saved:
        """Change a rule, and let the timers take note."""
        saved = await self.engine.rules.update(f"hello.{name}", changes)
        await self.settled()
        return saved

    async def passes(self, seconds: float) -> None:
        """Let time pass, and the timers do what there is to do."""
        self.clock.advance(seconds)
        await self.settled()

    async def jumps(self, by: timedelta) -> None:
        """Set the clock, and let the timers do what there is to do."""
        self.clock.set(self.clock.now() + by)
        await self.settled()

    async def settled(self, timers: Timers | None = None) -> None:
        """Return when the timers know what their rows say, and wait for what is to come."""
        watched = timers or self.engine.timers

        async def found() -> bool | None:
            rows = await self.engine.database.fetch_all(
                "SELECT rule, generation, next_fire_at FROM attune.timer WHERE next_fire_at IS NOT NULL"
            )
            planned = {(row["rule"], row["generation"], row["next_fire_at"]) for row in rows}
            known = {(rule, one.row.generation, one.next_fire_at) for rule, one in watched._timers.items()}
            sleeps = any(event is watched._changed for _, event in self.clock._sleepers)
            return True if sleeps and known == planned and not self.is_due(planned) else None

        await until(found)

    def is_due(self, planned: set[tuple[Any, ...]]) -> bool:
        return any(instant <= self.clock.now() for _, _, instant in planned)

    async def events(self, name: str = "tick") -> list[Row]:
        """The events of a rule, in the order of their instants."""
        return await self.engine.database.fetch_all(
            "SELECT * FROM attune.event WHERE rule_ref = :ref ORDER BY scheduled_at, id", ref=f"hello.{name}"
        )

    async def fired(self, name: str = "tick") -> list[float]:
        """The instants for which a rule has events, in seconds since START."""
        return [(row["scheduled_at"] - START).total_seconds() for row in await self.events(name)]

    async def payloads(self, name: str = "tick") -> list[Any]:
        """The payloads of a rule's events."""
        return [loads(row["payload"]) for row in await self.events(name)]

    async def skipped(self, name: str = "tick") -> list[tuple[float, float, int | None, str]]:
        """What a rule passed over: first and last instant in seconds since START, how many, and why."""
        rows = await self.engine.database.fetch_all(
            "SELECT * FROM attune.timer_skip WHERE rule_ref = :ref ORDER BY id", ref=f"hello.{name}"
        )
        return [
            ((row["first"] - START).total_seconds(), (row["last"] - START).total_seconds(), row["count"], row["reason"])
            for row in rows
        ]

    async def timer(self, name: str = "tick") -> Mapping[str, Any]:
        """The row of a rule's timer."""
        row = await self.engine.database.fetch_one(
            "SELECT t.* FROM attune.timer t JOIN attune.rule r ON r.id = t.rule WHERE r.ref = :ref", ref=f"hello.{name}"
        )
        assert row is not None
        return row

    async def next_fire(self, name: str = "tick") -> float | None:
        """The next instant of a rule, in seconds since START."""
        instant = (await self.timer(name))["next_fire_at"]
        return None if instant is None else (instant - START).total_seconds()


@asynccontextmanager
async def timeline_on(
    database: Database,
    folder: Path,
    clock: VirtualClock | None = None,
    *,
    settled: bool = True,
    storage: Storage | None = None,
) -> AsyncIterator[Timeline]:
    """Run an engine: one life of a server. The bundled packs' own rules do not fire."""
    clock = clock or VirtualClock()
    async with engine_on(database, folder, clock=clock, storage=storage) as engine:
        timeline = Timeline(engine, clock)
        async with engine.running():
            if settled:
                await timeline.settled()
            yield timeline
