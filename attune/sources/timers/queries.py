"""The statements on `attune.timer` and `attune.timer_skip`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from attune.base.json import JsonObject, loads
from attune.database.pool import Connection, Row, affected
from attune.sources.timers.misfires import Skipped

FIRE = """
    UPDATE attune.timer AS t
       SET next_fire_at = new.next_fire_at,
           last_fired_at = CASE WHEN new.fires > 0 THEN $6 ELSE t.last_fired_at END,
           execution_count = t.execution_count + new.fires
      FROM unnest($1::bigint[], $2::int[], $3::timestamptz[], $4::timestamptz[], $5::int[])
        AS new (rule, generation, expected, next_fire_at, fires)
     WHERE t.rule = new.rule AND t.generation = new.generation AND t.next_fire_at = new.expected
    RETURNING t.rule, t.execution_count
"""


@dataclass(frozen=True, slots=True)
class TimerRow:
    """A timer with what its rule says of it."""

    rule: int
    rule_ref: str
    trigger: int
    trigger_ref: str
    trigger_params: JsonObject
    generation: int
    anchor: datetime
    next_fire_at: datetime | None
    last_fired_at: datetime | None
    execution_count: int


async def timers(connection: Connection, rules: Sequence[int] | None = None) -> list[TimerRow]:
    """All timers, or those of some rules."""
    rows = await connection.fetch(
        """
        SELECT t.rule, r.ref AS rule_ref, r.trigger, r.trigger_ref, r.trigger_params, t.generation, t.anchor,
               t.next_fire_at, t.last_fired_at, t.execution_count
          FROM attune.timer t JOIN attune.rule r ON r.id = t.rule
         WHERE $1::bigint[] IS NULL OR t.rule = ANY($1)
        """,
        rules,
    )
    return [_timer(row) for row in rows]


def _timer(row: Row) -> TimerRow:
    return TimerRow(
        row["rule"],
        row["rule_ref"],
        row["trigger"],
        row["trigger_ref"],
        loads(row["trigger_params"]),
        row["generation"],
        row["anchor"],
        row["next_fire_at"],
        row["last_fired_at"],
        row["execution_count"],
    )


async def upcoming(connection: Connection, limit: int) -> Sequence[Row]:
    """The timers that fire next: rule_ref, next_fire_at."""
    return await connection.fetch(
        """
        SELECT r.ref AS rule_ref, t.next_fire_at
          FROM attune.timer t JOIN attune.rule r ON r.id = t.rule
         WHERE t.next_fire_at IS NOT NULL
         ORDER BY t.next_fire_at, r.ref
         LIMIT $1
        """,
        limit,
    )


async def put_timer(connection: Connection, rule: int, *, anchor: datetime, next_fire_at: datetime | None) -> None:
    """Plan a timer anew: whatever was planned for it before does nothing any more."""
    await connection.execute(
        """
        INSERT INTO attune.timer (rule, generation, anchor, next_fire_at) VALUES ($1, 1, $2, $3)
            ON CONFLICT (rule) DO UPDATE
           SET generation = timer.generation + 1, anchor = excluded.anchor, next_fire_at = excluded.next_fire_at
        """,
        rule,
        anchor,
        next_fire_at,
    )


async def delete_timer(connection: Connection, rule: int) -> None:
    """Forget the timer of a rule."""
    await connection.execute("DELETE FROM attune.timer WHERE rule = $1", rule)


async def raise_generation(connection: Connection, rule: int) -> None:
    """Let whatever was planned for a timer do nothing any more, but leave it its next instant."""
    await connection.execute("UPDATE attune.timer SET generation = generation + 1 WHERE rule = $1", rule)


async def move_timers(connection: Connection, timers: Sequence[TimerRow]) -> None:
    """Give timers the anchors and next instants of these rows, where nobody changed their rules meanwhile."""
    await connection.execute(
        """
        UPDATE attune.timer AS t
           SET anchor = new.anchor, next_fire_at = new.next_fire_at
          FROM unnest($1::bigint[], $2::int[], $3::timestamptz[], $4::timestamptz[])
            AS new (rule, generation, anchor, next_fire_at)
         WHERE t.rule = new.rule AND t.generation = new.generation
        """,
        [timer.rule for timer in timers],
        [timer.generation for timer in timers],
        [timer.anchor for timer in timers],
        [timer.next_fire_at for timer in timers],
    )


@dataclass(frozen=True, slots=True)
class Advance:
    """A timer that goes on from `expected` to `next_fire_at`, after so many fires."""

    rule: int
    generation: int
    expected: datetime
    next_fire_at: datetime | None
    fires: int


async def advance(connection: Connection, advances: Sequence[Advance], now: datetime) -> dict[int, int]:
    """Let timers go on; how often each has fired so far, for those that nobody changed meanwhile."""
    rows = await connection.fetch(
        FIRE,
        [one.rule for one in advances],
        [one.generation for one in advances],
        [one.expected for one in advances],
        [one.next_fire_at for one in advances],
        [one.fires for one in advances],
        now,
    )
    return {row["rule"]: row["execution_count"] for row in rows}


async def recorded(connection: Connection, rule: int, instants: Sequence[datetime]) -> frozenset[datetime]:
    """Those of some instants that have the event of their timer."""
    rows = await connection.fetch(
        "SELECT scheduled_at FROM attune.event WHERE rule = $1 AND scheduled_at = ANY($2::timestamptz[])",
        rule,
        instants,
    )
    return frozenset(row["scheduled_at"] for row in rows)


@dataclass(frozen=True, slots=True)
class Skip:
    """Instants that the timer of a rule passed over."""

    rule: int
    rule_ref: str
    skipped: Skipped


async def insert_skips(connection: Connection, skips: Sequence[Skip], now: datetime) -> None:
    """Record that instants of schedules were passed over, and why."""
    await connection.execute(
        """
        INSERT INTO attune.timer_skip (rule, rule_ref, first, last, count, reason, created)
        SELECT *, $7
        FROM unnest($1::bigint[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::bigint[], $6::text[])
        """,
        [skip.rule for skip in skips],
        [skip.rule_ref for skip in skips],
        [skip.skipped.first for skip in skips],
        [skip.skipped.last for skip in skips],
        [skip.skipped.count for skip in skips],
        [skip.skipped.reason for skip in skips],
        now,
    )


async def skips(connection: Connection, rule: int, limit: int) -> Sequence[Row]:
    """The newest ranges that a rule's timer passed over: first, last, count (None: very many), reason, created."""
    return await connection.fetch(
        """
        SELECT first, last, count, reason, created FROM attune.timer_skip WHERE rule = $1 ORDER BY id DESC LIMIT $2
        """,
        rule,
        limit,
    )


OLDEST_SKIPS = """
    SELECT id, NULL::uuid AS correlation_id, created, 1 AS rows, false AS is_needed
      FROM attune.timer_skip
     WHERE id > $1
     ORDER BY id
     LIMIT $2
"""


async def oldest_skips(connection: Connection, after: int, limit: int) -> Sequence[Row]:
    """The first ranges after an id that timers passed over: id, correlation_id (None), created, rows, is_needed."""
    return await connection.fetch(OLDEST_SKIPS, after, limit)


async def delete_skips(connection: Connection, ids: Sequence[int]) -> int:
    """Forget ranges that timers passed over; how many there were."""
    return affected(await connection.execute("DELETE FROM attune.timer_skip WHERE id = ANY($1::bigint[])", ids))
