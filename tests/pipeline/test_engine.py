"""Starting and stopping the pipeline: what runs is waited for, what waits is kept, what is broken is told."""

from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs

from attune.base.states import TERMINAL, ExecutionStatus
from attune.bus.topology import TOPOLOGY
from attune.database.pool import Database, DatabaseUnavailable, Row
from attune.telemetry.stages import Stages
from tests.pipeline.shop import SHOP, new_rule, new_trigger, rows, settled
from tests.pipeline.test_cancel import requested, status, until_status
from tests.support.databases import pool_on
from tests.support.engines import emit, engine_on, pack
from tests.support.waiting import eventually, until

S = ExecutionStatus


async def test_stopping_waits_for_what_runs_and_records_its_end(database: Database, tmp_path: Path) -> None:
    async with engine_on(database, tmp_path) as engine:
        async with engine.running():
            execution = await engine.requests.execute("core.sleep", {"seconds": 0.3}, None)
            await until_status(engine, execution, S.RUNNING)

        assert await status(engine, execution) is S.COMPLETED
        with pytest.raises(DatabaseUnavailable, match="Attune is stopping"):
            await engine.requests.execute("core.noop", {}, None)


async def test_stopping_ends_what_runs_too_long_and_says_that_its_outcome_is_unknown(
    database: Database, tmp_path: Path
) -> None:
    async with engine_on(database, tmp_path, settings={"server": {"shutdown_timeout": 0}}) as engine:
        async with engine.running():
            execution = await engine.requests.execute("core.sleep", {"seconds": 600}, None)
            await until_status(engine, execution, S.RUNNING)

        assert await status(engine, execution) is S.ABANDONED
        assert await rows(engine, "SELECT FROM attune.execution_open") == []


async def test_t27_what_waits_when_attune_stops_is_done_after_the_next_start(
    database: Database, tmp_path: Path
) -> None:
    trigger = new_trigger()
    shop = pack(tmp_path, "shop", SHOP)
    quick = {"server": {"shutdown_timeout": 0}, "worker": {"concurrency": 1}}
    async with engine_on(database, tmp_path, packs=[shop], settings=quick) as engine:
        await new_rule(engine, trigger, "core.sleep", action_params={"seconds": 600})
        async with engine.running():
            first = await emit(engine, trigger)
            await eventually(lambda: engine.worker.running == 1)
            others = [await emit(engine, trigger) for _ in range(5)]

    async with engine_on(database, tmp_path, packs=[shop]) as engine:
        await rows(engine, "UPDATE attune.execution SET config = '{\"seconds\": 0}'")
        await rows(engine, "UPDATE attune.enforcement SET config = '{\"seconds\": 0}'")
        (rule,) = engine.definitions.rules_of(trigger).values()
        await engine.rules.update(rule.ref, {"action_params": {"seconds": 0}})
        async with engine.running():
            ends = [(await settled(engine, event))[0]["status"] for event in [first, *others]]

    assert ends == ["abandoned"] + ["completed"] * 5


async def test_a_pack_that_is_broken_is_told_and_the_rest_works(database: Database, tmp_path: Path) -> None:
    broken = pack(tmp_path, "broken", {"triggers/x.yaml": "ref: broken.x\nlabel: X\nunknown: 1\n"})
    with capture_logs() as logged:
        async with engine_on(database, tmp_path, packs=[broken]) as engine, engine.running():
            execution = await requested(engine)
            assert await until_status(engine, execution, *TERMINAL) is S.COMPLETED

    (line,) = [line for line in logged if line["event"] == "a pack is not loaded"]
    assert line["folder"] == str(broken)
    assert any("triggers/x.yaml" in str(problem) for problem in line["problems"])
    assert "broken.x" not in engine.definitions.triggers.by_ref


