"""The statements on `attune.delivery`, `attune.dead_letter` and `attune.trace`."""

from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from attune.base.json import dumps, loads, unstorable
from attune.bus.messages import Cause, Delivery, Envelope, Letter, Message
from attune.database.arrays import grouped, nullable
from attune.database.paging import Page, Where, Window, fetch_page
from attune.database.pool import Connection, Row, affected

Arguments: TypeAlias = tuple[Any, ...]


def _insert_deliveries(first: int) -> str:
    """The statement, its parameters beginning with `$first`."""
    queue, kind, version, source, now, *arrays = (f"${number}" for number in range(first, first + 10))
    ids, correlations, causes, depths, payloads = arrays
    return f"""
        INSERT INTO attune.delivery (queue, message_id, correlation_id, causation_id, depth, message_type, version,
        source,
                                     payload, published_at, available_at, attempt)
        SELECT {queue}, message_id, correlation_id, causation_id, depth, {kind}, {version}, {source}, payload::json,
               {now}, {now}, 1
          FROM unnest({ids}::uuid[], {correlations}::uuid[], {causes}::uuid[], {depths}::int[], {payloads}::text[])
            AS new (message_id, correlation_id, causation_id, depth, payload)
    """


INSERT_TRACE = """
    INSERT INTO attune.trace (queue, message_id, correlation_id, causation_id, depth, message_type, source, consumer,
                              published_at, delivered_at, done_at, attempt, outcome, error)
    SELECT $1, message_id, correlation_id, causation_id, depth, $2, $3, $4, published_at, $5, $6, $7, $8, $9
      FROM unnest($10::uuid[], $11::uuid[], $12::uuid[], $13::int[], $14::timestamptz[])
        AS hop (message_id, correlation_id, causation_id, depth, published_at)
"""

INSERT_DELIVERIES = _insert_deliveries(1)
# What every batch ends with: one round trip for both.
INSERT_BOTH = f"WITH traced AS ({INSERT_TRACE}) {_insert_deliveries(15)}"

CLAIM = "DELETE FROM attune.delivery WHERE queue = $1 AND message_id = ANY($2::uuid[]) RETURNING message_id"


class Attempts(NamedTuple):
    """Deliveries that a consumer took together and that ended in the same way."""

    consumer: str
    deliveries: Sequence[Delivery[Any]]
    delivered_at: datetime
    outcome: str
    error: str | None


async def insert_traffic(
    connection: Connection, attempts: Sequence[Attempts], published: Sequence[Delivery[Any]], now: datetime
) -> None:
    """Record attempts, and store new deliveries, due at once: a statement a kind, whatever their number."""
    hops = [_hop_arguments(one, group, now) for one in attempts for group in grouped(one.deliveries, _origin).values()]
    new = [_delivery_arguments(group) for group in grouped(published, _kind).values()]
    if hops and new:
        await connection.execute(INSERT_BOTH, *hops.pop(), *new.pop())
    for arguments in hops:
        await connection.execute(INSERT_TRACE, *arguments)
    for arguments in new:
        await connection.execute(INSERT_DELIVERIES, *arguments)


def _origin(delivery: Delivery[Any]) -> tuple[str, int]:
    return delivery.envelope.source, delivery.attempt


def _hop_arguments(attempts: Attempts, group: Sequence[Delivery[Any]], now: datetime) -> Arguments:
    first = group[0]
    envelopes = [delivery.envelope for delivery in group]
    return (
        first.queue,
        type(first.envelope.payload).__name__,
        first.envelope.source,
        attempts.consumer,
        attempts.delivered_at,
        now,
        first.attempt,
        attempts.outcome,
        attempts.error,
        *_identities(envelopes),
        [envelope.timestamp for envelope in envelopes],
    )


def _kind(delivery: Delivery[Any]) -> tuple[str, str]:
    return delivery.queue, delivery.envelope.source


def _delivery_arguments(group: Sequence[Delivery[Any]]) -> Arguments:
    first = group[0]
    envelopes = [delivery.envelope for delivery in group]
    return (
        first.queue,
        type(first.envelope.payload).__name__,
        first.envelope.payload.version,
        first.envelope.source,
        first.envelope.timestamp,
        *_identities(envelopes),
        [delivery.text for delivery in group],
    )


