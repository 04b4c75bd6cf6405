"""Rules whose executions do not overlap: one has the turn, the others are skipped, or wait for it."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from attune.base.states import ExecutionStatus
from attune.bus.messages import Cause
from attune.catalog.model import Rule
from attune.database.ids import uuid7
from attune.database.pool import Database, Row
from attune.engine import Engine
from attune.events.model import NewEvent
from attune.executions.turns import turns
from tests.pipeline.shop import SHOP, new_rule, new_trigger, rows
from tests.pipeline.test_cancel import until_quiet, until_status
from tests.support.clock import VirtualClock
from tests.support.engines import emit, engine_on, pack
from tests.support.waiting import until

S = ExecutionStatus


async def executions(engine: Engine, rule: Rule) -> Sequence[Row]:
    """The executions of a rule, first attempts before others, the oldest first."""
    return await rows(
        engine,
        "SELECT e.* FROM attune.execution e JOIN attune.enforcement n ON n.id = e.enforcement WHERE n.rule = $1 "
        "ORDER BY e.retry_count, e.id",
        rule.id,
    )


async def until_statuses(engine: Engine, rule: Rule, *statuses: ExecutionStatus) -> list[int]:
    """The executions of a rule, as soon as they are in these states."""

    async def reached() -> list[int] | None:
        found = await executions(engine, rule)
        return [row["id"] for row in found] if tuple(row["status"] for row in found) == statuses else None

    return await until(reached)


async def enforced(engine: Engine, event: int) -> Row:
    """The one enforcement of an event, as soon as it was decided upon."""

    async def decided() -> Row | None:
        found = await rows(engine, "SELECT * FROM attune.enforcement WHERE event = $1 AND status <> 'created'", event)
        return found[0] if found else None

    return await until(decided)


async def turn_of(engine: Engine, rule: Rule) -> int | None:
    found = await rows(engine, "SELECT execution FROM attune.rule_turn WHERE rule = $1", rule.id)
    return found[0]["execution"] if found else None


async def sleeping(engine: Engine, overlap: str) -> tuple[str, Rule]:
    """A trigger, and a rule on it whose executions run until they are cancelled."""
    trigger = new_trigger()
    rule = await new_rule(engine, trigger, "core.sleep", action_params={"seconds": 1000}, overlap=overlap)
    return trigger, rule


async def test_skip_lets_one_run_and_says_which_kept_the_others_from_it(engine: Engine) -> None:
    trigger, rule = await sleeping(engine, "skip")
    await emit(engine, trigger)
    (execution,) = await until_statuses(engine, rule, S.RUNNING)

    for _ in range(2):
        skipped = await enforced(engine, await emit(engine, trigger))
        assert skipped["status"] == "skipped"
        assert (
            skipped["reason"] == f"execution {execution} of the rule {rule.ref} had not ended, and its overlap is skip"
        )

    await engine.requests.cancel(execution)
    await until_status(engine, execution, S.CANCELLED)
    await until_quiet(engine)
    await emit(engine, trigger)
    _, second = await until_statuses(engine, rule, S.CANCELLED, S.RUNNING)
    await engine.requests.cancel(second)


async def test_of_those_that_come_at_once_skip_lets_one_run(database: Database, tmp_path: Path) -> None:
    async with engine_on(database, tmp_path, packs=[pack(tmp_path, "shop", SHOP)]) as engine:
        trigger, rule = await sleeping(engine, "skip")
        definition = engine.definitions.triggers.by_ref[trigger]
        new = [NewEvent(definition.id, trigger, None, "test", Cause(uuid7(), None, 0)) for _ in range(20)]
        async with engine.bus.transaction() as transaction:
            events = [accepted.id for accepted in await engine.ingest.record(transaction, new)]
        async with engine.running():
            decided = [await enforced(engine, event) for event in events]
            (execution,) = await until_statuses(engine, rule, S.RUNNING)
            await engine.requests.cancel(execution)

    assert sorted(row["status"] for row in decided) == ["processed"] + ["skipped"] * 19


async def test_queue_lets_them_run_one_after_the_other_in_the_order_in_which_they_came(engine: Engine) -> None:
    trigger, rule = await sleeping(engine, "queue")
    for _ in range(3):
        await emit(engine, trigger)
    first, second, third = await until_statuses(engine, rule, S.RUNNING, S.SCHEDULING, S.SCHEDULING)
    assert await turn_of(engine, rule) == first

    await engine.requests.cancel(first)
    await until_statuses(engine, rule, S.CANCELLED, S.RUNNING, S.SCHEDULING)
    assert await turn_of(engine, rule) == second
    await engine.requests.cancel(second)
    await until_statuses(engine, rule, S.CANCELLED, S.CANCELLED, S.RUNNING)
    await engine.requests.cancel(third)
    await until_statuses(engine, rule, S.CANCELLED, S.CANCELLED, S.CANCELLED)
    await until_quiet(engine)

    # Nobody has the turn, and nothing is kept of it.
    assert await turn_of(engine, rule) is None
    assert await rows(engine, "SELECT FROM attune.rule_queue WHERE rule = $1", rule.id) == []


async def test_one_that_is_cancelled_while_it_waits_is_passed_over(engine: Engine) -> None:
    trigger, rule = await sleeping(engine, "queue")
    for _ in range(3):
        await emit(engine, trigger)
    first, second, third = await until_statuses(engine, rule, S.RUNNING, S.SCHEDULING, S.SCHEDULING)

    assert (await engine.requests.cancel(second)).status is S.CANCELLED
    await engine.requests.cancel(first)

    await until_statuses(engine, rule, S.CANCELLED, S.CANCELLED, S.RUNNING)
    await engine.requests.cancel(third)
    await until_statuses(engine, rule, S.CANCELLED, S.CANCELLED, S.CANCELLED)


async def test_rules_do_not_wait_for_each_other(engine: Engine) -> None:
    trigger = new_trigger()
    pair = [
        await new_rule(engine, trigger, "core.sleep", action_params={"seconds": 1000}, overlap=overlap)
        for overlap in ("skip", "queue")
    ]
    await emit(engine, trigger)
    for rule in pair:
        (execution,) = await until_statuses(engine, rule, S.RUNNING)
        await engine.requests.cancel(execution)


async def test_a_turn_lasts_until_the_last_retry_has_ended(database: Database, tmp_path: Path) -> None:
    clock = VirtualClock()
    flaky = {
        "actions/flaky.yaml": "entry_point: flaky.sh\nmax_retries: 1\nretry_delay: 60\n",
        "actions/flaky.sh": "exit 1",
    }
    shop = pack(tmp_path, "shop", {**SHOP, **flaky})
    async with engine_on(database, tmp_path, packs=[shop], clock=clock) as engine, engine.running():
        rule = await new_rule(engine, trigger := new_trigger(), "shop.flaky", overlap="queue")
        await emit(engine, trigger)
        await emit(engine, trigger)
        # The second waits for the turn, the retry of the first has it.
        *_, retry = await until_statuses(engine, rule, S.FAILED, S.SCHEDULING, S.REQUESTED)
        assert await turn_of(engine, rule) == retry

        clock.advance(61)

        *_, last = await until_statuses(engine, rule, S.FAILED, S.FAILED, S.FAILED, S.REQUESTED)
        assert await turn_of(engine, rule) == last


async def test_so_many_wait_and_no_more(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MOST_WAITING", 2)
    trigger, rule = await sleeping(engine, "queue")
    await emit(engine, trigger)
    await until_statuses(engine, rule, S.RUNNING)
    decided = [await enforced(engine, await emit(engine, trigger)) for _ in range(3)]

    assert [row["status"] for row in decided] == ["processed", "processed", "skipped"]
    assert decided[2]["reason"] == f"2 executions of the rule {rule.ref} wait for their turn already"
    for row in reversed(await executions(engine, rule)):
        await engine.requests.cancel(row["id"])


async def test_a_rule_that_ceases_to_overlap_waits_for_what_runs_of_it(engine: Engine) -> None:
    trigger, rule = await sleeping(engine, "allow")
    await emit(engine, trigger)
    await emit(engine, trigger)
    _, newest = await until_statuses(engine, rule, S.RUNNING, S.RUNNING)

    await engine.rules.update(rule.ref, {"overlap": "skip"})

    skipped = await enforced(engine, await emit(engine, trigger))
    assert (skipped["status"], str(newest) in skipped["reason"]) == ("skipped", True)
    for row in await executions(engine, rule):
        await engine.requests.cancel(row["id"])
    await until_statuses(engine, rule, S.CANCELLED, S.CANCELLED)
    await until_quiet(engine)
    assert await turn_of(engine, rule) is None


async def test_who_waits_goes_on_when_the_rule_overlaps_again_or_is_gone(engine: Engine) -> None:
    trigger, rule = await sleeping(engine, "queue")
    for _ in range(2):
        await emit(engine, trigger)
    first, second = await until_statuses(engine, rule, S.RUNNING, S.SCHEDULING)

    await engine.rules.delete(rule.ref)
    await engine.requests.cancel(first)

    await until_statuses(engine, rule, S.CANCELLED, S.RUNNING)
    await engine.requests.cancel(second)


async def test_turns_survive_a_kill(database: Database, tmp_path: Path) -> None:
    """What had the turn is abandoned at the next start, and whoever waits for it goes on."""
    shop = pack(tmp_path, "shop", SHOP)
    async with engine_on(database, tmp_path, packs=[shop]) as engine:
        trigger, rule = await sleeping(engine, "queue")
        async with engine.running():
            for _ in range(2):
                await emit(engine, trigger)
            first, second = await until_statuses(engine, rule, S.RUNNING, S.SCHEDULING)
            # As a kill would leave it: the worker forgets, the row stays.
            run = engine.worker._running.pop(first)
        assert run.dispatched.execution_id == first

    async with engine_on(database, tmp_path, packs=[shop]) as engine:
        assert [one.execution for one in engine.recovery.interrupted] == [first]
        assert [(one.waits_for, one.ids) for one in engine.recovery.waiting] == [("the turn of its rule", (second,))]
        async with engine.running():
            await until_statuses(engine, rule, S.ABANDONED, S.RUNNING)
            await engine.requests.cancel(second)
            await until_status(engine, second, S.CANCELLED)


async def test_t26_a_discarded_end_lets_the_next_go_on(database: Database, tmp_path: Path) -> None:
    """A dead letter that is only removed would hold the turn for ever."""
    async with engine_on(database, tmp_path, packs=[pack(tmp_path, "shop", SHOP)]) as engine, engine.running():
        trigger, rule = await sleeping(engine, "queue")
        for _ in range(2):
            await emit(engine, trigger)
        first, second = await until_statuses(engine, rule, S.RUNNING, S.SCHEDULING)
        # Its end becomes a dead letter, as it would when completion cannot handle it.
        async with engine.database.acquire() as connection:
            await connection.execute(_BURY)
        await engine.requests.cancel(first)
        letter = await until(lambda: _letter(engine))
        await rows(engine, "DROP TRIGGER bury ON attune.delivery")
        assert await until_status(engine, second, S.SCHEDULING) is S.SCHEDULING

        handled = await engine.dead_letters.discard([letter], "test")

        assert handled.became == {letter: f"execution {first} is cancelled"}
        await until_statuses(engine, rule, S.CANCELLED, S.RUNNING)
        await engine.requests.cancel(second)
        await until_status(engine, second, S.CANCELLED)


# Turns deliveries about an end into dead letters as they are published.
_BURY = """
    CREATE FUNCTION bury() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO attune.dead_letter (queue, message_id, correlation_id, causation_id, depth, message_type, version,
                                        source, payload, subject, attempts, error, published_at, created)
        VALUES (NEW.queue, NEW.message_id, NEW.correlation_id, NEW.causation_id, NEW.depth, NEW.message_type,
                NEW.version, NEW.source, NEW.payload::jsonb, 'execution:' || (NEW.payload ->> 'execution_id'), 5,
                'broken',
                NEW.published_at, NEW.published_at);
        RETURN NULL;
    END $$;
    CREATE TRIGGER bury BEFORE INSERT ON attune.delivery FOR EACH ROW
        WHEN (NEW.message_type = 'ExecutionCompleted') EXECUTE FUNCTION bury()
"""


async def _letter(engine: Engine) -> int | None:
    found = await rows(engine, "SELECT id FROM attune.dead_letter")
    return found[0]["id"] if found else None