async def test_a_rule_is_switched_only_when_it_is_there_and_not_so_already(database: Database, tmp_path: Path) -> None:
    async with engine_on(database, tmp_path) as engine, engine.running():
        ref = "hello.every_ten_seconds"
        versions = []
        for wanted in (False, True, True, False):
            await engine.switch_rule(ref, enabled=wanted)
            await eventually(lambda: engine.definitions.rules.by_ref[ref].enabled is wanted)  # noqa: B023 - at once
            versions.append(engine.definitions.version)
        await engine.switch_rule("hello.nobody", enabled=True)

    assert versions[0] < versions[1] == versions[2] < versions[3]


# What the whole pipeline must be able to do


async def test_t01_a_probe_in_every_queue_becomes_a_dead_letter(database: Database, tmp_path: Path) -> None:
    """And so every queue of the table has a consumer that takes what is in it."""
    async with engine_on(database, tmp_path) as engine, engine.running():
        durable = [row for row in TOPOLOGY.queues if row.kind.is_durable]
        queues = [name for row in durable for name in engine.bus.queues(row)]
        assert len(queues) == len(durable)
        await rows(engine, _PROBES, queues)
        for name in queues:
            engine.bus.broker.doubt(name)

        async def all_dead() -> list[Row] | None:
            letters = await rows(engine, "SELECT queue, error FROM attune.dead_letter ORDER BY queue")
            return [*letters] if len(letters) == len(queues) else None

        letters = await until(all_dead)
        assert [letter["queue"] for letter in letters] == sorted(queues)
        assert {letter["error"] for letter in letters} == {"Message type Probe is unknown to this release."}
        assert await rows(engine, "SELECT FROM attune.delivery") == []


_PROBES = """
    INSERT INTO attune.delivery (queue, message_id, correlation_id, depth, message_type, version, source, payload,
                                 published_at, available_at, attempt)
    SELECT queue, gen_random_uuid(), gen_random_uuid(), 0, 'Probe', '1.0', 'test', '{}', now(), now(), 1
      FROM unnest($1::text[]) AS queue
"""


async def test_t89_every_statement_names_its_schema(dsn: str, tmp_path: Path) -> None:
    """With a search path on which there is nothing, one that does not would find no table."""
    connection = await asyncpg.connect(dsn)
    database_name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER DATABASE {database_name} SET search_path TO nowhere")
    await connection.close()
    async with (
        pool_on(dsn) as database,
        engine_on(database, tmp_path, packs=[pack(tmp_path, "shop", SHOP)]) as engine,
        engine.running(),
    ):
        rule = await new_rule(engine, trigger := new_trigger(), "shop.charge", action_params={"amount": 1})
        (row,) = await settled(engine, await emit(engine, trigger))
        assert (row["rule"], row["status"]) == (rule.id, "completed")
        await engine._sweep.once()
        await engine._leases.once()
        await engine.rules.delete(rule.ref)


async def test_t92_at_level_debug_the_log_tells_each_stage_and_no_parameter(database: Database, tmp_path: Path) -> None:
    failing = {"actions/fail.yaml": "entry_point: fail.sh\nparameters: {word: string}\n", "actions/fail.sh": "exit 3\n"}
    shop = pack(tmp_path, "shop", {**SHOP, **failing})
    stages = Stages(visible=True, debug=True)
    with capture_logs() as lines:
        async with engine_on(database, tmp_path, packs=[shop], stages=stages) as engine, engine.running():
            trigger = new_trigger()
            secret = {"amount": 1, "currency": "{{ event.payload.word }}"}
            await new_rule(engine, trigger, "shop.charge", action_params=secret)
            await new_rule(engine, trigger, "shop.fail", action_params={"word": "sesame"})
            await new_rule(engine, trigger, "shop.charge", action_params={"amount": "{{ event.payload.word }}"})
            await new_rule(engine, trigger, conditions={"expression": "event.payload.word + 1 > 2"})
            found = await settled(engine, await emit(engine, trigger, {"word": "sesame"}))
            await eventually(lambda: sum(line["event"] == "execution finished" for line in lines) == len(found))

    assert [row["status"] for row in found] == ["completed", "failed", "failed"]
    assert {"rule matched", "execution started", "execution finished"} <= {str(line["event"]) for line in lines}
    assert "sesame" not in str(lines)