def _identities(envelopes: Sequence[Envelope[Any]]) -> Arguments:
    """The columns in which messages of a kind differ: message, correlation and causation ids, and depths."""
    causes = [envelope.cause for envelope in envelopes]
    return (
        [envelope.message_id for envelope in envelopes],
        [cause.correlation_id for cause in causes],
        nullable([cause.causation_id for cause in causes]),
        [cause.depth for cause in causes],
    )


async def begin_claiming(connection: Connection, queue: str, ids: Sequence[UUID], attempt: int) -> frozenset[UUID]:
    """Begin a transaction by deleting deliveries of a queue; the ids of those that still waited for this attempt: only
    these may be handled."""
    # One round trip for both. Literals, because several statements at once take no parameters; these are all ours.
    listed = ",".join(map(str, ids))
    claim = (
        f"DELETE FROM attune.delivery WHERE queue = '{queue}' AND message_id = ANY('{{{listed}}}'::uuid[]) "
        f"AND attempt = {attempt}"
    )
    status = await connection.execute(f"BEGIN; {claim}")
    if status == f"DELETE {len(ids)}":
        return frozenset(ids)
    # Some were gone: which ones has to be asked for.
    await connection.execute("ROLLBACK; BEGIN")
    return frozenset(row["message_id"] for row in await connection.fetch(f"{claim} RETURNING message_id"))


async def insert_later(
    connection: Connection, delivery: Delivery[Any], *, attempt: int, available_at: datetime, error: str | None
) -> None:
    """Store a delivery for an attempt that is not due yet; `error` is what became of the attempt before, if any."""
    envelope = delivery.envelope
    await connection.execute(
        """
        INSERT INTO attune.delivery (queue, message_id, correlation_id, causation_id, depth, message_type, version,
        source,
                                     payload, published_at, available_at, attempt, error)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
        """,
        delivery.queue,
        *_envelope_values(delivery),
        envelope.timestamp,
        available_at,
        attempt,
        error,
    )


async def insert_dead_letter(connection: Connection, delivery: Delivery[Any], *, error: str, now: datetime) -> int:
    """Park a claimed delivery and return the number of its dead letter."""
    envelope = delivery.envelope
    number: int = await connection.fetchval(
        """
        INSERT INTO attune.dead_letter (queue, message_id, correlation_id, causation_id, depth, message_type, version,
                                        source, payload, subject, attempts, error, published_at, created)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        RETURNING id
        """,
        delivery.queue,
        *_envelope_values(delivery)[:-1],
        _for_jsonb(delivery.text),
        envelope.payload.subject(),
        delivery.attempt,
        error,
        envelope.timestamp,
        now,
    )
    return number


async def bury(
    connection: Connection, queue: str, message_id: UUID, *, payload: str, error: str, now: datetime
) -> None:
    """Park a delivery that cannot even be read, and record that in the trace."""
    await connection.execute(
        """
        WITH gone AS (DELETE FROM attune.delivery WHERE queue = $1 AND message_id = $2 RETURNING *),
        traced AS (
            INSERT INTO attune.trace (queue, message_id, correlation_id, causation_id, depth, message_type, source,
                                      consumer, published_at, delivered_at, done_at, attempt, outcome, error)
            SELECT queue, message_id, correlation_id, causation_id, depth, message_type, source, 'the bus',
                   published_at, $5, $5, attempt, 'dead', $4
              FROM gone
        )
        INSERT INTO attune.dead_letter (queue, message_id, correlation_id, causation_id, depth, message_type, version,
                                        source, payload, attempts, error, published_at, created)
        SELECT queue, message_id, correlation_id, causation_id, depth, message_type, version, source, $3::jsonb,
               attempt, $4, published_at, $5
          FROM gone
        """,
        queue,
        message_id,
        _for_jsonb(payload),
        error,
        now,
    )


def _for_jsonb(text: str) -> str:
    """A payload as it is; as a string what jsonb would refuse of it, so that no letter is too broken to be kept."""
    try:
        broken = next(unstorable(loads(text)), None) is not None
    except ValueError:
        broken = True
    return dumps(text) if broken else text


