"""The statements that make executions and move them on: on `attune.execution`, `attune.execution_open` and
`attune.worker`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from attune.base.json import loads
from attune.base.states import TERMINAL, ExecutionStatus
from attune.base.traces import Parent
from attune.bus.messages import Cause
from attune.database.arrays import nullable
from attune.database.pool import Connection, Row
from attune.executions.model import (
    Execution,
    Finished,
    NewExecution,
    Origin,
    Provenance,
    Requested,
)
from attune.executions.notices import execution_columns
from attune.executions.states import Step, sources, target

# The execution of an enforcement and its entry among the open ones, in one round trip.
INSERT_EXECUTIONS = """
    WITH new AS (
        INSERT INTO attune.execution (action, action_ref, config, enforcement, executor, parent, status, correlation_id,
                                      causation_id, depth, created, updated)
        SELECT action, action_ref, config::jsonb, enforcement, executor, parent, 'requested', correlation_id,
               causation_id, depth, $1, $1
          FROM unnest($2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::uuid[],
                      $9::uuid[], $10::int[])
            AS new (action, action_ref, config, enforcement, executor, parent, correlation_id, causation_id, depth)
            ON CONFLICT (enforcement) WHERE parent IS NULL AND original_execution IS NULL DO NOTHING
        RETURNING id, enforcement
    ), opened AS (
        INSERT INTO attune.execution_open (execution) SELECT id FROM new
    )
    SELECT id, enforcement FROM new
"""

READ_REQUESTED = """
    SELECT id, action_ref, config, status, (SELECT version FROM attune.definition_version) AS definition_version
      FROM attune.execution
     WHERE id = ANY($1::bigint[])
"""

DISPATCH = f"""
    UPDATE attune.execution AS e
       SET status = 'scheduled', worker = $2, updated = $3
     WHERE id = ANY($1::bigint[]) AND status = ANY($4::text[])
    RETURNING id, {execution_columns("$5::bool")}
"""

# Who runs it, when it has to have ended, and until when nobody else may say that it did.
START = f"""
    UPDATE attune.execution AS e
       SET status = 'running', started_at = $2::timestamptz, updated = $2::timestamptz, boot = $4,
           deadline = $2::timestamptz + make_interval(secs => new.seconds),
           lease_until = $2::timestamptz + make_interval(secs => new.seconds + $6)
      FROM unnest($1::bigint[], $5::float8[]) AS new (id, seconds)
     WHERE e.id = ANY($1::bigint[]) AND e.id = new.id AND e.status = 'scheduled' AND e.worker = $3
    RETURNING e.id, e.config, (SELECT version FROM attune.definition_version) AS definition_version,
              {execution_columns("$7::bool")}
"""

ASK = f"""
    UPDATE attune.execution AS e
       SET status = 'running', started_at = $2, updated = $2, deadline = new.deadline
      FROM unnest($1::bigint[], $3::timestamptz[]) AS new (id, deadline)
     WHERE e.id = ANY($1::bigint[]) AND e.id = new.id AND e.status = ANY($4::text[])
    RETURNING e.id, {execution_columns("$5::bool")}
"""

FINISH = f"""
    WITH done AS (
        UPDATE attune.execution AS e
           SET status = $1, result = new.result::jsonb, finished_at = $2, updated = $2
          FROM unnest($3::bigint[], $4::text[]) AS new (id, result)
         WHERE e.id = ANY($3::bigint[]) AND e.id = new.id AND e.status = ANY($5::text[])
        RETURNING e.id, {execution_columns("$6::bool")}
    ), closed AS (
        DELETE FROM attune.execution_open WHERE execution IN (SELECT id FROM done)
    )
    SELECT * FROM done
"""

READ_ENDINGS = """
    SELECT id, action_ref, status, result ->> 'error' AS error, started_at IS NOT NULL AS has_run, original_execution,
           retry_count,
           round(1000 * extract(epoch FROM finished_at - started_at))::bigint AS duration_ms,
           coalesce((SELECT rule FROM attune.rule_turn WHERE execution = e.id),
                    (SELECT rule FROM attune.rule_queue WHERE execution = e.id)) IS NOT NULL AS takes_turns,
           (SELECT version FROM attune.definition_version) AS definition_version
      FROM attune.execution AS e
     WHERE id = ANY($1::bigint[])
