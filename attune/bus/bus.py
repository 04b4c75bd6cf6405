"""The bus as its users see it: transactions that publish, queues that deliver, and what is known about both."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import anyio
import structlog

from attune.base.clock import Clock
from attune.base.errors import AttuneError
from attune.base.json import loads
from attune.bus import queries
from attune.bus.backlog import Backlog
from attune.bus.broadcasts import Broadcasts
from attune.bus.broker import Broker, MemoryBroker
from attune.bus.counters import Counters
from attune.bus.messages import Delivery, Entity, Message, NotificationCreated
from attune.bus.topology import Queue, Topology
from attune.bus.transaction import Routes, Traffic, Transaction
from attune.bus.turns import Turns
from attune.database.arrays import grouped
from attune.database.pool import Connection, Database, DatabaseUnavailable, Row

log = structlog.get_logger()

T = TypeVar("T")

TURNS = 2
"""Batches that are in their transactions at the same time, of all consumers and the writer together: one computes while
the other waits for the disk. With more, each has fewer in it, and what a batch costs is shared by fewer."""

_SECOND_LOOK = timedelta(seconds=2)


class Unroutable(AttuneError):
    """A message has no queue: nobody would ever see it, so the change that causes it is refused as well."""

    code = "UNROUTABLE"


class Unreadable(ValueError):
    """A row holds no message of this release; the text says why."""


class Bus:
    """Carries messages from transactions to consumers along a topology."""

    def __init__(self, database: Database, topology: Topology, clock: Clock, is_owned: Callable[[], bool]) -> None:
        """`is_owned` says whether this process may write to the database."""
        self.database = database
        self.topology = topology
        self.clock = clock
        self.counters = Counters()
        self.backlog = Backlog()
        self.broadcasts = Broadcasts()
        self.broker: Broker = MemoryBroker(self._load, clock)
        self.turns = Turns(TURNS)
        self.watched: frozenset[Entity] = frozenset()
        """What somebody may look at in live views. A transaction that begins while nobody does tells nothing of it."""
        self._is_owned = is_owned
        self._routes = topology.routes()
        self._found: dict[tuple[type[Message], str], Routes] = {}
        self._views = [queue.name for queue in self._routes.get(NotificationCreated, ())]
        self._classes = {message.__name__: message for message in topology.messages}

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """A transaction that commits when the block ends well, with all that it published, and rolls back otherwise.

        Raises DatabaseUnavailable while another process may own the database, and when the infrastructure fails.
        """
        async with self._begun(_begin) as (transaction, _):
            yield transaction

    def claiming(
        self, queue: str, ids: Sequence[UUID], attempt: int
    ) -> AbstractAsyncContextManager[tuple[Transaction, frozenset[UUID]]]:
        """A transaction that begins by deleting deliveries, and the ids of those that still waited for this attempt."""
        return self._begun(lambda connection: queries.begin_claiming(connection, queue, ids, attempt))

    @asynccontextmanager
    async def _begun(self, begin: Callable[[Connection], Awaitable[T]]) -> AsyncIterator[tuple[Transaction, T]]:
        async with self._connection() as connection:
            try:
                begun = await begin(connection)
                transaction = Transaction(connection, self.clock.now(), self)
                yield transaction, begun
                await transaction.flush(self.clock.now())
            except BaseException:
                with anyio.CancelScope(shield=True), suppress(Exception):
                    await connection.execute("ROLLBACK")
                raise
            with anyio.CancelScope(shield=True):
                await transaction.commit()

    def _connection(self) -> AbstractAsyncContextManager[Connection]:
        if not self._is_owned():
            raise DatabaseUnavailable("The database was away; this process makes sure that it owns it still.")
        return self.database.acquire()

    def route(self, message: Message) -> Routes:
        """The queues of a message. Raises Unroutable when there are none."""
        key = type(message), message.routing_key()
        routes = self._found.get(key)
        if routes is None:
            routes = self._found[key] = self._find(message)
        return routes

    def _find(self, message: Message) -> Routes:
        queues = [queue for queue in self._routes.get(type(message), ()) if queue.takes(message)]
        missing = [
            queue.of(message) for queue in queues if queue.kind.is_durable and not self.broker.has(queue.of(message))
        ]
        if missing or not queues:
            kind = type(message).__name__
            self.counters.unroutable[kind] += 1
            raise Unroutable(
                f"{kind} with key {message.routing_key()!r} on {message.exchange} reaches no queue"
                + (f": {', '.join(missing)} does not exist." if missing else ".")
            )
        return [(queue.of(message), queue.kind.is_durable) for queue in queues]

    def queues(self, row: Queue) -> list[str]:
        """The durable queues of a row of the topology: an addressed one has as many as there are receivers."""
        return [name for name in self.broker.queues() if row.owns(name)]

    def committed(self, traffic: Traffic) -> None:
        """Hand over what a commit has made true."""
        self.counters.commits += 1
        self.counters.messages.update(traffic.messages)
        self.backlog.waiting += len(traffic.due) + len(traffic.later) + len(traffic.returned)
        self.broker.hand_over([*traffic.due, *traffic.returned])
        published = self.counters.published
        for (kind, queue), group in grouped(traffic.due, _published_as).items():
            published[kind, queue] += len(group)
        for delivery, due in traffic.later:
            self.broker.wake_at(delivery.queue, due)
            published[_published_as(delivery)] += 1
        for queue, message in traffic.broadcasts:
            self.broadcasts.send(queue, message)
            published[type(message).__name__, queue] += 1
        self._make_up(self.watched - traffic.watched)

    def doubted(self, traffic: Traffic) -> None:
        """Let everybody look whether a commit has happened."""
        self.counters.commits += 1
        # And once more: a server that lost us in the middle of it may not have finished yet.
        again = self.clock.now() + _SECOND_LOOK
        for queue in {delivery.queue for delivery in (*traffic.due, *traffic.returned)}:
            self.broker.doubt(queue)
            self.broker.wake_at(queue, again)
        for delivery, due in traffic.later:
            self.broker.wake_at(delivery.queue, due)
        for queue in {queue for queue, _ in traffic.broadcasts}:
            self.broadcasts.doubt(queue)
        self._make_up(self.watched - traffic.watched)

    def _make_up(self, missed: frozenset[Entity]) -> None:
        """Tell live views of what nobody told them, such as what began before somebody looked."""
        if missed:
            for queue in self._views:
                self.broadcasts.send(queue, NotificationCreated(missed=missed))

    async def wake_for_retries(self) -> None:
        """Plan a look into the table for each moment at which a delivery of an earlier life becomes due."""
        async with self.database.acquire() as connection:
            for queue, instant in await queries.due_later(connection, self.clock.now()):
                if self.broker.has(queue):
                    self.broker.wake_at(queue, instant)

    def message(self, kind: str, payload: str) -> Message:
        """The message of a row, by its type and its payload. Raises Unreadable."""
        found = self._classes.get(kind)
        if found is None:
            raise Unreadable(f"Message type {kind} is unknown to this release.")
        try:
            return found.model_validate(loads(payload))
        except ValueError as error:  # it is no JSON for Python, or not the JSON of this message
            raise Unreadable(f"The payload is none of {kind}: {error}") from error

    async def _load(self, queue: str, except_ids: Collection[UUID], limit: int) -> Sequence[Delivery[Any]]:
        async with self.database.acquire() as connection:
            while True:
                rows = await queries.due(connection, queue, except_ids=except_ids, now=self.clock.now(), limit=limit)
                deliveries: list[Delivery[Any]] = []
                unreadable: list[tuple[Row, str]] = []
                for row in rows:
                    try:
                        message = self.message(row["message_type"], row["payload"])
                    except Unreadable as error:
                        unreadable.append((row, str(error)))
                    else:
                        deliveries.append(queries.delivery_of(row, queue, message))
                if not unreadable:
                    return deliveries
                for row, fault in unreadable:
                    await self._bury(connection, queue, row, fault)

    async def _bury(self, connection: Connection, queue: str, row: Row, fault: str) -> None:
        log.error("a delivery cannot be read and is a dead letter now", queue=queue, error=fault)
        await queries.bury(
            connection, queue, row["message_id"], payload=row["payload"], error=fault, now=self.clock.now()
        )
        self.counters.of(queue).dead += 1
        self._make_up(self.watched & {Entity.DEAD_LETTER})
        self.backlog.waiting -= 1


async def _begin(connection: Connection) -> None:
    await connection.execute("BEGIN")


def _published_as(delivery: Delivery[Any]) -> tuple[str, str]:
    return type(delivery.envelope.payload).__name__, delivery.queue
