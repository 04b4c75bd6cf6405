"""What becomes of missed fires. T-75: there was no catch-up, and nobody learned what had been skipped."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attune.sources.timers.misfires import Misfire, Plan, plan, reanchored
from attune.sources.timers.schedules import Cron, Interval, OneShot, Schedule

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)

minutely = Interval(60, NOON - timedelta(days=400))


def walk(schedule: Schedule, start: datetime, stop: datetime) -> Iterator[datetime]:
    """The instants from `start` to `stop`, both included."""
    instant = schedule.after(start - timedelta(microseconds=1))
    while instant is not None and instant <= stop:
        yield instant
        instant = schedule.after(instant)


def minutes(*ago: int) -> tuple[datetime, ...]:
    return tuple(NOON - back * MINUTE for back in ago)


@pytest.mark.parametrize(
    ("policy", "first", "now", "fires", "skipped"),
    [
        # On time: at the instant, and up to five seconds late, whatever the policy.
        (Misfire.FIRE_ONCE, 0, NOON, (0,), ()),
        (Misfire.SKIP, 0, NOON, (0,), ()),
        (Misfire.SKIP, 0, NOON + 5 * SECOND, (0,), ()),
        # Missed by more: each policy for itself.
        (Misfire.SKIP, 0, NOON + 6 * SECOND, (), (0, 0, 1)),
        (Misfire.FIRE_ONCE, 0, NOON + 6 * SECOND, (0,), ()),
        (Misfire.FIRE_ALL, 0, NOON + 6 * SECOND, (0,), ()),
        # Ten missed, none on time.
        (Misfire.SKIP, 9, NOON + 30 * SECOND, (), (9, 0, 10)),
        (Misfire.FIRE_ONCE, 9, NOON + 30 * SECOND, (0,), (9, 1, 9)),
        (Misfire.FIRE_ALL, 9, NOON + 30 * SECOND, tuple(range(9, -1, -1)), ()),
        # Ten missed, and one on time.
        (Misfire.SKIP, 10, NOON, (0,), (10, 1, 10)),
        (Misfire.FIRE_ONCE, 10, NOON, (1, 0), (10, 2, 9)),
        (Misfire.FIRE_ALL, 10, NOON, tuple(range(10, -1, -1)), ()),
        # 250 missed: fire_all is for the latest 100.
        (Misfire.FIRE_ALL, 249, NOON + 30 * SECOND, tuple(range(99, -1, -1)), (249, 100, 150)),
    ],
)
def test_a_policy_decides_about_missed_fires(
    policy: Misfire, first: int, now: datetime, fires: tuple[int, ...], skipped: tuple[int, ...]
) -> None:
    planned = plan(minutely, NOON - first * MINUTE, now, policy)
    assert planned.fires == minutes(*fires)
    assert planned.next_fire_at == NOON + MINUTE
    if not skipped:
        assert planned.skipped == ()
    else:
        (passed_over,) = planned.skipped
        assert (passed_over.first, passed_over.last) == minutes(*skipped[:2])
        assert passed_over.count == skipped[2]


@pytest.mark.parametrize(
    ("late", "grace", "fires"),
    [
        (HOUR, HOUR, True),  # exactly within the grace
        (HOUR + SECOND, HOUR, False),  # a second too late
        (30 * SECOND, timedelta(), False),  # no grace at all
        (3 * SECOND, timedelta(), True),  # on time needs no grace
        (timedelta(days=3), timedelta.max, True),  # any grace
    ],
)
def test_fire_once_makes_up_within_its_grace_only(late: timedelta, grace: timedelta, fires: bool) -> None:
    planned = plan(OneShot(NOON), NOON, NOON + late, Misfire.FIRE_ONCE, grace)
    assert planned.fires == ((NOON,) if fires else ())
    assert [passed_over.count for passed_over in planned.skipped] == ([] if fires else [1])
    assert planned.next_fire_at is None


@pytest.mark.parametrize(
    ("policy", "late", "reason"),
    [
        (Misfire.SKIP, HOUR, "missed; the policy is skip"),
        (Misfire.FIRE_ONCE, HOUR, "missed; fire_once makes up for the latest only"),
        (Misfire.FIRE_ALL, 3 * HOUR, "missed; fire_all makes up for the latest 100 only"),
    ],
)
def test_what_is_skipped_says_why(policy: Misfire, late: timedelta, reason: str) -> None:
    (passed_over,) = plan(minutely, NOON, NOON + late, policy).skipped
    assert passed_over.reason == reason


def test_what_is_beyond_the_grace_says_so() -> None:
    (passed_over,) = plan(Cron("@daily"), NOON - timedelta(days=9), NOON).skipped
    assert passed_over.reason == "missed by more than the grace of 1:00:00"
    assert passed_over.count == 9


def test_a_clock_that_went_back_fires_nothing_and_keeps_waiting() -> None:
    assert plan(minutely, NOON, NOON - HOUR) == Plan((), (), NOON)


def test_t75_a_daily_job_that_slept_through_the_change_of_clocks_fires_once() -> None:
    """Due at 02:30, which Berlin leaves out: at 03:00, and only then."""
    cron = Cron("30 2 * * *", "Europe/Berlin")
    due = datetime(2026, 3, 29, 1, tzinfo=UTC)
    planned = plan(cron, due, due + MINUTE)
    assert planned == Plan((due,), (), datetime(2026, 3, 30, 0, 30, tzinfo=UTC))


def test_a_stored_instant_that_the_schedule_no_longer_has_does_not_fire() -> None:
    """The zone's rules changed, say, since `next_fire_at` was written."""
    assert plan(Cron("0 0 12 * * *"), NOON + HOUR, NOON + 2 * HOUR) == Plan((), (), NOON + timedelta(days=1))


