"""What goes, when, and in which portions; and what stays, however old it is."""

import os
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog.testing

from attune.bus.bus import Bus
from attune.bus.topology import TOPOLOGY
from attune.catalog import queries as catalog
from attune.catalog.definitions import Definitions
from attune.database.ids import uuid7
from attune.database.pool import Database
from attune.engine import Engine
from attune.rules.explain import explain
from attune.settings import Retention as Limits
from attune.upkeep.kept import UNFINISHED
from attune.upkeep.metrics import removals
from attune.upkeep.retention import BUSY, EVERY, Retention
from attune.workers.logs import Logs
from tests.pipeline.shop import SHOP, new_rule, new_trigger, rows, settled
from tests.support.clock import START, VirtualClock
from tests.support.engines import emit, engine_on, pack
from tests.support.history import Story, asks, died, happened, ran, waits
from tests.support.waiting import eventually

DAY = timedelta(days=1)
OLD, YOUNG = START - 31 * DAY, START - 29 * DAY
LARGE = '"' + random.Random(1).randbytes(20_000).hex() + '"'
TABLES = ("event", "event_match", "enforcement", "execution")


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path / "logs")


@pytest.fixture
def retention(shared_database: Database, logs: Logs) -> Retention:
    return made(shared_database, logs)


def made(database: Database, logs: Logs, clock: VirtualClock | None = None, **limits: int) -> Retention:
    bus = Bus(database, TOPOLOGY, clock or VirtualClock(), lambda: True)
    return Retention(bus, Definitions(), logs, Limits(**limits))


async def ids(database: Database, table: str) -> list[int]:
    """The ids of all that a table holds."""
    key = "event" if table == "event_match" else "id"
    return [row[key] for row in await database.fetch_all(f"SELECT {key} FROM attune.{table} ORDER BY {key}")]


async def left(database: Database) -> dict[str, int]:
    return {table: len(await ids(database, table)) for table in TABLES}


def whole(count: int) -> dict[str, int]:
    """So many events, with all that became of them."""
    return dict.fromkeys(TABLES, count)


def printed(logs: Logs, execution: int, text: str = "hello\n", *, at: datetime | None = None) -> Path:
    path = logs.path(execution, "stdout")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if at is not None:
        os.utime(path, (at.timestamp(), at.timestamp()))
    return path


# Age


async def test_what_is_old_goes_with_its_logs_and_what_is_young_stays(
    shared_database: Database, retention: Retention, logs: Logs
) -> None:
    old, young = await happened(shared_database, OLD), await happened(shared_database, YOUNG)
    gone, kept = printed(logs, old.execution), printed(logs, young.execution)

    await retention.once()

    assert [await ids(shared_database, table) for table in TABLES] == [
        [young.event],
        [young.event],
        [young.enforcement],
        [young.execution],
    ]
    assert (gone.exists(), kept.exists()) == (False, True)


async def test_executions_that_no_event_led_to_go_as_well(shared_database: Database, retention: Retention) -> None:
    await ran(shared_database, OLD)
    young = await ran(shared_database, YOUNG)
    story = await happened(shared_database, YOUNG)

    await retention.once()

    assert await ids(shared_database, "execution") == [young, story.execution]


async def test_skipped_instants_go(shared_database: Database, retention: Retention) -> None:
    async with shared_database.acquire() as connection:
        await connection.execute(
            "INSERT INTO attune.timer_skip (rule, rule_ref, first, last, count, reason, created) "
            "SELECT 1, 'shop.often', at, at, 1, 'misfire', at FROM unnest($1::timestamptz[]) AS at",
            [OLD, YOUNG],
        )

    await retention.once()

    assert len(await ids(shared_database, "timer_skip")) == 1


async def test_what_ended_late_stays_with_its_event_until_that_is_long_ago(
    shared_database: Database, logs: Logs
) -> None:
    clock = VirtualClock()
    retention = made(shared_database, logs, clock)
    await happened(shared_database, OLD, ended_at=YOUNG)
    await ran(shared_database, OLD, ended_at=YOUNG)

    await retention.once()
    assert await left(shared_database) == {**whole(1), "execution": 2}

    clock.advance(2 * 86_400)
    await retention.once()
    assert await left(shared_database) == whole(0)


