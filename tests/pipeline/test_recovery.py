"""What an earlier boot left behind, and what is kept for how long."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from attune.base.states import TERMINAL, ExecutionStatus
from attune.bus import queries as bus
from attune.bus.bus import Bus
from attune.bus.topology import TOPOLOGY
from attune.bus.upkeep import TraceDays
from attune.database.pool import Database
from attune.engine import Engine
from attune.upkeep.recovery import recover
from tests.pipeline.shop import rows
from tests.pipeline.test_cancel import requested, until_heard, until_status
from tests.support.clock import VirtualClock
from tests.support.engines import engine_on

S = ExecutionStatus


async def left(engine: Engine, state: ExecutionStatus) -> int:
    """An execution that Attune left in this state when it was killed."""
    execution = await requested(engine)
    if state is not S.REQUESTED:
        # Its request was handled.
        await rows(engine, "DELETE FROM attune.delivery WHERE payload ->> 'execution_id' = $1", str(execution))
    await rows(
        engine,
        "UPDATE attune.execution SET status = $2, started_at = now(), worker = $3 WHERE id = $1",
        execution,
        state,
        engine.worker.worker_id,
    )
    return execution


@pytest.mark.parametrize(
    ("state", "end", "reason"),
    [
        (S.RUNNING, S.ABANDONED, "Attune ended while it ran; what it did is unknown."),
        (S.CANCELING, S.CANCELLED, "It was being cancelled when Attune ended."),
    ],
)
async def test_t45_what_ran_when_attune_ended_comes_to_an_end_that_everybody_hears_of(
    database: Database, tmp_path: Path, state: ExecutionStatus, end: ExecutionStatus, reason: str
) -> None:
    async with engine_on(database, tmp_path) as engine:
        execution = await left(engine, state)

    async with engine_on(database, tmp_path) as engine, engine.running():
        assert await until_status(engine, execution, *TERMINAL) is end
        assert await until_heard(engine, execution) == ["ExecutionCompleted"]
        (row,) = await rows(
            engine, "SELECT result ->> 'error' AS error, finished_at FROM attune.execution WHERE id = $1", execution
        )
        assert row["error"] == reason
        assert row["finished_at"] is not None
        assert await rows(engine, "SELECT FROM attune.execution_open") == []


async def test_what_had_not_begun_when_attune_ended_goes_on(database: Database, tmp_path: Path) -> None:
    async with engine_on(database, tmp_path) as engine:
        execution = await left(engine, S.REQUESTED)

    async with engine_on(database, tmp_path) as engine, engine.running():
        assert await until_status(engine, execution, *TERMINAL) is S.COMPLETED


async def test_what_has_ended_is_left_alone(database: Database, tmp_path: Path) -> None:
    async with engine_on(database, tmp_path) as engine:
        ended = [await left(engine, state) for state in TERMINAL]
        await rows(engine, "DELETE FROM attune.execution_open")
        before = await rows(engine, "SELECT * FROM attune.execution ORDER BY id")

        found = await recover(engine.bus, engine.definitions, None)

        assert (found.interrupted, found.waiting) == ((), ())
        assert await rows(engine, "SELECT * FROM attune.execution ORDER BY id") == before
        assert len(before) == len(ended)


# The trace


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(datetime(2026, 3, 1, 23, 59, tzinfo=UTC))


@pytest.fixture
def days(database: Database, clock: VirtualClock) -> TraceDays:
    return TraceDays(Bus(database, TOPOLOGY, clock, lambda: True), keep_days=3)


async def kept(database: Database) -> list[date]:
    async with database.acquire() as connection:
        return await bus.trace_days(connection)


async def hop(database: Database, done_at: datetime) -> None:
    async with database.acquire() as connection:
        await connection.execute(
            """
            INSERT INTO attune.trace (queue, message_id, correlation_id, depth, message_type, source, consumer,
                                      published_at, delivered_at, done_at, attempt, outcome)
            VALUES ('q', gen_random_uuid(), gen_random_uuid(), 0, 'EventCreated', 'test', 'test', $1, $1, $1, 1, 'done')
            """,
            done_at,
        )


async def hops_of(database: Database) -> dict[str, date]:
    """The days of the hops in each partition."""
    found = await database.fetch_all("SELECT cast(tableoid AS regclass)::text AS place, done_at FROM attune.trace")
    return {row["place"].removeprefix("attune."): row["done_at"].date() for row in found}


async def test_days_are_made_ahead_and_dropped_when_they_are_old(
    database: Database, days: TraceDays, clock: VirtualClock
) -> None:
    await days.once()
    assert await kept(database) == [date(2026, 2, 28), date(2026, 3, 1), date(2026, 3, 2), date(2026, 3, 3)]
    await hop(database, clock.now())

    for _ in range(3):
        clock.advance(86_400)
        await days.once()
        assert await hops_of(database) == {"trace_20260301": date(2026, 3, 1)}
    clock.advance(86_400)
    await days.once()

    assert await hops_of(database) == {}
    assert await kept(database) == [date(2026, 3, day) for day in range(2, 8)]


async def test_looking_after_the_days_twice_changes_nothing(database: Database, days: TraceDays) -> None:
    await days.once()
    before = await kept(database)
    await days.once()

    assert await kept(database) == before


async def test_a_clock_that_jumps_loses_no_trace_and_keeps_none_too_long(
    database: Database, days: TraceDays, clock: VirtualClock
) -> None:
    """There is no partition for the day until somebody looks, and consumers do not wait for that."""
    await days.once()
    clock.set(clock.now() + timedelta(days=40))
    await hop(database, clock.now())
    assert await hops_of(database) == {"trace_other": date(2026, 4, 10)}

    await days.once()
    assert await hops_of(database) == {"trace_20260410": date(2026, 4, 10)}

    # And what lies there from days that are over goes as well.
    await hop(database, clock.now() - timedelta(days=4))
    await days.once()
    assert await hops_of(database) == {"trace_20260410": date(2026, 4, 10)}
