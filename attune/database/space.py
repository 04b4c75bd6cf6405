"""How much room tables take: exactly what their files take, and about what the rows in them take.

Deleting rows makes no file smaller, it makes room in it for others. So what there is to delete is known by the rows.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from attune.database.pool import Connection

_STRATA = 300
_PROBE = 8
_ROW = 28
"""Bytes of a row beside its columns: its header, and its place in the page."""
_INDEX_ENTRY = 40
"""Bytes of a row in an index, about: a key, its header, and its share of the room that is free in pages."""

# What lies apart because it is large is not read for its size.
_LAYOUT = """
    SELECT (SELECT string_agg(format('coalesce(pg_column_size(%I), 0)', attname), ' + ') FROM pg_attribute
             WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped) AS size,
           (SELECT count(*) FROM pg_index WHERE indrelid = c.oid) AS indexes,
           coalesce((SELECT option_value::int FROM pg_options_to_table(c.reloptions)
                      WHERE option_name = 'fillfactor'), 100) AS fill
      FROM pg_class c
     WHERE c.oid = $1::regclass
"""


class Stratum(NamedTuple):
    """Some rows of a table with neighbouring keys, from `key` on: about how many, the bytes that they and their index
    entries take, and when the first of them was created."""

    key: int
    created: datetime
    rows: int
    bytes: int


async def strata(connection: Connection, table: str, key: str) -> list[Stratum]:
    """A table with a column `created`, in slices by its key; of each a few rows were looked at."""
    name = f"attune.{table}"
    layout = await connection.fetchrow(_LAYOUT, name)
    assert layout is not None, "the table is there"
    rows = await connection.fetch(
        f"""
        WITH ends AS (SELECT min({key}) AS first, max({key}) AS last FROM {name}),
        slices AS (
            SELECT generate_series(first, last, (last - first) / {_STRATA} + 1) AS start,
                   (last - first) / {_STRATA} + 1 AS width
              FROM ends)
        SELECT start, width, count(*) AS rows, sum(found.size) AS size, min(found.created) AS created
          FROM slices
         CROSS JOIN LATERAL (
               SELECT created, {layout["size"]} AS size
                 FROM {name}
                WHERE {key} >= start AND {key} < start + least(width, {_PROBE})) AS found
         GROUP BY start, width
         ORDER BY start
        """
    )
    found = []
    for row in rows:
        share = row["width"] / min(row["width"], _PROBE)
        data = (row["size"] + row["rows"] * _ROW) * 100 / layout["fill"]
        index = row["rows"] * layout["indexes"] * _INDEX_ENTRY
        found.append(Stratum(row["start"], row["created"], round(row["rows"] * share), round((data + index) * share)))
    return found


_DUE = """
    SELECT coalesce((SELECT option_value FROM pg_options_to_table(reloptions) WHERE option_name = name),
                    current_setting(name))::float AS value
      FROM pg_class, unnest(ARRAY['autovacuum_vacuum_threshold', 'autovacuum_vacuum_scale_factor']) AS name
     WHERE oid = $1::regclass
     ORDER BY name DESC
"""


async def vacuum_if_due(connection: Connection, table: str, rows: int, dead: int) -> bool:
    """Vacuum a table if autovacuum would, with so many rows in it and so many dead ones; whether it was."""
    threshold, scale = (row["value"] for row in await connection.fetch(_DUE, f"attune.{table}"))
    if dead <= threshold + scale * rows:
        return False
    await connection.execute(f"VACUUM (ANALYZE) attune.{table}")
    return True


class Files(NamedTuple):
    """The files of a table: what rows and what indexes take in them."""

    table: str
    rows: int
    data: int
    indexes: int


async def files(connection: Connection) -> Sequence[Files]:
    """The files of all tables; the partitions of one count as that one. Rows are what the database estimates."""
    rows = await connection.fetch(
        """
        SELECT coalesce(parent.relname, c.relname)::text AS table, sum(coalesce(s.n_live_tup, 0))::bigint AS rows,
               sum(pg_table_size(c.oid))::bigint AS data, sum(pg_indexes_size(c.oid))::bigint AS indexes
          FROM pg_class c
          LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
          LEFT JOIN pg_class parent ON parent.oid = i.inhparent
          LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
         WHERE c.relnamespace = 'attune'::regnamespace AND c.relkind = 'r'
         GROUP BY 1
         ORDER BY 1
        """
    )
    return [Files(row["table"], row["rows"], row["data"], row["indexes"]) for row in rows]


class Whole(NamedTuple):
    """A database with all that it holds, and the log of its server (None: this user may not ask)."""

    database: int
    wal: int | None


async def whole(connection: Connection) -> Whole:
    """The bytes of the database and of its server's log of changes (WAL)."""
    row = await connection.fetchrow(
        "SELECT pg_database_size(current_database()) AS database, "
        "has_function_privilege('pg_ls_waldir()', 'execute') AS may_ask"
    )
    assert row is not None, "it is one row"
    wal = await connection.fetchval("SELECT sum(size)::bigint FROM pg_ls_waldir()") if row["may_ask"] else None
    return Whole(row["database"], wal)