def _envelope_values(delivery: Delivery[Any]) -> Arguments:
    envelope, payload = delivery.envelope, delivery.envelope.payload
    return (
        envelope.message_id,
        envelope.cause.correlation_id,
        envelope.cause.causation_id,
        envelope.cause.depth,
        type(payload).__name__,
        payload.version,
        envelope.source,
        delivery.text,
    )


async def due(
    connection: Connection, queue: str, *, except_ids: Collection[UUID], now: datetime, limit: int
) -> Sequence[Row]:
    """Rows of a queue that are due, in the order of their ids, leaving some out.

    What was due when it was published is due for ever, even if the clock goes back behind that moment.
    """
    return await connection.fetch(
        """
        SELECT message_id, correlation_id, causation_id, depth, message_type, source, payload, published_at, attempt
          FROM attune.delivery
         WHERE queue = $1 AND (available_at <= $3 OR available_at = published_at) AND message_id <> ALL($2::uuid[])
         ORDER BY message_id
         LIMIT $4
        """,
        queue,
        list(except_ids),
        now,
        limit,
    )


def delivery_of(row: Row, queue: str, payload: Message) -> Delivery[Any]:
    """The delivery that a row of `due` stands for."""
    cause = Cause(row["correlation_id"], row["causation_id"], row["depth"])
    envelope = Envelope(row["message_id"], cause, row["published_at"], row["source"], payload)
    return Delivery(queue, envelope, row["payload"], row["attempt"])


async def due_in(
    connection: Connection, queues: Sequence[str], *, now: datetime, limit: int
) -> Sequence[tuple[UUID, str]]:
    """Ids and queues of what is due in some queues."""
    rows = await connection.fetch(
        """
        SELECT message_id, queue FROM attune.delivery
         WHERE queue = ANY($1::text[]) AND (available_at <= $2 OR available_at = published_at)
         ORDER BY message_id
         LIMIT $3
        """,
        queues,
        now,
        limit,
    )
    return [(row["message_id"], row["queue"]) for row in rows]


async def due_later(connection: Connection, now: datetime) -> Sequence[tuple[str, datetime]]:
    """The queues and the seconds at which deliveries become due that are not yet."""
    rows = await connection.fetch(
        """
        SELECT DISTINCT queue, date_trunc('second', available_at) AS second
          FROM attune.delivery
         WHERE available_at > $1 AND available_at <> published_at
        """,
        now,
    )
    return [(row["queue"], row["second"] + timedelta(seconds=1)) for row in rows]


async def waiting_by_queue(connection: Connection) -> dict[str, tuple[int, datetime]]:
    """How many deliveries wait in each queue, and since when the oldest."""
    rows = await connection.fetch(
        "SELECT queue, count(*) AS waiting, min(published_at) AS oldest FROM attune.delivery GROUP BY queue"
    )
    return {row["queue"]: (row["waiting"], row["oldest"]) for row in rows}


async def count_deliveries(connection: Connection) -> int:
    """How many deliveries wait: tens of milliseconds for a few hundred thousand."""
    count: int = await connection.fetchval("SELECT count(*) FROM attune.delivery")
    return count


async def create_trace_day(connection: Connection, day: date) -> None:
    """Make the partition for the trace of `day` (UTC), which has none.

    Rows of that day that lie in the partition for all other days, because the clock jumped, move over. Consumers wait
    meanwhile, or they would put in more.
    """
    name, first, end = trace_partition(day), f"'{day} 00:00:00+00'", f"'{day + timedelta(days=1)} 00:00:00+00'"
    # Statements that are sent together are one transaction.
    await connection.execute(
        f"""
        LOCK TABLE attune.trace IN ACCESS EXCLUSIVE MODE;
        CREATE TABLE attune.{name} (LIKE attune.trace INCLUDING ALL);
        WITH moved AS (DELETE FROM attune.trace_other WHERE done_at >= {first} AND done_at < {end} RETURNING *)
        INSERT INTO attune.{name} SELECT * FROM moved;
        ALTER TABLE attune.trace ATTACH PARTITION attune.{name} FOR VALUES FROM ({first}) TO ({end})
        """
    )


