"""What a batch asks of the database: as much for many as for one, through indexes, and in place."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import pytest

from attune.bus.consumers import ConsumerLoop
from attune.bus.messages import Cause, Delivery
from attune.database.ids import uuid7
from attune.engine import Engine
from attune.events.model import Key, NewEvent
from attune.executions import endings
from attune.executions.model import Finished
from attune.executions.states import Step
from tests.pipeline.shop import SHOP, TRIGGERS, rows
from tests.support.databases import pool_on
from tests.support.engines import emit, engine_on, pack

TRIGGER = TRIGGERS[0]

# Statements


class Bench:
    """An engine that does not run, on one connection whose statements are noted."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.statements: list[str] = []

    async def watch(self) -> None:
        async with self.engine.database.acquire() as connection:
            assert isinstance(connection, asyncpg.pool.PoolConnectionProxy)
            connection.add_query_logger(lambda record: self.statements.append(record.query))

    @contextmanager
    def noting(self) -> Iterator[list[str]]:
        """The statements of the block."""
        noted: list[str] = []
        before, self.statements = self.statements, noted
        yield noted
        self.statements = before

    async def ingest(
        self, count: int, payload: str | None = None, depth: int = 0, execution: int | None = None
    ) -> list[str]:
        trigger = self.engine.definitions.triggers.by_ref[TRIGGER]
        cause = Cause(uuid7(), None, depth)
        new = [NewEvent(trigger.id, trigger.ref, payload, "test", cause, execution=execution)] * count
        with self.noting() as noted:
            async with self.engine.bus.transaction() as transaction:
                await self.engine.ingest.record(transaction, new)
        return noted

    async def ingest_with_keys(self, count: int) -> list[str]:
        trigger = self.engine.definitions.triggers.by_ref[TRIGGER]
        new = [
            (NewEvent(trigger.id, trigger.ref, None, "test", Cause(uuid7(), None, 0)), Key("local", str(uuid7()), b""))
            for _ in range(count)
        ]
        with self.noting() as noted:
            async with self.engine.bus.transaction() as transaction:
                await self.engine.ingest._record_once(transaction, new)
        return noted

    async def emit(self) -> list[str]:
        """An event as it comes in from outside, without a key."""
        with self.noting() as noted:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.engine.writer.run)
                await emit(self.engine, TRIGGER)
                self.engine.writer.stop()
        return noted

    async def consume(self, row: str, count: int) -> list[str]:
        """Let a consumer handle all that waits in its queue: as many as are expected."""
        loop = next(loop for loop in self._loops() if loop._consumer.row == row)
        batch = await self.engine.bus._load(loop._consumer.queue, (), 1_000)
        assert len(batch) == count
        with self.noting() as noted:
            await loop._transact(batch, loop._consumer.handle)
        return noted

    async def settle(self, row: str) -> None:
        """Let a consumer settle all that waits in its queue, in as many transactions as it takes."""
        loop = next(loop for loop in self._loops() if loop._consumer.row == row)

        async def take() -> Sequence[Delivery[Any]]:
            return await self.engine.bus._load(loop._consumer.queue, (), 1_000)

        await loop._settle(take, loop._consumer.handle)

    async def finish(self, step: Step = Step.COMPLETE) -> list[str]:
        found = await rows(self.engine, "SELECT id FROM attune.execution WHERE status = 'scheduled'")
        await rows(self.engine, "UPDATE attune.execution SET status = 'running' WHERE status = 'scheduled'")
        ends = [Finished(row["id"], "core.noop", None, step, "{}", Cause(uuid7(), uuid7(), 4)) for row in found]
        with self.noting() as noted:
            async with self.engine.bus.transaction() as transaction:
                assert all(await endings.end(transaction, ends, "worker"))
        return noted

    def _loops(self) -> list[ConsumerLoop]:
        return [loop for loop in self.engine._loops if isinstance(loop, ConsumerLoop)]

    async def round(
        self, count: int, rules: int, payload: str | None = None, step: Step = Step.COMPLETE
    ) -> dict[str, int]:
        """The number of statements of each stage, when that many events match that many rules, whose executions end
        with this step."""
        many = count * rules
        noted = {
            "ingest": await self.ingest(count, payload),
            "matcher": await self.consume("attune.events.queue", count),
        }
        if payload is None:
            noted["processor"] = await self.consume("attune.executions.queue", many)
            noted["scheduler"] = await self.consume("attune.execution.requests.queue", many)
            await rows(self.engine, "DELETE FROM attune.delivery WHERE message_type = 'ExecutionDispatched'")
            noted["finish"] = await self.finish(step)
            noted["completion"] = await self.consume("attune.execution.completed.queue", many)
        return {stage: len(statements) for stage, statements in noted.items()}


@pytest.fixture
async def bench(dsn: str, tmp_path: Path) -> AsyncIterator[Bench]:
    async with (
        pool_on(dsn, max_connections=1) as database,
        engine_on(database, tmp_path, packs=[pack(tmp_path, "shop", SHOP)]) as engine,
    ):
        bench = Bench(engine)
        # The first time, the driver also asks for the types.
        await make_rules(engine, 1)
        await bench.round(1, 1)
        await bench.watch()
        yield bench


