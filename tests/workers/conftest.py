"""A place to run scripts in, and a database for those that need one."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from attune.database.connecting import embedded_url
from attune.database.embedded import Cluster
from attune.database.pool import Database
from tests.workers.parts import Workshop, workshop_in


@pytest.fixture
async def workshop(tmp_path: Path) -> AsyncIterator[Workshop]:
    async with workshop_in(tmp_path) as workshop:
        yield workshop


@pytest.fixture(scope="session")
async def dsn(cluster: Cluster) -> AsyncIterator[str]:
    """The URL of a migrated database that the tests of the worker use one after the other."""
    connection = await asyncpg.connect(embedded_url(cluster.environment()))
    await connection.execute("CREATE DATABASE workers TEMPLATE template")
    yield embedded_url({**cluster.environment(), "PGDATABASE": "workers"})
    await connection.execute("DROP DATABASE workers WITH (FORCE)")
    await connection.close()


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    """A pool on the shared database, in which nothing has happened."""
    database = Database(dsn, max_connections=8, is_remote=False)
    await database.connect()
    async with database.acquire() as connection:
        await connection.execute(
            "TRUNCATE attune.execution, attune.execution_open, attune.enforcement, attune.event, attune.delivery, "
            "attune.trace, attune.dead_letter"
        )
    yield database
    await database.disconnect()
