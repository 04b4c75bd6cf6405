"""Who takes how much room, and up to which moment history has to go to make some."""

import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from attune.base.installation import Installation
from attune.database.pool import Connection
from attune.database.space import Stratum, strata
from attune.upkeep.kept import TABLES
from attune.workers.logs import IN_A_FOLDER

_MOST_FILES = 500_000
_SECTOR = 512


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


@dataclass(slots=True)
class Folder:
    """What the files in a folder take on the disk. `complete` is False when there are more than were counted."""

    name: str
    bytes: int = 0
    files: int = 0
    complete: bool = True


def folders(place: Installation) -> list[Folder]:
    """What each part of a data directory takes; the last is all that is not one of the others."""
    parts = {
        "logs": place.execution_logs,
        "artifacts": place.artifacts,
        "environments": place.environments,
        "packs": place.packs,
        "postgres": place.postgres,
    }
    return [
        *(_weigh(Folder(name), path, frozenset()) for name, path in parts.items()),
        _weigh(Folder("other"), place.data, frozenset(map(str, parts.values()))),
    ]


def _weigh(folder: Folder, path: Path, without: frozenset[str]) -> Folder:
    for file in _files(str(path), without):
        if folder.files == _MOST_FILES:
            folder.complete = False
            break
        folder.files += 1
        folder.bytes += file.st_blocks * _SECTOR
    return folder


def _files(root: str, without: frozenset[str]) -> Iterator[os.stat_result]:
    """The files below a folder, without what may not be looked at or is gone by then."""
    left = [root]
    while left:
        with suppress(OSError), os.scandir(left.pop()) as entries:
            for entry in entries:
                if entry.path in without:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    left.append(entry.path)
                    continue
                with suppress(FileNotFoundError):
                    yield entry.stat(follow_symlinks=False)
