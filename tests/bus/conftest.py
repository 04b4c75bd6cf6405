"""The bus of a test. Whatever it does, the sweep must find nothing that was not handed over."""

from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest

from attune.base.clock import Clock
from attune.database.connecting import embedded_url
from attune.database.embedded import Cluster
from attune.database.pool import Database
from tests.bus.parts import Rig
from tests.support.clock import VirtualClock

MakeRig = Callable[..., Rig]


@pytest.fixture(scope="session")
async def shared_dsn(cluster: Cluster) -> AsyncIterator[str]:
    """The URL of a migrated database that the tests of the bus use one after the other: making one takes a while."""
    connection = await asyncpg.connect(embedded_url(cluster.environment()))
    await connection.execute("CREATE DATABASE bus TEMPLATE template")
    yield embedded_url({**cluster.environment(), "PGDATABASE": "bus"})
    await connection.execute("DROP DATABASE bus WITH (FORCE)")
    await connection.close()


@pytest.fixture
async def database(shared_dsn: str) -> AsyncIterator[Database]:
    """A pool on the shared database, with nothing in the tables of the bus."""
    database = Database(shared_dsn, max_connections=8, is_remote=False)
    await database.connect()
    async with database.acquire() as connection:
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS effect (number bigint NOT NULL); DELETE FROM effect; "
            "DELETE FROM attune.delivery; DELETE FROM attune.trace; DELETE FROM attune.dead_letter"
        )
    yield database
    await database.disconnect()


@pytest.fixture
async def make_rig(database: Database) -> AsyncIterator[MakeRig]:
    """Makes buses on one database: several are several lives of a server."""
    rigs: list[Rig] = []

    def make(clock: Clock | None = None, *, on: Database | None = None, max_attempts: int = 5) -> Rig:
        rigs.append(Rig(on or database, clock, max_attempts=max_attempts))
        return rigs[-1]

    yield make
    # Only the last of several lives has to know of everything.
    if rigs:
        assert await rigs[-1].sweep() == 0, "a delivery was never handed over"
    assert [rig.rescued for rig in rigs] == [0] * len(rigs)


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    """A bus on the clock of the machine."""
    return make_rig()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def slow_rig(make_rig: MakeRig, clock: VirtualClock) -> Rig:
    """A bus whose time passes when `clock` says so."""
    return make_rig(clock)
