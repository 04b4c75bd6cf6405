"""What the database alone can do: the row operations of the pipeline, statement by statement, with nothing around them.

Batches of 500 go through the same statements in the same transactions as the pipeline's own, over plain connections;
the arguments are ready beforehand, as far as the database does not give them.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import anyio
import asyncpg

from attune.bus import queries as bus
from attune.database.ids import uuid7
from attune.events import queries as events
from attune.executions import enforcement_queries as enforcements
from attune.executions import queries as executions
from attune.rules import queries as rules

BATCH = 500
PAYLOAD = '{"level":"info","value":42}'

_RESULT = '{"duration_ms":0,"succeeded":true,"exit_code":0}'
_MESSAGE = (
    '{"execution_id":123456,"action_ref":"core.noop","enforcement_id":123456,"event_id":123456,'
    '"rule_ref":"bench.pipeline","trigger_ref":"bench.happening"}'
)
_HOPS = (
    ("attune.events.queue", "EventCreated", "bench"),
    ("attune.executions.queue", "EnforcementCreated", "rule matcher"),
    ("attune.execution.requests.queue", "ExecutionRequested", "enforcement processor"),
    ("worker.1.executions", "ExecutionDispatched", "scheduler"),
    ("attune.execution.completed.queue", "ExecutionCompleted", "worker"),
)


@dataclass(frozen=True, slots=True)
class Subjects:
    """The rule, trigger and action that the rows name."""

    trigger: int
    trigger_ref: str
    rule: int
    rule_ref: str
    action: int
    action_ref: str
    worker: int


class Limit:
    """Measures over one or more connections to the database `dsn`."""

    def __init__(self, dsn: str, subjects: Subjects) -> None:
        self._dsn = dsn
        self._subjects = subjects

    async def rate(self, connections: int, seconds: float) -> float:
        """Pipelines a second."""
        done = [0] * connections

        async def work(index: int) -> None:
            connection = await asyncpg.connect(self._dsn)
            try:
                while time.perf_counter() < deadline:
                    await _Batch(connection, self._subjects).run()
                    done[index] += BATCH
            finally:
                await connection.close()

        begun = time.perf_counter()
        deadline = begun + seconds
        async with anyio.create_task_group() as tasks:
            for index in range(connections):
                tasks.start_soon(work, index)
        return sum(done) / (time.perf_counter() - begun)


class _Batch:
    """500 pipelines, from the event to the end of the execution."""

    def __init__(self, connection: asyncpg.Connection, subjects: Subjects) -> None:
        self._connection = connection
        self._subjects = subjects
        self._now = datetime.now(UTC)
        self._boot = uuid7()
        self._correlations = [uuid7() for _ in range(BATCH)]
        self._messages = [[uuid7() for _ in range(BATCH)] for _ in _HOPS]

    async def run(self) -> None:
        """Run the seven transactions."""
        event_ids = await self._ingest()
        enforcement_ids = await self._match(event_ids)
        execution_ids = await self._process(enforcement_ids)
        await self._schedule(execution_ids)
        await self._start(execution_ids)
        await self._finish(execution_ids)
        await self._complete(execution_ids)

    async def _ingest(self) -> list[int]:
        one = self._subjects
        async with self._connection.transaction():
            ids = [row["id"] for row in await self._connection.fetch(events.RESERVE_IDS, BATCH)]
            await self._connection.execute(
                events.INSERT_EVENTS,
                one.trigger,
                one.trigger_ref,
                "bench",
                self._now,
                ids,
                [],
                _same(PAYLOAD),
                [],
                [],
                [],
                [],
                self._correlations,
                [],
                _same(0),
            )
            await self._publish(0)
        return ids

    async def _match(self, event_ids: Sequence[int]) -> list[int]:
        one = self._subjects
        async with self._connection.transaction():
            await self._claim(0)
            await self._connection.fetch(events.READ_WITH_VERSION, event_ids)
            rows = await self._connection.fetch(
                enforcements.INSERT_ENFORCEMENTS,
                self._now,
                _same(one.rule),
                _same(one.rule_ref),
                _same(one.trigger_ref),
                event_ids,
                _same("{}"),
                self._correlations,
                self._messages[0],
                _same(1),
            )
            await self._connection.execute(rules.INSERT_MATCHES, 1, self._now, event_ids, _same(1), _same(1), _same(0))
            await self._settle_and_publish(0)
        return [row["id"] for row in rows]

    async def _process(self, enforcement_ids: Sequence[int]) -> list[int]:
        one = self._subjects
        async with self._connection.transaction():
            await self._claim(1)
            await self._connection.fetch(enforcements.READ_ENFORCEMENTS, enforcement_ids)
            rows = await self._connection.fetch(
                executions.INSERT_EXECUTIONS,
                self._now,
                _same(one.action),
                _same(one.action_ref),
                _same("{}"),
                enforcement_ids,
                [],
                [],
                self._correlations,
                self._messages[1],
                _same(2),
            )
            await self._connection.execute(
                enforcements.RESOLVE_ENFORCEMENTS, enforcement_ids, "processed", None, self._now, False
            )
            await self._settle_and_publish(1)
        return [row["id"] for row in rows]

    async def _schedule(self, execution_ids: Sequence[int]) -> None:
        async with self._connection.transaction():
            await self._claim(2)
            await self._connection.fetch(executions.READ_REQUESTED, execution_ids)
            await self._connection.fetch(
                executions.DISPATCH, execution_ids, self._subjects.worker, self._now, ["requested", "scheduling"], False
            )
            await self._settle_and_publish(2)

    async def _start(self, execution_ids: Sequence[int]) -> None:
        async with self._connection.transaction():
            await self._claim(3)
            await self._connection.fetch(
                executions.START, execution_ids, self._now, self._subjects.worker, self._boot, _same(300.0), 35.0, False
            )
            await self._settle(3)

    async def _finish(self, execution_ids: Sequence[int]) -> None:
        async with self._connection.transaction():
            await self._connection.fetch(
                executions.FINISH,
                "completed",
                self._now,
                execution_ids,
                _same(_RESULT),
                ["canceling", "running"],
                False,
            )
            await self._publish(4)

    async def _complete(self, execution_ids: Sequence[int]) -> None:
        async with self._connection.transaction():
            await self._claim(4)
            await self._connection.fetch(executions.READ_ENDINGS, execution_ids)
            await self._settle(4)

    async def _publish(self, hop: int) -> None:
        await self._connection.execute(bus.INSERT_DELIVERIES, *self._delivery(hop))

    async def _settle_and_publish(self, settled: int) -> None:
        await self._connection.execute(bus.INSERT_BOTH, *self._hop(settled), *self._delivery(settled + 1))

    async def _settle(self, hop: int) -> None:
        await self._connection.execute(bus.INSERT_TRACE, *self._hop(hop))

    def _delivery(self, hop: int) -> tuple[object, ...]:
        queue, kind, source = _HOPS[hop]
        return queue, kind, "1.0", source, self._now, *self._identities(hop), _same(_MESSAGE)

    async def _claim(self, hop: int) -> None:
        await self._connection.fetch(bus.CLAIM, _HOPS[hop][0], self._messages[hop])

    def _hop(self, hop: int) -> tuple[object, ...]:
        queue, kind, source = _HOPS[hop]
        identities = self._identities(hop)
        return queue, kind, source, "consumer", self._now, self._now, 1, "done", None, *identities, _same(self._now)

    def _identities(self, hop: int) -> tuple[Sequence[object], ...]:
        causes = self._messages[hop - 1] if hop else []
        return self._messages[hop], self._correlations, causes, _same(hop)


def _same(value: object) -> list[object]:
    return [value] * BATCH
