"""What /metrics shows: what is counted anyway, what the instruments measured, and what stands in the database."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import datetime
from typing import TypeAlias

import anyio
import anyio.lowlevel
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from attune import __version__
from attune.bus import queries
from attune.bus.bus import Bus
from attune.database.pool import Connection, Database, DatabaseUnavailable
from attune.database.storage import Storage
from attune.events.ingress import Ingress, Reason
from attune.telemetry import families
from attune.telemetry.metrics import OTHER
from attune.upkeep.retention import COUNTED, Account
from attune.workers.worker import Worker

Collect: TypeAlias = Callable[[], Iterable[Metric]]
"""Gives what is known in memory."""

Read: TypeAlias = Callable[[Connection], Awaitable[Iterable[Metric]]]
"""Reads what stands in the database: little, and quickly."""

_PATIENCE = 2.0


class Metrics:
    """Collects what others have registered whenever somebody asks, for one at a time and over one connection."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._collects: list[Collect] = []
        self._reads: list[Read] = []
        self._asked = anyio.Lock()
        self._process = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._process)

    def register(self, collect: Collect) -> None:
        """Show what `collect` gives."""
        self._collects.append(collect)

    def register_read(self, read: Read) -> None:
        """Show what `read` finds, while the database answers."""
        self._reads.append(read)

    async def text(self) -> bytes:
        """Everything, in Prometheus's text format."""
        async with self._asked:
            read = await self._read()
            collected = [metric for collect in self._collects for metric in collect()]
            parts = []
            for metric in (*collected, *read, *self._process.collect()):
                parts.append(generate_latest(_Only(metric)))
                # There may be thousands of lines. A thread would not help: it fights the loop for the interpreter.
                await anyio.lowlevel.checkpoint()
            return b"".join(parts)

    async def _read(self) -> list[Metric]:
        found: list[Metric] = []
        try:
            with anyio.fail_after(_PATIENCE):
                async with self._database.acquire() as connection:
                    for read in self._reads:
                        found.extend(await read(connection))
        except (DatabaseUnavailable, TimeoutError):
            return [families.DATABASE_UP.of({(): 0})]
        return [families.DATABASE_UP.of({(): 1}), *found]


class _Only(Collector):
    """One metric, for a function that takes nothing else."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> list[Metric]:
        return [self._metric]


def release(started_at: datetime) -> Collect:
    """Which release runs, and since when."""
    return lambda: (
        families.BUILD_INFO.of({(__version__,): 1}),
        families.START_TIME.of({(): started_at.timestamp()}),
    )


def pool(database: Database) -> Collect:
    """The connections to the database."""
    return lambda: (
        families.CONNECTIONS.of({(): database.open_connections}),
        families.CONNECTIONS_IDLE.of({(): database.idle_connections}),
        families.CONNECTIONS_MAX.of({(): database.max_connections}),
    )


def slots(worker: Worker) -> Collect:
    """How many executions a worker can run at once, and runs."""
    return lambda: (
        families.WORKER_SLOTS.of({(): worker.concurrency}),
        families.WORKER_SLOTS_BUSY.of({(): worker.running}),
    )


def removals(account: Account) -> Collect:
    """What retention did."""
    return lambda: (
        families.REMOVED.of({(table,): account.removed[table] for table in COUNTED}),
        families.OVERDUE.of({(): account.most_overdue.total_seconds()}),
    )


def ingress(one: Ingress) -> Collect:
    """Whether anything may come in from outside, and how often it might not."""

    def collect() -> list[Metric]:
        refusals = one.refusals()
        return [
            families.INGRESS_CLOSED.of({(reason,): reason in refusals for reason in Reason}),
            families.INGRESS_REFUSED.of({(reason,): one.refused[reason] for reason in Reason}),
        ]

    return collect


def room(storage: Storage) -> Collect:
    """The room that is left on the disk."""
    return lambda: [families.STORAGE_FREE.of({} if storage.free is None else {(): storage.free})]


class BusMetrics:
    """What the bus counts, and what waits in its tables."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def collect(self) -> list[Metric]:
        """The counters, of every queue and message type from the beginning on."""
        counters = self._bus.counters
        types = [message.__name__ for message in self._bus.topology.messages]
        durable = {(queue, kind): counters.of(queue) for queue, kind in self._durable().items()}
        return [
            families.PUBLISHED.of({(kind,): counters.messages[kind] for kind in types}),
            families.ROUTED.of({(queue, kind): counters.published[kind, queue] for queue, kind in self._all()}),
            # A class that stands in no table is unroutable as well.
            families.UNROUTABLE.of({(kind,): counters.unroutable[kind] for kind in (*types, *counters.unroutable)}),
            families.DELIVERED.of({labels: queue.delivered for labels, queue in durable.items()}),
            families.DONE.of({labels: queue.done for labels, queue in durable.items()}),
            families.RETRIED.of({labels: queue.retried for labels, queue in durable.items()}),
            families.DEAD.of({labels: queue.dead for labels, queue in durable.items()}),
            families.RESCUED.of({labels: queue.rescued for labels, queue in durable.items()}),
        ]

    async def read(self, connection: Connection) -> list[Metric]:
        """What waits in each queue, and how many dead letters there are."""
        found = await queries.waiting_by_queue(connection)
        dead = await queries.count_dead_letters(connection)
        now = self._bus.clock.now()
        types = self._durable()
        waiting: dict[tuple[str, ...], int] = dict.fromkeys(types.items(), 0)
        oldest: dict[tuple[str, ...], datetime] = dict.fromkeys(types.items(), now)
        for queue, (count, since) in found.items():
            # A queue of an earlier release may still have rows.
            labels = (queue, types[queue]) if queue in types else (OTHER, OTHER)
            waiting[labels] = waiting.get(labels, 0) + count
            oldest[labels] = min(oldest.get(labels, now), since)
        return [
            families.WAITING.of(waiting),
            families.OLDEST.of({labels: (now - since).total_seconds() for labels, since in oldest.items()}),
            families.DEAD_LETTERS.of({(): dead}),
        ]

    def _durable(self) -> dict[str, str]:
        """The message type of each queue whose deliveries are rows."""
        return {queue: kind for queue, kind in self._all() if self._bus.broker.has(queue)}

    def _all(self) -> Iterator[tuple[str, str]]:
        """Queues with their message types."""
        for row in self._bus.topology.queues:
            if row.message is not None:
                for queue in self._bus.queues(row) if row.kind.is_durable else [row.name]:
                    yield queue, row.message.__name__
