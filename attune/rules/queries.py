"""The statements on `attune.event_match` and `attune.loop`, and those that say what became of an event."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from attune.database.pool import Connection, Row, affected
from attune.rules.loops import Firing

INSERT_MATCHES = """
    INSERT INTO attune.event_match (event, definition_version, rules, matched, failed, created)
    SELECT event, $1, rules, matched, failed, $2
      FROM unnest($3::bigint[], $4::int[], $5::int[], $6::int[]) AS new (event, rules, matched, failed)
        ON CONFLICT (event) DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class EventMatch:
    """How many rules the matcher evaluated for an event, found matching, and could not evaluate."""

    event: int
    rules: int
    matched: int
    failed: int


async def insert_matches(connection: Connection, matches: Sequence[EventMatch], version: int, now: datetime) -> None:
    """Record what the matcher did with events, and the version of the definitions that it saw."""
    await connection.execute(
        INSERT_MATCHES,
        version,
        now,
        [one.event for one in matches],
        [one.rules for one in matches],
        [one.matched for one in matches],
        [one.failed for one in matches],
    )


async def insert_no_match(connection: Connection, event: int, note: str, now: datetime) -> bool:
    """Record why no rule was asked about an event; False when the matcher took it, or there is none."""
    status = await connection.execute(
        """
        INSERT INTO attune.event_match (event, definition_version, rules, matched, failed, note, created)
        SELECT event.id, version, 0, 0, 0, $2, $3 FROM attune.event, attune.definition_version WHERE event.id = $1
            ON CONFLICT (event) DO NOTHING
        """,
        event,
        note,
        now,
    )
    return status == "INSERT 0 1"


# Lateral subqueries that stand by themselves (OFFSET 0): a join would be free to read the whole table.
ANCESTORS = """
    WITH RECURSIVE up AS (
        SELECT id AS event, execution, NULL::bigint AS rule, NULL::bigint AS fired, NULL::timestamptz AS at, 0 AS step
          FROM attune.event
         WHERE id = ANY($1::bigint[])
         UNION ALL
        SELECT up.event, coalesce(e.parent, v.execution), n.rule, e.id, v.created, step + 1
          FROM up
         CROSS JOIN LATERAL (SELECT id, parent, enforcement FROM attune.execution WHERE id = up.execution OFFSET 0) AS e
          LEFT JOIN LATERAL (SELECT rule, event FROM attune.enforcement
                              WHERE id = e.enforcement AND e.parent IS NULL OFFSET 0) AS n ON true
          LEFT JOIN LATERAL (SELECT execution, created FROM attune.event WHERE id = n.event OFFSET 0) AS v ON true
         WHERE step < $3 AND (up.at IS NULL OR up.at >= $2)
    )
    SELECT event, rule, fired, at FROM up WHERE at IS NOT NULL ORDER BY event, step
"""


async def ancestors(connection: Connection, ids: Sequence[int], since: datetime, steps: int) -> dict[int, list[Firing]]:
    """The rules that have led to some events, and to those that caused these, the newest first: back to a moment, and
    at most so many executions."""
    found: dict[int, list[Firing]] = {}
    for row in await connection.fetch(ANCESTORS, ids, since, steps):
        found.setdefault(row["event"], []).append(Firing(row["rule"], row["fired"], row["at"]))
    return found


async def note_loops(connection: Connection, stopped: Sequence[tuple[str, int, UUID]], now: datetime) -> None:
    """Note rules that were stopped, for which events and in which chains, until an alert tells of it; but not what an
    alert has caused."""
    await connection.execute(
        """
        INSERT INTO attune.loop AS l (rule_ref, stopped, first, last, event)
        SELECT rule_ref, count(*), $1, $1, max(event)
          FROM unnest($2::text[], $3::bigint[], $4::uuid[]) AS new (rule_ref, event, correlation_id)
         WHERE (SELECT true FROM attune.alert WHERE correlation_id = new.correlation_id) IS NULL
         GROUP BY rule_ref
         ORDER BY rule_ref
            ON CONFLICT (rule_ref) DO UPDATE
           SET stopped = l.stopped + excluded.stopped, last = excluded.last, event = excluded.event
        """,
        now,
        *zip(*stopped, strict=True),
    )


async def take_loops(connection: Connection, before: datetime, limit: int) -> Sequence[Row]:
    """The rules that were stopped and about which no alert was raised since a moment, of whom it is told now: rule_ref,
    stopped (how often), first, last, event."""
    return await connection.fetch(
        """
        DELETE FROM attune.loop
         WHERE rule_ref = ANY(ARRAY(
               SELECT rule_ref FROM attune.loop AS l
                WHERE coalesce((SELECT raised <= $1 FROM attune.alert
                                 WHERE kind = 'loop' AND subject = 'rule:' || l.rule_ref), true)
                ORDER BY last
                LIMIT $2))
        RETURNING rule_ref, stopped, first, last, event
        """,
        before,
        limit,
    )


async def seen_by_matcher(connection: Connection, event: int) -> Row | None:
    """What the matcher did with an event, as in `matches`; None before that."""
    (row,) = await matches(connection, [event]) or (None,)
    return row


async def matches(connection: Connection, ids: Sequence[int]) -> Sequence[Row]:
    """What the matcher did with those of some events that it took: event, definition_version, rules, matched, failed,
    note (why no rule was asked, if so), created."""
    return await connection.fetch("SELECT * FROM attune.event_match WHERE event = ANY($1::bigint[])", ids)


