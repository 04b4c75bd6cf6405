"""The worker on the real bus and a real database: slots, states, cancelling, stopping, and what is recorded."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import pytest

from attune.base.errors import Conflict
from attune.base.json import dumps, loads
from attune.base.schema import with_defaults
from attune.base.states import ExecutionStatus
from attune.bus.consumers import ConsumerLoop
from attune.bus.messages import Cause
from attune.bus.transaction import Transaction
from attune.database.connecting import embedded_url
from attune.database.embedded import Cluster
from attune.database.ids import uuid7
from attune.database.pool import Database
from attune.engine import Engine
from attune.executions import endings, queries, requests
from attune.executions.model import Execution, Finished, NewExecution
from attune.executions.states import Step
from attune.upkeep.recovery import recover
from attune.workers.guard import end_leftovers
from tests.bus.proxy import Failure, Proxy, proxy_to
from tests.server.running import processes_with
from tests.support.engines import engine_on, pack
from tests.support.waiting import eventually, until

S = ExecutionStatus

# Scripts find the folder of the test above that of their pack.
SCRIPTS = {
    # Says how many of its kind run, and waits until it is let go.
    "count": "mkdir -p ../here && touch ../here/$$ && ls ../here | wc -l && until [ -e ../go ]; do sleep 0.01; done\n"
    "rm ../here/$$\n",
    "wait": "echo started >> ../ran; until [ -e ../go ]; do sleep 0.01; done; echo ended >> ../ran",
    "stubborn": "trap '' TERM; echo started >> ../ran; until [ -e ../go ]; do sleep 0.01; done",
    "fail": "echo why >&2; exit 3",
    "die": "kill -KILL $$",
    "hang": "sleep 1000",
    "gone": "",
    "daemon": "setsid --fork sleep 1000",
    "garbage": "echo no json",
}


Away = Callable[[bool], Awaitable[None]]


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A pack of scripts that behave in many ways."""
    files = {}
    for name, script in SCRIPTS.items():
        more = {"hang": "timeout: 1\n", "garbage": "output_format: json\n"}.get(name, "")
        files[f"actions/{name}.yaml"] = f"ref: tools.{name}\nlabel: {name}\nentry_point: {name}.sh\n{more}"
        files[f"actions/{name}.sh"] = script
    return pack(tmp_path, "tools", files)


@asynccontextmanager
async def prepared(
    database: Database, tools: Path, *, concurrency: int = 8, patience: float = 30
) -> AsyncIterator[Engine]:
    """An engine with these tools. None of their processes may be left afterwards."""
    worker = {"concurrency": concurrency, "kill_grace": 0.2}
    settings: Mapping[str, Any] = {"worker": worker, "server": {"shutdown_timeout": patience}}
    async with engine_on(database, tools.parent, packs=[tools], settings=settings) as engine:
        yield engine


async def execute(engine: Engine, ref: str, **parameters: Any) -> int:
    return await engine.requests.execute(ref, parameters, None)


async def look(engine: Engine, execution_id: int) -> Execution:
    async with engine.database.acquire() as connection:
        found = await queries.execution(connection, execution_id)
    assert found is not None
    return found


async def reached(engine: Engine, execution_id: int, *statuses: ExecutionStatus) -> Execution:
    """The execution as soon as it is in one of some states."""

    async def find() -> Execution | None:
        found = await look(engine, execution_id)
        assert found.status in statuses or not found.status.is_terminal, (found.status, found.result)
        return found if found.status in statuses else None

    return await until(find)


async def ended(engine: Engine, execution_id: int) -> Execution:
    return await reached(engine, execution_id, *(status for status in S if status.is_terminal))


async def requested(engine: Engine, ref: str, **parameters: Any) -> int:
    """An execution that waits for the scheduler of an engine that does not run."""
    action = engine.definitions.actions.by_ref[ref]
    config = dumps(with_defaults(parameters, action.param_schema))
    new = NewExecution(action.id, ref, config, enforcement=None, executor=None, cause=Cause(uuid7(), None, 0))
    async with engine.bus.transaction() as transaction:
        (execution_id,) = await requests._request(transaction, [new])
    return execution_id


async def scheduled(engine: Engine, ref: str, **parameters: Any) -> int:
    """An execution that waits for the worker of an engine that does not run."""
    execution_id = await requested(engine, ref, **parameters)
    async with anyio.create_task_group() as tasks:
        for loop in engine._loops:
            if isinstance(loop, ConsumerLoop) and loop._consumer.name == "scheduler":
                tasks.start_soon(loop.run)
        await reached(engine, execution_id, S.SCHEDULED)
        tasks.cancel_scope.cancel()
    return execution_id