async def test_rows_from_the_future_keep_nobody_from_going(shared_database: Database, retention: Retention) -> None:
    """The clock was wrong for a while, and is right again."""
    await happened(shared_database, START + 1000 * DAY)
    await happened(shared_database, OLD)
    await happened(shared_database, YOUNG)

    await retention.once()

    assert await left(shared_database) == whole(2)


async def test_how_long_is_for_the_settings_to_say(shared_database: Database, logs: Logs) -> None:
    await happened(shared_database, START - 3 * DAY)

    await made(shared_database, logs, days=4).once()
    assert await left(shared_database) == whole(1)

    await made(shared_database, logs, days=2).once()
    assert await left(shared_database) == whole(0)


# Open chains


async def _running(database: Database, story: Story) -> None:
    await ran(database, OLD, chain=story.chain, is_open=True)


async def _waiting(database: Database, story: Story) -> None:
    await waits(database, OLD, story.chain)


async def _dead(database: Database, story: Story) -> None:
    await died(database, OLD, story.chain)


async def _asking(database: Database, story: Story) -> None:
    await asks(database, OLD, story.execution, story.chain)


async def _undecided(database: Database, story: Story) -> None:
    async with database.acquire() as connection:
        await connection.execute("UPDATE attune.enforcement SET status = 'created' WHERE id = $1", story.enforcement)


@pytest.mark.parametrize("unfinished", [_running, _waiting, _dead, _asking, _undecided])
async def test_nothing_goes_of_a_chain_that_is_open(
    shared_database: Database, retention: Retention, unfinished: Callable[[Database, Story], Any]
) -> None:
    story = await happened(shared_database, OLD)
    # What an execution of the chain has caused, started, and tried again.
    await happened(shared_database, OLD, chain=story.chain)
    await ran(shared_database, OLD, chain=story.chain, parent=story.execution)
    await ran(shared_database, OLD, chain=story.chain, original=story.execution)
    closed = await happened(shared_database, OLD)
    await unfinished(shared_database, story)
    before = await ids(shared_database, "execution")

    await retention.once()

    if unfinished is not _undecided:
        assert await ids(shared_database, "execution") == [one for one in before if one != closed.execution]
    assert story.event in await ids(shared_database, "event")
    assert story.enforcement in await ids(shared_database, "enforcement")
    assert story.execution in await ids(shared_database, "execution")
    assert closed.event not in await ids(shared_database, "event")


async def test_what_an_execution_has_asked_goes_with_it(shared_database: Database, retention: Retention) -> None:
    story, alone = await happened(shared_database, OLD), await ran(shared_database, OLD)
    young = await happened(shared_database, YOUNG)
    for execution in (story.execution, alone, young.execution):
        await asks(shared_database, OLD, execution, uuid7(), status="responded")

    await retention.once()

    (row,) = await shared_database.fetch_all("SELECT execution FROM attune.inquiry")
    assert row["execution"] == young.execution
    assert retention.account.removed["inquiry"] == 2


async def test_a_chain_goes_once_it_is_closed(shared_database: Database, logs: Logs) -> None:
    clock = VirtualClock()
    retention = made(shared_database, logs, clock)
    story = await happened(shared_database, OLD)
    await ran(shared_database, OLD, chain=story.chain, parent=story.execution)
    await waits(shared_database, OLD, story.chain)
    await retention.once()

    async with shared_database.acquire() as connection:
        await connection.execute("DELETE FROM attune.delivery")
    clock.advance(3600)
    await retention.once()

    assert await left(shared_database) == whole(0)


async def test_an_event_that_the_matcher_has_not_seen_stays(shared_database: Database, retention: Retention) -> None:
    story = await happened(shared_database, OLD)
    await waits(shared_database, OLD, story.chain)
    async with shared_database.acquire() as connection:
        await connection.execute("DELETE FROM attune.event_match")

    await retention.once()

    assert await ids(shared_database, "event") == [story.event]


# Dead letters