async def effects(connection: Connection, ids: Sequence[int]) -> Sequence[Row]:
    """The enforcements of some events: event, rule, id, reason."""
    return await connection.fetch(
        "SELECT event, rule, id, reason FROM attune.enforcement WHERE event = ANY($1::bigint[])", ids
    )


_NEWEST_ATTEMPT = """
          LEFT JOIN attune.execution first
            ON first.enforcement = n.id AND first.parent IS NULL AND first.original_execution IS NULL
          LEFT JOIN LATERAL (
              SELECT id FROM attune.execution
               WHERE original_execution = first.id AND retry_count > 0
               ORDER BY retry_count DESC
               LIMIT 1
          ) AS retry ON true
          LEFT JOIN attune.execution e ON e.id = coalesce(retry.id, first.id)
"""


async def consequences(connection: Connection, event: int) -> Sequence[Row]:
    """The enforcements of an event with the newest attempts at their executions: rule, enforcement, enforcement_status,
    reason, execution, execution_status, error, attempts."""
    return await connection.fetch(
        f"""
        SELECT n.rule, n.id AS enforcement, n.status AS enforcement_status, n.reason, e.id AS execution,
               e.status AS execution_status, e.result ->> 'error' AS error, e.retry_count + 1 AS attempts
          FROM attune.enforcement n {_NEWEST_ATTEMPT}
         WHERE n.event = $1
         ORDER BY n.id
        """,
        event,
    )


_ENDED_BADLY = "('failed', 'timeout', 'abandoned')"

_HISTORY = f"""
    SELECT v.id, v.rule, v.scheduled_at, v.created, m.definition_version, m.note, n.status AS enforcement_status,
           n.reason, e.id AS execution, e.status AS execution_status,
           CASE WHEN e.status IN {_ENDED_BADLY} THEN left(e.result ->> 'error', 300) END AS error
      FROM attune.event v
      LEFT JOIN attune.event_match m ON m.event = v.id
      LEFT JOIN attune.enforcement n ON n.event = v.id AND n.rule = $1 {_NEWEST_ATTEMPT}
"""

TRIGGER_HISTORY = f"""
    {_HISTORY}
     WHERE v.trigger_ref = $2 AND v.id < $3
     ORDER BY v.id DESC
     LIMIT $4
"""

TIMER_HISTORY = f"""
    {_HISTORY}
     WHERE v.rule = $1 AND v.scheduled_at < $2 AND v.scheduled_at >= $3
     ORDER BY v.scheduled_at DESC
     LIMIT $4
"""


async def history(connection: Connection, rule: int, trigger_ref: str, before: int, limit: int) -> Sequence[Row]:
    """The newest events of a trigger with an id below `before`, and what became of each with the rule: id, rule (that
    it is for), scheduled_at, created, definition_version (None: not matched yet), note (why no rule was asked, if so),
    enforcement_status, reason, execution, execution_status, error."""
    return await connection.fetch(TRIGGER_HISTORY, rule, trigger_ref, before, limit)


async def timer_history(
    connection: Connection, rule: int, before: datetime, since: datetime, limit: int
) -> Sequence[Row]:
    """The same of the events of a rule's timer, for instants from `since` to `before`, the newest first."""
    return await connection.fetch(TIMER_HISTORY, rule, before, since, limit)


# What belongs to an event is looked up event by event: a join would be free to read whole tables.
OLDEST_EVENTS = """
    SELECT v.id, v.correlation_id, v.created, became.enforcements * 2 + 2 AS rows,
           (SELECT definition_version FROM attune.event_match WHERE event = v.id) AS definition_version,
           coalesce((SELECT created >= $2 FROM attune.event_match WHERE event = v.id), false)
           OR coalesce(became.is_young, false) AS is_needed
      FROM (SELECT id, correlation_id, created FROM attune.event WHERE id > $1 ORDER BY id LIMIT $3) AS v
     CROSS JOIN LATERAL (
           SELECT count(*) AS enforcements,
                  bool_or(n.status = 'created' OR n.created >= $2 OR coalesce((
                      SELECT coalesce(finished_at >= $2, true) FROM attune.execution
                       WHERE enforcement = n.id AND parent IS NULL AND original_execution IS NULL
                  ), false)) AS is_young
             FROM attune.enforcement n
            WHERE n.event = v.id) AS became
     ORDER BY v.id
"""


async def oldest_events(connection: Connection, after: int, before: datetime, limit: int) -> Sequence[Row]:
    """The first events after an id: id, correlation_id, created, definition_version (None: not matched), rows (how many
    they and all that became of them are), is_needed (by something that became of it and has not ended, or not before
    that moment)."""
    return await connection.fetch(OLDEST_EVENTS, after, before, limit)


async def delete_matches(connection: Connection, events: Sequence[int]) -> int:
    """Forget what the matcher did with events; how many it had taken."""
    return affected(await connection.execute("DELETE FROM attune.event_match WHERE event = ANY($1::bigint[])", events))


async def not_matched(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Those of some events that the matcher did not take so far."""
    rows = await connection.fetch(
        """
        SELECT id FROM attune.event v
         WHERE id = ANY($1::bigint[]) AND NOT EXISTS (SELECT FROM attune.event_match WHERE event = v.id)
        """,
        ids,
    )
    return {row["id"] for row in rows}