async def drop_other_trace(connection: Connection, before: date) -> None:
    """Forget what lies in the partition for all other days from before a day (UTC)."""
    midnight = datetime(before.year, before.month, before.day, tzinfo=UTC)
    await connection.execute("DELETE FROM attune.trace_other WHERE done_at < $1", midnight)


async def trace_days(connection: Connection) -> list[date]:
    """The days (UTC) whose trace is kept."""
    rows = await connection.fetch(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = 'attune.trace'::regclass AND c.relname <> 'trace_other'"
    )
    return sorted(datetime.strptime(row["relname"], "trace_%Y%m%d").date() for row in rows)  # noqa: DTZ007 - a day


async def drop_trace_day(connection: Connection, day: date) -> None:
    """Forget the trace of `day`."""
    await connection.execute(f"DROP TABLE IF EXISTS attune.{trace_partition(day)}")


def trace_partition(day: date) -> str:
    """The name of the partition that holds the trace of `day`."""
    return f"trace_{day:%Y%m%d}"


async def trace(connection: Connection, correlation_id: UUID) -> Sequence[Row]:
    """Every hop of a chain: what was done, what waits, what is dead; in the order of publication."""
    return await connection.fetch(
        """
        SELECT queue, message_id, causation_id, depth, message_type, source, consumer, published_at, delivered_at,
        done_at,
               attempt, outcome, error
          FROM attune.trace
         WHERE correlation_id = $1
         UNION ALL
        SELECT queue, message_id, causation_id, depth, message_type, source, NULL, published_at, NULL, NULL,
               attempt, 'waiting', error
          FROM attune.delivery
         WHERE correlation_id = $1
         ORDER BY published_at, message_id, done_at, attempt
        """,
        correlation_id,
    )


_LETTER = """
    id, queue, message_id, correlation_id, causation_id, depth, message_type, version, source, payload, subject,
    attempts, error, published_at, created
"""


async def dead_letters_page(connection: Connection, where: Where, window: Window) -> Page:
    """A page of dead letters, the newest first."""
    return await fetch_page(connection, _LETTER, "attune.dead_letter", where, window, cursor="id", descending=True)


async def dead_letter_row(connection: Connection, number: int) -> Row | None:
    """Everything about one dead letter."""
    return await connection.fetchrow(f"SELECT {_LETTER} FROM attune.dead_letter WHERE id = $1", number)


async def next_dead_letters(connection: Connection, where: Where, limit: int) -> tuple[list[int], int]:
    """The numbers of the oldest dead letters that fit, and how many more there are."""
    rows = await connection.fetch(
        f"SELECT id, count(*) OVER () AS total FROM attune.dead_letter{where.text} ORDER BY id LIMIT {limit}",
        *where.arguments,
    )
    return [row["id"] for row in rows], rows[0]["total"] - len(rows) if rows else 0


async def lock_dead_letters(connection: Connection, numbers: Sequence[int]) -> dict[int, Letter]:
    """Those of some dead letters that are there; nobody else takes them until this transaction ends."""
    rows = await connection.fetch(
        f"SELECT {_LETTER} FROM attune.dead_letter WHERE id = ANY($1::bigint[]) ORDER BY id FOR UPDATE", numbers
    )
    return {row["id"]: letter_of(row) for row in rows}


async def take_dead_letter(connection: Connection, number: int) -> Letter | None:
    """Remove a dead letter; None when it is not there."""
    row = await connection.fetchrow(f"DELETE FROM attune.dead_letter WHERE id = $1 RETURNING {_LETTER}", number)
    return None if row is None else letter_of(row)


async def restore_deliveries(connection: Connection, numbers: Sequence[int]) -> None:
    """Make deliveries of dead letters again, as they were when they were published: due, at their first attempt."""
    await connection.execute(
        """
        WITH gone AS (DELETE FROM attune.dead_letter WHERE id = ANY($1::bigint[]) RETURNING *)
        INSERT INTO attune.delivery (queue, message_id, correlation_id, causation_id, depth, message_type, version,
                                     source, payload, published_at, available_at, attempt)
        SELECT queue, message_id, correlation_id, causation_id, depth, message_type, version, source, payload::json,
               published_at, published_at, 1
          FROM gone
        """,
        numbers,
    )