async def told_once(engine: Engine, ids: Sequence[int]) -> None:
    """Return when the end of each execution was told of; fails when that of one was told of twice."""

    async def find() -> bool | None:
        rows = await engine.database.fetch_all(
            """
            SELECT e.id, count(t.message_id) AS times
              FROM attune.execution e
              LEFT JOIN attune.trace t
                ON t.correlation_id = e.correlation_id AND t.message_type = 'ExecutionCompleted'
             GROUP BY e.id
            """
        )
        times = {row["id"]: row["times"] for row in rows}
        assert max(times.values()) <= 1, times
        return all(times[one] == 1 for one in ids) or None

    await until(find)


async def open_executions(engine: Engine) -> list[int]:
    return [row["execution"] for row in await engine.database.fetch_all("SELECT execution FROM attune.execution_open")]


def ran(tools: Path) -> list[str]:
    """What the scripts that ran have written down."""
    path = tools.parent / "ran"
    return path.read_text().split() if path.exists() else []


def let_go(tools: Path) -> None:
    (tools.parent / "go").touch()


@asynccontextmanager
async def leaving(cluster: Cluster, database: Database) -> AsyncIterator[Away]:
    """Lets a database go away from its pool, and come back."""
    name = database.dsn.partition("?")[0].rpartition("/")[2]
    connection = await asyncpg.connect(embedded_url(cluster.environment()))

    async def away(is_away: bool) -> None:
        await connection.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS {not is_away}")
        if is_away:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = $1 AND application_name = 'attune'",
                name,
            )

    try:
        yield away
    finally:
        await away(False)
        await connection.close()


@asynccontextmanager
async def through_a_proxy(dsn: str, tools: Path) -> AsyncIterator[tuple[Engine, Proxy]]:
    """An engine whose way to the database can fail."""
    async with proxy_to(dsn) as proxy:
        database = Database(proxy.url, max_connections=8, is_remote=False)
        await database.connect()
        try:
            async with prepared(database, tools) as engine:
                yield engine, proxy
        finally:
            await database.disconnect()


# An action, the state in which it ends, and what its result holds.
ENDS: list[tuple[str, dict[str, Any], ExecutionStatus, dict[str, Any]]] = [
    ("core.noop", {}, S.COMPLETED, {"succeeded": True, "exit_code": 0}),
    ("core.noop", {"exit_code": 3}, S.FAILED, {"succeeded": False, "error": "exit code 3"}),
    ("core.echo", {"message": "Grüße"}, S.COMPLETED, {"stdout": "Grüße"}),
    ("core.http_request", {"url": "http://127.0.0.1:1/"}, S.FAILED, {"succeeded": False}),
    ("tools.fail", {}, S.FAILED, {"exit_code": 3, "error": "exit code 3: why"}),
    ("tools.die", {}, S.FAILED, {"exit_code": None, "signal": "SIGKILL"}),
    ("tools.garbage", {}, S.FAILED, {"exit_code": 0, "stdout": "no json\n"}),
    ("tools.gone", {}, S.FAILED, {"succeeded": False}),
    ("tools.daemon", {}, S.COMPLETED, {"exit_code": 0}),
    # T-37, T-41: the time that the action declares, and a state of its own.
    ("tools.hang", {}, S.TIMEOUT, {"error": "It ran longer than 1 s and was stopped."}),
]


def finished(execution_id: int, step: Step) -> Finished:
    result = dumps({"by": step})
    return Finished(execution_id, "core.noop", None, step, result, Cause(uuid7(), None, 1))


async def test_every_way_to_end_is_recorded_and_frees_its_slot(database: Database, tools: Path) -> None:
    """T-23, T-34: with one slot, an execution that kept it would be the last."""
    async with prepared(database, tools, concurrency=1) as engine:
        (tools / "actions" / "gone.sh").unlink()
        async with engine.running():
            ids = [await execute(engine, ref, **parameters) for ref, parameters, _, _ in ENDS]
            found = [await ended(engine, execution_id) for execution_id in ids]
            await engine.worker.idle()
            boot = engine.worker._scripts.surroundings.boot

        for execution, (ref, _, status, holds) in zip(found, ENDS, strict=True):
            result: Any = execution.result
            assert (execution.status, {name: result[name] for name in holds}) == (status, holds), ref
            assert execution.worker == engine.worker.worker_id
            assert execution.started_at is not None
            assert execution.finished_at is not None
            assert execution.started_at <= execution.finished_at
        assert await open_executions(engine) == []
    await end_leftovers(boot)