async def test_dead_letters_go_after_their_time_unless_something_waits_for_them(
    shared_database: Database, retention: Retention
) -> None:
    long_ago = START - 91 * DAY
    ended = await happened(shared_database, YOUNG)
    open_ = await ran(shared_database, long_ago, is_open=True)
    unmatched = await happened(shared_database, YOUNG)
    undecided = await happened(shared_database, YOUNG)
    async with shared_database.acquire() as connection:
        await connection.execute("DELETE FROM attune.event_match WHERE event = $1", unmatched.event)
        await connection.execute(
            "UPDATE attune.enforcement SET status = 'created' WHERE id = $1", undecided.enforcement
        )
    for subject in (None, f"event:{ended.event}", f"execution:{ended.execution}", "enforcement:9000000"):
        await died(shared_database, long_ago, subject=subject)
    kept = [
        await died(shared_database, long_ago, subject=f"execution:{open_}"),
        await died(shared_database, long_ago, subject=f"event:{unmatched.event}"),
        await died(shared_database, long_ago, subject=f"enforcement:{undecided.enforcement}"),
        await died(shared_database, START - 89 * DAY),
    ]

    await retention.once()

    assert await ids(shared_database, "dead_letter") == kept


def test_it_is_known_of_every_subject_whether_it_waits() -> None:
    subjects = {message.about.removesuffix("_id") for message in TOPOLOGY.messages if message.about}

    assert subjects == set(UNFINISHED)


# Portions


class Watching(VirtualClock):
    """Time passes only while somebody looks at the clock, and whoever sleeps is noted."""

    def __init__(self, step: float) -> None:
        super().__init__()
        self.slept: list[float] = []
        self.on_sleep: Callable[[], None] = lambda: None
        self._step = step

    def monotonic(self) -> float:
        self._monotonic += self._step
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.on_sleep()
        await anyio.lowlevel.checkpoint()


async def fill(database: Database, events: int, at: datetime = OLD) -> None:
    """Events with an enforcement and an execution each, all in one go."""
    async with database.acquire() as connection:
        await connection.execute(
            """
            WITH happened AS (
                INSERT INTO attune.event (trigger, trigger_ref, source_ref, correlation_id, depth, created)
                SELECT 1, 'shop.sold', 'test', gen_random_uuid(), 0, $2 FROM generate_series(1, $1) RETURNING *
            ), matched AS (
                INSERT INTO attune.event_match (event, definition_version, rules, matched, failed, created)
                SELECT id, 1, 1, 1, 0, created FROM happened
            ), decided AS (
                INSERT INTO attune.enforcement (rule, rule_ref, trigger_ref, event, config, status, correlation_id,
                                                depth, created)
                SELECT 1, 'shop.tell', trigger_ref, id, '{}', 'processed', correlation_id, 1, created FROM happened
                RETURNING *
            )
            INSERT INTO attune.execution (action_ref, config, status, enforcement, correlation_id, depth, created,
                                          updated, finished_at)
            SELECT 'core.noop', '{}', 'completed', id, correlation_id, 2, created, created, created FROM decided
            """,
            events,
            at,
        )


async def test_no_transaction_removes_more_than_a_thousand_rows(shared_database: Database, logs: Logs) -> None:
    clock = Watching(0.001)
    retention = made(shared_database, logs, clock)
    await fill(shared_database, 1_000)
    for _ in range(4):
        await happened(shared_database, OLD, rules=200)
    totals = [0]
    clock.on_sleep = lambda: totals.append(retention.account.removed.total())

    await retention.once()

    assert await left(shared_database) == whole(0)
    portions = [after - before for before, after in pairwise(totals)]
    assert max(portions) <= 1_000
    assert len([portion for portion in portions if portion]) <= 20


async def test_an_event_with_more_than_that_goes_alone(shared_database: Database, retention: Retention) -> None:
    for _ in range(2):
        await happened(shared_database, OLD, rules=600)
    totals: list[int] = []
    clock = Watching(0.001)
    retention = made(shared_database, retention._logs, clock)
    clock.on_sleep = lambda: totals.append(retention.account.removed.total())

    await retention.once()

    assert [total for total in dict.fromkeys(totals) if total] == [1_202, 2_404]


async def test_it_rests_four_times_as_long_as_it_works(shared_database: Database, logs: Logs) -> None:
    clock = Watching(0.03)
    await fill(shared_database, 100)

    await made(shared_database, logs, clock).once()

    assert clock.slept == [pytest.approx(0.12)] * len(clock.slept)


async def test_it_takes_less_at_once_where_that_takes_long(shared_database: Database, logs: Logs) -> None:
    clock = Watching(1.0)
    retention = made(shared_database, logs, clock)
    await fill(shared_database, 200)
    totals = [0]
    clock.on_sleep = lambda: totals.append(retention.account.removed.total())

    await retention.once()

    portions = [after - before for before, after in pairwise(totals)]
    assert portions[:4] == [4 * 62, 4 * 31, 4 * 25, 4 * 25]
    assert await left(shared_database) == whole(0)


