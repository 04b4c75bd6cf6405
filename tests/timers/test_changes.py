"""What becomes of a timer when its rule changes, its neighbour breaks, or the database goes away."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import asyncpg
import pytest
from structlog.testing import capture_logs

from attune.bus.transaction import Transaction
from attune.catalog import queries
from attune.catalog.model import Rule
from attune.catalog.rules import Rules, spec_of
from attune.database.connecting import embedded_url
from attune.database.embedded import Cluster
from attune.database.group_commit import GroupCommit
from attune.database.pool import Database
from attune.sources.timers.service import Timers
from attune.telemetry.metrics import Instruments
from tests.bus.proxy import Failure, proxy_to
from tests.support.clock import VirtualClock
from tests.support.waiting import eventually, until
from tests.timers.timeline import Timeline, timeline_on


async def test_t80_a_rule_fires_from_the_moment_it_is_made(timeline: Timeline) -> None:
    await timeline.rule(interval=10)
    await timeline.passes(10)
    assert await timeline.fired() == [10]


async def test_a_rule_that_is_made_disabled_does_not_fire_before_it_is_enabled(timeline: Timeline) -> None:
    await timeline.rule(interval=10, enabled=False)
    await timeline.passes(15)
    await timeline.change(enabled=True)
    await timeline.passes(10)
    assert await timeline.fired() == [25]


async def test_a_disabled_rule_fires_no_more(timeline: Timeline) -> None:
    await timeline.rule(interval=10)
    await timeline.passes(10)
    await timeline.change(enabled=False)
    await timeline.passes(60)
    assert await timeline.fired() == [10]


async def test_t71_a_deleted_rule_fires_no_more(timeline: Timeline) -> None:
    await timeline.rule(interval=10)
    await timeline.rule("other", interval=10)
    await timeline.engine.rules.delete("hello.tick")
    await timeline.settled()
    await timeline.passes(10)
    assert await timeline.fired() == []
    assert await timeline.fired("other") == [10]


async def test_another_schedule_holds_at_once(timeline: Timeline) -> None:
    await timeline.rule(interval=10)
    await timeline.passes(7)
    await timeline.change(trigger_params={"interval": 20})
    await timeline.passes(20)
    assert await timeline.fired() == [27]
    await timeline.change(trigger_ref="core.crontimer", trigger_params={"expression": "@hourly"})
    assert await timeline.next_fire() == 3600
    await timeline.change(trigger_ref="core.datetimetimer", trigger_params={"fire_at": "2026-03-01T12:00:50Z"})
    await timeline.passes(23)
    assert await timeline.fired() == [27, 50]


@pytest.mark.parametrize(
    "changes",
    [
        {"label": "Another"},
        {"action_params": {"message": "hello"}},
        {"conditions": [{"field": "x", "operator": "exists", "value": True}]},
        {"trigger_params": {"interval": 10, "misfire_policy": "skip"}},
        {"trigger_params": {"interval": 10, "unit": "seconds"}},
        {"enabled": True},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_t75_a_change_of_anything_but_the_schedule_leaves_the_phase_alone(
    timeline: Timeline, changes: dict[str, Any]
) -> None:
    await timeline.rule(interval=10)
    await timeline.passes(7)
    await timeline.change(**changes)
    await timeline.passes(3)
    assert await timeline.fired() == [10]


async def test_a_new_policy_holds_for_what_is_missed_next(timeline: Timeline) -> None:
    await timeline.rule(interval=10)
    await timeline.change(trigger_params={"interval": 10, "misfire_policy": "skip"})
    await timeline.passes(39)
    assert await timeline.fired() == []
    assert await timeline.skipped() == [(10, 30, 3, "missed; the policy is skip")]


async def test_an_interval_that_ends_beyond_the_calendar_is_refused_as_a_parameter(timeline: Timeline) -> None:
    with pytest.raises(Exception, match="cannot be like this") as caught:
        await timeline.rule(interval=2_915_000, unit="days")  # 7,981 years
    assert [problem.where for problem in caught.value.problems] == ["/trigger_params/interval"]  # type: ignore[attr-defined]


Change = Callable[[Rules, Transaction, int, Rule], Awaitable[object]]


def _disable(rules: Rules, transaction: Transaction, version: int, rule: Rule) -> Awaitable[object]:
    return rules.update_in(transaction, version, rule, replace(spec_of(rule), enabled=False))


def _update(rules: Rules, transaction: Transaction, version: int, rule: Rule) -> Awaitable[object]:
    spec = replace(spec_of(rule), trigger_params={"interval": 15})
    return rules.update_in(transaction, version, rule, spec)


def _delete(rules: Rules, transaction: Transaction, version: int, rule: Rule) -> Awaitable[object]:
    return rules.delete_in(transaction, version, rule)


@pytest.mark.parametrize(
    ("change", "fired"),
    [
        (_disable, []),
        # What was planned does nothing; the new interval counts from the change.
        (_update, [15]),
        (_delete, []),
    ],
)
async def test_t70_a_fire_that_loses_against_a_change_of_its_rule_does_nothing(
    timeline: Timeline, change: Change, fired: list[float]
) -> None:
    engine = timeline.engine
    await timeline.rule(interval=10)
    async with engine.bus.transaction() as transaction:
        version = await queries.raise_version(transaction.connection)
        rule = await queries.lock_rule(transaction.connection, "hello.tick")
        assert rule is not None
        await change(engine.rules, transaction, version, rule)
        timeline.clock.advance(10)
        await until(lambda: _blocked(engine.database))
    await timeline.settled()
    assert await timeline.fired() == []
    await timeline.passes(5)
    assert await timeline.fired() == fired
    assert await timeline.skipped() == []


async def _blocked(database: Database) -> bool | None:
    """Whether a statement on timers waits for a lock."""
    row = await database.fetch_one("""
        SELECT 1 FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%attune.timer%'
    """)
    return True if row else None


async def test_t72_two_services_fire_each_instant_once(timeline: Timeline) -> None:
    engine = timeline.engine
    writer: GroupCommit[Transaction] = GroupCommit(engine.bus.transaction, anyio.Lock)
    second = Timers(engine.bus, engine.ingest, writer, timeline.clock, Instruments(), lambda: True)
    names = [f"tick{number}" for number in range(20)]
    await timeline.rule("skips", interval=10, misfire_policy="skip")
    for name in names:
        await timeline.rule(name, interval=10)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run)
        tasks.start_soon(second.run)
        for _ in range(5):
            await timeline.settled(second)
            await timeline.passes(10)
        await timeline.settled(second)
        await timeline.jumps(timedelta(seconds=29))
        await timeline.settled(second)
        tasks.cancel_scope.cancel()
    assert await timeline.skipped("skips") == [(60, 70, 2, "missed; the policy is skip")]
    for name in names:
        assert await timeline.fired(name) == [10, 20, 30, 40, 50, 70]
        assert [payload["execution_count"] for payload in await timeline.payloads(name)] == [1, 2, 3, 4, 5, 6]


async def test_a_timer_whose_schedule_cannot_be_read_does_not_stop_the_others(
    database: Database, tmp_path: Path, clock: VirtualClock
) -> None:
    async with timeline_on(database, tmp_path, clock) as timeline:
        await timeline.rule("broken", expression="* * * * * *", timezone="Europe/Berlin")
        await timeline.rule(interval=10)
        # What was a zone is none any more, as after an update of the machine.
        async with database.acquire() as connection:
            await connection.execute(
                "UPDATE attune.rule SET trigger_params = jsonb_set(trigger_params, '{timezone}', '\"Mars/Olympus\"')"
                " WHERE ref = 'hello.broken'"
            )
    async with timeline_on(database, tmp_path, clock, settled=False) as timeline:
        clock.advance(10)
        await until(lambda: _has_fired(timeline, "tick"))
        assert await timeline.fired("broken") == []
        # Whoever mends the rule has a timer again.
        params = {"expression": "* * * * * *", "timezone": "Europe/Berlin"}
        await timeline.change("broken", trigger_params=params)
        await timeline.passes(1)
        assert await timeline.fired("broken") == [11]


async def test_a_timer_whose_event_cannot_be_written_does_not_stop_the_others(timeline: Timeline) -> None:
    await timeline.rule("poison", interval=10)
    await timeline.rule(interval=10)
    with capture_logs() as lines:
        async with _constraint(timeline.engine.database, "CHECK (rule_ref <> 'hello.poison')"):
            timeline.clock.advance(10)
            await until(lambda: _has_fired(timeline, "tick"))
            timeline.clock.advance(10)
            await until(lambda: _has_fired(timeline, "tick", times=2))
            assert await timeline.fired("poison") == []
    (told,) = (line for line in lines if line["log_level"] == "error")
    assert (told["event"], told["rule"]) == (
        "a timer cannot fire and waits for a change of its rule",
        "hello.poison",
    )
    # It waits for a change of its rule; what it missed is made up for, or recorded, only then.
    await timeline.change("poison", enabled=False)
    await timeline.change("poison", enabled=True)
    await timeline.passes(10)
    assert await timeline.fired("poison") == [30]


@asynccontextmanager
async def _constraint(database: Database, constraint: str) -> AsyncIterator[None]:
    async with database.acquire() as connection:
        await connection.execute(f"ALTER TABLE attune.event ADD CONSTRAINT test {constraint}")
        try:
            yield
        finally:
            await connection.execute("ALTER TABLE attune.event DROP CONSTRAINT test")


async def _has_fired(timeline: Timeline, name: str, *, times: int = 1) -> bool | None:
    return True if len(await timeline.events(name)) >= times else None


@pytest.mark.parametrize("failure", [Failure.LOST, Failure.UNANSWERED])
async def test_a_commit_that_fails_neither_loses_an_instant_nor_doubles_it(
    shared_url: str, database: Database, tmp_path: Path, clock: VirtualClock, failure: Failure
) -> None:
    async with (
        proxy_to(shared_url) as proxy,
        _database(proxy.url) as fragile,
        timeline_on(fragile, tmp_path, clock) as timeline,
    ):
        await timeline.rule(interval=10)
        proxy.next_commit = failure
        clock.advance(10)
        await proxy.failed.wait()
        await _while_time_passes(clock, timeline.settled())
        await timeline.passes(10)
        assert await timeline.fired() == [10, 20]
        assert await timeline.skipped() == []


@asynccontextmanager
async def _database(url: str) -> AsyncIterator[Database]:
    database = Database(url, max_connections=8, is_remote=False)
    await database.connect()
    try:
        yield database
    finally:
        await database.disconnect()


async def _while_time_passes(clock: VirtualClock, wait: Awaitable[None]) -> None:
    """Await while a clock goes on slowly: who pauses after a failure has to wake up."""

    async def tick() -> None:
        while True:
            clock.advance(0.1)
            await anyio.sleep(0.1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        await wait
        tasks.cancel_scope.cancel()


async def test_an_outage_of_the_database_does_not_lose_an_instant(
    cluster: Cluster, dsn: str, tmp_path: Path, clock: VirtualClock
) -> None:
    async with _database(dsn) as database, timeline_on(database, tmp_path, clock) as timeline:
        await timeline.rule(interval=10)
        await timeline.rule("all", interval=10, misfire_policy="fire_all")
        async with _outage(embedded_url(cluster.environment()), urlsplit(dsn).path[1:]):
            with capture_logs() as lines:
                clock.advance(45)
                await eventually(lambda: any(line["event"] == "timers wait for the database" for line in lines))
        await _while_time_passes(clock, timeline.settled())
        # Every instant is an event, or recorded as skipped.
        assert await timeline.fired("all") == [10, 20, 30, 40]
        assert await timeline.fired() == [40]
        assert await timeline.skipped() == [(10, 30, 3, "missed; fire_once makes up for the latest only")]


@asynccontextmanager
async def _outage(server: str, name: str) -> AsyncIterator[None]:
    """Let a database end the connections of the engine, and take no new ones."""
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND application_name = 'attune'",
            name,
        )
        yield
        await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    finally:
        await connection.close()
