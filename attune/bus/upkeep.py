"""What keeps the bus honest: the sweep for rows without a hint, the recount, and the days of the trace."""

from datetime import timedelta
from uuid import UUID

import structlog

from attune.bus import queries
from attune.bus.bus import Bus
from attune.database.pool import DatabaseUnavailable

log = structlog.get_logger()

SWEEP_EVERY = 5.0
_SWEEP_ROWS = 20_000
_RECOUNT_EVERY = 60.0
_TRACE_DAYS_EVERY = 60.0


class Sweep:
    """Finds deliveries that are due and that the broker does not know.

    A row that was committed a moment ago may not be handed over yet, so a delivery counts as forgotten when two sweeps
    in a row find it. There are none in theory; each is counted as rescued, and delivered.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._suspects: frozenset[tuple[UUID, str]] = frozenset()

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await self._bus.clock.sleep(SWEEP_EVERY)
            try:
                await self.once()
            except DatabaseUnavailable as error:
                log.debug("the sweep waits for the database", error=str(error))

    async def once(self) -> int:
        """Sweep, and return how many deliveries were rescued."""
        broker = self._bus.broker
        complete = [queue for queue in broker.queues() if not broker.depth(queue).spilled]
        async with self._bus.database.acquire() as connection:
            rows = await queries.due_in(connection, complete, now=self._bus.clock.now(), limit=_SWEEP_ROWS)
        unknown = {(delivery_id, queue) for delivery_id, queue in rows if not broker.knows(queue, delivery_id)}
        forgotten = self._suspects & unknown
        for delivery_id, queue in forgotten:
            log.error("a delivery was never handed over", queue=queue, delivery=str(delivery_id))
            self._bus.counters.of(queue).rescued += 1
            broker.doubt(queue)
        self._suspects = frozenset(unknown - forgotten)
        return len(forgotten)


class Recount:
    """Counts what waits: who only adds up misses a commit whose answer was lost."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def run(self) -> None:
        """Count until cancelled."""
        while True:
            await self._bus.clock.sleep(_RECOUNT_EVERY)
            try:
                await self.once()
            except DatabaseUnavailable as error:
                log.debug("the recount waits for the database", error=str(error))

    async def once(self) -> None:
        """Set the backlog right, but for what comes or goes in this moment."""
        backlog = self._bus.backlog
        async with self._bus.database.acquire() as connection:
            before = backlog.waiting
            counted = await queries.count_deliveries(connection)
        # What came and went since then stands in the number already.
        backlog.waiting += counted - before


class TraceDays:
    """Makes the partitions of the trace ahead of time and drops the old ones."""

    def __init__(self, bus: Bus, keep_days: int) -> None:
        self._bus = bus
        self._keep = keep_days

    async def run(self) -> None:
        """Look after the days until cancelled."""
        while True:
            try:
                await self.once()
                await self._bus.clock.sleep(_TRACE_DAYS_EVERY)
            except DatabaseUnavailable as error:
                log.debug("the days of the trace wait for the database", error=str(error))
                await self._bus.clock.sleep(10.0)

    async def once(self) -> None:
        """Make the partitions of yesterday to the day after tomorrow, and drop those older than the days to keep."""
        today = self._bus.clock.now().date()
        first = today - timedelta(days=self._keep)
        async with self._bus.database.acquire() as connection:
            kept = await queries.trace_days(connection)
            for offset in (-1, 0, 1, 2):
                day = today + timedelta(days=offset)
                if day not in kept:
                    await queries.create_trace_day(connection, day)
            for day in kept:
                if day < first:
                    await queries.drop_trace_day(connection, day)
            await queries.drop_other_trace(connection, first)
