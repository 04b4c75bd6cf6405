"""Hot statements find their rows by index, and change them in place."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from attune.base.json import loads
from attune.bus import queries as bus
from attune.bus.messages import Cause
from attune.catalog import queries as catalog
from attune.database.embedded import Cluster
from attune.database.ids import uuid7
from attune.database.pool import Row
from attune.events import queries as events
from attune.events.model import NewEvent
from attune.executions import enforcement_queries as enforcements
from attune.executions import queries as executions
from attune.executions import removal_queries, streak_queries
from attune.people import queries as people
from attune.rules import queries as rules
from attune.sources.timers import queries as timers
from tests.pipeline.shop import SHOP, TRIGGERS, new_rule, rows
from tests.support.databases import new_database, pool_on
from tests.support.engines import engine_on, pack
from tests.support.waiting import until


@pytest.fixture(scope="module")
async def full(cluster: Cluster) -> AsyncIterator[asyncpg.Connection]:
    """A database with 10,000 of everything, of which one in ten is open."""
    async with new_database(cluster) as dsn:
        connection = await asyncpg.connect(dsn, statement_cache_size=0)
        await connection.execute(FILL)
        yield connection
        await connection.close()


FILL = """
    INSERT INTO attune.event (trigger, trigger_ref, source_ref, payload, correlation_id, depth, created)
    SELECT 1, 'shop.sold', 'test', '{"a": 1}', gen_random_uuid(), 0, now() FROM generate_series(1, 10000);
    INSERT INTO attune.event_match (event, definition_version, rules, matched, failed, created)
    SELECT id, 1, 1, 1, 0, now() FROM attune.event;
    INSERT INTO attune.enforcement (rule, rule_ref, trigger_ref, event, config, status, correlation_id, depth, created)
    SELECT 1, 'shop.rule', 'shop.sold', id, '{}', 'created', correlation_id, 1, now() FROM attune.event;
    INSERT INTO attune.execution (action, action_ref, config, enforcement, worker, status, correlation_id, depth,
                                  created, updated)
    SELECT 1, 'core.noop', '{}', id, 1, CASE WHEN id % 10 = 0 THEN 'scheduled' ELSE 'completed' END, correlation_id, 2,
           now(), now()
      FROM attune.enforcement;
    INSERT INTO attune.execution_open SELECT id FROM attune.execution;
    INSERT INTO attune.rule_turn (rule, execution) SELECT id, id FROM attune.execution;
    INSERT INTO attune.rule_queue (rule, execution) SELECT id % 10, id FROM attune.execution;
    INSERT INTO attune.delivery (queue, message_id, correlation_id, depth, message_type, version, source, payload,
                                 published_at, available_at, attempt)
    SELECT 'queue', gen_random_uuid(), correlation_id, 0, 'EventCreated', '1.0', 'test', '{}', now(), now(), 1
      FROM attune.event;
    INSERT INTO attune.trace (queue, message_id, correlation_id, depth, message_type, source, consumer, published_at,
                              delivered_at, done_at, attempt, outcome)
    SELECT 'queue', gen_random_uuid(), correlation_id, 0, 'EventCreated', 'test', 'test', now(), now(), now(), 1, 'done'
      FROM attune.event;
    INSERT INTO attune.revision (version, kind, entity, ref, created)
    SELECT number, 'rule', number % 100, 'shop.rule', now() FROM generate_series(1, 10000) AS number;
    INSERT INTO attune.dead_letter (queue, message_id, correlation_id, depth, message_type, version, source, payload,
                                    attempts, error, published_at, created)
    SELECT 'queue', gen_random_uuid(), correlation_id, 0, 'EventCreated', '1.0', 'test', '{}', 5, 'no', now(), now()
      FROM attune.event;
    INSERT INTO attune.timer_skip (rule, rule_ref, first, last, count, reason, created)
    SELECT 1, 'shop.often', now(), now(), 1, 'misfire', now() FROM attune.event;
    INSERT INTO attune.inquiry (execution, waits, prompt, status, timeout_at, correlation_id, depth, created, updated)
    SELECT id, true, 'Shall we?', CASE WHEN id % 10 = 0 THEN 'pending' ELSE 'responded' END,
           '2026-03-01'::timestamptz + id * interval '1 second', correlation_id, 3, now(), now()
      FROM attune.execution;
    INSERT INTO attune.idempotency_key (scope, key, fingerprint, subject, created)
    SELECT 'local POST /api/v1/events', 'key ' || id, sha256(id::text::bytea), id,
           '2026-03-01'::timestamptz + id * interval '1 second'
      FROM attune.event;
    INSERT INTO attune.alert (kind, subject, event, correlation_id, raised)
    SELECT 'dead_letter', 'dead_letter:' || id, id, correlation_id, now() FROM attune.event;
    INSERT INTO attune.dead_letter (queue, message_id, correlation_id, depth, message_type, version, source, payload,
                                    attempts, error, published_at, created, alerted)
    SELECT queue, message_id, correlation_id, depth, message_type, version, source, payload, 1, '', now(), now(), true
      FROM attune.delivery;
    ANALYZE