async def test_no_more_run_at_once_than_there_are_slots(database: Database, tools: Path) -> None:
    """T-09: one after the other. T-30: those that found no worker were lost; here they wait for a slot."""
    async with prepared(database, tools, concurrency=3) as engine, engine.running():
        ids = [await execute(engine, "tools.count") for _ in range(8)]
        await eventually(lambda: len([*(tools.parent / "here").glob("*")]) == 3)
        waiting = [await reached(engine, execution_id, S.SCHEDULED, S.RUNNING) for execution_id in ids]
        assert engine.worker.running == 3
        assert [one.status for one in waiting].count(S.RUNNING) == 3

        let_go(tools)

        results: list[Any] = [(await ended(engine, execution_id)).result for execution_id in ids]
    assert max(int(result["stdout"]) for result in results) == 3


async def test_what_was_cancelled_before_the_scheduler_saw_it_never_runs(database: Database, tools: Path) -> None:
    async with prepared(database, tools) as engine:
        execution_id = await requested(engine, "tools.wait")
        assert (await engine.requests.cancel(execution_id)).status is S.CANCELLED

        await _cancelled_for_good(engine, execution_id)
    assert ran(tools) == []


async def test_what_was_cancelled_on_its_way_to_the_worker_never_runs(database: Database, tools: Path) -> None:
    """T-32: the worker set whatever it was sent to running, and what was cancelled came back to life."""
    async with prepared(database, tools) as engine:
        execution_id = await scheduled(engine, "tools.wait")
        assert (await engine.requests.cancel(execution_id)).status is S.CANCELLED

        await _cancelled_for_good(engine, execution_id)
    assert ran(tools) == []


async def _cancelled_for_good(engine: Engine, execution_id: int) -> None:
    async with engine.running():
        await ended(engine, await execute(engine, "core.noop"))
        await eventually(lambda: all(engine.bus.broker.depth(name).waiting == 0 for name in engine.bus.broker.queues()))
        found = await look(engine, execution_id)
    assert (found.status, found.started_at) == (S.CANCELLED, None)
    assert found.result == {"succeeded": False, "cancelled": True, "error": "It was cancelled before it began."}


@pytest.mark.parametrize(("ref", "parameters"), [("tools.wait", {}), ("core.sleep", {"seconds": 1000})])
async def test_what_is_cancelled_while_it_runs_is_stopped(
    database: Database, tools: Path, ref: str, parameters: dict[str, Any]
) -> None:
    async with prepared(database, tools, concurrency=1) as engine, engine.running():
        execution_id = await execute(engine, ref, **parameters)
        await reached(engine, execution_id, S.RUNNING)

        asked = await engine.requests.cancel(execution_id)

        assert asked.status is S.CANCELING
        found = await ended(engine, execution_id)
        assert found.status is S.CANCELLED
        result: Any = found.result
        assert (result["cancelled"], result["succeeded"]) == (True, False)
        assert (await ended(engine, await execute(engine, "core.noop"))).status is S.COMPLETED


async def test_to_cancel_again_changes_nothing(database: Database, tools: Path) -> None:
    """T-91."""
    async with prepared(database, tools) as engine, engine.running():
        execution_id = await execute(engine, "tools.stubborn")
        await eventually(lambda: ran(tools) == ["started"])

        first, again = [await engine.requests.cancel(execution_id) for _ in range(2)]

        assert {first.status, again.status} <= {S.CANCELING}
        assert (await ended(engine, execution_id)).status is S.CANCELLED


async def test_what_has_ended_cannot_be_cancelled(database: Database, tools: Path) -> None:
    async with prepared(database, tools) as engine, engine.running():
        before = await ended(engine, await execute(engine, "core.echo", message="hi"))

        with pytest.raises(Conflict, match="it is completed"):
            await engine.requests.cancel(before.id)

        assert await look(engine, before.id) == before