@pytest.mark.parametrize("policy", Misfire)
@pytest.mark.parametrize(
    "schedule",
    [
        Interval(1, NOON - timedelta(days=1)),
        Cron("* * * * * *"),
        Cron("* * * * * *", "Europe/Berlin"),
        Cron("* 0-59 0-23 * * *", "Europe/Berlin"),  # times of day
        Cron("* * * 1 1 *", "Europe/Berlin"),  # a burst once a year
    ],
    ids=str,
)
def test_a_year_of_missed_seconds_is_planned_in_a_blink(schedule: Schedule, policy: Misfire) -> None:
    now = NOON + timedelta(days=365)

    def seconds_to_plan() -> float:
        start = time.perf_counter()
        plan(schedule, NOON, now, policy)
        return time.perf_counter() - start

    assert any(seconds_to_plan() < 0.1 for _ in range(3))  # whatever else the machine does
    planned = plan(schedule, NOON, now, policy)
    assert len(planned.fires) <= 106
    (passed_over,) = planned.skipped
    assert passed_over.first == schedule.after(NOON - SECOND)
    assert (passed_over.count is None) == isinstance(schedule, Cron)


@pytest.mark.parametrize(
    ("schedule", "missed", "count"),
    [
        (Cron("* * * * * *"), 100, 100),
        (Cron("* * * * * *"), 101, None),  # more than anybody wants to have counted
        (Cron("* * * * * *"), 10**8, None),
        (Interval(1, NOON - HOUR), 10**8, 10**8),  # this takes a division
        (Interval(7, NOON - 7 * SECOND), 70, 10),
    ],
)
def test_what_is_skipped_is_counted_up_to_a_bound(schedule: Schedule, missed: int, count: int | None) -> None:
    """`missed` seconds have passed since noon, and the five that are on time."""
    (passed_over,) = plan(schedule, NOON, NOON + (missed + 5) * SECOND, Misfire.SKIP).skipped
    assert passed_over.first == NOON
    assert passed_over.count == count


@pytest.mark.parametrize(
    ("schedule", "next_fire_at", "expected"),
    [
        (Interval(60, NOON), NOON + HOUR, NOON + MINUTE),  # it would wait for an hour
        (Interval(60, NOON), NOON + MINUTE + SECOND, NOON + MINUTE),  # a second too long
        (Interval(60, NOON), NOON + MINUTE, None),  # as long as always
        (Interval(60, NOON), NOON - HOUR, None),  # it is due
        (Interval(7200, NOON), NOON + HOUR, None),  # the clock went back by less than it waits
        (Cron("0 * * * * *"), NOON + HOUR, None),  # what comes again has fired
        (OneShot(NOON + HOUR), NOON + HOUR, None),
    ],
)
def test_when_the_clock_went_back_intervals_begin_anew_and_the_calendar_waits(
    schedule: Schedule, next_fire_at: datetime, expected: datetime | None
) -> None:
    assert reanchored(schedule, next_fire_at, NOON) == expected


schedules = st.one_of(
    st.builds(Interval, st.integers(1, 5000), st.just(NOON - HOUR)),
    st.builds(OneShot, st.integers(0, 86_400).map(lambda seconds: NOON + seconds * SECOND)),
    st.builds(
        Cron,
        st.sampled_from(["*/7 * * * * *", "0 */5 * * * *", "0 30 2 * * *", "30-40 0 * * * *", "0 0,20,40 1-3 * * *"]),
        st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe"]),
    ),
)
starts = st.sampled_from(
    [
        NOON,
        datetime(2026, 3, 28, 20, tzinfo=UTC),  # Berlin's clocks go forward
        datetime(2026, 10, 24, 20, tzinfo=UTC),  # and back
        datetime(2026, 4, 4, 10, tzinfo=UTC),  # Lord Howe's go back
    ]
)
graces = st.integers(0, 7200).map(lambda seconds: seconds * SECOND)


@given(schedules, starts, st.integers(0, 10**10), st.integers(-(10**8), 10**10), st.sampled_from(list(Misfire)), graces)
def test_every_due_instant_fires_or_is_skipped_once(
    schedule: Schedule, start: datetime, wait: int, late: int, policy: Misfire, grace: timedelta
) -> None:
    next_fire_at = schedule.after(start + timedelta(microseconds=wait)) or start
    now = next_fire_at + timedelta(microseconds=late)
    planned = plan(schedule, next_fire_at, now, policy, grace)

    due = list(walk(schedule, next_fire_at, now))
    skipped = [list(walk(schedule, passed_over.first, passed_over.last)) for passed_over in planned.skipped]
    assert [*(instant for instants in skipped for instant in instants), *planned.fires] == due
    counts = [len(instants) if isinstance(schedule, Interval) or len(instants) <= 100 else None for instants in skipped]
    assert [passed_over.count for passed_over in planned.skipped] == counts
    assert all(instant in planned.fires for instant in due if now - instant <= 5 * SECOND)

    assert planned.next_fire_at == (schedule.after(now) if now >= next_fire_at else next_fire_at)
    if planned.next_fire_at is not None:
        assert plan(schedule, planned.next_fire_at, now, policy, grace) == Plan((), (), planned.next_fire_at)