"""

_IDS = "'{" + ",".join(str(number) for number in range(4_000, 4_100)) + "}'"
_TIMEOUTS = "{" + ",".join("300" for _ in range(100)) + "}"
_UUIDS = "'{" + ",".join(str(uuid7()) for _ in range(100)) + "}'"
_NOW = "'2026-03-01'"
_SCOPES = "'{" + ",".join(['"local POST /api/v1/events"'] * 100) + "}'"
_KEYS = "'{" + ",".join(f'"key {number}"' for number in range(4_000, 4_100)) + "}'"

# Statements of the hot path, and arguments for them.
HOT: dict[str, tuple[str, list[str]]] = {
    "the matcher reads events": (events.READ_WITH_VERSION, [_IDS]),
    "the processor reads enforcements": (enforcements.READ_ENFORCEMENTS, [_IDS]),
    "the processor closes enforcements": (
        enforcements.RESOLVE_ENFORCEMENTS,
        [_IDS, "'processed'", "'{}'", _NOW, "true"],
    ),
    "the scheduler reads executions": (executions.READ_REQUESTED, [_IDS]),
    "the scheduler dispatches": (executions.DISPATCH, [_IDS, "1", _NOW, "'{requested,scheduling}'", "true"]),
    "the worker starts": (executions.START, [_IDS, _NOW, "1", f"'{uuid7()}'", f"'{_TIMEOUTS}'", "35", "true"]),
    "the writer ends": (executions.FINISH, ["'completed'", _NOW, _IDS, "'{}'", "'{running}'", "true"]),
    "completion reads": (executions.READ_ENDINGS, [_IDS]),
    "completion reads what failed": (streak_queries.STREAK_FACTS, [_IDS]),
    "dead letters of which nobody was told": (bus.TAKE_NOT_ALERTED, ["25"]),
    "what has led to an event": (rules.ANCESTORS, [_IDS, _NOW, "1000"]),
    "the history of a rule": (rules.TRIGGER_HISTORY, ["1", "'shop.sold'", "9000", "100"]),
    "the history of a rule with a timer": (rules.TIMER_HISTORY, ["1", _NOW, "'2026-02-01'", "100"]),
    "a person is asked": (executions.ASK, [_IDS, _NOW, "'{}'", "'{requested,scheduling}'", "false"]),
    "inquiries are read": (people.READ, [_IDS]),
    "inquiries of executions are read": (people.OF_EXECUTIONS, [_IDS]),
    "the time of inquiries is over": (people.LOCK_DUE, ["'2026-03-01T00:10:00Z'", "500"]),
    "the next of them": (people.NEXT_DUE, []),
    "a key is looked up": (events.READ_KEY, ["'local POST /api/v1/events'", "'key 7'", _NOW]),
    "what keys have made is noted": (events.NAME_SUBJECTS, [_SCOPES, _KEYS, _IDS]),
    "answers are kept": (events.KEEP_ANSWERS, [_SCOPES, _KEYS, _IDS]),
    "keys are forgotten": (events.FORGET_KEYS, ["'2026-03-01T00:10:00Z'", "1000"]),
    "a consumer claims": (bus.CLAIM, ["'queue'", _UUIDS]),
}


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("name", HOT)
async def test_hot_statements_find_their_rows_by_index(full: asyncpg.Connection, name: str, mode: str) -> None:
    statement, arguments = HOT[name]

    assert await _scanned(full, statement, arguments, mode) <= {"definition_version"}


# Statements with which retention looks for what can go, and removes it; and the tables that it may read wholly, because
# it does not look while there is much in them.
RETENTION: dict[str, tuple[str, list[str], set[str]]] = {
    "the oldest events": (rules.OLDEST_EVENTS, ["4000", _NOW, "250"], set()),
    "the oldest executions": (removal_queries.OLDEST_EXECUTIONS, ["4000", _NOW, "1000"], set()),
    "chains that are open": (bus.OPEN_CHAINS, [_UUIDS], {"delivery"}),
    "chains with an open execution": (removal_queries.OPEN_CHAINS, [_UUIDS], {"execution_open"}),
    "chains with an open question": (people.OPEN_CHAINS, [_UUIDS], set()),
    "inquiries go": (people.DELETE_OF_EXECUTIONS, [_IDS], set()),
    "enforcements go": (removal_queries.DELETE_ENFORCEMENTS, [_IDS], set()),
    "executions go": (removal_queries.DELETE_FIRST_EXECUTIONS, [_IDS], set()),
    "dead letters": (bus.OLDEST_DEAD_LETTERS, ["0", "1000"], set()),
    "skips": (timers.OLDEST_SKIPS, ["0", "1000"], set()),
    "revisions go": (catalog.DELETE_REVISIONS, ["500", "1000"], set()),
}


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("name", RETENTION)
async def test_retention_finds_its_rows_by_index(full: asyncpg.Connection, name: str, mode: str) -> None:
    statement, arguments, may_be_read = RETENTION[name]

    assert await _scanned(full, statement, arguments, mode) <= may_be_read


@pytest.mark.parametrize("name", ["the oldest events", "the oldest executions"])
async def test_retention_finds_its_rows_by_index_whatever_statistics_there_are(
    full: asyncpg.Connection, name: str
) -> None:
    """Without any, the planner would expect many rows for each, and rather read a table wholly for each of them."""
    statement, arguments, _ = RETENTION[name]

    async with full.transaction():
        await full.execute("SET LOCAL enable_nestloop = off")
        assert await _scanned(full, statement, arguments, "force_custom_plan") == set()


async def _scanned(connection: asyncpg.Connection, statement: str, arguments: list[str], mode: str) -> set[str]:
    """The tables of which a statement reads every row."""
    await connection.execute(f"SET plan_cache_mode = {mode}; DEALLOCATE ALL; PREPARE hot AS {statement}")
    given = f"({', '.join(arguments)})" if arguments else ""
    plan = loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE hot {given}"))
    nodes, scanned = [plan[0]["Plan"]], set()
    while nodes:
        node = nodes.pop()
        nodes.extend(node.get("Plans", ()))
        if node["Node Type"] == "Seq Scan":
            scanned.add(node["Relation Name"])
    return scanned


async def test_no_index_of_executions_mentions_what_changes(full: asyncpg.Connection) -> None:
    """A predicate does as much as a column: with either, no update of an execution would be in place."""
    indexes = await full.fetch(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'attune' AND tablename = 'execution'"
    )

    assert indexes
    for index in indexes:
        for column in ("status", "updated", "worker", "result", "started_at", "finished_at"):
            assert column not in index["indexdef"]


async def test_more_than_70_of_100_updates_of_executions_are_in_place(dsn: str, tmp_path: Path) -> None:
    """HOT: the row moves within its page, and no index hears of it."""
    count = 300
    async with (
        pool_on(dsn) as database,
        engine_on(database, tmp_path, packs=[pack(tmp_path, "shop", SHOP)]) as engine,
        engine.running(),
    ):
        await new_rule(engine, TRIGGERS[0])
        trigger = engine.definitions.triggers.by_ref[TRIGGERS[0]]
        for _ in range(3):
            async with engine.bus.transaction() as transaction:
                new = [NewEvent(trigger.id, trigger.ref, None, "test", Cause(uuid7(), None, 0))] * (count // 3)
                await engine.ingest.record(transaction, new)

        async def finished() -> bool | None:
            (row,) = await rows(engine, "SELECT count(finished_at) AS finished FROM attune.execution")
            return True if row["finished"] == count else None

        await until(finished)
    # A connection reports what it did at the latest when it ends.
    async with pool_on(dsn) as database:

        async def reported() -> Row | None:
            row = await database.fetch_one(
                "SELECT n_tup_upd AS updates, n_tup_hot_upd AS hot FROM pg_stat_user_tables WHERE relname = 'execution'"
            )
            return row if row is not None and row["updates"] >= 3 * count else None

        row = await until(reported)
    assert row["hot"] / row["updates"] > 0.7