async def test_what_stays_is_looked_at_again_only_after_an_hour(shared_database: Database, logs: Logs) -> None:
    clock = VirtualClock()
    retention = made(shared_database, logs, clock)
    story = await happened(shared_database, OLD)
    await waits(shared_database, OLD, story.chain)
    await retention.once()
    async with shared_database.acquire() as connection:
        await connection.execute("DELETE FROM attune.delivery")
    await happened(shared_database, OLD)

    clock.advance(300)
    await retention.once()
    assert await ids(shared_database, "event") == [story.event]

    clock.advance(3600)
    await retention.once()
    assert await left(shared_database) == whole(0)


async def test_it_waits_while_much_is_to_be_done(shared_database: Database, logs: Logs) -> None:
    clock = VirtualClock()
    retention = made(shared_database, logs, clock)
    await happened(shared_database, OLD)
    await waits(shared_database, START, count=BUSY + 1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(retention.once)
        await eventually(lambda: "event" in retention.account.overdue)
        assert retention.account.overdue["event"] == DAY
        assert await left(shared_database) == whole(1)

        async with shared_database.acquire() as connection:
            await connection.execute("DELETE FROM attune.delivery")
        await eventually(lambda: bool(clock._sleepers))
        clock.advance(10)

    assert await left(shared_database) == whole(0)
    assert retention.account.overdue == {}


async def test_a_cycle_that_was_cut_short_is_taken_up_again(shared_database: Database, logs: Logs) -> None:
    clock = Watching(0.001)
    retention = made(shared_database, logs, clock)
    await fill(shared_database, 500)
    await fill(shared_database, 5, YOUNG)
    with anyio.CancelScope() as scope:
        clock.on_sleep = lambda: scope.cancel() if retention.account.removed.total() > 500 else None
        await retention.once()
    cut = await left(shared_database)
    assert 5 < cut["event"] < 505
    assert cut == whole(cut["event"])

    await made(shared_database, logs).once()

    assert await left(shared_database) == whole(5)


async def test_it_outlives_a_database_that_is_away(shared_database: Database, logs: Logs) -> None:
    clock = VirtualClock()
    owned = False
    bus = Bus(shared_database, TOPOLOGY, clock, lambda: owned)
    retention = Retention(bus, Definitions(), logs, Limits())
    await happened(shared_database, OLD)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(retention.run)
        for _ in range(3):
            await eventually(lambda: bool(clock._sleepers))
            clock.advance(EVERY)
        assert await left(shared_database) == whole(1)
        await eventually(lambda: bool(clock._sleepers))
        owned = True
        clock.advance(EVERY)
        await eventually(lambda: retention.account.ended_at is not None)
        tasks.cancel_scope.cancel()

    assert await left(shared_database) == whole(0)


async def test_it_tells_what_it_removed_and_is_silent_otherwise(shared_database: Database, logs: Logs) -> None:
    retention = made(shared_database, logs)
    story = await happened(shared_database, OLD)
    printed(logs, story.execution)

    with structlog.testing.capture_logs() as said:
        await retention.once()
        await retention.once()

    (line,) = said
    assert line == {
        "event": "old history was removed",
        "log_level": "info",
        "rows": {"event": 1, "event_match": 1, "enforcement": 1, "execution": 1, "logs": 1},
        "seconds": 0.0,
    }
    assert retention.account.ended_at == START


async def test_prometheus_hears_what_it_removed_and_how_far_it_is_behind(shared_database: Database, logs: Logs) -> None:
    retention = made(shared_database, logs)
    await happened(shared_database, OLD)
    await waits(shared_database, OLD, count=BUSY + 1)
    collect = removals(retention.account)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(retention.once)
        await eventually(lambda: "event" in retention.account.overdue)
        tasks.cancel_scope.cancel()
    removed, overdue = collect()
    assert {one.value for one in removed.samples} == {0}
    assert [one.value for one in overdue.samples] == [86_400]

    async with shared_database.acquire() as connection:
        await connection.execute("DELETE FROM attune.delivery")
    await retention.once()
    removed, overdue = collect()
    counts = {one.labels["table"]: one.value for one in removed.samples}
    assert counts == whole(1) | dict.fromkeys(("inquiry", "timer_skip", "dead_letter", "revision", "logs"), 0)
    assert [one.value for one in overdue.samples] == [0]


# Size


async def test_of_too_much_the_oldest_goes_first_and_no_more_than_that(shared_database: Database, logs: Logs) -> None:
    retention = made(shared_database, logs, max_bytes=1_000_000)
    stories = [
        await happened(shared_database, START - 20 * DAY + number * timedelta(hours=1), payload=LARGE)
        for number in range(80)
    ]

    await retention.once()

    kept = await ids(shared_database, "event")
    assert kept == [story.event for story in stories[-len(kept) :]]
    assert 20 < len(kept) < 50
    assert await left(shared_database) == whole(len(kept))


async def test_logs_count(shared_database: Database, logs: Logs) -> None:
    retention = made(shared_database, logs, max_bytes=1_000_000)
    for number in range(60):
        story = await happened(shared_database, START - 20 * DAY + number * timedelta(hours=1))
        printed(logs, story.execution, "x" * 40_000)

    await retention.once()

    kept = await ids(shared_database, "event")
    assert 0 < len(kept) < 30
    assert sum(1 for path in logs.directory.rglob("*.log")) == len(kept)


async def test_what_is_younger_than_an_hour_stays_however_much_it_is(shared_database: Database, logs: Logs) -> None:
    await happened(shared_database, START - timedelta(hours=2))
    for _ in range(40):
        await happened(shared_database, START - timedelta(minutes=59), payload=LARGE)

    await made(shared_database, logs, max_bytes=1_000_000).once()

    assert await left(shared_database) == whole(40)


async def test_what_has_to_stay_does_not_shield_what_is_too_much(shared_database: Database, logs: Logs) -> None:
    clock = VirtualClock()
    retention = made(shared_database, logs, clock, max_bytes=1_000_000)
    chain = uuid7()
    for _ in range(40):
        await happened(shared_database, START - 20 * DAY, payload=LARGE, chain=chain)
    await waits(shared_database, START, chain)
    for number in range(40):
        await happened(shared_database, START - 10 * DAY + number * timedelta(hours=1), payload=LARGE)

    for _ in range(3):
        clock.advance(300)
        await retention.once()

    assert await left(shared_database) == whole(40)


async def test_it_does_not_wait_when_there_is_too_much(shared_database: Database, logs: Logs) -> None:
    for _ in range(40):
        await happened(shared_database, START - 20 * DAY, payload=LARGE)
    await waits(shared_database, START, count=BUSY + 1)

    with anyio.fail_after(20):
        await made(shared_database, logs, max_bytes=1_000_000).once()

    assert (await left(shared_database))["event"] < 40


# Logs


async def test_logs_without_an_execution_go_when_they_are_old(
    shared_database: Database, retention: Retention, logs: Logs
) -> None:
    execution = await ran(shared_database, YOUNG)
    kept = [printed(logs, execution, at=OLD), printed(logs, 8_000_000, at=YOUNG)]
    gone = [printed(logs, 8_000_001, at=OLD), printed(logs, 9_000_000, at=OLD)]

    await retention.once()

    assert [path.exists() for path in (*kept, *gone)] == [True, True, False, False]
    assert not gone[1].parent.exists()


async def test_logs_that_cannot_be_looked_at_keep_nothing_else_from_going(
    shared_database: Database, retention: Retention, logs: Logs
) -> None:
    logs.directory.write_text("no folder")
    await happened(shared_database, OLD)

    with structlog.testing.capture_logs() as said:
        await retention.once()

    assert await left(shared_database) == whole(0)
    assert [line["event"] for line in said] == ["the logs of executions cannot be looked at", "old history was removed"]


# Definitions


@asynccontextmanager
async def shop(database: Database, folder: Path, clock: VirtualClock) -> AsyncIterator[Engine]:
    """An engine that runs, and keeps everything by itself."""
    settings = {"retention": {"days": 36_500, "dead_letter_days": 36_500}}
    packs = [pack(folder, "shop", SHOP)]
    async with engine_on(database, folder, packs=packs, clock=clock, settings=settings) as engine, engine.running():
        yield engine


async def retained(engine: Engine) -> None:
    """Return when the caches know what there is, and the rest is gone."""
    async with engine.database.acquire() as connection:
        await engine.definitions.follow(connection, await catalog.current_version(connection))
    await Retention(engine.bus, engine.definitions, Logs(Path("/nowhere")), Limits()).once()


async def versions(engine: Engine, ref: str) -> list[tuple[int, bool]]:
    """The revisions of a rule: version, and whether it was deleted by it."""
    found = await rows(
        engine,
        "SELECT version, definition IS NULL AS gone FROM attune.revision WHERE kind = 'rule' AND ref = $1 "
        "ORDER BY version",
        ref,
    )
    return [(row["version"], row["gone"]) for row in found]


async def changed(engine: Engine, ref: str, value: int) -> None:
    """Let a rule match only payloads with this value."""
    await engine.rules.update(ref, {"conditions": [{"field": "n", "operator": "equals", "value": value}]})


async def told(engine: Engine, event: int) -> Sequence[Any] | None:
    """The verdicts on an event, as `attune why event` gives them."""
    async with engine.database.acquire() as connection:
        found = await explain(connection, event, engine.bus.clock.now())
    return None if found is None else [one.verdict for one in found.rules]


async def test_what_is_left_can_still_be_explained_and_older_definitions_go(database: Database, tmp_path: Path) -> None:
    clock = VirtualClock()
    async with shop(database, tmp_path, clock) as engine:
        trigger = new_trigger()
        rule = await new_rule(engine, trigger)
        events = []
        for value in range(4):
            clock.advance(10 * 86_400)
            await changed(engine, rule.ref, value)
            clock.advance(2 * 3_600)
            events.append(await emit(engine, trigger, {"n": 1}))
            await settled(engine, events[-1])
        before = [await told(engine, event) for event in events]
        assert before[1] != before[2]
        clock.advance(15 * 86_400)

        await retained(engine)

        assert [await told(engine, event) for event in events] == [None, None, *before[2:]]
        # Two that an event saw, and what there was at the moment up to which everything is gone.
        assert len(await versions(engine, rule.ref)) == 3


async def test_the_definitions_that_an_old_event_saw_stay_with_it(database: Database, tmp_path: Path) -> None:
    clock = VirtualClock()
    async with shop(database, tmp_path, clock) as engine:
        trigger = new_trigger()
        rule = await new_rule(engine, trigger)
        await changed(engine, rule.ref, 1)
        (seen,) = await rows(engine, "SELECT version FROM attune.definition_version")
        story = await happened(database, clock.now(), version=seen["version"])
        await waits(database, clock.now(), story.chain)
        await changed(engine, rule.ref, 2)
        await changed(engine, rule.ref, 3)
        clock.advance(40 * 86_400)

        await retained(engine)

        assert [version - seen["version"] for version, _ in await versions(engine, rule.ref)] == [0, 1, 2]


async def test_what_was_deleted_goes_wholly_once_nothing_is_left_of_its_time(
    database: Database, tmp_path: Path
) -> None:
    clock = VirtualClock()
    async with shop(database, tmp_path, clock) as engine:
        trigger = new_trigger()
        rule = await new_rule(engine, trigger)
        await changed(engine, rule.ref, 1)
        clock.advance(86_400)
        await engine.rules.delete(rule.ref)
        clock.advance(30 * 86_400)
        await retained(engine)
        assert [gone for _, gone in await versions(engine, rule.ref)] == [False, True]

        clock.advance(2 * 86_400)
        await retained(engine)

        assert await versions(engine, rule.ref) == []
        assert await rows(engine, "SELECT FROM attune.revision WHERE kind = 'pack' AND ref = 'shop'")


async def test_a_deletion_stays_until_running_caches_have_read_it(database: Database, tmp_path: Path) -> None:
    clock = VirtualClock()
    async with shop(database, tmp_path, clock) as engine:
        rule = await new_rule(engine, new_trigger())
        behind = Definitions()
        async with database.acquire() as connection:
            await behind.follow(connection, 1)
        await engine.rules.delete(rule.ref)
        clock.advance(40 * 86_400)
        (newest,) = await rows(engine, "SELECT version FROM attune.definition_version")

        await Retention(engine.bus, behind, Logs(tmp_path / "logs"), Limits()).once()

        async with database.acquire() as connection:
            await behind.follow(connection, newest["version"])
        assert rule.id not in behind.rules.by_id
