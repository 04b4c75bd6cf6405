"""The statements on `attune.event`."""

from collections.abc import Sequence
from datetime import datetime

from attune.base.json import loads
from attune.database.arrays import grouped, nullable
from attune.database.paging import Page, Where, Window, fetch_page
from attune.database.pool import Connection, Row, affected
from attune.events.model import Event, NewEvent

RESERVE_IDS = "SELECT nextval('attune.event_id_seq') AS id FROM generate_series(1, $1)"

INSERT_EVENTS = """
    INSERT INTO attune.event (id, trigger, trigger_ref, config, payload, source_ref, rule, rule_ref, scheduled_at,
                              correlation_id, causation_id, depth, created)
    SELECT id, $1, $2, config::jsonb, payload::jsonb, $3, rule, rule_ref, scheduled_at, correlation_id, causation_id,
    depth,
           $4
      FROM unnest($5::bigint[], $6::text[], $7::text[], $8::bigint[], $9::text[], $10::timestamptz[], $11::uuid[],
                  $12::uuid[], $13::int[])
        AS new (id, config, payload, rule, rule_ref, scheduled_at, correlation_id, causation_id, depth)
"""

COLUMNS = """
    id, trigger, trigger_ref, config, payload, source_ref, rule, rule_ref, correlation_id, causation_id, depth, created
"""

READ_WITH_VERSION = f"""
    SELECT {COLUMNS}, (SELECT version FROM attune.definition_version) AS definition_version
      FROM attune.event
     WHERE id = ANY($1::bigint[])
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
    )


async def page(connection: Connection, where: Where, window: Window) -> Page:
    """A page of events, the newest first, with `has_payload` instead of the payload."""
    return await fetch_page(
        connection,
        "id, trigger, trigger_ref, source_ref, rule, rule_ref, payload IS NOT NULL AS has_payload, correlation_id, "
        "created",
        "attune.event",
        where,
        window,
        cursor="id",
        descending=True,
    )


async def newer(connection: Connection, where: Where, limit: int) -> Sequence[Row]:
    """The newest events that fit, without their payloads."""
    return await connection.fetch(
        "SELECT id, trigger_ref, source_ref, rule_ref, correlation_id, created FROM attune.event"
        f"{where.text} ORDER BY id DESC LIMIT {limit}",
        *where.arguments,
    )


async def instants(connection: Connection, ids: Sequence[int]) -> dict[int, datetime]:
    """The instants of schedules that events stand for, by event."""
    rows = await connection.fetch(
        "SELECT id, scheduled_at FROM attune.event WHERE id = ANY($1::bigint[]) AND scheduled_at IS NOT NULL", ids
    )
    return {row["id"]: row["scheduled_at"] for row in rows}


async def delete(connection: Connection, ids: Sequence[int]) -> int:
    """Forget events, and nothing of what became of them; how many there were."""
    return affected(await connection.execute("DELETE FROM attune.event WHERE id = ANY($1::bigint[])", ids))
