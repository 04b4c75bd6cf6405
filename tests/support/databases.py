"""Databases for tests that need more than one, or one for a whole module."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import asyncpg

from attune.database.connecting import embedded_url
from attune.database.embedded import Cluster
from attune.database.pool import Database

_numbers = count(1)


@asynccontextmanager
async def new_database(cluster: Cluster, template: str = "template") -> AsyncIterator[str]:
    """The URL of a database, migrated unless another template is named, which is dropped afterwards."""
    name = f"made_{next(_numbers)}"
    connection = await asyncpg.connect(embedded_url(cluster.environment()))
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield embedded_url({**cluster.environment(), "PGDATABASE": name})
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()


@asynccontextmanager
async def pool_on(dsn: str, *, max_connections: int = 8, acquire_timeout: float = 10) -> AsyncIterator[Database]:
    """A pool of connections to a database."""
    database = Database(dsn, max_connections=max_connections, is_remote=False, acquire_timeout=acquire_timeout)
    await database.connect()
    try:
        yield database
    finally:
        await database.disconnect()