"""

# The next attempts of executions that have ended, and their entries among the open ones.
INSERT_RETRIES = """
    WITH new AS (
        INSERT INTO attune.execution (action, action_ref, config, parent, enforcement, executor, status,
                                      original_execution, retry_count, retry_reason, not_before, correlation_id,
                                      causation_id, depth, created, updated)
        SELECT e.action, e.action_ref, e.config, e.parent, e.enforcement, e.executor, 'requested',
               CASE WHEN e.retry_count > 0 THEN e.original_execution ELSE e.id END, e.retry_count + 1, e.status,
               $1::timestamptz + make_interval(secs => wanted.delay), e.correlation_id, wanted.causation_id,
               wanted.depth, $1, $1
          FROM unnest($2::bigint[], $3::float8[], $4::uuid[], $5::int[])
            AS wanted (execution, delay, causation_id, depth)
          JOIN attune.execution e ON e.id = wanted.execution
            ON CONFLICT (original_execution, retry_count) WHERE retry_count > 0 DO NOTHING
        RETURNING id, action, action_ref, parent, original_execution, retry_count, enforcement
    ), opened AS (
        INSERT INTO attune.execution_open (execution) SELECT id FROM new
    )
    SELECT new.*, n.event, n.rule_ref, n.trigger_ref FROM new LEFT JOIN attune.enforcement n ON n.id = new.enforcement
"""

ANCESTORS = """
    WITH RECURSIVE back (id, step) AS (
        SELECT $1::bigint, 0
         UNION
        SELECT coalesce(e.parent, (SELECT v.execution FROM attune.enforcement n JOIN attune.event v ON v.id = n.event
                                    WHERE n.id = e.enforcement)), step + 1
          FROM back JOIN attune.execution e ON e.id = back.id
         WHERE step < $2
    )
    SELECT DISTINCT id FROM back WHERE id IS NOT NULL
"""

COLUMNS = """
    e.id, e.action, e.action_ref, e.config, e.parent, e.enforcement,
    (SELECT event FROM attune.enforcement WHERE id = e.enforcement) AS event, e.executor, e.worker, e.status, e.result,
    e.original_execution, e.retry_count, e.retry_reason, e.not_before, e.boot, e.deadline, e.lease_until,
    e.correlation_id, e.causation_id, e.depth, e.created, e.started_at, e.finished_at, e.updated
