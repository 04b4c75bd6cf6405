"""Timers fire at their instants, each once, whatever becomes of the server meanwhile."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from attune.database.pool import Database
from attune.database.storage import Storage
from tests.support.clock import START, VirtualClock
from tests.support.scrapes import Scrape
from tests.timers.timeline import Timeline, timeline_on

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("params", "seconds", "payload"),
    [
        (
            {"interval": 10},
            10,
            {
                "type": "interval",
                "interval_seconds": 10,
                "scheduled_at": "2026-03-01T12:00:10Z",
                "fired_at": "2026-03-01T12:00:10Z",
                "execution_count": 1,
                "sensor_ref": "core.timer_sensor",
            },
        ),
        # T-75: the zone counts. It is one o'clock in Berlin.
        (
            {"expression": "30 2 13 * * *", "timezone": "Europe/Berlin"},
            150,
            {
                "type": "cron",
                "expression": "30 2 13 * * *",
                "timezone": "Europe/Berlin",
                "scheduled_at": "2026-03-01T12:02:30Z",
                "fired_at": "2026-03-01T12:02:30Z",
                "next_fire_at": "2026-03-02T12:02:30Z",
                "execution_count": 1,
                "sensor_ref": "core.timer_sensor",
            },
        ),
        # It is Sunday.
        (
            {"rule": "FREQ=WEEKLY;BYDAY=SU;BYHOUR=13", "dtstart": "2025-01-01T00:02:30", "timezone": "Europe/Berlin"},
            150,
            {
                "type": "rrule",
                "rule": "FREQ=WEEKLY;BYHOUR=13;BYDAY=SU",
                "timezone": "Europe/Berlin",
                "scheduled_at": "2026-03-01T12:02:30Z",
                "fired_at": "2026-03-01T12:02:30Z",
                "next_fire_at": "2026-03-08T12:02:30Z",
                "delay_ms": 0,
                "execution_count": 1,
                "sensor_ref": "core.timer_sensor",
            },
        ),
        (
            {"fire_at": "2026-03-01T13:00:30+01:00"},
            32,
            {
                "type": "one_shot",
                "fire_at": "2026-03-01T12:00:30Z",
                "timezone": "UTC",
                "scheduled_at": "2026-03-01T12:00:30Z",
                "fired_at": "2026-03-01T12:00:32Z",
                "delay_ms": 2000,
                "sensor_ref": "core.timer_sensor",
            },
        ),
    ],
    ids=["interval", "cron", "rrule", "moment"],
)
async def test_t75_a_timer_fires_at_its_instant(
    timeline: Timeline, params: dict[str, Any], seconds: float, payload: dict[str, Any]
) -> None:
    saved = await timeline.rule(**params)
    instant = await timeline.next_fire()
    assert instant is not None
    await timeline.passes(instant - 0.001)
    assert await timeline.fired() == []
    await timeline.passes(seconds - instant + 0.001)
    (event,) = await timeline.events()
    # T-70: it is for this rule alone.
    assert (event["rule"], event["trigger_ref"]) == (saved.rule.id, saved.rule.trigger_ref)
    assert event["source_ref"] == "core.timer_sensor"
    assert await timeline.payloads() == [payload]


async def test_an_interval_goes_on_without_drift(timeline: Timeline) -> None:
    await timeline.rule(interval=10)
    for seconds in (10.4, 10.4, 10.4):
        await timeline.passes(seconds)
    assert await timeline.fired() == [10, 20, 30]
    assert [payload["execution_count"] for payload in await timeline.payloads()] == [1, 2, 3]


async def test_a_moment_comes_once(timeline: Timeline) -> None:
    await timeline.rule(fire_at="2026-03-01T12:00:30Z")
    await timeline.passes(30)
    assert await timeline.next_fire() is None
    await timeline.passes(3600)
    assert await timeline.fired() == [30]


async def test_a_recurrence_goes_on_after_a_restart_makes_up_for_what_it_missed_and_ends(
    database: Database, tmp_path: Path, clock: VirtualClock
) -> None:
    async with timeline_on(database, tmp_path, clock) as timeline:
        await timeline.rule(dtstart="2026-03-01T12:01:00Z", freq="MINUTELY", count=5)
        await timeline.passes(60)
    clock.advance(150)
    async with timeline_on(database, tmp_path, clock) as timeline:
        await timeline.passes(30)
        # Back, and there again: no instant comes twice.
        await timeline.jumps(-HOUR)
        await timeline.jumps(HOUR)
        await timeline.passes(3600)
        assert await timeline.fired() == [60, 180, 240, 300]
        assert await timeline.skipped() == [(120, 120, 1, "missed; fire_once makes up for the latest only")]
        assert await timeline.next_fire() is None
        saved = await timeline.change(trigger_params={"dtstart": "2026-03-01", "freq": "MINUTELY", "count": 5})
        assert saved.warnings == ("hello.tick never fires: its schedule has ended.",)


async def test_a_moment_that_has_passed_never_comes_and_says_so(timeline: Timeline) -> None:
    saved = await timeline.rule(fire_at="2026-03-01T11:59:59Z")
    assert saved.warnings == ("hello.tick never fires: its moment 2026-03-01 11:59:59 UTC has passed.",)
    assert await timeline.next_fire() is None
    await timeline.passes(60)
    assert await timeline.fired() == []
    assert await timeline.skipped() == []


async def test_t75_phase_and_count_survive_a_restart(database: Database, tmp_path: Path, clock: VirtualClock) -> None:
    async with timeline_on(database, tmp_path, clock) as timeline:
        await timeline.rule(interval=60)
        await timeline.passes(60)
    clock.advance(30)
    async with timeline_on(database, tmp_path, clock) as timeline:
        await timeline.passes(29)
        assert await timeline.fired() == [60]
        await timeline.passes(1)
        assert await timeline.fired() == [60, 120]
        assert (await timeline.payloads())[1]["execution_count"] == 2
        assert (await timeline.timer())["last_fired_at"] == START + timedelta(seconds=120)


@pytest.mark.parametrize(
    ("policy", "fired", "skipped"),
    [
        # Down from 0 to 630: ten instants were missed, the last half a minute ago.
        ({}, [600], [(60, 540, 9, "missed; fire_once makes up for the latest only")]),
        ({"misfire_policy": "skip"}, [], [(60, 600, 10, "missed; the policy is skip")]),
        ({"misfire_policy": "fire_all"}, [60 * n for n in range(1, 11)], []),
        ({"misfire_grace": 30}, [600], [(60, 540, 9, "missed; fire_once makes up for the latest only")]),
        ({"misfire_grace": 29}, [], [(60, 600, 10, "missed by more than the grace of 0:00:29")]),
    ],
    ids=["fire_once", "skip", "fire_all", "within the grace", "beyond the grace"],
)
async def test_t75_what_was_missed_is_made_up_for_or_recorded(
    database: Database,
    tmp_path: Path,
    clock: VirtualClock,
    policy: dict[str, Any],
    fired: list[float],
    skipped: list[tuple[float, float, int, str]],
) -> None:
    async with timeline_on(database, tmp_path, clock) as timeline:
        await timeline.rule(interval=60, **policy)
    clock.advance(630)
    async with timeline_on(database, tmp_path, clock) as timeline:
        assert await timeline.fired() == fired
        assert await timeline.skipped() == skipped
        assert [payload["execution_count"] for payload in await timeline.payloads()] == [*range(1, len(fired) + 1)]
        await timeline.passes(30)
        assert await timeline.fired() == [*fired, 660]


async def test_time_while_a_rule_is_disabled_is_no_misfire(
    database: Database, tmp_path: Path, clock: VirtualClock
) -> None:
    async with timeline_on(database, tmp_path, clock) as timeline:
        await timeline.rule(interval=60, misfire_policy="fire_all")
        await timeline.change(enabled=False)
        await timeline.passes(3600)
    clock.advance(3600)
    async with timeline_on(database, tmp_path, clock) as timeline:
        await timeline.change(enabled=True)
        # An interval counts from the moment at which its rule was switched on.
        assert await timeline.next_fire() == 7260
        await timeline.passes(60)
        assert await timeline.fired() == [7260]
        assert await timeline.skipped() == []


async def test_a_clock_set_forward_is_like_a_server_that_was_down(timeline: Timeline) -> None:
    await timeline.rule(interval=60)
    await timeline.rule("daily", expression="0 30 12 * * *", misfire_policy="skip")
    await timeline.jumps(HOUR + timedelta(seconds=30))
    assert await timeline.fired() == [3600]
    assert await timeline.skipped() == [(60, 3540, 59, "missed; fire_once makes up for the latest only")]
    assert await timeline.fired("daily") == []
    assert await timeline.skipped("daily") == [(1800, 1800, 1, "missed; the policy is skip")]


async def test_after_a_clock_set_back_intervals_begin_anew_and_the_calendar_waits(timeline: Timeline) -> None:
    await timeline.rule(interval=60)
    await timeline.rule("calendar", expression="0 * * * * *")
    await timeline.rule("moment", fire_at="2026-03-01T12:03:00Z")
    await timeline.passes(60)
    await timeline.jumps(-HOUR - timedelta(seconds=10))
    assert await timeline.next_fire() == -3550 + 60
    assert await timeline.next_fire("calendar") == 120
    for _ in range(3):
        await timeline.passes(60)
    assert await timeline.fired() == [-3490, -3430, -3370, 60]
    assert await timeline.fired("calendar") == [60]
    await timeline.jumps(timedelta(seconds=120 + 3370))
    assert await timeline.fired("calendar") == [60, 120]
    assert await timeline.next_fire("moment") == 180


async def test_a_clock_set_back_by_less_than_a_period_fires_no_instant_twice(timeline: Timeline) -> None:
    await timeline.rule(interval=60)
    await timeline.passes(90)
    await timeline.jumps(timedelta(seconds=-20))
    assert await timeline.next_fire() == 120
    await timeline.passes(50)
    assert await timeline.fired() == [60, 120]


async def test_no_instant_fires_twice_when_a_rule_is_planned_anew_after_the_clock_went_back(timeline: Timeline) -> None:
    await timeline.rule(expression="0 * * * * *")
    await timeline.passes(60)
    await timeline.jumps(timedelta(seconds=-30))
    await timeline.change(enabled=False)
    await timeline.change(enabled=True)
    await timeline.rule("neighbour", expression="0 * * * * *")
    assert await timeline.next_fire() == 60
    await timeline.passes(30)
    assert await timeline.fired() == [60]
    # The one that fires in the same transaction does not notice.
    assert await timeline.fired("neighbour") == [60]
    await timeline.passes(60)
    assert await timeline.fired() == [60, 120]
    assert [payload["execution_count"] for payload in await timeline.payloads()] == [1, 2]


async def test_timers_that_are_due_together_fire_in_few_transactions(
    database: Database, tmp_path: Path, clock: VirtualClock
) -> None:
    async with timeline_on(database, tmp_path, clock) as timeline:
        await timeline.rule(interval=60)
    async with database.acquire() as connection:
        await connection.execute("""
            WITH model AS (DELETE FROM attune.rule WHERE ref = 'hello.tick' RETURNING *),
                 rule AS (
                     INSERT INTO attune.rule (ref, pack, pack_ref, label, action, action_ref, trigger, trigger_ref,
                                              trigger_params, enabled, is_adhoc, created, updated)
                     SELECT ref || n, pack, pack_ref, label, action, action_ref, trigger, trigger_ref, trigger_params,
                            enabled, is_adhoc, created, updated
                       FROM model, generate_series(1, 1000) AS n
                     RETURNING *)
            INSERT INTO attune.timer (rule, generation, anchor, next_fire_at)
            SELECT id, 1, created, created + '1 minute' FROM rule
        """)
    async with timeline_on(database, tmp_path, clock) as timeline:
        await timeline.passes(60)
        found = await database.fetch_one("""
            SELECT count(*) AS events, count(DISTINCT rule) AS rules, count(DISTINCT xmin::text) AS transactions
              FROM attune.event
        """)
        assert found is not None
        assert (found["events"], found["rules"]) == (1000, 1000)
        assert found["transactions"] <= 10


async def test_metrics_tell_how_late_each_event_is_for_its_instant(timeline: Timeline) -> None:
    await timeline.rule(interval=10, misfire_policy="fire_all")
    await timeline.passes(10)
    await timeline.passes(24)

    found = Scrape(await timeline.engine.metrics.text())

    assert await timeline.fired() == [10, 20, 30]
    assert found["attune_timer_lateness_seconds_sum"] == {(): 0 + 14 + 4}
    buckets = found["attune_timer_lateness_seconds_bucket"]
    assert [buckets[bound,] for bound in ("0.001", "2.5", "5.0", "10.0", "30.0", "+Inf")] == [1, 1, 2, 2, 3, 3]


async def test_timers_go_on_while_too_much_waits(timeline: Timeline) -> None:
    await timeline.rule(interval=10)
    timeline.engine.bus.backlog.waiting = 10**9
    assert timeline.engine.ingress.refusals()

    await timeline.passes(10)

    assert await timeline.fired() == [10]


async def test_timers_wait_while_the_disk_is_nearly_full_as_if_the_server_was_away(
    database: Database, tmp_path: Path, clock: VirtualClock
) -> None:
    free = [100]
    storage = Storage([tmp_path], 50, clock, lambda _: free[0])
    async with timeline_on(database, tmp_path, clock, storage=storage) as timeline:
        await timeline.rule("all", interval=10, misfire_policy="fire_all")
        await timeline.rule("none", interval=10, misfire_policy="skip")
        free[0] = 49
        await storage.look()

        for _ in range(10):
            clock.advance(60)
            assert await timeline.fired("all") == await timeline.fired("none") == []

        free[0] = 55
        await storage.look()
        await timeline.passes(6)

        assert await timeline.fired("all") == list(range(10, 610, 10))
        assert await timeline.fired("none") == []
        assert [skipped[:2] for skipped in await timeline.skipped("none")] == [(10, 600)]
