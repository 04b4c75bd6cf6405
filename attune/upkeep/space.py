"""How much room history takes, and up to which moment it has to go to make some."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from attune.database.pool import Connection
from attune.database.space import Stratum, strata
from attune.upkeep.kept import TABLES
from attune.workers.logs import IN_A_FOLDER


@dataclass(frozen=True, slots=True)
class Usage:
    """What history takes, about: its tables in slices, and the logs by the first execution of their folder."""

    tables: Mapping[str, Sequence[Stratum]]
    logs: Mapping[int, int]

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self._pieces())

    def moment(self, excess: int, since: datetime) -> datetime | None:
        """The moment before which about `excess` bytes were created, from `since` on; None if there are less."""
        last = since
        for created, size in sorted(self._pieces()):
            # What was created in the same moment goes together.
            if excess <= 0 and created > last:
                return created
            if created >= since:
                excess -= size
                last = created
        return None

    def _pieces(self) -> Iterable[tuple[datetime, int]]:
        for slices in self.tables.values():
            for one in slices:
                yield one.created, one.bytes
        ran = self.tables["execution"]
        for first, size in self.logs.items():
            start, end = (bisect_left(ran, key, key=lambda one: one.key) for key in (first, first + IN_A_FOLDER))
            slices = ran[start:end] or ran[max(start - 1, 0) : start + 1]
            total = sum(one.rows for one in slices)
            for one in slices:
                yield one.created, size * one.rows // total


async def measure(connection: Connection, logs: Mapping[int, int]) -> Usage:
    """What history takes now, where the logs take this."""
    return Usage({table: await strata(connection, table, key) for table, key in TABLES.items()}, logs)