"""

WITH_ENFORCEMENT = "attune.execution e LEFT JOIN attune.enforcement n ON n.id = e.enforcement"
_OLDEST = 20_000
"""What has been open for so long that its lease may be over is among these."""

_DISPATCHABLE = sorted(sources(Step.DISPATCH))

_ASKABLE = sorted(sources(Step.ASK))


async def insert_executions(connection: Connection, new: Sequence[NewExecution], now: datetime) -> dict[int, int]:
    """Create the executions of enforcements; ids by enforcement of those that did not exist."""
    return {row["enforcement"]: row["id"] for row in await _insert_executions(connection, new, now)}


async def insert_execution(connection: Connection, new: NewExecution, now: datetime) -> int:
    """Create one execution and return its id."""
    (row,) = await _insert_executions(connection, [new], now)
    execution_id: int = row["id"]
    return execution_id


async def _insert_executions(connection: Connection, new: Sequence[NewExecution], now: datetime) -> Sequence[Row]:
    return await connection.fetch(
        INSERT_EXECUTIONS,
        now,
        [one.action for one in new],
        [one.action_ref for one in new],
        [one.config for one in new],
        nullable([one.enforcement for one in new]),
        nullable([one.executor for one in new]),
        nullable([one.parent for one in new]),
        [one.cause.correlation_id for one in new],
        nullable([one.cause.causation_id for one in new]),
        [one.cause.depth for one in new],
    )


async def requested_with_version(connection: Connection, ids: Sequence[int]) -> tuple[dict[int, Requested], int]:
    """What the scheduler needs of executions, by id, and the version of the definitions at the moment of reading."""
    rows = await connection.fetch(READ_REQUESTED, ids)
    found = {
        row["id"]: Requested(row["id"], row["action_ref"], row["config"], ExecutionStatus(row["status"]))
        for row in rows
    }
    return found, rows[0]["definition_version"] if rows else -1


async def dispatch(
    connection: Connection, ids: Sequence[int], worker: int, now: datetime, *, watched: bool = False
) -> Sequence[Row]:
    """Give executions to a worker: the id, and if `watched` what live views show, of those that were still waiting for
    one."""
    return await connection.fetch(DISPATCH, ids, worker, now, _DISPATCHABLE, watched)


async def ask(
    connection: Connection,
    ids: Sequence[int],
    deadlines: Sequence[datetime | None],
    now: datetime,
    *,
    watched: bool = False,
) -> Sequence[Row]:
    """Let executions wait for the answers of people, without a worker: the id, and if `watched` what live views show,
    of those that had not begun."""
    return await connection.fetch(ASK, ids, now, nullable(list(deadlines)), _ASKABLE, watched)


@dataclass(frozen=True, slots=True)
class Tenure:
    """Who runs executions: a worker, in a run of Attune. `margin` are the seconds after their deadlines for which they
    are still its own."""

    worker: int
    boot: UUID
    margin: float


async def start(
    connection: Connection,
    ids: Sequence[int],
    timeouts: Sequence[float],
    tenure: Tenure,
    now: datetime,
    *,
    watched: bool = False,
) -> tuple[dict[int, Row], int]:
    """Start executions that are scheduled for a worker, each with its timeout in seconds: of those that it may run the
    parameters as JSON text (config), and if `watched` what live views show, by id; and the version of the
    definitions."""
    rows = await connection.fetch(START, ids, now, tenure.worker, tenure.boot, timeouts, tenure.margin, watched)
    return {row["id"]: row for row in rows}, rows[0]["definition_version"] if rows else -1


async def finish(
    connection: Connection, step: Step, ends: Sequence[Finished], now: datetime, *, watched: bool = False
) -> Sequence[Row]:
    """End executions by the same step: the id, and if `watched` what live views show, of those whose state allowed
    it."""
    return await connection.fetch(
        FINISH,
        target(step).value,
        now,
        [one.execution for one in ends],
        [one.result for one in ends],
        sorted(sources(step)),
        watched,
    )


async def ask_to_stop(connection: Connection, execution_id: int, now: datetime) -> Sequence[Row]:
    """Mark a running execution as being cancelled: its id and what live views show of it; nothing when it does not
    run."""
    return await connection.fetch(
        f"""
        UPDATE attune.execution AS e SET status = 'canceling', updated = $2 WHERE id = $1 AND status = 'running'
        RETURNING id, {execution_columns("true")}
        """,
        execution_id,
        now,
    )


async def hold(connection: Connection, ids: Sequence[int], now: datetime) -> None:
    """Let requested executions wait for their turn."""
    await connection.execute(
        """
        UPDATE attune.execution SET status = $2, updated = $3
         WHERE id = ANY($1::bigint[]) AND status = ANY($4::text[])
        """,
        ids,
        target(Step.HOLD).value,
        now,
        sorted(sources(Step.HOLD)),
    )


async def release(connection: Connection, execution_id: int, now: datetime) -> Row | None:
    """Request an execution whose turn has come: its id, event and cause, and what live views show of it; None when it
    does not wait for its turn."""
    return await connection.fetchrow(
        f"""
        UPDATE attune.execution AS e
           SET status = $2, updated = $3
          FROM attune.enforcement n
         WHERE e.id = $1 AND e.status = ANY($4::text[]) AND n.id = e.enforcement
        RETURNING e.id, n.event, e.correlation_id, e.causation_id, e.depth, {execution_columns("true")}
        """,
        execution_id,
        target(Step.RELEASE).value,
        now,
        sorted(sources(Step.RELEASE)),
    )


async def lock_newest_open_of(connection: Connection, rule: int) -> int | None:
    """The newest execution of a rule that has not ended, and does not before this transaction does."""
    execution: int | None = await connection.fetchval(
        """
        SELECT e.id
          FROM attune.execution_open o JOIN attune.execution e ON e.id = o.execution
          JOIN attune.enforcement n ON n.id = e.enforcement
         WHERE n.rule = $1 AND e.status <> ALL($2::text[])
         ORDER BY e.id DESC
         LIMIT 1
           FOR UPDATE OF e
        """,
        rule,
        sorted(TERMINAL),
    )
    return execution


async def lock(connection: Connection, execution_id: int) -> Execution | None:
    """The execution with that id, which nobody else changes until this transaction ends."""
    row = await connection.fetchrow(
        f"SELECT {COLUMNS} FROM attune.execution e WHERE e.id = $1 FOR UPDATE", execution_id
    )
    return None if row is None else execution_of(row)


async def execution(connection: Connection, execution_id: int) -> Execution | None:
    """The execution with that id."""
    row = await connection.fetchrow(f"SELECT {COLUMNS} FROM attune.execution e WHERE e.id = $1", execution_id)
    return None if row is None else execution_of(row)


async def statuses(connection: Connection, ids: Sequence[int]) -> dict[int, ExecutionStatus]:
    """The states of executions, by id."""
    rows = await connection.fetch("SELECT id, status FROM attune.execution WHERE id = ANY($1::bigint[])", ids)
    return {row["id"]: ExecutionStatus(row["status"]) for row in rows}


async def in_a_worker(connection: Connection) -> list[Execution]:
    """The executions that some worker runs, or is to stop, as far as their rows tell; locked, in the order of their
    ids."""
    rows = await connection.fetch(
        f"""
        SELECT {COLUMNS}
          FROM attune.execution_open o JOIN attune.execution e ON e.id = o.execution
         WHERE e.status IN ('running', 'canceling') AND e.worker IS NOT NULL
         ORDER BY e.id
           FOR UPDATE OF e
        """
    )
    return [execution_of(row) for row in rows]


async def expired(connection: Connection, now: datetime) -> list[Execution]:
    """Executions that run though their lease is over, locked: of the oldest thousands that have not ended."""
    rows = await connection.fetch(
        f"""
        SELECT {COLUMNS}
          FROM (SELECT execution FROM attune.execution_open ORDER BY execution LIMIT {_OLDEST}) AS o
          JOIN attune.execution e ON e.id = o.execution
         WHERE e.status IN ('running', 'canceling') AND e.lease_until < $1
         ORDER BY e.id
           FOR UPDATE OF e
        """,
        now,
    )
    return [execution_of(row) for row in rows]


async def stuck(connection: Connection, before: datetime) -> list[int]:
    """Executions that wait since a moment for a delivery that is not there: neither waiting nor dead."""
    rows = await connection.fetch(
        f"""
        SELECT e.id
          FROM (SELECT execution FROM attune.execution_open ORDER BY execution LIMIT {_OLDEST}) AS o
          JOIN attune.execution e ON e.id = o.execution
         WHERE e.status IN ('requested', 'scheduled') AND e.updated < $1
           AND NOT EXISTS (SELECT FROM attune.delivery WHERE payload ->> 'execution_id' = e.id::text)
           AND NOT EXISTS (SELECT FROM attune.dead_letter WHERE subject = 'execution:' || e.id)
         ORDER BY e.id
         LIMIT 100
        """,
        before,
    )
    return [row["id"] for row in rows]


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Executions that wait for the same: how many, and the first of their ids."""

    waits_for: str
    count: int
    ids: tuple[int, ...]


