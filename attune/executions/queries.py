"""The statements on `attune.enforcement`, `attune.execution`, `attune.execution_open`, `attune.streak` and
`attune.worker`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, TypeAlias
from uuid import UUID

from attune.base.json import loads
from attune.base.states import TERMINAL, EnforcementStatus, ExecutionStatus
from attune.base.traces import Parent
from attune.bus.messages import Cause
from attune.database.arrays import nullable
from attune.database.paging import Page, Where, Window, fetch_page
from attune.database.pool import Connection, Row, affected
from attune.executions.model import (
    Enforcement,
    Execution,
    Finished,
    NewEnforcement,
    NewExecution,
    Origin,
    Provenance,
    Requested,
)
from attune.executions.states import Step, sources, target


def _if_watched(flag: str, values: dict[str, str]) -> str:
    """Columns for live views, which are null unless `flag` is true: then they cost next to nothing."""
    return ", ".join(f"CASE WHEN {flag} THEN {value} END AS {name}" for name, value in values.items())


def _shown(flag: str) -> str:
    """What live views show of executions `e` that a statement changes. A subquery sees the row as it was before."""
    return _if_watched(
        flag,
        {
            "action": "e.action",
            "action_ref": "e.action_ref",
            "enforcement": "e.enforcement",
            "parent": "e.parent",
            "created": "e.created",
            "started_at": "e.started_at",
            "finished_at": "e.finished_at",
            "error": "left(e.result ->> 'error', 300)",
            "rule_ref": "(SELECT rule_ref FROM attune.enforcement WHERE id = e.enforcement)",
            "trigger_ref": "(SELECT trigger_ref FROM attune.enforcement WHERE id = e.enforcement)",
            "old_status": "(SELECT status FROM attune.execution WHERE id = e.id)",
        },
    )


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
_ENFORCEMENT_SHOWN = {name: f"n.{name}" for name in ("rule", "rule_ref", "trigger_ref", "event", "created")}

RESOLVE_ENFORCEMENTS = f"""
    UPDATE attune.enforcement AS n
       SET status = $2, reason = new.reason, resolved_at = $4
      FROM unnest($1::bigint[], $3::text[]) AS new (id, reason)
     WHERE n.id = ANY($1::bigint[]) AND n.id = new.id AND n.status = 'created'
    RETURNING n.id, {_if_watched("$5::bool", _ENFORCEMENT_SHOWN)}
"""

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
    RETURNING id, {_shown("$5::bool")}
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
              {_shown("$7::bool")}
"""

ASK = f"""
    UPDATE attune.execution AS e
       SET status = 'running', started_at = $2, updated = $2, deadline = new.deadline
      FROM unnest($1::bigint[], $3::timestamptz[]) AS new (id, deadline)
     WHERE e.id = ANY($1::bigint[]) AND e.id = new.id AND e.status = ANY($4::text[])
    RETURNING e.id, {_shown("$5::bool")}
"""

FINISH = f"""
    WITH done AS (
        UPDATE attune.execution AS e
           SET status = $1, result = new.result::jsonb, finished_at = $2, updated = $2
          FROM unnest($3::bigint[], $4::text[]) AS new (id, result)
         WHERE e.id = ANY($3::bigint[]) AND e.id = new.id AND e.status = ANY($5::text[])
        RETURNING e.id, {_shown("$6::bool")}
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

_OLDEST = 20_000
"""What has been open for so long that its lease may be over is among these."""

_DISPATCHABLE = sorted(sources(Step.DISPATCH))
_ASKABLE = sorted(sources(Step.ASK))


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
        RETURNING id, {_shown("true")}
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
        RETURNING e.id, n.event, e.correlation_id, e.causation_id, e.depth, {_shown("true")}
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


Ref: TypeAlias = tuple[str, str]
"""`rule` or `action`, and which."""


class Failures(NamedTuple):
    """How often in a row a rule or an action has failed, since when, and in which execution the last time."""

    kind: str
    ref: str
    failures: int
    first: datetime
    last: datetime
    execution: int


async def open_streaks(connection: Connection) -> set[Ref]:
    """The rules and the actions that have failed, and have not completed since."""
    return {(row["kind"], row["ref"]) for row in await connection.fetch("SELECT kind, ref FROM attune.streak")}


# Scalar subqueries: a join would be free to read the whole table.
STREAK_FACTS = """
    SELECT id, finished_at, (SELECT rule_ref FROM attune.enforcement WHERE id = e.enforcement) AS rule_ref,
           (SELECT true FROM attune.alert WHERE correlation_id = e.correlation_id) IS NOT NULL AS is_of_alert
      FROM attune.execution AS e
     WHERE id = ANY($1::bigint[])