async def test_of_an_end_and_a_cancellation_at_the_same_time_one_wins_and_stays(
    database: Database, tools: Path
) -> None:
    """T-32, T-91: both wrote, and the row said one thing, its message another."""
    async with prepared(database, tools) as engine, engine.running():
        outcomes = set()
        ids = []

        async def race(seconds: float, delay: float) -> None:
            execution_id = await execute(engine, "core.sleep", seconds=seconds)
            ids.append(execution_id)
            await anyio.sleep(delay)
            try:
                await engine.requests.cancel(execution_id)
            except Conflict:
                outcomes.add("too late")
            found = await ended(engine, execution_id)
            outcomes.add(found.status)
            result: Any = found.result
            assert result["succeeded"] is (found.status is S.COMPLETED)

        async with anyio.create_task_group() as tasks:
            # One that is cancelled in any case.
            tasks.start_soon(race, 1000, 0)
            for number in range(60):
                tasks.start_soon(race, 0.01, number / 1000)
        outcomes.add((await ended(engine, await execute(engine, "core.noop"))).status)
        await engine.worker.idle()
        assert outcomes <= {S.COMPLETED, S.CANCELLED, "too late"}
        assert {S.COMPLETED, S.CANCELLED} <= outcomes
        assert await open_executions(engine) == []
        await told_once(engine, ids)


async def test_an_execution_ends_once_and_by_the_first_who_says_so(database: Database, tools: Path) -> None:
    """T-100: what was given up came back to life when its worker was heard of again."""
    async with prepared(database, tools) as engine:
        execution_id = await scheduled(engine, "core.noop")
        mine = engine.worker._tenure
        others = replace(mine, worker=mine.worker + 1)
        async with engine.bus.transaction() as transaction:
            for tenure, runs in ((others, {}), (mine, {execution_id: {"exit_code": 0}}), (mine, {})):
                started, _ = await queries.start(
                    transaction.connection, [execution_id], [300.0], tenure, transaction.now
                )
                assert {number: loads(row["config"]) for number, row in started.items()} == runs

        said: list[bool] = []
        for step in (Step.CANCEL, Step.ABANDON, Step.COMPLETE, Step.FAIL):
            async with engine.bus.transaction() as transaction:
                said += await endings.end(transaction, [finished(execution_id, step)], "test")

        # Nobody asked for a cancellation; the second was first.
        assert said == [False, True, False, False]
        found = await look(engine, execution_id)
        assert (found.status, found.result) == (S.ABANDONED, {"by": "abandon"})


async def test_what_runs_when_attune_stops_is_waited_for(database: Database, tools: Path) -> None:
    async with prepared(database, tools) as engine:
        async with engine.running():
            execution_id = await execute(engine, "tools.wait")
            await eventually(lambda: ran(tools) == ["started"])
            let_go(tools)
        found = await look(engine, execution_id)
    assert found.status is S.COMPLETED
    assert ran(tools) == ["started", "ended"]


async def test_what_does_not_end_in_time_is_ended_and_abandoned_unless_it_was_cancelled(
    database: Database, tools: Path
) -> None:
    async with prepared(database, tools, patience=0.1) as engine:
        async with engine.running():
            ids = [await execute(engine, ref) for ref in ("tools.stubborn", "tools.wait", "tools.stubborn")]
            ids.append(await execute(engine, "core.sleep", seconds=1000))
            for execution_id in ids:
                await reached(engine, execution_id, S.RUNNING)
            await eventually(lambda: ran(tools) == ["started"] * 3)
            assert (await engine.requests.cancel(ids[0])).status is S.CANCELING
        found = [await look(engine, execution_id) for execution_id in ids]
        assert processes_with(engine.worker._scripts.surroundings.boot) == []
        assert await open_executions(engine) == []
    assert [one.status for one in found] == [S.CANCELLED, S.ABANDONED, S.ABANDONED, S.ABANDONED]
    results: list[Any] = [one.result for one in found]
    assert [result["error"] for result in results[1:]] == ["Attune was stopped while it ran."] * 3
    assert not any("cancelled" in result for result in results[1:])