async def unfinished(
    connection: Connection, now: datetime, except_ids: Sequence[int], shown: int
) -> Sequence[Unfinished]:
    """The executions that wait for something that comes by itself, by what that is."""
    rows = await connection.fetch(
        """
        WITH waiting AS (
            SELECT e.id, CASE WHEN e.status = 'scheduling' THEN 'the turn of its rule'
                              WHEN e.status = 'scheduled' THEN 'a slot of the worker'
                              WHEN e.status = 'running' THEN 'an answer'
                              WHEN e.not_before > $1 THEN 'its retry'
                              ELSE 'the scheduler' END AS waits_for
              FROM attune.execution_open o JOIN attune.execution e ON e.id = o.execution
             WHERE (e.status IN ('requested', 'scheduling', 'scheduled') OR (e.status = 'running' AND e.worker IS NULL))
               AND e.id <> ALL($2::bigint[])
        )
        SELECT waits_for, max(number) AS count, array_agg(id ORDER BY id) FILTER (WHERE number <= $3) AS ids
          FROM (SELECT id, waits_for, row_number() OVER (PARTITION BY waits_for ORDER BY id) AS number FROM waiting) AS
          one
         GROUP BY waits_for
         ORDER BY waits_for
        """,
        now,
        except_ids,
        shown,
    )
    return [Unfinished(row["waits_for"], row["count"], tuple(row["ids"])) for row in rows]


async def endings(connection: Connection, ids: Sequence[int]) -> Sequence[Row]:
    """How executions ended: id, action_ref, status, error, has_run, original_execution, retry_count, duration_ms (None
    when it never ran), takes_turns (it has one, or waits for one), and the definition_version at the moment of
    reading."""
    return await connection.fetch(READ_ENDINGS, ids)


class NewRetry(NamedTuple):
    """The next attempt of an execution, after so many seconds."""

    execution: int
    delay: float
    cause: Cause


