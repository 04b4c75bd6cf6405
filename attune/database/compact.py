"""Making the files of tables smaller: they are written anew, and nobody can use them meanwhile."""

from collections.abc import Callable
from typing import NamedTuple

import asyncpg

from attune.base.errors import StartError

_TABLES = """
    SELECT c.relname AS name, pg_total_relation_size(c.oid) AS size
      FROM pg_class c
     WHERE c.relnamespace = 'attune'::regnamespace AND c.relkind = 'r'
     ORDER BY size, name
"""
_WORTH_A_WORD = 10_000_000
_MAY_CHECKPOINT = "SELECT pg_has_role('pg_checkpoint', 'usage')"


class Shrunk(NamedTuple):
    """Bytes that a table took with its indexes, and takes now."""

    before: int
    after: int


async def compact(dsn: str, free: int | None, say: Callable[[str], None]) -> dict[str, Shrunk]:
    """Write all tables anew, the small ones first, and tell what each has become.

    Raises StartError when a table might need more than `free` bytes for its copy (None: nobody knows), or when the
    database fails; each table is then whole, in one form or the other.
    """
    try:
        connection = await asyncpg.connect(dsn, timeout=10, server_settings={"application_name": "attune compact"})
        try:
            return await _compact(connection, free, say)
        finally:
            await connection.close()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StartError(f"The database failed while it was compacted, and lost nothing: {error}") from error


async def _compact(connection: asyncpg.Connection, free: int | None, say: Callable[[str], None]) -> dict[str, Shrunk]:
    tables = {row["name"]: row["size"] for row in await connection.fetch(_TABLES)}
    largest = max(tables, key=tables.__getitem__, default="")
    if free is not None and largest and tables[largest] > free:
        raise StartError(
            f"The table {largest} takes {tables[largest] // 1_000_000} MB, its copy may take as much, and "
            f"{free // 1_000_000} MB are free. Make room, or let retention remove more first."
        )
    for name, size in tables.items():
        if size > _WORTH_A_WORD:
            say(f"compacting {name}, {size / 1_000_000:,.0f} MB …")
        await connection.execute(f'VACUUM (FULL, ANALYZE) attune."{name}"')
    if await connection.fetchval(_MAY_CHECKPOINT):
        # Only then the old files are gone.
        await connection.execute("CHECKPOINT")
    now = {row["name"]: row["size"] for row in await connection.fetch(_TABLES)}
    return {name: Shrunk(size, now[name]) for name, size in sorted(tables.items())}
