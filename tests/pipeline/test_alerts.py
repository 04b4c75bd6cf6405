"""Alerts: each trouble is told once, in time, and nothing that follows from an alert is one more."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from attune.base.json import loads
from attune.base.states import ExecutionStatus
from attune.bus.messages import Cause, EventCreated
from attune.bus.transaction import Transaction
from attune.catalog.model import Rule
from attune.database.ids import uuid7
from attune.database.pool import Database
from attune.engine import Engine
from attune.events.ingest import Accepted, Ingest
from attune.events.model import ALERT, NewEvent
from attune.settings import Alerts as Limits
from attune.upkeep.alerts import MOST, Alarm, Alerts, Kind, Severity
from tests.pipeline.shop import SHOP, new_rule, new_trigger, rows, settled
from tests.pipeline.test_cancel import until_status
from tests.support.clock import START, VirtualClock
from tests.support.engines import emit, engine_on, pack
from tests.support.waiting import until

COOLDOWN = 3600
FAILURES = 3
FLAKY = "entry_point: flaky.sh\nmax_retries: 1\nretry_delay: 0\n"
SCRIPT = "[ -e ../patient ] && exec sleep 1000\nexit 1\n"


@asynccontextmanager
async def running(database: Database, folder: Path, clock: VirtualClock) -> AsyncIterator[Engine]:
    """An engine whose alerts are raised when a test says so, or lets time pass."""
    files = {**SHOP, "actions/flaky.yaml": FLAKY, "actions/flaky.sh": SCRIPT}
    settings = {"alerts": {"failures": FAILURES, "cooldown": COOLDOWN}}
    async with (
        engine_on(database, folder, packs=[pack(folder, "shop", files)], clock=clock, settings=settings) as engine,
        engine.running(),
    ):
        yield engine


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def engine(shared_database: Database, tmp_path: Path, clock: VirtualClock) -> AsyncIterator[Engine]:
    async with running(shared_database, tmp_path, clock) as engine:
        yield engine


async def until_over(engine: Engine) -> None:
    """Return when nothing is to be done any more."""

    async def over() -> bool | None:
        found = await rows(engine, "SELECT FROM attune.execution_open UNION ALL SELECT FROM attune.delivery")
        return None if found else True

    await until(over)


async def alerts(engine: Engine) -> list[dict[str, Any]]:
    """The payloads of all alerts so far, with their events as `id`."""
    found = await rows(engine, "SELECT id, payload FROM attune.event WHERE trigger_ref = $1 ORDER BY id", ALERT)
    return [{**loads(row["payload"]), "id": row["id"]} for row in found]


async def until_alerts(engine: Engine, count: int) -> list[dict[str, Any]]:
    async def raised() -> list[dict[str, Any]] | None:
        found = await alerts(engine)
        return found if len(found) == count else None

    return await until(raised)


async def streaks(engine: Engine) -> dict[str, int]:
    found = await rows(engine, "SELECT kind, ref, failures FROM attune.streak ORDER BY kind, ref")
    return {f"{row['kind']}:{row['ref']}": row["failures"] for row in found}


async def rule_that_may_fail(engine: Engine) -> Rule:
    """A rule whose executions fail unless the payload says `{"code": 0}`."""
    return await new_rule(engine, new_trigger(), action_params={"exit_code": "{{ event.payload.code }}"})


async def run(engine: Engine, rule: Rule, *codes: int) -> list[int]:
    """Let a rule run, one after the other; the ids of its executions."""
    ran = []
    for code in codes:
        (one,) = await settled(engine, await emit(engine, rule.trigger_ref, {"code": code}))
        await until_over(engine)
        ran.append(one["id"])
    return ran


async def die(engine: Engine, cause: Cause | None = None) -> int:
    """The number of a new dead letter: the message of an event that is not there."""
    before = await rows(engine, "SELECT id FROM attune.dead_letter")
    async with engine.bus.transaction() as transaction:
        message = EventCreated(event_id=999_999, trigger_ref="shop.t00")
        transaction.publish(message, cause or Cause(uuid7(), None, 0), "test")

    async def dead() -> int | None:
        found = await rows(engine, "SELECT max(id) AS id, count(*) AS count FROM attune.dead_letter")
        return found[0]["id"] if found[0]["count"] > len(before) else None

    return await until(dead)


def alarm(subject: str = "disk", **fields: Any) -> Alarm:
    values: dict[str, Any] = {
        "kind": Kind.DISK_LOW,
        "severity": Severity.WARNING,
        "subject": subject,
        "message": "There is little room.",
        "remedy": "attune status",
        "first": START,
        "last": START,
    }
    return Alarm(**{**values, **fields})


# Dead letters


async def test_a_dead_letter_is_told_of_once(engine: Engine) -> None:
    number = await die(engine)

    assert await engine.alerts.once() == 1
    assert await engine.alerts.once() == 0

    (alert,) = await alerts(engine)
    assert alert == {
        "id": alert["id"],
        "kind": "dead_letter",
        "severity": "error",
        "subject": f"dead_letter:{number}",
        "message": "EventCreated in attune.events.queue was given up after attempt 1, and event 999999 waits for it.",
        "remedy": f"attune bus dead show {number}",
        "count": 1,
        "first": START.isoformat(),
        "last": START.isoformat(),
        "rule": None,
        "action": None,
        "event": 999_999,
        "enforcement": None,
        "execution": None,
        "dead_letter": number,
    }


async def test_the_loop_raises_alerts_by_itself(engine: Engine, clock: VirtualClock) -> None:
    await die(engine)

    clock.advance(5)

    await until_alerts(engine, 1)


async def test_a_letter_that_was_replayed_and_died_again_is_another(engine: Engine) -> None:
    number = await die(engine)
    assert await engine.alerts.once() == 1

    await engine.dead_letters.replay([number], "test")

    async def dead_again() -> bool | None:
        return await rows(engine, "SELECT FROM attune.dead_letter") != [] or None

    await until(dead_again)
    assert await engine.alerts.once() == 1


async def test_many_are_told_of_a_few_at_a_time(engine: Engine) -> None:
    for _ in range(MOST + 1):
        await die(engine)

    assert [await engine.alerts.once() for _ in range(3)] == [MOST, 1, 0]


class BrokenIngest(Ingest):
    async def record(self, transaction: Transaction, events: Sequence[NewEvent]) -> Sequence[Accepted]:
        await super().record(transaction, events)
        raise RuntimeError("after the events were written")


async def test_an_alert_that_could_not_be_recorded_wholly_is_raised_later(engine: Engine) -> None:
    await die(engine)
    broken = Alerts(
        engine.bus, BrokenIngest(engine.writer, engine.ingress, engine.ingest._stages), engine.definitions, Limits()
    )

    with pytest.raises(RuntimeError):
        await broken.once()

    assert await alerts(engine) == []
    assert await engine.alerts.once() == 1


# Failures in a row


async def test_a_rule_and_its_action_that_fail_again_and_again_are_told_of(engine: Engine, clock: VirtualClock) -> None:
    rule = await rule_that_may_fail(engine)
    await run(engine, rule, 1)
    clock.advance(1)
    (_, last) = await run(engine, rule, 1, 1)

    assert await engine.alerts.once() == 2

    told = {alert["kind"]: alert for alert in await alerts(engine)}
    assert told["failing_action"]["subject"] == "action:core.noop"
    failing = told["failing_rule"]
    assert failing["message"] == (
        f"The rule {rule.ref} has failed 3 times in a row, the last time in execution {last}: exit code 1"
    )
    assert failing["remedy"] == f"attune why execution {last}"
    assert (failing["subject"], failing["rule"], failing["execution"]) == (f"rule:{rule.ref}", rule.ref, last)
    assert (failing["count"], failing["first"]) == (FAILURES, START.isoformat())
    assert failing["last"] == (START + timedelta(seconds=1)).isoformat()


async def test_fewer_failures_are_no_alert(engine: Engine) -> None:
    await run(engine, await rule_that_may_fail(engine), 1, 1)

    assert await engine.alerts.once() == 0


async def test_what_completed_in_between_begins_the_count_anew(engine: Engine) -> None:
    rule = await rule_that_may_fail(engine)
    await run(engine, rule, 1, 1, 0)
    assert await streaks(engine) == {}

    await run(engine, rule, 1, 1)

    assert await streaks(engine) == {"action:core.noop": 2, f"rule:{rule.ref}": 2}
    assert await engine.alerts.once() == 0


async def test_one_rule_that_works_does_not_excuse_another_with_the_same_action(engine: Engine) -> None:
    failing, working = await rule_that_may_fail(engine), await rule_that_may_fail(engine)
    for _ in range(FAILURES):
        await run(engine, failing, 1)
        await run(engine, working, 0)

    assert await streaks(engine) == {f"rule:{failing.ref}": FAILURES}
    assert await engine.alerts.once() == 1


async def test_an_attempt_that_is_followed_by_another_does_not_count(engine: Engine) -> None:
    for _ in range(2):
        await engine.requests.execute("shop.flaky", {}, None)
        await until_over(engine)

    assert len(await rows(engine, "SELECT FROM attune.execution WHERE status = 'failed'")) == 4
    assert await streaks(engine) == {"action:shop.flaky": 2}


async def test_what_was_cancelled_neither_counts_nor_excuses(engine: Engine, tmp_path: Path) -> None:
    await engine.requests.execute("shop.flaky", {}, None)
    await until_over(engine)
    (tmp_path / "patient").touch()
    execution = await engine.requests.execute("shop.flaky", {}, None)
    await until_status(engine, execution, ExecutionStatus.RUNNING)

    await engine.requests.cancel(execution)
    await until_over(engine)

    assert await streaks(engine) == {"action:shop.flaky": 1}


async def test_a_streak_outlives_a_restart_and_ends_after_it(
    shared_database: Database, tmp_path: Path, clock: VirtualClock
) -> None:
    async with running(shared_database, tmp_path, clock) as engine:
        rule = await rule_that_may_fail(engine)
        await run(engine, rule, 1, 1)
    async with running(shared_database, tmp_path, clock) as engine:
        assert await streaks(engine) == {"action:core.noop": 2, f"rule:{rule.ref}": 2}

        await run(engine, rule, 0)

        assert await streaks(engine) == {}


async def test_while_it_goes_on_the_next_alert_comes_after_the_cooldown_and_counts_on(
    engine: Engine, clock: VirtualClock
) -> None:
    rule = await rule_that_may_fail(engine)
    await run(engine, rule, *[1] * FAILURES)
    assert await engine.alerts.once() == 2
    clock.advance(1)
    await run(engine, rule, 1)
    assert await engine.alerts.once() == 0

    clock.advance(COOLDOWN)

    told = await until_alerts(engine, 4)
    assert [alert["count"] for alert in told] == [3, 3, 4, 4]
    chains = await rows(engine, "SELECT correlation_id FROM attune.event WHERE trigger_ref = $1", ALERT)
    assert len({row["correlation_id"] for row in chains}) == 2


async def test_what_does_not_go_on_is_not_told_of_again(engine: Engine, clock: VirtualClock) -> None:
    await run(engine, await rule_that_may_fail(engine), *[1] * FAILURES)
    assert await engine.alerts.once() == 2
    number = await die(engine)

    clock.advance(COOLDOWN + 1)

    told = await until_alerts(engine, 3)
    assert told[-1]["dead_letter"] == number


# What others watch


async def test_an_alarm_of_somebody_else_is_raised_and_again_after_the_cooldown(
    engine: Engine, clock: VirtualClock
) -> None:
    engine.alerts.register(lambda: [alarm(rule="shop.x")])

    assert await engine.alerts.once() == 1
    assert await engine.alerts.once() == 0
    clock.advance(COOLDOWN)

    told = await until_alerts(engine, 2)
    assert [(alert["kind"], alert["subject"], alert["rule"]) for alert in told] == [("disk_low", "disk", "shop.x")] * 2


async def test_an_alarm_that_two_raise_is_one_alert(engine: Engine) -> None:
    engine.alerts.register(lambda: [alarm()])
    engine.alerts.register(lambda: [alarm(), alarm("another disk")])

    assert await engine.alerts.once() == 2


# They cannot feed themselves


async def test_a_rule_on_alerts_that_always_fails_raises_none(engine: Engine) -> None:
    rule = await new_rule(engine, ALERT, action_params={"exit_code": 1})
    await run(engine, await rule_that_may_fail(engine), *[1] * FAILURES)
    before = await streaks(engine)
    engine.alerts.register(lambda: [alarm(f"disk {number}") for number in range(2 * FAILURES)])

    raised = await engine.alerts.once()
    await until_over(engine)

    failed = "SELECT FROM attune.execution e JOIN attune.enforcement n ON n.id = e.enforcement WHERE n.rule = $1"
    assert raised == len(await rows(engine, failed, rule.id)) == 2 * FAILURES + 2
    assert await streaks(engine) == before
    assert await engine.alerts.once() == 0


async def test_a_rule_on_alerts_that_works_does_not_excuse_its_action(engine: Engine) -> None:
    await new_rule(engine, ALERT)
    await run(engine, await rule_that_may_fail(engine), *[1] * FAILURES)
    before = await streaks(engine)

    assert await engine.alerts.once() == 2
    await until_over(engine)

    assert await streaks(engine) == before


async def test_dead_letters_that_an_alert_has_caused_raise_none(engine: Engine) -> None:
    await die(engine)
    await engine.alerts.once()
    (chain,) = await rows(engine, "SELECT correlation_id FROM attune.event WHERE trigger_ref = $1", ALERT)

    await die(engine, Cause(chain["correlation_id"], uuid7(), 3))

    assert await engine.alerts.once() == 0


# What nobody needs any more


async def test_streaks_of_what_is_gone_and_alerts_whose_events_are_gone_are_forgotten(
    engine: Engine, clock: VirtualClock
) -> None:
    rule = await rule_that_may_fail(engine)
    await run(engine, rule, *[1] * FAILURES)
    assert await engine.alerts.once() == 2
    await engine.rules.delete(rule.ref)
    await rows(engine, "DELETE FROM attune.event WHERE payload ->> 'kind' = 'failing_rule'")

    clock.advance(COOLDOWN + 1)

    async def forgotten() -> bool | None:
        found = await rows(engine, "SELECT subject FROM attune.alert")
        return True if [row["subject"] for row in found] == ["action:core.noop"] else None

    await until(forgotten)
    assert await streaks(engine) == {"action:core.noop": FAILURES}