async def insert_rerun(
    connection: Connection, execution_id: int, config: str, executor: int | None, origin: Origin, now: datetime
) -> Row | None:
    """Create an execution that does once more what another did, with the parameters `config` (JSON text): id, action,
    action_ref, enforcement, event, rule_ref, trigger_ref; None when there is no such other."""
    return await connection.fetchrow(
        """
        WITH new AS (
            INSERT INTO attune.execution (action, action_ref, config, enforcement, executor, status, original_execution,
                                          retry_reason, correlation_id, causation_id, depth, created, updated, parent)
            SELECT action, action_ref, $2::jsonb, enforcement, $3, 'requested', id, 'rerun', $4, $5, $6, $7, $7, $8
              FROM attune.execution
             WHERE id = $1
            RETURNING id, action, action_ref, enforcement
        ), opened AS (
            INSERT INTO attune.execution_open (execution) SELECT id FROM new
        )
        SELECT new.*, n.event, n.rule_ref, n.trigger_ref
          FROM new LEFT JOIN attune.enforcement n ON n.id = new.enforcement
        """,
        execution_id,
        config,
        executor,
        *origin.cause,
        now,
        origin.execution,
    )


async def origin(connection: Connection, parent: Parent) -> Origin | None:
    """Where what an execution asks for comes from; None when it is not in that chain."""
    row = await connection.fetchrow(
        "SELECT causation_id, depth FROM attune.execution WHERE id = $1 AND correlation_id = $2",
        parent.execution,
        parent.correlation_id,
    )
    if row is None:
        return None
    return Origin(parent.execution, Cause(parent.correlation_id, row["causation_id"], row["depth"] + 1))


async def ancestors(connection: Connection, execution: int, most: int) -> set[int]:
    """An execution, and those that have asked for it or caused the event that led to it, so many steps back at most."""
    rows = await connection.fetch(ANCESTORS, execution, most)
    return {row["id"] for row in rows}


async def provenance(connection: Connection, ids: Sequence[int]) -> dict[int, Provenance]:
    """Where executions come from, by id."""
    rows = await connection.fetch(
        f"SELECT e.id, n.event, n.rule_ref, n.trigger_ref FROM {WITH_ENFORCEMENT} WHERE e.id = ANY($1::bigint[])", ids
    )
    return {row["id"]: Provenance(row["event"], row["rule_ref"], row["trigger_ref"]) for row in rows}


async def insert_retries(connection: Connection, new: Sequence[NewRetry], now: datetime) -> Sequence[Row]:
    """Create the next attempts of executions, where there are none: id, action, action_ref, parent,
    original_execution, retry_count, enforcement, event, rule_ref, trigger_ref."""
    return await connection.fetch(
        INSERT_RETRIES,
        now,
        [one.execution for one in new],
        [one.delay for one in new],
        [one.cause.causation_id for one in new],
        [one.cause.depth for one in new],
    )


async def register_worker(connection: Connection, name: str, host: str, boot: UUID, now: datetime) -> int:
    """The id of the worker with that name, which runs in this boot from now on."""
    worker: int = await connection.fetchval(
        """
        INSERT INTO attune.worker (name, host, boot, started_at) VALUES ($1, $2, $3, $4)
            ON CONFLICT (name) DO UPDATE SET host = excluded.host, boot = excluded.boot, started_at =
            excluded.started_at
        RETURNING id
        """,
        name,
        host,
        boot,
        now,
    )
    return worker


def execution_of(row: Row) -> Execution:
    """The execution of a row with `COLUMNS`."""
    return Execution(
        row["id"],
        row["action"],
        row["action_ref"],
        loads(row["config"]),
        row["parent"],
        row["enforcement"],
        row["event"],
        row["executor"],
        row["worker"],
        ExecutionStatus(row["status"]),
        loads(row["result"]),
        row["original_execution"],
        row["retry_count"],
        row["retry_reason"],
        row["not_before"],
        row["boot"],
        row["deadline"],
        row["lease_until"],
        row["correlation_id"],
        row["causation_id"],
        row["depth"],
        row["created"],
        row["started_at"],
        row["finished_at"],
        row["updated"],
    )


async def not_ended(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Those of some executions that have not ended."""
    rows = await connection.fetch(
        "SELECT execution FROM attune.execution_open WHERE execution = ANY($1::bigint[])", ids
    )
    return {row["execution"] for row in rows}