async def test_the_next_start_ends_what_ran_and_goes_on_with_what_had_not_begun(
    database: Database, tools: Path
) -> None:
    """T-18: a worker keeps its queues from start to start, and leaves no others behind."""
    async with prepared(database, tools) as engine:
        ids = [await scheduled(engine, "core.echo", message=str(number)) for number in range(3)]
        async with engine.bus.transaction() as transaction:
            tenure = engine.worker._tenure
            await queries.start(transaction.connection, ids[:2], [300.0] * 2, tenure, transaction.now)
        assert (await engine.requests.cancel(ids[1])).status is S.CANCELING
    # A new life, on the same rows.
    async with prepared(database, tools) as engine:
        found = [await look(engine, execution_id) for execution_id in ids]
        assert [one.status for one in found] == [S.ABANDONED, S.CANCELLED, S.SCHEDULED]
        results: list[Any] = [one.result for one in found]
        assert "what it did is unknown" in results[0]["error"]
        assert results[1]["cancelled"] is True
        assert (await recover(engine.bus, engine.definitions, None)).interrupted == ()
        async with engine.running():
            assert (await ended(engine, ids[2])).status is S.COMPLETED
            await told_once(engine, ids)
        assert [(await look(engine, one)).status for one in ids] == [S.ABANDONED, S.CANCELLED, S.COMPLETED]


async def test_an_end_waits_for_a_database_that_is_away_and_keeps_no_slot(
    database: Database, cluster: Cluster, tools: Path
) -> None:
    async with prepared(database, tools, concurrency=2) as engine, engine.running(), leaving(cluster, database) as away:
        ids = [await execute(engine, "tools.wait") for _ in range(2)]
        await eventually(lambda: ran(tools) == ["started"] * 2)
        await away(True)

        let_go(tools)

        await eventually(lambda: engine.worker.running == 0)
        assert len(engine.worker._unrecorded) == 2
        await away(False)
        found = [await ended(engine, execution_id) for execution_id in ids]
        assert {one.status for one in found} == {S.COMPLETED}
        assert (await ended(engine, await execute(engine, "core.noop"))).status is S.COMPLETED


@pytest.mark.parametrize("failure", Failure)
async def test_a_start_of_which_nobody_heard_whether_it_was_committed_runs_once(
    database: Database, dsn: str, tools: Path, failure: Failure
) -> None:
    async with prepared(database, tools) as engine:
        execution_id = await scheduled(engine, "tools.wait")
    async with through_a_proxy(dsn, tools) as (engine, proxy):
        proxy.next_commit = failure
        let_go(tools)
        async with engine.running():
            await proxy.failed.wait()
            if failure is Failure.LATE:
                await until(lambda: _somebody_waits_for_a_lock(database))
                proxy.released.set()
            assert (await ended(engine, execution_id)).status is S.COMPLETED
            await told_once(engine, [execution_id])
    assert ran(tools) == ["started", "ended"]


async def _somebody_waits_for_a_lock(database: Database) -> bool | None:
    """Who tries again waits until the server knows what became of the first try."""
    row = await database.fetch_one("SELECT count(*) AS waiting FROM pg_locks WHERE NOT granted")
    assert row is not None
    return row["waiting"] > 0 or None


async def test_a_start_in_doubt_that_is_cancelled_meanwhile_does_not_run_at_all(
    database: Database, tools: Path
) -> None:
    class _Unheard(Exception):
        pass

    async def start(transaction: Transaction) -> None:
        await worker.handle(transaction, engine.bus.broker.take(queue, 1))
        await transaction.connection.execute("COMMIT")
        raise _Unheard

    async with prepared(database, tools) as engine, anyio.create_task_group() as tasks:
        worker = engine.worker
        queue = f"worker.{worker.worker_id}.executions"
        execution_id = await scheduled(engine, "tools.wait")
        await engine.bus.broker.wait(queue, 1)
        with pytest.raises(_Unheard):
            await transact(engine, start)
        assert (await engine.requests.cancel(execution_id)).status is S.CANCELING

        tasks.start_soon(engine.writer.run)
        await tasks.start(worker.run)
        await worker.capacity()

        assert (await ended(engine, execution_id)).status is S.CANCELLED
        assert (worker.running, worker._starting) == (0, {})
        tasks.cancel_scope.cancel()
    assert ran(tools) == []


async def transact(engine: Engine, change: Callable[[Transaction], Awaitable[None]]) -> None:
    async with engine.bus.transaction() as transaction:
        await change(transaction)


async def test_an_action_that_is_gone_when_its_turn_comes_fails_and_says_so(database: Database, tools: Path) -> None:
    """T-34."""
    async with prepared(database, tools) as engine:
        execution_id = await scheduled(engine, "tools.wait")
        (tools / "actions" / "wait.yaml").unlink()
        await engine.installer.install(tools)
        async with engine.running():
            found = await ended(engine, execution_id)
    assert found.status is S.FAILED
    assert found.result == {"succeeded": False, "error": "There is no action tools.wait any more."}
