"""Rows as the pipeline leaves them behind, of any age."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from attune.database.ids import uuid7
from attune.database.pool import Database


class Story(NamedTuple):
    """An event, and what became of it."""

    event: int
    enforcement: int
    execution: int
    chain: UUID


async def happened(
    database: Database,
    at: datetime,
    *,
    ended_at: datetime | None = None,
    chain: UUID | None = None,
    version: int = 1,
    payload: str = "{}",
    rules: int = 1,
) -> Story:
    """An event of that moment that matched so many rules, with executions that have ended; the last of them is told."""
    chain = chain or uuid7()
    async with database.acquire() as connection:
        event = await connection.fetchval(
            """
            INSERT INTO attune.event (trigger, trigger_ref, source_ref, payload, correlation_id, depth, created)
            VALUES (1, 'shop.sold', 'test', $1, $2, 0, $3) RETURNING id
            """,
            payload,
            chain,
            at,
        )
        await connection.execute(
            "INSERT INTO attune.event_match (event, definition_version, rules, matched, failed, created) "
            "VALUES ($1, $2, 1, 1, 0, $3)",
            event,
            version,
            at,
        )
        row = await connection.fetchrow(
            """
            WITH matched AS (
                INSERT INTO attune.enforcement (rule, rule_ref, trigger_ref, event, config, status, correlation_id,
                                                depth, created, resolved_at)
                SELECT rule, 'shop.tell', 'shop.sold', $1, '{}', 'processed', $2, 1, $3, $3
                  FROM generate_series(1, $5) AS rule
                RETURNING id
            ), ran AS (
                INSERT INTO attune.execution (action_ref, config, status, correlation_id, depth, created, updated,
                                              finished_at, enforcement)
                SELECT 'core.noop', '{}', 'completed', $2, 2, $3, $3, $4, id FROM matched
                RETURNING id, enforcement
            )
            SELECT id, enforcement FROM ran ORDER BY id DESC LIMIT 1
            """,
            event,
            chain,
            at,
            ended_at or at,
            rules,
        )
    assert row is not None, "it matched"
    return Story(event, row["enforcement"], row["id"], chain)


async def ran(
    database: Database,
    at: datetime,
    *,
    ended_at: datetime | None = None,
    chain: UUID | None = None,
    parent: int | None = None,
    original: int | None = None,
    is_open: bool = False,
) -> int:
    """An execution of that moment, which no event led to."""
    async with database.acquire() as connection:
        execution: int = await connection.fetchval(
            """
            INSERT INTO attune.execution (action_ref, config, status, correlation_id, depth, created, updated,
                                          finished_at, parent, original_execution)
            VALUES ('core.noop', '{}', $1, $2, 2, $3, $3, $4, $5, $6) RETURNING id
            """,
            "running" if is_open else "completed",
            chain or uuid7(),
            at,
            None if is_open else ended_at or at,
            parent,
            original,
        )
        if is_open:
            await connection.execute("INSERT INTO attune.execution_open (execution) VALUES ($1)", execution)
    return execution


async def asks(database: Database, at: datetime, execution: int, chain: UUID, *, status: str = "pending") -> int:
    """An inquiry of an execution."""
    async with database.acquire() as connection:
        number: int = await connection.fetchval(
            """
            INSERT INTO attune.inquiry (execution, waits, prompt, status, correlation_id, depth, created, updated)
            VALUES ($1, false, 'Shall we?', $2, $3, 3, $4, $4) RETURNING id
            """,
            execution,
            status,
            chain,
            at,
        )
    return number


async def waits(database: Database, at: datetime, chain: UUID | None = None, *, count: int = 1) -> None:
    """Deliveries that nobody has taken."""
    async with database.acquire() as connection:
        await connection.execute(
            """
            INSERT INTO attune.delivery (queue, message_id, correlation_id, depth, message_type, version, source,
                                         payload, published_at, available_at, attempt)
            SELECT 'q', gen_random_uuid(), $1, 0, 'EventCreated', '1.0', 'test', '{}', $2, $2, 1
              FROM generate_series(1, $3)
            """,
            chain or uuid7(),
            at,
            count,
        )


async def died(database: Database, at: datetime, chain: UUID | None = None, *, subject: str | None = None) -> int:
    """The number of a dead letter of that moment."""
    async with database.acquire() as connection:
        number: int = await connection.fetchval(
            """
            INSERT INTO attune.dead_letter (queue, message_id, correlation_id, depth, message_type, version, source,
                                            payload, subject, attempts, error, published_at, created)
            VALUES ('q', gen_random_uuid(), $1, 0, 'EventCreated', '1.0', 'test', '{}', $2, 5, 'no', $3, $3)
            RETURNING id
            """,
            chain or uuid7(),
            subject,
            at,
        )
    return number
