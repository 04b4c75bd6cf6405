"""The statements on `attune.event` and `attune.idempotency_key`."""

from collections.abc import Sequence
from datetime import datetime

from attune.base.json import loads
from attune.database.arrays import grouped, nullable
from attune.database.paging import Page, Where, Window, fetch_page
from attune.database.pool import Connection, Row, affected
from attune.events.model import Event, Kept, Key, NewEvent

RESERVE_IDS = "SELECT nextval('attune.event_id_seq') AS id FROM generate_series(1, $1)"

INSERT_EVENTS = """
    INSERT INTO attune.event (id, trigger, trigger_ref, config, payload, source_ref, rule, rule_ref, scheduled_at,
                              execution, correlation_id, causation_id, depth, created)
    SELECT id, $1, $2, config::jsonb, payload::jsonb, $3, rule, rule_ref, scheduled_at, execution, correlation_id,
           causation_id, depth, $4
      FROM unnest($5::bigint[], $6::text[], $7::text[], $8::bigint[], $9::text[], $10::timestamptz[], $11::bigint[],
                  $12::uuid[], $13::uuid[], $14::int[])
        AS new (id, config, payload, rule, rule_ref, scheduled_at, execution, correlation_id, causation_id, depth)
"""

COLUMNS = """
    id, trigger, trigger_ref, config, payload, source_ref, rule, rule_ref, correlation_id, causation_id, depth, created,
    execution
"""

READ_WITH_VERSION = f"""
    SELECT {COLUMNS}, (SELECT version FROM attune.definition_version) AS definition_version
      FROM attune.event
     WHERE id = ANY($1::bigint[])
"""

READ_KEY = """
    SELECT fingerprint, subject, answer FROM attune.idempotency_key WHERE scope = $1 AND key = $2 AND created > $3
"""

CLAIM_KEYS = """
    INSERT INTO attune.idempotency_key AS k (scope, key, fingerprint, created)
    SELECT scope, key, fingerprint, $1 FROM unnest($3::text[], $4::text[], $5::bytea[]) AS new (scope, key, fingerprint)
        ON CONFLICT (scope, key) DO UPDATE
       SET fingerprint = excluded.fingerprint, subject = NULL, answer = NULL, created = excluded.created
     WHERE k.created <= $2
    RETURNING scope, key
"""

# `ANY` beside the join: the planner shall not read the table from end to end.
NAME_SUBJECTS = """
    UPDATE attune.idempotency_key AS k
       SET subject = new.subject
      FROM unnest($1::text[], $2::text[], $3::bigint[]) AS new (scope, key, subject)
     WHERE k.scope = ANY($1::text[]) AND k.key = ANY($2::text[]) AND k.scope = new.scope AND k.key = new.key
"""

KEEP_ANSWERS = """
    UPDATE attune.idempotency_key AS k
       SET answer = new.answer
      FROM unnest($1::text[], $2::text[], $3::text[]) AS new (scope, key, answer)
     WHERE k.scope = ANY($1::text[]) AND k.key = ANY($2::text[]) AND k.scope = new.scope AND k.key = new.key
       AND k.answer IS NULL
"""

FORGET_KEYS = """
    DELETE FROM attune.idempotency_key
     WHERE ctid = ANY(ARRAY(SELECT ctid FROM attune.idempotency_key WHERE created <= $1 ORDER BY created LIMIT $2
                               FOR UPDATE SKIP LOCKED))
"""


async def insert_events(connection: Connection, events: Sequence[NewEvent], now: datetime) -> list[int]:
    """Record events and return their ids, in their order."""
    ids = [row["id"] for row in await connection.fetch(RESERVE_IDS, len(events))]
    for (trigger, trigger_ref, source), group in grouped(list(zip(ids, events, strict=True)), _origin).items():
        new = [event for _, event in group]
        await connection.execute(
            INSERT_EVENTS,
            trigger,
            trigger_ref,
            source,
            now,
            [event_id for event_id, _ in group],
            nullable([event.config for event in new]),
            nullable([event.payload for event in new]),
            nullable([event.rule for event in new]),
            nullable([event.rule_ref for event in new]),
            nullable([event.scheduled_at for event in new]),
            nullable([event.execution for event in new]),
            [event.cause.correlation_id for event in new],
            nullable([event.cause.causation_id for event in new]),
            [event.cause.depth for event in new],
        )
    return ids