def letter_of(row: Row) -> Letter:
    """The dead letter of a row with all its columns."""
    return Letter(
        row["id"],
        row["queue"],
        row["message_id"],
        Cause(row["correlation_id"], row["causation_id"], row["depth"]),
        row["message_type"],
        row["source"],
        row["payload"],
        row["subject"],
        row["error"],
        row["published_at"],
    )


async def count_dead_letters(connection: Connection) -> int:
    """How many dead letters there are."""
    count: int = await connection.fetchval("SELECT count(*) FROM attune.dead_letter")
    return count


async def dead_letters_about(connection: Connection, subjects: Sequence[str]) -> dict[str, tuple[int, datetime]]:
    """The newest dead letter of each subject that has one, and since when it is one."""
    rows = await connection.fetch(
        """
        SELECT subject, max(id) AS id, max(created) AS created
          FROM attune.dead_letter
         WHERE subject = ANY($1::text[])
         GROUP BY subject
        """,
        subjects,
    )
    return {row["subject"]: (row["id"], row["created"]) for row in rows}


async def dead_subjects(connection: Connection) -> dict[int, str | None]:
    """What dead letters are about, by their numbers: the oldest thousand of them."""
    rows = await connection.fetch("SELECT id, subject FROM attune.dead_letter ORDER BY id LIMIT 1000")
    return {row["id"]: row["subject"] for row in rows}


TAKE_NOT_ALERTED = """
    UPDATE attune.dead_letter AS d
       SET alerted = true
     WHERE id = ANY(ARRAY(SELECT id FROM attune.dead_letter WHERE NOT alerted ORDER BY id LIMIT $1
                             FOR UPDATE SKIP LOCKED))
    RETURNING id, queue, message_type, subject, attempts, created,
              (SELECT true FROM attune.alert WHERE correlation_id = d.correlation_id) IS NOT NULL AS is_of_alert
"""


async def take_not_alerted(connection: Connection, limit: int) -> Sequence[Row]:
    """The oldest dead letters of which nobody was told, who are told now: id, queue, message_type, subject, attempts,
    created, is_of_alert (an alert has caused it)."""
    return await connection.fetch(TAKE_NOT_ALERTED, limit)


async def hop_times(connection: Connection, since: datetime) -> dict[str, list[float]]:
    """Seconds from publication to done, by consumer, of all that was done since a moment."""
    rows = await connection.fetch(
        """
        SELECT consumer, array_agg(extract(epoch FROM done_at - published_at)::float8) AS seconds
          FROM attune.trace
         WHERE done_at >= $1 AND outcome = 'done'
         GROUP BY consumer
        """,
        since,
    )
    return {row["consumer"]: row["seconds"] for row in rows}


async def is_behind(connection: Connection, count: int) -> bool:
    """Whether more than `count` deliveries wait."""
    waiting: int = await connection.fetchval(
        "SELECT count(*) FROM (SELECT FROM attune.delivery LIMIT $1) AS counted", count + 1
    )
    return waiting > count


OPEN_CHAINS = """
    SELECT correlation_id FROM attune.delivery WHERE correlation_id = ANY($1::uuid[])
     UNION
    SELECT correlation_id FROM attune.dead_letter WHERE correlation_id = ANY($1::uuid[])
"""


async def open_chains(connection: Connection, chains: Sequence[UUID]) -> set[UUID]:
    """Those of some chains of which a delivery waits, or is dead."""
    return {row["correlation_id"] for row in await connection.fetch(OPEN_CHAINS, chains)}


OLDEST_DEAD_LETTERS = """
    SELECT id, NULL::uuid AS correlation_id, created, subject, 1 AS rows
      FROM attune.dead_letter
     WHERE id > $1
     ORDER BY id
     LIMIT $2
"""


async def oldest_dead_letters(connection: Connection, after: int, limit: int) -> Sequence[Row]:
    """The first dead letters after an id: id, correlation_id (None: their chain keeps none of them), created, subject,
    rows."""
    return await connection.fetch(OLDEST_DEAD_LETTERS, after, limit)


async def delete_dead_letters(connection: Connection, ids: Sequence[int]) -> int:
    """Forget dead letters; how many there were."""
    return affected(await connection.execute("DELETE FROM attune.dead_letter WHERE id = ANY($1::bigint[])", ids))
