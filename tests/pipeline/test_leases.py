"""An execution carries who runs it until when; what its worker has forgotten is ended."""

from datetime import timedelta
from pathlib import Path

from attune.base.json import loads
from attune.base.states import ExecutionStatus
from attune.database.pool import Database
from attune.upkeep.leases import Leases
from tests.pipeline.shop import rows
from tests.pipeline.test_cancel import until_heard, until_quiet, until_status
from tests.support.clock import VirtualClock
from tests.support.engines import engine_on

S = ExecutionStatus
TIMEOUT = 3660
"""Of core.sleep, in seconds."""


async def test_an_execution_that_runs_carries_its_boot_its_deadline_and_its_lease(
    database: Database, tmp_path: Path
) -> None:
    """T-19: two deadlines were equal, and two parts ended the same execution."""
    clock = VirtualClock()
    settings = {"worker": {"kill_grace": 7}}
    async with engine_on(database, tmp_path, clock=clock, settings=settings) as engine, engine.running():
        execution = await engine.requests.execute("core.sleep", {"seconds": 1000}, None)
        await until_status(engine, execution, S.RUNNING)

        (row,) = await rows(engine, "SELECT * FROM attune.execution WHERE id = $1", execution)

        assert row["boot"] == engine.worker._tenure.boot
        assert row["deadline"] - row["started_at"] == timedelta(seconds=TIMEOUT)
        assert row["lease_until"] - row["deadline"] == timedelta(seconds=37)
        await engine.requests.cancel(execution)
        await until_status(engine, execution, S.CANCELLED)


async def test_t100_what_its_worker_holds_is_left_alone_however_long_the_machine_slept(
    database: Database, tmp_path: Path
) -> None:
    """A worker that was not heard of for a while had its executions taken away, and finished them all the same. T-101:
    and nothing was given to it any more."""
    clock = VirtualClock()
    async with engine_on(database, tmp_path, clock=clock) as engine, engine.running():
        execution = await engine.requests.execute("core.sleep", {"seconds": 1000}, None)
        await until_status(engine, execution, S.RUNNING)
        clock.set(clock.now() + timedelta(days=1))

        assert await engine._leases.once() == 0

        after = await engine.requests.execute("core.noop", {}, None)
        await until_status(engine, after, S.COMPLETED)
        await engine.requests.cancel(execution)
        assert await until_status(engine, execution, S.CANCELLED, S.ABANDONED) is S.CANCELLED


async def test_what_its_worker_has_forgotten_is_ended_when_its_lease_is_over_and_not_before(
    database: Database, tmp_path: Path
) -> None:
    clock = VirtualClock()
    async with engine_on(database, tmp_path, clock=clock) as engine, engine.running():
        execution = await engine.requests.execute("core.sleep", {"seconds": 1000}, None)
        await until_status(engine, execution, S.RUNNING)
        leases = Leases(engine.bus, lambda _: False)

        assert await leases.once() == 0
        clock.set(clock.now() + timedelta(seconds=TIMEOUT + 5 + 31))
        assert await leases.once() == 1
        assert await leases.once() == 0

        await until_heard(engine, execution)
        (row,) = await rows(engine, "SELECT * FROM attune.execution WHERE id = $1", execution)
        assert row["status"] == "abandoned"
        assert "Its worker forgot it" in loads(row["result"])["error"]
        engine.worker.abandon()
        await until_quiet(engine)
        assert await rows(engine, "SELECT FROM attune.execution_open") == []


async def test_leases_are_looked_at_as_time_passes(database: Database, tmp_path: Path) -> None:
    clock = VirtualClock()
    async with engine_on(database, tmp_path, clock=clock) as engine, engine.running():
        execution = await engine.requests.execute("core.sleep", {"seconds": 1000}, None)
        await until_status(engine, execution, S.RUNNING)
        # It forgets: a defect that nobody has made yet.
        run = engine.worker._running.pop(execution)

        clock.advance(TIMEOUT + 60)

        await until_status(engine, execution, S.ABANDONED)
        engine.worker._running[execution] = run
        run.stop.ask()