def _origin(row: tuple[int, NewEvent]) -> tuple[int, str, str]:
    _, event = row
    return event.trigger, event.trigger_ref, event.source_ref


async def events_with_version(connection: Connection, ids: Sequence[int]) -> tuple[dict[int, Event], int]:
    """Events by id, and the version of the definitions at the moment of reading (-1 without events)."""
    rows = await connection.fetch(READ_WITH_VERSION, ids)
    return {row["id"]: event_of(row) for row in rows}, rows[0]["definition_version"] if rows else -1


async def event(connection: Connection, event_id: int) -> Event | None:
    """The event with that id."""
    row = await connection.fetchrow(f"SELECT {COLUMNS} FROM attune.event WHERE id = $1", event_id)
    return None if row is None else event_of(row)


def event_of(row: Row) -> Event:
    """The event of a row with `COLUMNS`."""
    return Event(
        row["id"],
        row["trigger"],
        row["trigger_ref"],
        loads(row["config"]),
        loads(row["payload"]),
        row["source_ref"],
        row["rule"],
        row["rule_ref"],
        row["correlation_id"],
        row["causation_id"],
        row["depth"],
        row["created"],
        row["execution"],
    )


async def page(connection: Connection, where: Where, window: Window) -> Page:
    """A page of events, the newest first, with `has_payload` instead of the payload."""
    return await fetch_page(
        connection,
        "id, trigger, trigger_ref, source_ref, rule, rule_ref, payload IS NOT NULL AS has_payload, correlation_id, "
        "created, execution",
        "attune.event",
        where,
        window,
        cursor="id",
        descending=True,
    )


async def instants(connection: Connection, ids: Sequence[int]) -> dict[int, datetime]:
    """The instants of schedules that events stand for, by event."""
    rows = await connection.fetch(
        "SELECT id, scheduled_at FROM attune.event WHERE id = ANY($1::bigint[]) AND scheduled_at IS NOT NULL", ids
    )
    return {row["id"]: row["scheduled_at"] for row in rows}


async def claim_keys(
    connection: Connection, keys: Sequence[Key], now: datetime, outdated: datetime
) -> set[tuple[str, str]]:
    """Take keys, each named once; the names of those that were free, or not in use since `outdated`."""
    rows = await connection.fetch(
        CLAIM_KEYS,
        now,
        outdated,
        [key.scope for key in keys],
        [key.key for key in keys],
        [key.fingerprint for key in keys],
    )
    return {(row["scope"], row["key"]) for row in rows}


async def name_subjects(connection: Connection, made: Sequence[tuple[Key, int]]) -> None:
    """Note what was made under keys."""
    await connection.execute(
        NAME_SUBJECTS,
        [key.scope for key, _ in made],
        [key.key for key, _ in made],
        [subject for _, subject in made],
    )


async def keep_answers(connection: Connection, answers: Sequence[tuple[Key, str]]) -> None:
    """Note the answers under keys that have none yet."""
    await connection.execute(
        KEEP_ANSWERS,
        [key.scope for key, _ in answers],
        [key.key for key, _ in answers],
        [answer for _, answer in answers],
    )


async def kept(connection: Connection, key: Key, outdated: datetime) -> Kept | None:
    """What was carried out under a key since `outdated`."""
    row = await connection.fetchrow(READ_KEY, key.scope, key.key, outdated)
    return None if row is None else Kept(row["fingerprint"], row["subject"], row["answer"])


async def forget_keys(connection: Connection, outdated: datetime, limit: int) -> int:
    """Delete keys that are not in use since `outdated`, `limit` at most; how many that were."""
    return affected(await connection.execute(FORGET_KEYS, outdated, limit))


async def delete(connection: Connection, ids: Sequence[int]) -> int:
    """Forget events, and nothing of what became of them; how many there were."""
    return affected(await connection.execute("DELETE FROM attune.event WHERE id = ANY($1::bigint[])", ids))
