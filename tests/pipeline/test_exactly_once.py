"""One enforcement for each rule and event, and one execution for each enforcement, whatever is torn down when."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import pytest

from attune.base.clock import Clock, SystemClock
from attune.bus.broker import MemoryBroker
from attune.bus.messages import Delivery
from attune.catalog.model import Rule
from attune.database.ownership import Ownership
from attune.database.pool import Database, DatabaseUnavailable
from attune.engine import Engine
from tests.bus.proxy import Failure, Proxy, proxy_to
from tests.pipeline.shop import SHOP, new_rule, new_trigger, rows
from tests.support.databases import pool_on
from tests.support.engines import emit, engine_on, pack
from tests.support.waiting import until

EVENTS = 20

_UNFINISHED = """
    SELECT 1 FROM attune.event v
     WHERE NOT EXISTS (SELECT FROM attune.event_match m WHERE m.event = v.id)
     UNION ALL
    SELECT 1 FROM attune.enforcement n WHERE n.status = 'created'
     UNION ALL
    SELECT 1 FROM attune.execution_open
     UNION ALL
    SELECT 1 FROM attune.delivery
"""


async def check(engine: Engine, trigger: str, rules: Iterable[Rule]) -> None:
    """Wait until nothing is left to be done, and see that all of it was done once."""

    async def quiet() -> bool | None:
        return None if await rows(engine, _UNFINISHED) else True

    await until(quiet)
    wanted = await rows(
        engine,
        "SELECT v.id AS event, r AS rule FROM attune.event v, unnest($2::bigint[]) AS r WHERE v.trigger_ref = $1 "
        "ORDER BY v.id, r",
        trigger,
        [rule.id for rule in rules],
    )
    done = await rows(
        engine,
        """
        SELECT n.event, n.rule, n.status AS enforced, e.status, e.original_execution
          FROM attune.enforcement n LEFT JOIN attune.execution e ON e.enforcement = n.id
         WHERE n.trigger_ref = $1
         ORDER BY n.event, n.rule
        """,
        trigger,
    )
    assert wanted
    assert [(row["event"], row["rule"]) for row in done] == [(row["event"], row["rule"]) for row in wanted]
    assert {(row["enforced"], row["status"]) for row in done} == {("processed", "completed")}
    hops = await rows(
        engine,
        """
        SELECT max(count) AS most, max(attempt) AS attempt, array_agg(DISTINCT outcome) AS outcomes
          FROM (SELECT queue, message_id, count(*), max(attempt) AS attempt, min(outcome) AS outcome
                  FROM attune.trace GROUP BY queue, message_id) AS hop
        """,
    )
    assert [dict(row) for row in hops] == [{"most": 1, "attempt": 1, "outcomes": ["done"]}]
    assert not any(counters.rescued for counters in engine.bus.counters.queues.values())


async def emit_many(engine: Engine, trigger: str) -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(EVENTS):
            tasks.start_soon(_emit, engine, trigger, number)


async def _emit(engine: Engine, trigger: str, number: int) -> None:
    # Then it is unknown whether it was recorded. If it was, it counts.
    with suppress(DatabaseUnavailable):
        await emit(engine, trigger, {"n": number})


# Where the connection ends: after all effects of a batch, and before its commit.
CRASHES = [
    ("attune.enforcement", "INSERT", "true"),  # the matcher's
    ("attune.execution", "INSERT", "true"),  # the enforcement processor's
    ("attune.enforcement", "UPDATE", "NEW.status = 'processed'"),
    ("attune.execution", "UPDATE", "NEW.status = 'scheduled'"),  # the scheduler's
    ("attune.execution", "UPDATE", "NEW.status = 'running'"),  # the worker's
    ("attune.execution", "UPDATE", "NEW.status = 'completed'"),  # the writer's
]


@pytest.mark.parametrize(("table", "operation", "condition"), CRASHES)
async def test_t10_a_connection_that_ends_between_effects_and_commit_doubles_and_loses_nothing(
    engine: Engine, table: str, operation: str, condition: str
) -> None:
    """T-04: and an error that passes counts as no attempt."""
    trigger = new_trigger()
    rules = [await new_rule(engine, trigger) for _ in range(2)]
    async with _ending_connections(engine, table, operation, condition) as ended:
        await emit_many(engine, trigger)
        await check(engine, trigger, rules)
        assert await ended() >= 2, "no connection was ended"


@asynccontextmanager
async def _ending_connections(
    engine: Engine, table: str, operation: str, condition: str
) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """Let the first two commits that did this to this table find that their connection is gone."""
    await rows(engine, "CREATE SEQUENCE commits")
    await rows(
        engine,
        """
        CREATE FUNCTION end_connection() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF nextval('commits') <= 2 THEN
                PERFORM pg_terminate_backend(pg_backend_pid());
                PERFORM pg_sleep(60);
            END IF;
            RETURN NULL;
        END $$
        """,
    )
    await rows(
        engine,
        f"CREATE CONSTRAINT TRIGGER ending AFTER {operation} ON {table} DEFERRABLE INITIALLY DEFERRED "
        f"FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION end_connection()",
    )

    async def ended() -> int:
        (row,) = await rows(engine, "SELECT last_value FROM commits")
        return int(row["last_value"])

    try:
        yield ended
    finally:
        await rows(engine, f"DROP TRIGGER ending ON {table}")
        await rows(engine, "DROP FUNCTION end_connection")
        await rows(engine, "DROP SEQUENCE commits")


async def test_t10_commits_that_are_lost_or_unanswered_double_and_lose_nothing(dsn: str, tmp_path: Path) -> None:
    """Both look the same to who commits, and only one of them has happened."""
    trigger = new_trigger()
    async with (
        proxy_to(dsn) as proxy,
        pool_on(proxy.url) as database,
        engine_on(database, tmp_path, packs=[pack(tmp_path, "shop", SHOP)]) as engine,
    ):
        rules = [await new_rule(engine, trigger) for _ in range(2)]
        async with engine.running(), anyio.create_task_group() as tasks:
            failed: list[Failure] = []
            tasks.start_soon(_fail_commits, proxy, [Failure.LOST, Failure.UNANSWERED] * 6, failed)
            for _ in range(6):
                await emit_many(engine, trigger)
            await check(engine, trigger, rules)
    assert {*failed} == {Failure.LOST, Failure.UNANSWERED}


async def _fail_commits(proxy: Proxy, failures: Iterable[Failure], failed: list[Failure]) -> None:
    for failure in failures:
        proxy.failed.clear()
        proxy.next_commit = failure
        with anyio.move_on_after(2):
            await proxy.failed.wait()
            failed.append(failure)
    proxy.next_commit = None


class Stuttering(MemoryBroker):
    """Hands everything over once more after it was settled."""

    def __init__(self, of: MemoryBroker) -> None:
        super().__init__(of._load, of._clock)
        self.repeated: set[tuple[str, UUID]] = set()
        for queue in of.queues():
            self.declare(queue)

    def settle(self, queue: str, deliveries: Iterable[Delivery[Any]]) -> None:
        settled = list(deliveries)
        super().settle(queue, settled)
        again = [one for one in settled if (queue, one.id) not in self.repeated]
        self.repeated.update((queue, one.id) for one in again)
        self.hand_over(again)


async def test_t10_what_is_handed_over_twice_happens_once(database: Database, tmp_path: Path) -> None:
    trigger = new_trigger()
    async with engine_on(database, tmp_path, packs=[pack(tmp_path, "shop", SHOP)]) as engine:
        assert isinstance(engine.bus.broker, MemoryBroker)
        broker = engine.bus.broker = Stuttering(engine.bus.broker)
        rules = [await new_rule(engine, trigger) for _ in range(2)]
        async with engine.running():
            await emit_many(engine, trigger)
            await check(engine, trigger, rules)
    # An event, and for each rule an enforcement, a request, a dispatch and a completion.
    assert len(broker.repeated) == EVENTS * (1 + 4 * len(rules))


class Assumed(Ownership):
    """Takes the database for its own without asking anybody."""

    def __init__(self, clock: Clock) -> None:
        super().__init__("", "test", clock)

    async def acquire(self) -> None:
        self._gained.set()


async def test_two_engines_that_both_think_they_own_the_database_do_everything_once(
    database: Database, dsn: str, tmp_path: Path
) -> None:
    trigger = new_trigger()
    clock = SystemClock()
    shop = pack(tmp_path, "shop", SHOP)
    async with (
        pool_on(dsn) as second,
        engine_on(database, tmp_path, packs=[shop], ownership=Assumed(clock)) as one,
        engine_on(second, tmp_path, packs=[shop], ownership=Assumed(clock)) as other,
    ):
        rules = [await new_rule(one, trigger) for _ in range(2)]
        async with one.running(), other.running(), anyio.create_task_group() as tasks:
            for engine in (one, other):
                tasks.start_soon(_look_for_ever, engine)
            await emit_many(one, trigger)
            await emit_many(other, trigger)
            await check(one, trigger, rules)
            tasks.cancel_scope.cancel()
    handled = [sum(counters.done for counters in engine.bus.counters.queues.values()) for engine in (one, other)]
    assert sum(handled) == 2 * EVENTS * (1 + 4 * len(rules))


async def _look_for_ever(engine: Engine) -> None:
    """Let all queues look into the table again and again: they find what the other engine is about to take."""
    while True:
        for queue in engine.bus.broker.queues():
            engine.bus.broker.doubt(queue)
        await anyio.sleep(0.002)
