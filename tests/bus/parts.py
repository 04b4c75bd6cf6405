"""A bus with messages of its own on a test database, and consumers that leave traces of what they did."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import anyio

from attune.base.clock import Clock, SystemClock
from attune.bus import queries
from attune.bus.bus import Bus
from attune.bus.consumers import Consumer, ConsumerLoop, Handler
from attune.bus.messages import Cause, Delivery, Message
from attune.bus.outcomes import DONE, Outcome
from attune.bus.topology import Exchange, ExchangeKind, Queue, QueueKind, Topology
from attune.bus.transaction import Transaction
from attune.bus.upkeep import Sweep
from attune.database.ids import uuid7
from attune.database.pool import Database, Row
from attune.telemetry.metrics import Instruments
from tests.support.waiting import eventually, until

NUMBERS = "test.numbers.queue"
ANSWERS = "test.answers.queue"
THINGS = "test.things.queue"


class Change(StrEnum):
    MADE = "made"
    GONE = "gone"


class Counted(Message, exchange="test", key="number.counted", about="number_id"):
    number_id: int
    text: str = ""


class Answered(Message, exchange="test", key="number.answered"):
    number_id: int


class Told(Message, exchange="test", key="told.{worker_id}", about="worker_id"):
    worker_id: int


class ThingChanged(Message, exchange="test", key="thing.{change}"):
    change: Change


TOPOLOGY = Topology(
    exchanges=(Exchange("test", ExchangeKind.TOPIC, "tests"),),
    messages=(Counted, Answered, Told, ThingChanged),
    queues=(
        Queue(NUMBERS, QueueKind.WORK, "test", ("number.counted",), Counted, "counter"),
        Queue(ANSWERS, QueueKind.WORK, "test", ("number.answered",), Answered, "answers"),
        Queue("told.{worker_id}.queue", QueueKind.ADDRESSED, "test", ("told.{worker_id}",), Told, "told"),
        Queue(THINGS, QueueKind.BROADCAST, "test", ("thing.made", "thing.gone"), ThingChanged, "things"),
    ),
)


def root() -> Cause:
    """The cause of what nothing has caused."""
    return Cause(uuid7(), None, 0)


async def always() -> None:
    """This process owns the database."""


async def plenty() -> int:
    """A consumer that can always take more."""
    return 1_000


@dataclass
class Calls:
    """What a handler was given: the numbers of each batch, and the attempts of its deliveries."""

    batches: list[list[int]] = field(default_factory=list)
    attempts: list[list[int]] = field(default_factory=list)

    def note(self, batch: Sequence[Delivery[Counted]]) -> None:
        self.batches.append([delivery.message.number_id for delivery in batch])
        self.attempts.append([delivery.attempt for delivery in batch])

    @property
    def numbers(self) -> Counter[int]:
        """How often each number was handled."""
        return Counter(number for batch in self.batches for number in batch)


class Rig:
    """A bus on a database. What consumers do is a row in the table `effect`, one for each number."""

    def __init__(self, database: Database, clock: Clock | None = None, *, max_attempts: int = 5) -> None:
        self.database = database
        self.clock = clock or SystemClock()
        self.is_owned = True
        self.bus = Bus(database, TOPOLOGY, self.clock, lambda: self.is_owned)
        self.instruments = Instruments()
        self.calls = Calls()
        self._max_attempts = max_attempts
        # Their queues exist although nobody consumes them here.
        self.bus.broker.declare(ANSWERS)
        self.bus.broadcasts.declare(THINGS)

    async def effect(self, transaction: Transaction, batch: Sequence[Delivery[Counted]]) -> Sequence[Outcome]:
        """The usual handler."""
        self.calls.note(batch)
        await transaction.connection.execute(
            "INSERT INTO effect SELECT unnest($1::bigint[])", [delivery.message.number_id for delivery in batch]
        )
        return [DONE] * len(batch)

    def consumer(
        self, handle: Handler[Counted] | None = None, *, capacity: Callable[[], Awaitable[int]] | None = None
    ) -> ConsumerLoop:
        """The consumer of the numbers, with its queue."""
        consumer = Consumer(NUMBERS, Counted, "counter", handle or self.effect, capacity=capacity or plenty)
        return ConsumerLoop(self.bus, consumer, self.instruments, max_attempts=self._max_attempts, ready=always)

    @asynccontextmanager
    async def consuming(
        self, handle: Handler[Counted] | None = None, *, capacity: Callable[[], Awaitable[int]] | None = None
    ) -> AsyncIterator[None]:
        """Consume the numbers for the block."""
        loop = self.consumer(handle, capacity=capacity)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(loop.run)
            yield
            tasks.cancel_scope.cancel()

    async def listen(self) -> None:
        """Make the queue and let it read its empty table: what is published now is in its memory, until consumed."""
        self.bus.broker.declare(NUMBERS)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.bus.broker.wait, NUMBERS, 1)
            await eventually(lambda: not self.bus.broker.depth(NUMBERS).spilled)
            tasks.cancel_scope.cancel()

    async def publish(self, *numbers: int, cause: Cause | None = None) -> list[Delivery[Any]]:
        """Publish numbers in one transaction."""
        async with self.bus.transaction() as transaction:
            for number in numbers:
                transaction.publish(Counted(number_id=number), cause or root(), "test")
        return list(transaction._traffic.due)

    async def insert(
        self,
        number: int,
        *,
        kind: str = "Counted",
        payload: str | None = None,
        due: datetime | None = None,
        attempt: int = 1,
    ) -> UUID:
        """Store a delivery as an earlier life would have left it: without handing it over."""
        identity, now = uuid7(), self.clock.now()
        await self.execute(
            """
            INSERT INTO attune.delivery (queue, message_id, correlation_id, depth, message_type, version, source,
                                         payload, published_at, available_at, attempt)
            VALUES ($1, $2, $2, 0, $3, '1.0', 'test', $4, $5, $6, $7)
            """,
            NUMBERS,
            identity,
            kind,
            payload or f'{{"number_id":{number}}}',
            now,
            due or now,
            attempt,
        )
        return identity

    async def effects(self) -> list[int]:
        """The numbers whose effects are committed, sorted."""
        return [row["number"] for row in await self.fetch("SELECT number FROM effect ORDER BY number")]

    async def waiting(self) -> list[Row]:
        """The deliveries in the table."""
        return await self.fetch("SELECT *, payload->>'number_id' AS number FROM attune.delivery ORDER BY message_id")

    async def dead(self) -> list[Row]:
        """The dead letters."""
        return await self.fetch("SELECT * FROM attune.dead_letter ORDER BY id")

    async def trace(self, correlation_id: UUID) -> list[dict[str, Any]]:
        """The hops of a chain."""
        async with self.database.acquire() as connection:
            return [dict(hop) for hop in await queries.trace(connection, correlation_id)]

    async def until_empty(self) -> None:
        """Return when no delivery waits for anything."""

        async def empty() -> bool | None:
            return None if await self.waiting() else True

        await until(empty)

    async def until_effects(self, numbers: Sequence[int]) -> None:
        """Return when exactly these numbers have had their effects."""

        async def all_there() -> bool | None:
            return True if await self.effects() == sorted(numbers) else None

        await until(all_there)

    async def sweep(self, rounds: int = 2) -> int:
        """How many deliveries that many sweeps rescue."""
        sweep = Sweep(self.bus)
        return sum([await sweep.once() for _ in range(rounds)])

    @property
    def rescued(self) -> int:
        return sum(counters.rescued for counters in self.bus.counters.queues.values())

    async def execute(self, query: str, *arguments: Any) -> None:
        async with self.database.acquire() as connection:
            await connection.execute(query, *arguments)

    async def fetch(self, query: str, *arguments: Any) -> list[Row]:
        async with self.database.acquire() as connection:
            return list(await connection.fetch(query, *arguments))


async def terminate_others(database: Database) -> None:
    """End every connection to the database but the one that says so."""
    async with database.acquire() as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
