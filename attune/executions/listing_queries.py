"""Executions as they are read for people: pages of them, one with all about it, what runs, what fails."""

from collections.abc import Sequence
from datetime import datetime

from attune.database.paging import Page, Where, Window, fetch_page
from attune.database.pool import Connection, Row
from attune.executions.queries import COLUMNS, WITH_ENFORCEMENT

_SUMMARY = """
    e.id, e.action_ref, e.status, e.parent, e.enforcement, n.rule_ref, n.trigger_ref, n.event, e.original_execution,
    e.retry_count, e.retry_reason, e.not_before, turn.execution AS turn_of, e.worker, e.correlation_id, e.created,
    e.started_at, e.finished_at, e.updated
"""

_WITH_TURN = f"{WITH_ENFORCEMENT} LEFT JOIN attune.rule_turn turn ON turn.rule = n.rule"


async def executions_page(connection: Connection, where: Where, window: Window) -> Page:
    """A page of executions, the newest first. Conditions are on `e` and its enforcement `n`."""
    return await fetch_page(connection, _SUMMARY, _WITH_TURN, where, window, cursor="e.id", descending=True)


async def execution_row(connection: Connection, execution_id: int) -> Row | None:
    """Everything about one execution, the rule, trigger and event that it comes from, who has the turn of the rule
    (turn_of), and its newest other attempt (retried_as), if that came later."""
    return await connection.fetchrow(
        f"""
        SELECT {COLUMNS}, n.rule_ref, n.trigger_ref, turn.execution AS turn_of,
               (SELECT max(r.id) FROM attune.execution r
                 WHERE r.original_execution = CASE WHEN e.retry_count > 0 THEN e.original_execution ELSE e.id END
                   AND r.retry_count > e.retry_count) AS retried_as
          FROM {_WITH_TURN}
         WHERE e.id = $1
        """,
        execution_id,
    )


async def running(connection: Connection, limit: int) -> Sequence[Row]:
    """What runs longest in a worker: id, action_ref, rule_ref, status, started_at."""
    return await connection.fetch(
        f"""
        SELECT e.id, e.action_ref, n.rule_ref, e.status, e.started_at
          FROM attune.execution_open o JOIN {WITH_ENFORCEMENT} ON e.id = o.execution
         WHERE e.status IN ('running', 'canceling') AND e.worker IS NOT NULL
         ORDER BY e.started_at, e.id
         LIMIT $1
        """,
        limit,
    )


FAILING = """
    WITH bad AS (
        SELECT action_ref, rule_ref, count(*) AS count, max(execution) AS execution, max(failed) AS enforcement,
               max(at) AS newest
          FROM (SELECT e.action_ref, n.rule_ref, e.id AS execution, NULL::bigint AS failed, e.finished_at AS at
                  FROM (SELECT * FROM attune.execution ORDER BY id DESC LIMIT $2) AS e
                  LEFT JOIN attune.enforcement n ON n.id = e.enforcement
                 WHERE e.status IN ('failed', 'timeout', 'abandoned') AND e.finished_at >= $1
                 UNION ALL
                SELECT NULL, rule_ref, NULL, id, resolved_at
                  FROM (SELECT * FROM attune.enforcement ORDER BY id DESC LIMIT $2) AS n
                 WHERE status = 'failed' AND resolved_at >= $1) AS one
         GROUP BY action_ref, rule_ref
         ORDER BY count(*) DESC, max(at) DESC
         LIMIT $3
    )
    SELECT bad.*, left(coalesce(e.result ->> 'error', n.reason), 300) AS error
      FROM bad
      LEFT JOIN attune.execution e ON e.id = bad.execution
      LEFT JOIN attune.enforcement n ON n.id = bad.enforcement
     ORDER BY bad.count DESC, bad.newest DESC
"""


async def failing(connection: Connection, since: datetime, among: int, limit: int) -> Sequence[Row]:
    """Actions and rules that failed since a moment, among so many of the newest executions and enforcements, the most
    frequent first: action_ref (None: the rule's parameters could not be filled in), rule_ref, count, execution and
    enforcement (the newest of them), newest, error."""
    return await connection.fetch(FAILING, since, among, limit)
