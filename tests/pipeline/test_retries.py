"""Executions that are tried again: each attempt is one of its own, waits as a row, and follows from the one before."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from attune.base.errors import BadInput, Conflict, NotFound
from attune.base.json import loads
from attune.base.states import ExecutionStatus
from attune.database.pool import Database, Row
from attune.engine import Engine
from tests.pipeline.shop import SHOP, new_rule, new_trigger, rows
from tests.pipeline.test_cancel import until_quiet, until_status
from tests.support.clock import VirtualClock
from tests.support.engines import emit, engine_on, pack
from tests.support.waiting import until

S = ExecutionStatus

# Each run leaves a line; the third succeeds.
FLAKY = "echo run >> ../ran; [ $(wc -l < ../ran) -ge 3 ] || exit 1\n"


def flaky(folder: Path, policy: str, script: str = FLAKY) -> Path:
    """The shop, with an action that is tried again."""
    parameters = "parameters: {n: integer, key: {type: string, secret: true}}"
    action = f"entry_point: flaky.sh\ntimeout: 1\n{policy}\n{parameters}\n"
    return pack(folder, "shop", {**SHOP, "actions/flaky.yaml": action, "actions/flaky.sh": script})


def ran(folder: Path) -> int:
    file = folder / "ran"
    return len(file.read_text().splitlines()) if file.exists() else 0


async def attempts(engine: Engine, execution: int) -> Sequence[Row]:
    """The attempts of an execution, the first included."""
    return await rows(
        engine,
        "SELECT * FROM attune.execution WHERE id = $1 OR original_execution = $1 ORDER BY retry_count",
        execution,
    )


async def until_attempts(engine: Engine, execution: int, *statuses: ExecutionStatus) -> Sequence[Row]:
    """The attempts of an execution, as soon as they are in these states."""

    async def reached() -> Sequence[Row] | None:
        found = await attempts(engine, execution)
        return found if tuple(row["status"] for row in found) == statuses else None

    return await until(reached)


@asynccontextmanager
async def running(database: Database, folder: Path, policy: str, script: str = FLAKY) -> AsyncIterator[Engine]:
    async with engine_on(database, folder, packs=[flaky(folder, policy, script)]) as engine, engine.running():
        yield engine


async def test_t42_each_attempt_is_an_execution_of_its_own_that_names_the_first(
    database: Database, tmp_path: Path
) -> None:
    async with running(database, tmp_path, "max_retries: 5\nretry_delay: 0") as engine:
        rule = await new_rule(engine, trigger := new_trigger(), "shop.flaky", action_params={"n": 7})
        event = await emit(engine, trigger)

        async def first() -> int | None:
            found = await rows(engine, "SELECT min(id) AS id FROM attune.execution")
            return found[0]["id"] if found else None

        execution = await until(first)
        found = await until_attempts(engine, execution, S.FAILED, S.FAILED, S.COMPLETED)
        await until_quiet(engine)

    assert ran(tmp_path) == 3
    assert [row["retry_count"] for row in found] == [0, 1, 2]
    assert [row["original_execution"] for row in found] == [None, execution, execution]
    assert [row["retry_reason"] for row in found] == [None, "failed", "failed"]
    assert {loads(row["config"])["n"] for row in found} == {7}
    # All belong to the rule, and to the chain of the event.
    assert len({row["enforcement"] for row in found}) == len({row["correlation_id"] for row in found}) == 1
    assert rule.id
    assert event
    assert [row["depth"] for row in found] == sorted({row["depth"] for row in found})


async def test_the_last_retry_is_the_last(database: Database, tmp_path: Path) -> None:
    async with running(database, tmp_path, "max_retries: 1\nretry_delay: 0", "exit 3\n") as engine:
        execution = await engine.requests.execute("shop.flaky", {}, None)

        await until_attempts(engine, execution, S.FAILED, S.FAILED)
        await until_quiet(engine)
        assert len(await attempts(engine, execution)) == 2


async def test_t37_a_timeout_is_a_reason_of_its_own(database: Database, tmp_path: Path) -> None:
    script = "echo run >> ../ran; [ $(wc -l < ../ran) -ge 2 ] || exec sleep 1000\n"
    async with running(database, tmp_path, "max_retries: 1\nretry_delay: 0\nretry_on: [timeout]", script) as engine:
        execution = await engine.requests.execute("shop.flaky", {}, None)

        found = await until_attempts(engine, execution, S.TIMEOUT, S.COMPLETED)
    assert found[1]["retry_reason"] == "timeout"


async def test_t31_what_follows_from_an_end_goes_by_its_state_and_not_by_its_words(
    database: Database, tmp_path: Path
) -> None:
    """T-36: whatever a script prints, it has failed, and that is not tried again here."""
    script = "echo 'abandoned: cancelled by policy, timeout, no worker available' | tee /dev/stderr; exit 1\n"
    policy = "max_retries: 3\nretry_delay: 0\nretry_on: [timeout, abandoned]"
    async with running(database, tmp_path, policy, script) as engine:
        execution = await engine.requests.execute("shop.flaky", {}, None)

        (found,) = await until_attempts(engine, execution, S.FAILED)
        await until_quiet(engine)
        assert "abandoned: cancelled by policy" in loads(found["result"])["error"]
        assert len(await attempts(engine, execution)) == 1


async def test_t44_a_retry_waits_as_a_row_and_survives_a_restart(database: Database, tmp_path: Path) -> None:
    """Nobody sleeps for it: what is in memory is only a look at the table when its time has come."""
    clock = VirtualClock()
    tools = flaky(tmp_path, "max_retries: 3\nretry_delay: 600\nretry_backoff: linear")
    async with engine_on(database, tmp_path, packs=[tools], clock=clock) as engine, engine.running():
        execution = await engine.requests.execute("shop.flaky", {}, None)
        found = await until_attempts(engine, execution, S.FAILED, S.REQUESTED)
        assert (found[1]["not_before"] - found[1]["created"]).total_seconds() == 600
        (waiting,) = await rows(engine, "SELECT * FROM attune.delivery")
        assert (waiting["attempt"], waiting["available_at"]) == (1, found[1]["not_before"])
        clock.advance(599)
        assert ran(tmp_path) == 1

    async with engine_on(database, tmp_path, packs=[tools], clock=clock) as engine:
        assert [one.waits_for for one in engine.recovery.waiting] == ["its retry"]
        async with engine.running():
            assert ran(tmp_path) == 1
            clock.advance(2)
            found = await until_attempts(engine, execution, S.FAILED, S.FAILED, S.REQUESTED)
            assert (found[2]["not_before"] - found[2]["created"]).total_seconds() == 1200
            clock.advance(1201)
            await until_attempts(engine, execution, S.FAILED, S.FAILED, S.COMPLETED)


async def test_a_retry_that_waits_can_be_cancelled_and_none_follows(database: Database, tmp_path: Path) -> None:
    async with running(database, tmp_path, "max_retries: 3\nretry_delay: 600") as engine:
        execution = await engine.requests.execute("shop.flaky", {}, None)
        found = await until_attempts(engine, execution, S.FAILED, S.REQUESTED)

        cancelled = await engine.requests.cancel(found[1]["id"])

        assert cancelled.status is S.CANCELLED
        await until_attempts(engine, execution, S.FAILED, S.CANCELLED)
        assert ran(tmp_path) == 1


async def test_what_was_cancelled_is_not_tried_again(database: Database, tmp_path: Path) -> None:
    policy = "max_retries: 3\nretry_delay: 0\nretry_on: [failed, timeout, abandoned]"
    async with running(database, tmp_path, policy, "exec sleep 1000\n") as engine:
        execution = await engine.requests.execute("shop.flaky", {}, None)
        await until_status(engine, execution, S.RUNNING)
        await engine.requests.cancel(execution)

        await until_attempts(engine, execution, S.CANCELLED)
        await until_quiet(engine)
        assert len(await attempts(engine, execution)) == 1


async def test_what_could_not_even_begin_is_not_tried_again(database: Database, tmp_path: Path) -> None:
    async with running(database, tmp_path, "max_retries: 3\nretry_delay: 0") as engine:
        trigger = new_trigger()
        await new_rule(engine, trigger, "shop.flaky", action_params={"n": "{{ event.payload.n }}"})
        await emit(engine, trigger, {"n": "none"})

        async def refused() -> Row | None:
            found = await rows(engine, "SELECT * FROM attune.execution WHERE status = 'failed'")
            return found[0] if found else None

        row = await until(refused)
        await until_quiet(engine)
        assert "do not fit" in row["result"]
        assert len(await attempts(engine, row["id"])) == 1


async def test_a_delivery_that_comes_twice_makes_one_retry(database: Database, tmp_path: Path) -> None:
    """The key of an attempt is the first one and its number."""
    async with running(database, tmp_path, "max_retries: 1\nretry_delay: 600") as engine:
        execution = await engine.requests.execute("shop.flaky", {}, None)
        await until_attempts(engine, execution, S.FAILED, S.REQUESTED)

        async with engine.database.acquire() as connection:
            with pytest.raises(Exception, match="execution_retry"):
                await connection.execute(
                    "INSERT INTO attune.execution (action_ref, config, status, original_execution, retry_count, "
                    "correlation_id, depth, created, updated) "
                    "VALUES ('shop.flaky', '{}', 'requested', $1, 1, gen_random_uuid(), 0, now(), now())",
                    execution,
                )


# Once more, because somebody wants it


async def test_a_rerun_does_the_same_with_other_parameters(database: Database, tmp_path: Path) -> None:
    async with running(database, tmp_path, "max_retries: 0", "cat\n") as engine:
        trigger = new_trigger()
        await new_rule(engine, trigger, "shop.flaky", action_params={"n": 1, "key": "secret"})
        await emit(engine, trigger)

        async def done() -> Row | None:
            found = await rows(engine, "SELECT * FROM attune.execution WHERE status = 'completed'")
            return found[0] if found else None

        first = await until(done)

        again = await engine.requests.rerun(first["id"], {}, None)
        changed = await engine.requests.rerun(first["id"], {"n": 2}, None)

        for execution, n in ((again, 1), (changed, 2)):
            await until_status(engine, execution, S.COMPLETED)
            (row,) = await rows(engine, "SELECT * FROM attune.execution WHERE id = $1", execution)
            assert loads(row["config"]) == {"n": n, "key": "secret"}
            assert (row["original_execution"], row["retry_count"], row["retry_reason"]) == (first["id"], 0, "rerun")
            # It belongs to the rule still, and begins a chain of its own.
            assert row["enforcement"] == first["enforcement"]
            assert row["correlation_id"] != first["correlation_id"]


async def test_a_rerun_has_retries_of_its_own(database: Database, tmp_path: Path) -> None:
    async with running(database, tmp_path, "max_retries: 1\nretry_delay: 0", "exit 1\n") as engine:
        execution = await engine.requests.execute("shop.flaky", {}, None)
        await until_attempts(engine, execution, S.FAILED, S.FAILED)

        again = await engine.requests.rerun(execution, {}, None)

        async def tried() -> bool | None:
            found = await rows(engine, "SELECT status FROM attune.execution WHERE original_execution = $1", again)
            return True if [row["status"] for row in found] == ["failed"] else None

        await until(tried)


async def test_what_has_not_ended_is_not_there_or_does_not_fit_is_not_run_again(
    database: Database, tmp_path: Path
) -> None:
    async with running(database, tmp_path, "max_retries: 0", "exec sleep 1000\n") as engine:
        execution = await engine.requests.execute("shop.flaky", {}, None)
        with pytest.raises(Conflict, match="has not ended"):
            await engine.requests.rerun(execution, {}, None)
        await engine.requests.cancel(execution)
        await until_status(engine, execution, S.CANCELLED)
        before = await rows(engine, "SELECT count(*) FROM attune.execution")

        with pytest.raises(NotFound):
            await engine.requests.rerun(1_000_000, {}, None)
        with pytest.raises(BadInput) as refused:
            await engine.requests.rerun(execution, {"n": "many", "x": 1}, None)

        assert {problem.where for problem in refused.value.problems} == {"/parameters/n", "/parameters/x"}
        assert await rows(engine, "SELECT count(*) FROM attune.execution") == before
