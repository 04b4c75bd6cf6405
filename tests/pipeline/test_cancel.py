"""Cancelling, starting and ending at the same moment: the first wins, and everybody hears of one end."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import anyio
import pytest

from attune.base.errors import BadInput, Conflict, NotFound
from attune.base.states import TERMINAL, ExecutionStatus
from attune.bus.messages import Cause
from attune.database.ids import uuid7
from attune.database.pool import Database, Row
from attune.engine import Engine
from attune.executions import endings, requests
from attune.executions.model import Finished, NewExecution
from attune.executions.states import Step, target
from tests.pipeline.shop import rows
from tests.support.engines import engine_on
from tests.support.waiting import eventually, until

S = ExecutionStatus


async def requested(engine: Engine, action: str = "core.noop", config: str = "{}") -> int:
    """An execution that waits for the scheduler, also when nothing runs yet."""
    async with engine.bus.transaction() as transaction:
        new = NewExecution(None, action, config, None, None, Cause(uuid7(), None, 0))
        (execution,) = await requests._request(transaction, [new])
    return execution


async def status(engine: Engine, execution: int) -> ExecutionStatus:
    (row,) = await rows(engine, "SELECT status FROM attune.execution WHERE id = $1", execution)
    return S(row["status"])


async def until_status(engine: Engine, execution: int, *wanted: ExecutionStatus) -> ExecutionStatus:
    async def reached() -> ExecutionStatus | None:
        found = await status(engine, execution)
        return found if found in wanted else None

    return await until(reached)


async def hops(engine: Engine, execution: int) -> Sequence[Row]:
    """The messages about an execution that were handled, in the order of their publication."""
    return await rows(
        engine,
        "SELECT t.* FROM attune.trace t JOIN attune.execution e USING (correlation_id) WHERE e.id = $1 "
        "ORDER BY t.message_id",
        execution,
    )


async def until_heard(engine: Engine, execution: int) -> list[str]:
    """The messages about an execution, as soon as the one about its end was handled."""

    async def heard() -> list[str] | None:
        kinds = [hop["message_type"] for hop in await hops(engine, execution)]
        return kinds if "ExecutionCompleted" in kinds else None

    return await until(heard)


async def until_quiet(engine: Engine) -> None:
    """Return when no message is on its way."""

    async def quiet() -> bool | None:
        return None if await rows(engine, "SELECT FROM attune.delivery") else True

    await until(quiet)


async def test_t32_what_was_cancelled_before_it_began_never_runs(database: Database, tmp_path: Path) -> None:
    async with engine_on(database, tmp_path) as engine:
        execution = await requested(engine)

        cancelled = await engine.requests.cancel(execution)

        assert cancelled.status is S.CANCELLED
        async with engine.running():
            await until_quiet(engine)
        assert sorted(await until_heard(engine, execution)) == ["ExecutionCompleted", "ExecutionRequested"]
        (row,) = await rows(engine, "SELECT * FROM attune.execution WHERE id = $1", execution)
        assert (row["status"], row["started_at"]) == ("cancelled", None)
        assert "cancelled before it began" in row["result"]


async def test_what_runs_is_asked_to_stop_and_then_cancelled(engine: Engine) -> None:
    execution = await engine.requests.execute("core.sleep", {"seconds": 600}, None)
    await until_status(engine, execution, S.RUNNING)

    asked = await engine.requests.cancel(execution)

    assert asked.status is S.CANCELING
    assert await until_status(engine, execution, *TERMINAL) is S.CANCELLED
    assert (await until_heard(engine, execution)).count("ExecutionCompleted") == 1


async def test_t91_asking_again_changes_nothing_and_sends_nothing(engine: Engine) -> None:
    execution = await engine.requests.execute("core.sleep", {"seconds": 600}, None)
    await until_status(engine, execution, S.RUNNING)

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(_cancel, engine, execution, [])

    await until_status(engine, execution, S.CANCELLED)
    await until_quiet(engine)
    kinds = Counter(await until_heard(engine, execution))
    assert (kinds["ExecutionCancelRequested"], kinds["ExecutionCompleted"]) == (1, 1)


async def test_what_has_ended_cannot_be_cancelled(engine: Engine) -> None:
    execution = await engine.requests.execute("core.noop", {}, None)
    await until_status(engine, execution, S.COMPLETED)

    with pytest.raises(Conflict, match=f"Execution {execution} has ended already: it is completed"):
        await engine.requests.cancel(execution)
    assert await status(engine, execution) is S.COMPLETED


async def test_what_does_not_exist_cannot_be_cancelled(engine: Engine) -> None:
    with pytest.raises(NotFound, match="There is no execution 1000000"):
        await engine.requests.cancel(1_000_000)


async def test_t91_cancelling_races_with_starting_and_ending_and_one_of_them_wins(engine: Engine) -> None:
    """Whoever was told `cancelled` can rely on it, and there is one end for each."""
    random = Random(4)
    told: list[tuple[int, ExecutionStatus | None]] = []
    executions: list[int] = []

    async def one() -> None:
        execution = await engine.requests.execute("core.sleep", {"seconds": random.choice([0, 0.001, 0.02])}, None)
        executions.append(execution)
        for _ in range(random.randrange(12)):
            await anyio.lowlevel.checkpoint()
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(_cancel, engine, execution, told)

    async with anyio.create_task_group() as tasks:
        for _ in range(60):
            tasks.start_soon(one)

    ends = {execution: await until_status(engine, execution, *TERMINAL) for execution in executions}
    for execution, answer in told:
        if answer is S.CANCELLED:
            assert ends[execution] is S.CANCELLED
        else:
            assert ends[execution] in {S.CANCELLED, S.COMPLETED}
    for execution in executions:
        assert (await until_heard(engine, execution)).count("ExecutionCompleted") == 1
    await eventually(lambda: engine.worker.running == 0)
    assert await rows(engine, "SELECT FROM attune.execution_open WHERE execution = ANY($1)", executions) == []


async def _cancel(engine: Engine, execution: int, told: list[tuple[int, ExecutionStatus | None]]) -> None:
    try:
        told.append((execution, (await engine.requests.cancel(execution)).status))
    except Conflict:
        told.append((execution, None))


@pytest.mark.parametrize("first", [Step.COMPLETE, Step.FAIL, Step.TIME_OUT, Step.ABANDON])
async def test_t100_of_two_ends_the_first_stays_and_the_second_says_nothing(engine: Engine, first: Step) -> None:
    execution = await requested(engine, "core.sleep", '{"seconds": 600}')
    await until_status(engine, execution, S.RUNNING)

    (row,) = await rows(engine, "SELECT correlation_id FROM attune.execution WHERE id = $1", execution)

    async def end(step: Step, result: str) -> bool:
        cause = Cause(row["correlation_id"], None, 4)
        async with engine.bus.transaction() as transaction:
            (ended,) = await endings.end(
                transaction, [Finished(execution, "core.sleep", None, step, result, cause)], "test"
            )
        return ended

    assert await end(first, '{"first": true}')
    for second in (Step.COMPLETE, Step.FAIL, Step.TIME_OUT, Step.ABANDON, Step.CANCEL, Step.REFUSE):
        assert not await end(second, "{}")
    # The worker still runs it, and comes to an end of its own.
    engine.worker._running[execution].stop.ask()
    await eventually(lambda: execution not in engine.worker._running)
    await engine.worker.idle()

    assert await status(engine, execution) is target(first)
    (row,) = await rows(engine, "SELECT result FROM attune.execution WHERE id = $1", execution)
    assert row["result"] == '{"first": true}'
    assert (await until_heard(engine, execution)).count("ExecutionCompleted") == 1


async def test_t34_an_execution_of_an_action_that_is_gone_fails_and_says_so(engine: Engine) -> None:
    execution = await requested(engine, "shop.gone")

    assert await until_status(engine, execution, *TERMINAL) is S.FAILED
    (row,) = await rows(engine, "SELECT result FROM attune.execution WHERE id = $1", execution)
    assert "There is no action shop.gone." in row["result"]


async def test_what_is_asked_for_must_exist_and_fit(engine: Engine) -> None:
    with pytest.raises(NotFound, match=r"There is no action shop\.gone"):
        await engine.requests.execute("shop.gone", {}, None)
    with pytest.raises(BadInput) as refused:
        await engine.requests.execute("shop.charge", {"amount": -1, "tip": 1}, None)
    assert {problem.where for problem in refused.value.problems} == {"/parameters/amount", "/parameters/tip"}


# Waiting for the end


async def test_who_waits_is_woken_at_the_end_and_finds_the_row_final(engine: Engine) -> None:
    execution = await engine.requests.execute("core.sleep", {"seconds": 0.05}, None)
    with (
        engine.waiters.expect(f"execution:{execution}") as first,
        engine.waiters.expect(f"execution:{execution}") as second,
        anyio.fail_after(20),
    ):
        while not (await status(engine, execution)).is_terminal:
            await first.wait()
        await second.wait()

    assert await status(engine, execution) is S.COMPLETED
    assert engine.waiters._events == {}


async def test_who_stops_waiting_is_forgotten(engine: Engine) -> None:
    with anyio.move_on_after(0.01), engine.waiters.expect("execution:7") as ended:
        await ended.wait()

    assert engine.waiters._events == {}
    engine.waiters.wake("execution:7")


async def test_each_end_of_an_execution_of_an_event_wakes_those_who_wait_for_the_event(engine: Engine) -> None:
    with engine.waiters.expect("event:5") as ended, engine.waiters.expect("event:6") as other:
        async with engine.bus.transaction() as transaction:
            new = NewExecution(None, "core.noop", "{}", None, None, Cause(uuid7(), None, 0))
            (execution,) = await requests._request(transaction, [new])
            finished = Finished(execution, "core.noop", 5, Step.CANCEL, "{}", new.cause)
            await endings.end(transaction, [finished], "test")
        with anyio.fail_after(20):
            await ended.wait()
    assert not other.is_set()
