"""The statements on `attune.enforcement`."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from attune.base.states import EnforcementStatus
from attune.database.arrays import nullable
from attune.database.paging import Page, Where, Window, fetch_page
from attune.database.pool import Connection, Row
from attune.executions.model import (
    Enforcement,
    NewEnforcement,
)
from attune.executions.notices import ENFORCEMENT_COLUMNS, columns_if

INSERT_ENFORCEMENTS = """
    INSERT INTO attune.enforcement (rule, rule_ref, trigger_ref, event, config, status, correlation_id, causation_id,
    depth,
                                    created)
    SELECT rule, rule_ref, trigger_ref, event, config::jsonb, 'created', correlation_id, causation_id, depth, $1
      FROM unnest($2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::uuid[], $8::uuid[], $9::int[])
        AS new (rule, rule_ref, trigger_ref, event, config, correlation_id, causation_id, depth)
        ON CONFLICT (event, rule) DO NOTHING
    RETURNING id, event, rule
"""

READ_ENFORCEMENTS = """
    SELECT id, rule, rule_ref, event, status, config, (SELECT version FROM attune.definition_version) AS
    definition_version
      FROM attune.enforcement
     WHERE id = ANY($1::bigint[])
"""

# `ANY` beside the join: by that alone the planner would rather read a table of some thousand rows from end to end.
RESOLVE_ENFORCEMENTS = f"""
    UPDATE attune.enforcement AS n
       SET status = $2, reason = new.reason, resolved_at = $4
      FROM unnest($1::bigint[], $3::text[]) AS new (id, reason)
     WHERE n.id = ANY($1::bigint[]) AND n.id = new.id AND n.status = 'created'
    RETURNING n.id, {columns_if("$5::bool", ENFORCEMENT_COLUMNS)}
"""


async def insert_enforcements(
    connection: Connection, new: Sequence[NewEnforcement], now: datetime
) -> dict[tuple[int, int], int]:
    """Create enforcements; ids by (event, rule) of those that did not exist."""
    rows = await connection.fetch(
        INSERT_ENFORCEMENTS,
        now,
        [one.rule for one in new],
        [one.rule_ref for one in new],
        [one.trigger_ref for one in new],
        [one.event for one in new],
        [one.config for one in new],
        [one.cause.correlation_id for one in new],
        nullable([one.cause.causation_id for one in new]),
        [one.cause.depth for one in new],
    )
    return {(row["event"], row["rule"]): row["id"] for row in rows}


async def enforcements_with_version(connection: Connection, ids: Sequence[int]) -> tuple[dict[int, Enforcement], int]:
    """Enforcements by id, and the version of the definitions at the moment of reading (-1 without enforcements)."""
    rows = await connection.fetch(READ_ENFORCEMENTS, ids)
    found = {
        row["id"]: Enforcement(
            row["id"],
            row["rule"],
            row["rule_ref"],
            row["event"],
            EnforcementStatus(row["status"]),
            row["config"],
        )
        for row in rows
    }
    return found, rows[0]["definition_version"] if rows else -1


async def resolve_enforcements(
    connection: Connection,
    status: EnforcementStatus,
    reasons: Mapping[int, str | None],
    now: datetime,
    *,
    watched: bool = False,
) -> Sequence[Row]:
    """Close enforcements, by id, for a reason each: the id, and if `watched` what live views show, of those that were
    not closed."""
    given = nullable(list(reasons.values()))
    return await connection.fetch(RESOLVE_ENFORCEMENTS, list(reasons), status.value, given, now, watched)


_ENFORCEMENT_SUMMARY = """
    n.id, n.rule, n.rule_ref, n.trigger_ref, n.event, n.status, n.reason, n.correlation_id, n.created,
    n.resolved_at
"""


async def enforcements_page(connection: Connection, where: Where, window: Window) -> Page:
    """A page of enforcements `n`, the newest first."""
    return await fetch_page(
        connection, _ENFORCEMENT_SUMMARY, "attune.enforcement n", where, window, cursor="n.id", descending=True
    )


async def enforcement_row(connection: Connection, enforcement_id: int) -> Row | None:
    """Everything about one enforcement, the payload of its event, its execution, and the version of its rule."""
    return await connection.fetchrow(
        f"""
        SELECT {_ENFORCEMENT_SUMMARY}, n.config, v.payload, m.definition_version, e.id AS execution, e.action_ref
          FROM attune.enforcement n
          LEFT JOIN attune.event v ON v.id = n.event
          LEFT JOIN attune.event_match m ON m.event = n.event
          LEFT JOIN attune.execution e
            ON e.enforcement = n.id AND e.parent IS NULL AND e.original_execution IS NULL
         WHERE n.id = $1
        """,
        enforcement_id,
    )


async def not_resolved(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Those of some enforcements of which nothing has become so far."""
    rows = await connection.fetch(
        "SELECT id FROM attune.enforcement WHERE id = ANY($1::bigint[]) AND status = 'created'", ids
    )
    return {row["id"] for row in rows}
