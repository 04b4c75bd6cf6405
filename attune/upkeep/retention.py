"""Retention: what is old goes, a little at a time, so that nobody waits for it.

It goes through each table from its oldest row on, and remembers where it stopped: what has to stay is not looked at
again with every batch, but once an hour, from the beginning.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import takewhile

import anyio.to_thread
import structlog

from attune.bus import queries
from attune.bus.bus import Bus
from attune.catalog import queries as catalog
from attune.catalog.definitions import Definitions
from attune.database.pool import DatabaseUnavailable, Row
from attune.executions import removal_queries
from attune.settings import Retention as Limits
from attune.upkeep.kept import DEAD_LETTERS, HISTORY, TABLES, Kept, Removed, closed
from attune.upkeep.space import measure
from attune.workers.logs import Logs, first_of_folder

log = structlog.get_logger()

EVERY = 300.0
BUSY = 10_000
"""With more deliveries waiting than this there is something more important to do, unless there is no room left."""
COUNTED = (*TABLES, DEAD_LETTERS.name, "revision", "logs")
"""What it removes: rows of tables, and the output of executions."""
YOUNG = timedelta(hours=1)
"""What is younger stays, however large it is."""

_WHOLE_EVERY = 3_600.0
_LOOK_AGAIN = 10.0
# It rests four fifths of its time, so that others notice as little as possible; with too much to keep, half of it.
_REST, _REST_WHEN_FULL = 4, 1
_FAST, _SLOW = 0.25, 0.5
_LEAST_SHARE = 0.1
_MOST_ROWS = 1_000
_BEGINNING = datetime.min.replace(tzinfo=UTC)
_NO_VERSION = 2**63 - 1


@dataclass(slots=True)
class Account:
    """What retention did. `removed` counts since the start, by table, and the executions whose logs went; `overdue`
    says of each table where it could not get on so far how old the oldest row is that should be gone."""

    removed: Counter[str] = field(default_factory=Counter)
    ended_at: datetime | None = None
    seconds: float = 0.0
    overdue: dict[str, timedelta] = field(default_factory=dict)

    @property
    def most_overdue(self) -> timedelta:
        """How old, beyond its limit, the oldest row is that should be gone."""
        return max([timedelta(), *self.overdue.values()])


class Retention:
    """Removes what is older than `limits` say, and what is too much."""

    def __init__(self, bus: Bus, definitions: Definitions, logs: Logs, limits: Limits) -> None:
        self.limits = limits
        self.account = Account()
        self._bus = bus
        self._definitions = definitions
        self._logs = logs
        self._share = 0.25
        self._whole_at: float | None = None
        self._positions: Counter[str] = Counter()
        # Everything before this moment is gone, or has to stay.
        self._cleared = _BEGINNING
        self._oldest_version = _NO_VERSION
        self._log_sizes: Counter[int] = Counter()

    @property
    def kept_since(self) -> datetime:
        """The moment from which on all history is there."""
        return max(self._cleared, self._bus.clock.now() - timedelta(days=self.limits.days))

    async def run(self) -> None:
        """Look after what is kept until cancelled."""
        while True:
            await self._bus.clock.sleep(EVERY)
            try:
                await self.once()
            except DatabaseUnavailable as error:
                log.debug("retention waits for the database", error=str(error))

    async def once(self) -> None:
        """Remove all that can go now."""
        before = self.account.removed.copy()
        began = self._bus.clock.monotonic()
        try:
            await self._cycle(began)
        finally:
            seconds = round(self._bus.clock.monotonic() - began, 1)
            if removed := self.account.removed - before:
                log.info("old history was removed", rows=dict(removed), seconds=seconds)
        self.account.ended_at, self.account.seconds = self._bus.clock.now(), seconds

    async def _cycle(self, began: float) -> None:
        now = self._bus.clock.now()
        limit = now - timedelta(days=self.limits.days)
        is_whole = self._whole_at is None or began - self._whole_at >= _WHOLE_EVERY
        if is_whole:
            self._positions.clear()
            self._oldest_version = _NO_VERSION
            try:
                await self._sweep_logs(limit)
            except OSError as error:
                log.warning("the logs of executions cannot be looked at", error=str(error))
        before = await self._moment(limit, now)
        for kept in HISTORY:
            await self._clear(kept, limit, before)
        self._cleared = max(before, self._cleared)
        letters = now - timedelta(days=self.limits.dead_letter_days)
        await self._clear(DEAD_LETTERS, letters, letters)
        if is_whole:
            await self._forget_revisions(before)
            self._whole_at = began

    async def _moment(self, limit: datetime, now: datetime) -> datetime:
        """The moment before which history has to go: `limit`, or a later one if there is too much of it."""
        async with self._bus.database.acquire() as connection:
            usage = await measure(connection, self._log_sizes)
        excess = usage.bytes - self.limits.max_bytes
        if excess <= 0:
            return limit
        latest = now - YOUNG
        return max(limit, min(usage.moment(excess, self._cleared) or latest, latest))

    async def _clear(self, kept: Kept, limit: datetime, before: datetime) -> None:
        """Remove rows of a kind that were created before a moment. Those from before `limit` are overdue."""
        more = True
        while more:
            began = self._bus.clock.monotonic()
            removed, more = await self._batch(kept, limit, before)
            if removed is None:
                await self._bus.clock.sleep(_LOOK_AGAIN)
                continue
            self.account.removed.update(removed.rows)
            await self._remove_logs(removed.executions)
            await self._rest(began, _REST if before <= limit else _REST_WHEN_FULL)
        self.account.overdue.pop(kept.name, None)

    async def _batch(self, kept: Kept, limit: datetime, before: datetime) -> tuple[Removed | None, bool]:
        """Remove the next few rows, and say whether there may be more; None when others go first."""
        async with self._bus.transaction() as transaction:
            connection = transaction.connection
            size = round(kept.at_once * self._share)
            rows = await kept.oldest(connection, self._positions[kept.name], before, size)
            old = list(takewhile(lambda row: not before <= row["created"] <= transaction.now, rows))
            few = _few(old)
            gone = await closed(connection, few, before)
            removed = Removed(Counter())
            if gone:
                self.account.overdue[kept.name] = limit - gone[0]["created"]
                if before <= limit and await queries.is_behind(connection, BUSY):
                    return None, True
                removed = await kept.remove(connection, [row["id"] for row in gone])
        if few:
            self._positions[kept.name] = few[-1]["id"]
            self._note_versions(few, gone)
        return removed, len(few) < len(old) or len(old) == size

    def _note_versions(self, passed: Sequence[Row], gone: Sequence[Row]) -> None:
        """Remember the oldest version of the definitions that an event which stays was matched with."""
        left = {row["id"] for row in passed} - {row["id"] for row in gone}
        versions = [row["definition_version"] for row in passed if row["id"] in left and row.get("definition_version")]
        self._oldest_version = min([*versions, self._oldest_version])

    async def _remove_logs(self, ran: Sequence[int]) -> None:
        if ran:
            removed = await anyio.to_thread.run_sync(self._logs.remove, ran)
            self.account.removed["logs"] += len(removed)
            for execution, size in removed.items():
                self._log_sizes[first_of_folder(execution)] -= size

    async def _sweep_logs(self, limit: datetime) -> None:
        """Measure the logs, and remove those from before `limit` whose executions are gone."""
        total: Counter[int] = Counter()
        for folder in await anyio.to_thread.run_sync(self._logs.folders):
            began = self._bus.clock.monotonic()
            sizes = await anyio.to_thread.run_sync(self._logs.sizes, folder)
            async with self._bus.database.acquire() as connection:
                known = await removal_queries.existing(connection, list(sizes))
            old = [one for one, size in sizes.items() if one not in known and size.written_at < limit.timestamp()]
            await self._remove_logs(old)
            for execution in sizes.keys() - old:
                total[first_of_folder(execution)] += sizes[execution].bytes
            # In no thread: whoever makes a log makes its folder and the file without letting others in between.
            with suppress(OSError):
                folder.rmdir()
            await self._rest(began)
        self._log_sizes = total

    async def _forget_revisions(self, before: datetime) -> None:
        """Forget what definitions were before all that is left was matched, and before all that was read of them."""
        async with self._bus.database.acquire() as connection:
            # Ids are not quite in the order of time, so something a little older may be left.
            version = await catalog.version_at(connection, before - YOUNG)
        version = min(version, self._oldest_version, self._definitions.version)
        forgotten = None
        while forgotten != 0:
            began = self._bus.clock.monotonic()
            async with self._bus.transaction() as transaction:
                forgotten = await catalog.delete_revisions(transaction.connection, version, _MOST_ROWS)
            self.account.removed["revision"] += forgotten
            await self._rest(began)

    async def _rest(self, began: float, factor: float = _REST) -> None:
        """Let others go on, the longer the longer something took; take less at once if it took long."""
        took = self._bus.clock.monotonic() - began
        if took > _SLOW:
            self._share = max(self._share / 2, _LEAST_SHARE)
        elif took < _FAST:
            self._share = min(self._share * 2, 1.0)
        await self._bus.clock.sleep(factor * took)


def _few(rows: Sequence[Row]) -> Sequence[Row]:
    """The first of some rows, with which not too many others go: at least one."""
    total = 0
    for index, row in enumerate(rows):
        total += row["rows"]
        if total > _MOST_ROWS and index:
            return rows[:index]
    return rows
