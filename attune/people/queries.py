"""The statements on `attune.inquiry`. Whoever locks an inquiry and its execution locks the inquiry first."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from attune.base.json import Json, dumps, loads
from attune.bus.messages import Cause
from attune.database.arrays import nullable
from attune.database.paging import Page, Where, Window, fetch_page
from attune.database.pool import Connection, Row, affected
from attune.people.model import Inquiry, InquiryStatus, NewInquiry, Question

COLUMNS = """
    i.id, i.execution, i.waits, i.prompt, i.response_schema, i.assigned_to, i.context, i.status, i.response,
    i.responded_by, i.timeout_at, i.responded_at, i.correlation_id, i.causation_id, i.depth, i.created, i.updated
"""

INSERT = """
    INSERT INTO attune.inquiry (execution, waits, prompt, response_schema, assigned_to, context, timeout_at, status,
                                correlation_id, causation_id, depth, created, updated)
    SELECT execution, waits, prompt, response_schema::jsonb, assigned_to, context::jsonb, timeout_at, 'pending',
           correlation_id, causation_id, depth, $1, $1
      FROM unnest($2::bigint[], $3::bool[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::timestamptz[],
                  $9::uuid[], $10::uuid[], $11::int[])
        AS new (execution, waits, prompt, response_schema, assigned_to, context, timeout_at, correlation_id,
                causation_id, depth)
    RETURNING id, execution
"""

LOCK_DUE = f"""
    SELECT {COLUMNS}
      FROM attune.inquiry i
     WHERE i.status = 'pending' AND i.timeout_at <= $1
     ORDER BY i.timeout_at
     LIMIT $2
       FOR UPDATE
"""

NEXT_DUE = """
    SELECT timeout_at FROM attune.inquiry
     WHERE status = 'pending' AND timeout_at IS NOT NULL
     ORDER BY timeout_at
     LIMIT 1
"""

OPEN_CHAINS = """
    SELECT correlation_id FROM attune.inquiry WHERE correlation_id = ANY($1::uuid[]) AND status = 'pending'
"""


READ = f"SELECT {COLUMNS} FROM attune.inquiry i WHERE i.id = ANY($1::bigint[])"

OF_EXECUTIONS = f"SELECT {COLUMNS} FROM attune.inquiry i WHERE i.execution = ANY($1::bigint[]) ORDER BY i.id"

DELETE_OF_EXECUTIONS = "DELETE FROM attune.inquiry WHERE execution = ANY($1::bigint[])"


async def insert(connection: Connection, new: Sequence[NewInquiry], now: datetime) -> dict[int, int]:
    """Ask questions, one of each execution; their ids by execution."""
    questions = [one.question for one in new]
    rows = await connection.fetch(
        INSERT,
        now,
        [one.execution for one in new],
        [one.waits for one in new],
        [question.prompt for question in questions],
        nullable([_text(question.response_schema) for question in questions]),
        nullable([question.assigned_to for question in questions]),
        nullable([_text(question.context) for question in questions]),
        nullable([question.timeout_at for question in questions]),
        [one.cause.correlation_id for one in new],
        nullable([one.cause.causation_id for one in new]),
        [one.cause.depth for one in new],
    )
    return {row["execution"]: row["id"] for row in rows}


async def lock(connection: Connection, inquiry_id: int) -> Inquiry | None:
    """The inquiry with that id, which nobody else changes until this transaction ends."""
    row = await connection.fetchrow(f"SELECT {COLUMNS} FROM attune.inquiry i WHERE i.id = $1 FOR UPDATE", inquiry_id)
    return None if row is None else _inquiry(row)


async def inquiry(connection: Connection, inquiry_id: int) -> Inquiry | None:
    """The inquiry with that id."""
    return (await inquiries(connection, [inquiry_id])).get(inquiry_id)


async def inquiries(connection: Connection, ids: Sequence[int]) -> dict[int, Inquiry]:
    """Inquiries by id."""
    rows = await connection.fetch(READ, ids)
    return {row["id"]: _inquiry(row) for row in rows}


async def of_executions(connection: Connection, executions: Sequence[int]) -> list[Inquiry]:
    """What executions have asked, the oldest first."""
    return [_inquiry(row) for row in await connection.fetch(OF_EXECUTIONS, executions)]


async def page(connection: Connection, where: Where, window: Window) -> tuple[Page, list[Inquiry]]:
    """A page of inquiries `i`, the newest first."""
    found = await fetch_page(connection, COLUMNS, "attune.inquiry i", where, window, cursor="i.id", descending=True)
    return found, [_inquiry(row) for row in found.rows]


async def count_pending(connection: Connection) -> int:
    """How many questions wait for their answers."""
    count: int = await connection.fetchval("SELECT count(*) FROM attune.inquiry WHERE status = 'pending'")
    return count


async def respond(connection: Connection, inquiry_id: int, response: Json, by: str, now: datetime) -> None:
    """Answer an inquiry that is locked."""
    await connection.execute(
        """
        UPDATE attune.inquiry
           SET status = 'responded', response = $2::jsonb, responded_by = $3, responded_at = $4, updated = $4
         WHERE id = $1 AND status = 'pending'
        """,
        inquiry_id,
        dumps(response),
        by,
        now,
    )


async def close(connection: Connection, ids: Sequence[int], status: InquiryStatus, now: datetime) -> None:
    """End inquiries without an answer."""
    await connection.execute(
        "UPDATE attune.inquiry SET status = $2, updated = $3 WHERE id = ANY($1::bigint[]) AND status = 'pending'",
        ids,
        status.value,
        now,
    )


async def close_of(connection: Connection, execution: int, now: datetime) -> list[Inquiry]:
    """Withdraw what an execution has asked; the questions that were open."""
    rows = await connection.fetch(
        f"""
        UPDATE attune.inquiry AS i SET status = 'cancelled', updated = $2
         WHERE i.execution = $1 AND i.status = 'pending'
        RETURNING {COLUMNS}
        """,
        execution,
        now,
    )
    return [_inquiry(row) for row in rows]


async def assign(connection: Connection, inquiry_id: int, identity: int | None, now: datetime) -> None:
    """Let only this identity answer, or everybody who may answer at all."""
    await connection.execute(
        "UPDATE attune.inquiry SET assigned_to = $2, updated = $3 WHERE id = $1", inquiry_id, identity, now
    )


async def delete(connection: Connection, inquiry_id: int) -> None:
    """Forget an inquiry."""
    await connection.execute("DELETE FROM attune.inquiry WHERE id = $1", inquiry_id)


async def lock_due(connection: Connection, now: datetime, limit: int) -> list[Inquiry]:
    """Open inquiries whose time is over, locked, those first that are so for longest."""
    return [_inquiry(row) for row in await connection.fetch(LOCK_DUE, now, limit)]


async def next_due(connection: Connection) -> datetime | None:
    """When the time of an open inquiry is over next."""
    at: datetime | None = await connection.fetchval(NEXT_DUE)
    return at


async def open_chains(connection: Connection, chains: Sequence[UUID]) -> set[UUID]:
    """Those of some chains in which a question is open."""
    return {row["correlation_id"] for row in await connection.fetch(OPEN_CHAINS, chains)}


async def delete_of_executions(connection: Connection, executions: Sequence[int]) -> int:
    """Forget what executions have asked; how many questions that were."""
    return affected(await connection.execute(DELETE_OF_EXECUTIONS, executions))


def _text(value: Json) -> str | None:
    return None if value is None else dumps(value)


def _inquiry(row: Row) -> Inquiry:
    return Inquiry(
        id=row["id"],
        execution=row["execution"],
        question=Question(
            row["prompt"],
            loads(row["response_schema"]),
            row["assigned_to"],
            loads(row["context"]),
            row["timeout_at"],
        ),
        waits=row["waits"],
        status=InquiryStatus(row["status"]),
        response=loads(row["response"]),
        responded_by=row["responded_by"],
        responded_at=row["responded_at"],
        cause=Cause(row["correlation_id"], row["causation_id"], row["depth"]),
        created=row["created"],
        updated=row["updated"],
    )