async def make_rules(engine: Engine, count: int, action_params: str = "{}") -> None:
    """Make rules, many at once; `#` in their parameters is the number of the rule."""
    async with engine.bus.transaction() as transaction:
        await transaction.connection.execute(
            """
            WITH raised AS (UPDATE attune.definition_version SET version = version + 1 RETURNING version),
            made AS (
                INSERT INTO attune.rule (ref, pack, pack_ref, label, action, action_ref, trigger, trigger_ref,
                                         action_params, enabled, is_adhoc, created, updated)
                SELECT 'shop.made_' || (SELECT count(*) FROM attune.rule) + number, pack.id, pack.ref, 'A rule',
                       action.id, action.ref, trigger.id, trigger.ref, replace($2, '#', number::text)::jsonb, true,
                       true, $4, $4
                  FROM attune.pack, attune.action, attune.trigger, generate_series(1, $1) AS number
                 WHERE pack.ref = 'shop' AND action.ref = 'core.noop' AND trigger.ref = $3
                RETURNING *
            )
            INSERT INTO attune.revision (version, kind, entity, ref, definition, created)
            SELECT version, 'rule', made.id, made.ref, to_jsonb(made), $4 FROM raised, made
            """,
            count,
            action_params,
            TRIGGER,
            transaction.now,
        )


async def test_t74_as_many_statements_for_500_rules_as_for_1(bench: Bench) -> None:
    few = await bench.round(1, 1)
    await make_rules(bench.engine, 499)
    # The rules are new: the first batch reads them.
    await bench.round(1, 500)

    assert await bench.round(1, 500) == few


async def test_as_many_statements_for_a_hundred_events_as_for_one(bench: Bench) -> None:
    few = await bench.round(1, 1)

    assert await bench.round(100, 1) == few


async def test_a_key_costs_two_statements_for_a_hundred_events_as_for_one_and_nothing_for_those_without(
    bench: Bench,
) -> None:
    plain = await bench.ingest(1)

    assert await bench.emit() == plain
    assert len(await bench.ingest_with_keys(1)) == len(await bench.ingest_with_keys(100)) == len(plain) + 2


async def test_as_many_statements_for_a_hundred_failures_as_for_one(bench: Bench) -> None:
    """And each of them for a reason of its own."""
    template = '{"a": "{{ event.payload.n / (# - #) }}"}'
    await make_rules(bench.engine, 1, template)
    await bench.round(1, 2, '{"n": 1}')
    few = await bench.round(1, 2, '{"n": 1}')
    await make_rules(bench.engine, 99, template)
    await bench.round(1, 101, '{"n": 1}')

    assert await bench.round(1, 101, '{"n": 1}') == few


@pytest.mark.parametrize(("depth", "execution", "more"), [(30, None, 0), (29, 1, 0), (30, 1, 1)])
async def test_only_an_event_that_may_belong_to_a_loop_costs_a_statement_and_a_hundred_no_more(
    bench: Bench, depth: int, execution: int | None, more: int
) -> None:
    few = await bench.round(1, 1)

    for count in (1, 100):
        await bench.ingest(count, depth=depth, execution=execution)
        assert len(await bench.consume("attune.events.queue", count)) == few["matcher"] + more


async def test_what_completes_asks_nothing_about_streaks_of_others(bench: Bench) -> None:
    few = await bench.round(1, 1)
    await bench.round(1, 1, step=Step.FAIL)
    # The one that fails begins a streak, and the next one ends it.
    assert await bench.round(1, 1) == {**few, "completion": few["completion"] + 2}
    await rows(bench.engine, "INSERT INTO attune.streak VALUES ('action', 'core.echo', 1, now(), now(), 1)")

    assert await bench.round(1, 1) == few


async def test_as_many_statements_for_a_hundred_executions_that_fail_as_for_one(bench: Bench) -> None:
    await make_rules(bench.engine, 9)
    # The rules are new: the first batch reads them.
    await bench.round(1, 10)
    few = await bench.round(1, 10, step=Step.FAIL)

    assert await bench.round(10, 10, step=Step.FAIL) == few


async def test_events_that_match_too_much_for_one_transaction_have_one_each(bench: Bench) -> None:
    await make_rules(bench.engine, 499)
    await bench.ingest(21)

    await bench.settle("attune.events.queue")

    (found,) = await rows(
        bench.engine,
        """
        SELECT count(*) AS enforcements, count(DISTINCT event) AS events, count(DISTINCT xmin::text) AS transactions
          FROM attune.enforcement WHERE event > 1
        """,
    )
    assert dict(found) == {"enforcements": 10_500, "events": 21, "transactions": 21}
    assert bench.engine.bus.counters.of("attune.events.queue").retried == 0


async def test_new_rules_are_read_in_as_many_statements_for_500_as_for_1(bench: Bench) -> None:
    await make_rules(bench.engine, 1)
    few = await bench.round(1, 2)
    await make_rules(bench.engine, 500)

    assert await bench.round(1, 502) == few
