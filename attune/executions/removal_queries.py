"""What retention removes of executions and enforcements, and what keeps it from doing so."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from attune.database.pool import Connection, Row, affected

# Scalar subqueries, here and below: a join, or an EXISTS, would be free to read the whole table.
OPEN_CHAINS = """
    SELECT DISTINCT correlation_id
      FROM (SELECT (SELECT correlation_id FROM attune.execution WHERE id = execution) AS correlation_id
              FROM attune.execution_open) AS unfinished
     WHERE correlation_id = ANY($1::uuid[])
"""


async def open_chains(connection: Connection, chains: Sequence[UUID]) -> set[UUID]:
    """Those of some chains of which an execution has not ended."""
    return {row["correlation_id"] for row in await connection.fetch(OPEN_CHAINS, chains)}


OLDEST_EXECUTIONS = """
    SELECT e.id, e.correlation_id, e.created, 1 AS rows,
           e.finished_at IS NULL OR e.finished_at >= $2
           OR (e.is_first AND coalesce((SELECT true FROM attune.enforcement WHERE id = e.enforcement), false))
           AS is_needed
      FROM (SELECT id, correlation_id, created, finished_at, enforcement,
                   parent IS NULL AND original_execution IS NULL AS is_first
              FROM attune.execution
             WHERE id > $1
             ORDER BY id
             LIMIT $3) AS e
     ORDER BY e.id
"""


async def oldest_executions(connection: Connection, after: int, before: datetime, limit: int) -> Sequence[Row]:
    """The first executions after an id: id, correlation_id, created, rows, is_needed (it has not ended before that
    moment, or is what became of an enforcement that is still there)."""
    return await connection.fetch(OLDEST_EXECUTIONS, after, before, limit)


async def delete_executions(connection: Connection, ids: Sequence[int]) -> int:
    """Forget executions that have ended; how many there were."""
    return affected(await connection.execute("DELETE FROM attune.execution WHERE id = ANY($1::bigint[])", ids))


DELETE_ENFORCEMENTS = "DELETE FROM attune.enforcement WHERE event = ANY($1::bigint[]) RETURNING id"

DELETE_FIRST_EXECUTIONS = """
    DELETE FROM attune.execution
     WHERE enforcement = ANY($1::bigint[]) AND parent IS NULL AND original_execution IS NULL
    RETURNING id
"""


async def delete_of_events(connection: Connection, events: Sequence[int]) -> tuple[int, list[int]]:
    """Forget what became of events: how many enforcements that were, and the ids of their executions."""
    enforcements = [row["id"] for row in await connection.fetch(DELETE_ENFORCEMENTS, events)]
    rows = await connection.fetch(DELETE_FIRST_EXECUTIONS, enforcements)
    return len(enforcements), [row["id"] for row in rows]


async def existing(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Those of some executions that there are."""
    rows = await connection.fetch("SELECT id FROM attune.execution WHERE id = ANY($1::bigint[])", ids)
    return {row["id"] for row in rows}
