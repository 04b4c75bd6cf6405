"""The statements on `attune.alert`."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from attune.database.pool import Connection, Row


class Raised(NamedTuple):
    """An alert that was raised: its newest event, and the chain of all of them."""

    kind: str
    subject: str
    event: int
    correlation_id: UUID


async def alerts(connection: Connection, about: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Row]:
    """The alerts about some kinds and subjects that were raised before: correlation_id, raised."""
    rows = await connection.fetch(
        """
        SELECT kind, subject, correlation_id, raised
          FROM attune.alert
         WHERE (kind, subject) IN (SELECT * FROM unnest($1::text[], $2::text[]))
        """,
        [kind for kind, _ in about],
        [subject for _, subject in about],
    )
    return {(row["kind"], row["subject"]): row for row in rows}


async def put_alerts(connection: Connection, raised: Sequence[Raised], now: datetime) -> None:
    """Note that alerts were raised, each named once."""
    await connection.execute(
        """
        INSERT INTO attune.alert (kind, subject, event, correlation_id, raised)
        SELECT kind, subject, event, correlation_id, $1
          FROM unnest($2::text[], $3::text[], $4::bigint[], $5::uuid[]) AS new (kind, subject, event, correlation_id)
            ON CONFLICT (kind, subject) DO UPDATE SET event = excluded.event, raised = excluded.raised
        """,
        now,
        *zip(*raised, strict=True),
    )


async def forget_alerts(connection: Connection, before: datetime) -> None:
    """Forget alerts that were raised before a moment, and whose events are gone."""
    await connection.execute(
        """
        DELETE FROM attune.alert AS a
         WHERE raised < $1 AND (SELECT true FROM attune.event WHERE id = a.event) IS NULL
        """,
        before,
    )


async def long_streaks(connection: Connection, failures: int, before: datetime, limit: int) -> Sequence[Row]:
    """The rules and the actions that have failed at least so often in a row, and about which no alert was raised since
    a moment, and none since the last failure: kind, ref, failures, first, last, execution, error."""
    return await connection.fetch(
        """
        SELECT s.kind, s.ref, s.failures, s.first, s.last, s.execution,
               (SELECT left(result ->> 'error', 300) FROM attune.execution WHERE id = s.execution) AS error
          FROM attune.streak s
          LEFT JOIN attune.alert a ON a.kind = 'failing_' || s.kind AND a.subject = s.kind || ':' || s.ref
         WHERE s.failures >= $1 AND (a.raised IS NULL OR (a.raised <= $2 AND a.raised < s.last))
         ORDER BY s.last
         LIMIT $3
        """,
        failures,
        before,
        limit,
    )
