"""Too little room is noticed before there is none, and is over when there is enough again."""

from pathlib import Path

import asyncpg
import pytest

from attune.database.pool import Database, DatabaseUnavailable, StorageFull
from attune.database.storage import Storage, free_bytes
from tests.support.clock import VirtualClock

MB = 1_000_000
DATA, POSTGRES = Path("/data"), Path("/data/postgres")


class Disks:
    """Directories, each on a disk of its own."""

    def __init__(self) -> None:
        self.free = {DATA: 900 * MB, POSTGRES: 900 * MB}

    def __call__(self, directory: Path) -> int:
        if directory not in self.free:
            raise FileNotFoundError(directory)
        return self.free[directory]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def disks() -> Disks:
    return Disks()


@pytest.fixture
def storage(clock: VirtualClock, disks: Disks) -> Storage:
    """At least 500 MB must be free."""
    return Storage([DATA, POSTGRES], 500 * MB, clock, disks)


def refusal(storage: Storage) -> StorageFull:
    found = storage.refusal()
    assert found is not None
    return found


async def test_it_is_too_little_until_a_tenth_more_than_the_least_is_free(storage: Storage, disks: Disks) -> None:
    had_room = []
    for free in (500, 499, 500, 549, 550, 500, 499):
        disks.free[DATA] = free * MB
        await storage.look()
        had_room.append(storage.has_room())

    assert had_room == [True, False, False, False, True, True, False]


async def test_each_disk_is_judged_for_itself(storage: Storage, disks: Disks) -> None:
    disks.free = {DATA: 499 * MB, POSTGRES: 520 * MB}
    await storage.look()
    assert str(DATA) in refusal(storage).message

    disks.free[DATA] = 550 * MB
    await storage.look()
    assert storage.has_room()


async def test_a_refusal_names_the_directory_what_is_left_and_what_is_needed(storage: Storage, disks: Disks) -> None:
    disks.free[POSTGRES] = 123 * MB
    await storage.look()

    said = refusal(storage).message

    assert said.startswith(
        f"Only 123 MB are free for {POSTGRES}, and storage.min_free is 500 MB. Make room: with 550 MB"
    )
    assert storage.free == 123 * MB


async def test_with_0_the_disk_may_fill(clock: VirtualClock, disks: Disks) -> None:
    storage = Storage([DATA], 0, clock, disks)
    disks.free[DATA] = 0

    await storage.look()

    assert storage.has_room()
    assert storage.free == 0


async def test_what_cannot_be_looked_at_keeps_nobody_from_working(storage: Storage, disks: Disks) -> None:
    del disks.free[POSTGRES]
    await storage.look()
    assert storage.has_room()

    disks.free.clear()
    await storage.look()
    assert storage.has_room()
    assert storage.free is None


async def test_what_is_free_is_what_the_system_says(tmp_path: Path) -> None:
    assert 0 < free_bytes(tmp_path) < 10**18


async def test_a_database_without_room_is_left_in_peace_for_ten_seconds(
    database: Database, clock: VirtualClock, storage: Storage
) -> None:
    database.tell_when_full(storage.denied)
    assert storage.has_room()

    with pytest.raises(StorageFull, match="No space left") as full:
        await fill(database)
    assert isinstance(full.value, DatabaseUnavailable)
    assert isinstance(full.value.__cause__, asyncpg.DiskFullError)
    assert full.value.retry_after == refusal(storage).retry_after == 10

    clock.advance(9.9)
    assert not storage.has_room()
    clock.advance(0.1)
    assert storage.has_room()


async def fill(database: Database) -> None:
    """What PostgreSQL says when its disk is full."""
    async with database.acquire() as connection:
        await connection.execute("DO $$ BEGIN RAISE EXCEPTION 'No space left' USING ERRCODE = '53100'; END $$")