"""


async def streak_facts(connection: Connection, ids: Sequence[int]) -> dict[int, Row]:
    """What streaks need of executions that have ended, by id: id, finished_at, rule_ref, is_of_alert (an alert has
    caused it)."""
    return {row["id"]: row for row in await connection.fetch(STREAK_FACTS, ids)}


async def end_streaks(connection: Connection, refs: Sequence[Ref]) -> None:
    """Forget how often rules and actions have failed."""
    await connection.execute(
        "DELETE FROM attune.streak WHERE (kind, ref) IN (SELECT * FROM unnest($1::text[], $2::text[]))",
        [kind for kind, _ in refs],
        [ref for _, ref in refs],
    )


async def grow_streaks(connection: Connection, failures: Sequence[Failures]) -> None:
    """Note that rules and actions have failed, each named once."""
    await connection.execute(
        """
        INSERT INTO attune.streak AS s (kind, ref, failures, first, last, execution)
        SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::timestamptz[], $5::timestamptz[], $6::bigint[])
            ON CONFLICT (kind, ref) DO UPDATE
           SET failures = s.failures + excluded.failures, last = excluded.last, execution = excluded.execution
        """,
        *zip(*failures, strict=True),
    )


async def forget_streaks(connection: Connection) -> None:
    """Forget the streaks of rules and actions that are not there any more."""
    await connection.execute(
        """
        DELETE FROM attune.streak
         WHERE (kind = 'rule' AND ref NOT IN (SELECT ref FROM attune.rule))
            OR (kind = 'action' AND ref NOT IN (SELECT ref FROM attune.action))
        """
    )


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
        f"SELECT e.id, n.event, n.rule_ref, n.trigger_ref FROM {_WITH_ENFORCEMENT} WHERE e.id = ANY($1::bigint[])", ids
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


_SUMMARY = """
    e.id, e.action_ref, e.status, e.parent, e.enforcement, n.rule_ref, n.trigger_ref, n.event, e.original_execution,
    e.retry_count, e.retry_reason, e.not_before, turn.execution AS turn_of, e.worker, e.correlation_id, e.created,
    e.started_at, e.finished_at, e.updated
"""
_WITH_ENFORCEMENT = "attune.execution e LEFT JOIN attune.enforcement n ON n.id = e.enforcement"
_WITH_TURN = f"{_WITH_ENFORCEMENT} LEFT JOIN attune.rule_turn turn ON turn.rule = n.rule"


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
          FROM attune.execution_open o JOIN {_WITH_ENFORCEMENT} ON e.id = o.execution
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


# Scalar subqueries, here and below: a join, or an EXISTS, would be free to read the whole table.
OPEN_CHAINS = """
    SELECT DISTINCT correlation_id
      FROM (SELECT (SELECT correlation_id FROM attune.execution WHERE id = execution) AS correlation_id
              FROM attune.execution_open) AS unfinished
     WHERE correlation_id = ANY($1::uuid[])
"""


async def open_chains(connection: Connection, chains: Sequence[UUID]) -> set[UUID]:
    """Those of some chains of which an execution has not ended."""
    return {row["correlation_id"] for row in await connection.fetch(OPEN_CHAINS, chains)}


OLDEST_EXECUTIONS = """
    SELECT e.id, e.correlation_id, e.created, 1 AS rows,
           e.finished_at IS NULL OR e.finished_at >= $2
           OR (e.is_first AND coalesce((SELECT true FROM attune.enforcement WHERE id = e.enforcement), false))
           AS is_needed
      FROM (SELECT id, correlation_id, created, finished_at, enforcement,
                   parent IS NULL AND original_execution IS NULL AS is_first
              FROM attune.execution
             WHERE id > $1
             ORDER BY id
             LIMIT $3) AS e
     ORDER BY e.id
"""


async def oldest_executions(connection: Connection, after: int, before: datetime, limit: int) -> Sequence[Row]:
    """The first executions after an id: id, correlation_id, created, rows, is_needed (it has not ended before that
    moment, or is what became of an enforcement that is still there)."""
    return await connection.fetch(OLDEST_EXECUTIONS, after, before, limit)


async def delete_executions(connection: Connection, ids: Sequence[int]) -> int:
    """Forget executions that have ended; how many there were."""
    return affected(await connection.execute("DELETE FROM attune.execution WHERE id = ANY($1::bigint[])", ids))


DELETE_ENFORCEMENTS = "DELETE FROM attune.enforcement WHERE event = ANY($1::bigint[]) RETURNING id"

DELETE_FIRST_EXECUTIONS = """
    DELETE FROM attune.execution
     WHERE enforcement = ANY($1::bigint[]) AND parent IS NULL AND original_execution IS NULL
    RETURNING id
"""


async def delete_of_events(connection: Connection, events: Sequence[int]) -> tuple[int, list[int]]:
    """Forget what became of events: how many enforcements that were, and the ids of their executions."""
    enforcements = [row["id"] for row in await connection.fetch(DELETE_ENFORCEMENTS, events)]
    rows = await connection.fetch(DELETE_FIRST_EXECUTIONS, enforcements)
    return len(enforcements), [row["id"] for row in rows]


async def not_resolved(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Those of some enforcements of which nothing has become so far."""
    rows = await connection.fetch(
        "SELECT id FROM attune.enforcement WHERE id = ANY($1::bigint[]) AND status = 'created'", ids
    )
    return {row["id"] for row in rows}


async def not_ended(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Those of some executions that have not ended."""
    rows = await connection.fetch(
        "SELECT execution FROM attune.execution_open WHERE execution = ANY($1::bigint[])", ids
    )
    return {row["execution"] for row in rows}


async def existing(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Those of some executions that there are."""
    rows = await connection.fetch("SELECT id FROM attune.execution WHERE id = ANY($1::bigint[])", ids)
    return {row["id"] for row in rows}
