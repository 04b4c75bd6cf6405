"""When timers fire. T-75: cron ignored its zone, intervals drifted and lost their phase at a restart."""

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from functools import cache
from itertools import product
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import example, given, settings
from hypothesis import strategies as st

from attune.base.errors import BadInput
from attune.base.json import JsonObject
from attune.sources.timers.misfires import Misfire
from attune.sources.timers.params import TRIGGERS, from_params, misfire_from_params
from attune.sources.timers.schedules import Cron, Interval, OneShot, Schedule, payload

SECOND = timedelta(seconds=1)
TICK = timedelta(microseconds=1)

ANCHOR = datetime(2026, 3, 1, 12, 0, 0, 250_000, UTC)
LAST = datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC)

instants = st.integers(0, 10**15 * 4).map(lambda ticks: utc("1980-01-01") + timedelta(microseconds=ticks))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def walk(schedule: Schedule, after: datetime, until: datetime) -> Iterator[datetime]:
    instant = schedule.after(after)
    while instant is not None and instant <= until:
        yield instant
        instant = schedule.after(instant)


def walk_back(schedule: Schedule, until: datetime, after: datetime) -> Iterator[datetime]:
    instant = schedule.before(until)
    while instant is not None and instant > after:
        yield instant
        instant = schedule.before(instant - TICK)


def refusal(trigger_ref: str, params: JsonObject) -> BadInput:
    with pytest.raises(BadInput) as refused:
        from_params(trigger_ref, params, ANCHOR)
    return refused.value


def cron_refusal(expression: str, timezone: str = "UTC") -> BadInput:
    return refusal("core.crontimer", {"expression": expression, "timezone": timezone})


def shown(cron: Cron, after: str, hours: int) -> str:
    """The fires within `hours` from a wall of the cron's zone: each its day, time and offset."""
    zone = ZoneInfo(cron.timezone)
    start = datetime.fromisoformat(after).replace(tzinfo=zone).astimezone(UTC)
    fires = (instant.astimezone(zone) for instant in walk(cron, start, start + timedelta(hours=hours)))
    return " ".join(
        f"{fire:%d.%H:%M:%S}{fire.isoformat()[19:]}".replace(":00+", "+").replace(":00-", "-") for fire in fires
    )


# Intervals


@pytest.mark.parametrize(
    ("seconds", "after", "expected"),
    [
        (60, timedelta(), 60),  # the anchor itself is no fire
        (60, timedelta(microseconds=-1), 60),  # just before the anchor
        (60, timedelta(days=-400), 60),  # long before the anchor
        (60, timedelta(seconds=59, microseconds=999_999), 60),  # just before the first
        (60, timedelta(seconds=60), 120),  # strictly later than a fire
        (7, timedelta(seconds=700), 707),  # the hundredth
        (86_400 * 365, timedelta(seconds=1), 86_400 * 365),  # a long interval
    ],
)
def test_an_interval_fires_at_multiples_from_its_anchor(seconds: int, after: timedelta, expected: int) -> None:
    assert Interval(seconds, ANCHOR).after(ANCHOR + after) == ANCHOR + expected * SECOND


@given(st.integers(1, 10**7), instants)
def test_t75_an_interval_keeps_its_phase_however_far_from_its_anchor(seconds: int, instant: datetime) -> None:
    following = Interval(seconds, ANCHOR).after(instant)
    assert following is not None
    assert following > instant
    assert (following - ANCHOR) % timedelta(seconds=seconds) == timedelta()
    assert following - max(instant, ANCHOR) <= timedelta(seconds=seconds)


@given(st.integers(1, 5000), instants)
@example(60, ANCHOR)  # the anchor itself is no fire
@example(60, ANCHOR + 60 * SECOND)  # but the first one is, from its very instant on
@example(60, ANCHOR + 60 * SECOND - TICK)
def test_an_interval_looks_back_to_what_it_led_on_to(seconds: int, instant: datetime) -> None:
    interval = Interval(seconds, ANCHOR)
    latest = interval.before(instant)
    if latest is None:
        assert instant < ANCHOR + seconds * SECOND
    else:
        assert instant - seconds * SECOND < latest <= instant
        assert interval.after(latest - TICK) == latest


def test_a_one_shot_fires_once() -> None:
    once = OneShot(ANCHOR)
    assert once.after(ANCHOR - TICK) == ANCHOR
    assert once.after(ANCHOR) is None
    assert once.before(ANCHOR) == ANCHOR
    assert once.before(ANCHOR - TICK) is None


@pytest.mark.parametrize(
    "schedule",
    [
        Interval(86_400, ANCHOR),
        Cron("0 0 0 * * *"),
        Cron("* * * * *", "Pacific/Kiritimati"),  # east of UTC its clocks show the year 10000
        Cron("@yearly", "America/New_York"),
        Cron("0 0 * 2 MON#5"),
    ],
    ids=str,
)
def test_after_the_year_9999_there_is_nothing(schedule: Schedule) -> None:
    assert schedule.after(LAST) is None
    assert schedule.after(LAST - SECOND) is None


# Cron: what expressions mean


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("*/10 * * * * *", "2026-03-01 12:00:00", "2026-03-01 12:00:10"),  # seconds come first
        ("*/10 * * * * *", "2026-03-01 12:00:09.999", "2026-03-01 12:00:10"),  # a fraction of a second before
        ("*/10 * * * * *", "2026-03-01 12:00:10.001", "2026-03-01 12:00:20"),  # and after
        ("30 2 * * *", "2026-03-01 12:00", "2026-03-02 02:30"),  # five fields: at second 0
        ("5,50 30 2 * * *", "2026-03-01 02:30:05", "2026-03-01 02:30:50"),  # a list
        ("0 0 9-17/4 * * *", "2026-03-01 09:00", "2026-03-01 13:00"),  # a range with a step
        ("0 5/20 * * * *", "2026-03-01 12:46", "2026-03-01 13:05"),  # a start with a step
        ("0 0 3 * * MON-FRI", "2026-03-06 03:00", "2026-03-09 03:00"),  # Friday, then Monday
        ("0 0 3 * jan,Jul *", "2026-03-06 03:00", "2026-07-01 03:00"),  # names, in any case
        ("0 0 0 * * 0", "2026-03-02 00:00", "2026-03-08 00:00"),  # Sunday is 0
        ("0 0 0 * * 7", "2026-03-02 00:00", "2026-03-08 00:00"),  # and 7
        ("0 0 0 L * *", "2026-02-01 00:00", "2026-02-28 00:00"),  # the last day
        ("0 0 0 LW * *", "2026-02-01 00:00", "2026-02-27 00:00"),  # the last weekday
        ("0 0 0 * * 5L", "2026-03-01 00:00", "2026-03-27 00:00"),  # the last Friday
        ("0 0 0 * * TUE#2", "2026-03-01 00:00", "2026-03-10 00:00"),  # the second Tuesday
        ("0 0 0 13 * FRI", "2026-03-01 00:00", "2026-03-06 00:00"),  # neither is a star: either day will do
        ("0 0 0 */12 * FRI", "2026-03-01 00:00", "2026-03-13 00:00"),  # one begins with a star: both must match
        ("0 0 0 29 2 *", "2026-03-01 00:00", "2028-02-29 00:00"),  # leap days
        ("0 0 0 29 2 *", "2096-03-01 00:00", "2104-02-29 00:00"),  # 2100 is no leap year
        ("0 0 0 * 2 MON#5", "2026-03-01 00:00", "2044-02-29 00:00"),  # the rarest day: a leap day on a Monday
        ("0 0 0 * 2 MON#5", "2072-03-01 00:00", "2112-02-29 00:00"),  # and at its rarest, after 40 years
        ("0 0 * * 2 MON#5", "2072-03-01 00:00", "2112-02-29 00:00"),  # every hour of it
        ("59 59 23 31 12 *", "2026-12-31 23:59:59", "2027-12-31 23:59:59"),  # over the end of a year
        ("@yearly", "2026-03-01 00:00", "2027-01-01 00:00"),
        ("@annually", "2026-03-01 00:00", "2027-01-01 00:00"),
        ("@monthly", "2026-03-01 00:00", "2026-04-01 00:00"),
        ("@weekly", "2026-03-02 00:00", "2026-03-08 00:00"),
        ("@daily", "2026-03-01 00:00", "2026-03-02 00:00"),
        (" @Midnight ", "2026-03-01 00:00", "2026-03-02 00:00"),
        ("@hourly", "2026-03-01 00:00", "2026-03-01 01:00"),
    ],
)
def test_an_expression_names_its_next_instant(expression: str, after: str, expected: str) -> None:
    assert Cron(expression).after(utc(after)) == utc(expected)


@pytest.mark.parametrize(
    "expression",
    [
        "* * * * * *",
        "7 */7 * * * *",
        "0 10-50/20 8,20 * * *",
        "30 0 0 1,15 * 3",  # either day
        "0 0 12 */2 */3 MON",  # both days
        "0 0 0 L * 1#1",
        "0 0 0 LW 2-4 5L",
        "0 0 6 * 2 MON#5",
    ],
)
@given(after=instants)
def test_in_utc_cron_agrees_with_cronsim(expression: str, after: datetime) -> None:
    assert Cron(expression).after(after) == next(CronSim(expression, after))


# Cron: what is refused


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("60 * * * * *", ["second field", "'60'", "0-59"]),
        ("0 60 * * * *", ["minute field", "'60'", "0-59"]),
        ("0 0 24 * * *", ["hour field", "'24'", "0-23"]),
        ("0 0 0 0 * *", ["day-of-month field", "'0'", "1-31"]),
        ("0 0 0 * 13 *", ["month field", "'13'", "1-12 and JAN-DEC"]),
        ("0 0 0 * * 8", ["day-of-week field", "'8'", "0-7", "SUN-SAT"]),
        ("0 1,2,99 * * * *", ["minute field", "'99'"]),  # only the bad term of a list
        ("0 0 0 ? * MON", ["day-of-month field", "'?'", "write '*'"]),  # Quartz
        ("0 0 0 * * FRI-MON", ["day-of-week field", "'FRI-MON'", "ranges that go up"]),
        ("0 */0 * * * *", ["minute field", "'*/0'"]),
        ("0 */90 * * * *", ["minute field", "'*/90'", "a step is at most 59"]),  # would mean: once an hour
        ("0 x * * * *", ["minute field", "'X'"]),
        ("0 1, * * * *", ["minute field", "''"]),  # a list that goes on with nothing
        ("0 0 0 1 1 * 2027", ["7 fields", "six", "a year cannot be given"]),
        ("5", ["1 field,", "second (may be left out), minute, hour, day-of-month, month, day-of-week"]),
        ("* * * *", ["4 fields"]),
        ("", ["0 fields"]),
        ("   ", ["0 fields"]),
        ("@reboot", ["fires by the clock"]),
        ("@dayly", ["@daily", "did you mean '@daily'?"]),
        ("@", ["none of the aliases"]),
        ("0 0 0 30 2 *", ["'0 0 0 30 2 *' never fires"]),
        ("0 0 30 2 *", ["never fires"]),  # five fields
        ("0 0 0 31 4,6,9,11 *", ["never fires"]),
        ("0 0 0 LW * */6", ["never fires"]),  # a weekday at the weekend
        ("9" * 1001, ["longer than 1000"]),
    ],
)
def test_a_bad_expression_is_refused_by_field_value_and_what_is_allowed(expression: str, words: list[str]) -> None:
    (problem,) = cron_refusal(expression).problems
    assert problem.where == "/expression"
    for word in words:
        assert word in problem.what


def test_a_time_that_the_zone_always_leaves_out_never_fires() -> None:
    (problem,) = cron_refusal("0 * 2 * 3 7L", "Europe/Berlin").problems
    assert "no such time in Europe/Berlin" in problem.what


def test_everything_that_is_wrong_is_said_at_once() -> None:
    problems = cron_refusal("60 0 25 * * *", "Mars/Olympus").problems
    assert [problem.where for problem in problems] == ["/expression", "/expression", "/timezone"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Europe/Berln", "Europe/Berlin"),
        ("europe/berlin", "Europe/Berlin"),  # on a file system with cases
        ("berlin", "Europe/Berlin"),  # the city alone
        ("America/New York", "America/New_York"),
        ("America", None),  # a folder
        ("", None),
        ("../../etc/passwd", None),
        ("localtime", None),  # depends on the machine
        ("right/Europe/Berlin", None),  # with leap seconds
        ("UTC\0", None),
        ("x" * 5000, None),
    ],
)
def test_an_unknown_zone_is_refused_with_a_guess(name: str, meant: str | None) -> None:
    (problem,) = cron_refusal("* * * * *", name).problems
    assert problem.where == "/timezone"
    assert len(problem.what) < 300
    assert f"did you mean {name!r}?" not in problem.what
    if meant is not None:
        assert f"did you mean '{meant}'?" in problem.what


def accepted(expression: str, timezone: str) -> Schedule | None:
    try:
        return from_params("core.crontimer", {"expression": expression, "timezone": timezone}, ANCHOR)
    except BadInput:
        return None


@given(st.text("0123456789*/,-#?LW@ MONa", max_size=30), st.text(max_size=10))
@example("0 0 0 L/2 * 5L/3", "UTC")
@settings(deadline=None)  # the first unknown zone reads all zones
def test_whatever_text_is_refused_or_a_schedule(expression: str, timezone: str) -> None:
    for zone in ("UTC", timezone):
        cron = accepted(expression, zone)
        assert cron is None or cron.after(ANCHOR) is not None


# Cron: where the clocks change (T-75)


BERLIN, NEW_YORK, HAVANA = "Europe/Berlin", "America/New_York", "America/Havana"
LORD_HOWE, BEIRUT, APIA = "Australia/Lord_Howe", "Asia/Beirut", "Pacific/Apia"
CASABLANCA, CHATHAM, TROLL = "Africa/Casablanca", "Pacific/Chatham", "Antarctica/Troll"


@pytest.mark.parametrize(
    ("expression", "timezone", "after", "hours", "expected"),
    [
        # A time of day that is left out fires at the first instant after what is left out, with five fields and six.
        ("30 2 * * *", BERLIN, "2026-03-28 12:00", 48, "29.03:00+02:00 30.02:30+02:00"),
        ("0 30 2 * * *", BERLIN, "2026-03-28 12:00", 48, "29.03:00+02:00 30.02:30+02:00"),
        ("15 30 2 * * *", BERLIN, "2026-03-28 12:00", 48, "29.03:00+02:00 30.02:30:15+02:00"),
        ("0 30 2 * * *", NEW_YORK, "2026-03-07 12:00", 24, "08.03:00-04:00"),
        # Thirty minutes are left out.
        ("0 15 2 * * *", LORD_HOWE, "2026-10-03 12:00", 24, "04.02:30+11:00"),
        ("0 30 2 * * *", LORD_HOWE, "2026-10-03 12:00", 24, "04.02:30+11:00"),
        # Two hours are left out.
        ("0 30 1 * * *", TROLL, "2026-03-28 12:00", 24, "29.03:00+02:00"),
        # After Ramadan.
        ("0 30 2 * * *", CASABLANCA, "2023-04-22 12:00", 24, "23.03:00+01:00"),
        # Midnight is left out: the day begins at one.
        ("0 0 0 * * *", BEIRUT, "2024-03-30 12:00", 36, "31.01:00+03:00 01.00:00+03:00"),
        ("0 0 0 31 * *", BEIRUT, "2024-03-30 12:00", 48, "31.01:00+03:00"),
        ("@daily", HAVANA, "2024-03-09 12:00", 24, "10.01:00-04:00"),
        # A whole day is left out.
        ("0 0 12 * * *", APIA, "2011-12-29 00:00", 48, "29.12:00-10:00 31.00:00+14:00 31.12:00+14:00"),
        ("0 0 12 30 12 *", APIA, "2011-12-01 00:00", 900, "31.00:00+14:00"),
        # A second that begins with a star is still one of a time of day.
        ("*/30 30 2 * * *", BERLIN, "2026-03-28 12:00", 48, "29.03:00+02:00 30.02:30+02:00 30.02:30:30+02:00"),
        ("*/30 30 2 * * *", BERLIN, "2026-10-24 12:00", 24, "25.02:30+02:00 25.02:30:30+02:00"),
        # Several times that are left out fire together, with the one that is due then anyway.
        ("0 0,20,40 2 * * *", BERLIN, "2026-03-28 12:00", 24, "29.03:00+02:00"),
        ("0 30 1-3 * * *", BERLIN, "2026-03-29 00:00", 12, "29.01:30+01:00 29.03:00+02:00 29.03:30+02:00"),
        ("0 0 1-4 * * *", BERLIN, "2026-03-29 00:00", 12, "29.01:00+01:00 29.03:00+02:00 29.04:00+02:00"),
        # A time of day that comes twice fires when it comes first.
        ("30 2 * * *", BERLIN, "2026-10-24 12:00", 48, "25.02:30+02:00 26.02:30+01:00"),
        ("0 30 2 * * *", BERLIN, "2026-10-24 12:00", 48, "25.02:30+02:00 26.02:30+01:00"),
        ("0 30 1 * * *", NEW_YORK, "2026-10-31 12:00", 24, "01.01:30-04:00"),
        ("0 45 1 * * *", LORD_HOWE, "2026-04-04 12:00", 24, "05.01:45+11:00"),
        ("0 30 2 * * *", CASABLANCA, "2023-03-18 12:00", 24, "19.02:30+01:00"),
        ("@daily", HAVANA, "2024-11-02 12:00", 24, "03.00:00-04:00"),
        # The first time after those that come twice.
        ("0 0 3 * * *", BERLIN, "2026-10-24 12:00", 24, "25.03:00+01:00"),
        # Elapsed time: what comes twice fires twice, in order.
        ("@hourly", BERLIN, "2026-10-25 01:30", 3, "25.02:00+02:00 25.02:00+01:00 25.03:00+01:00"),
        ("0 45 * * * *", BERLIN, "2026-10-25 02:00", 2, "25.02:45+02:00 25.02:45+01:00"),
        ("0 */40 2 * * *", BERLIN, "2026-10-25 02:20", 9, "25.02:40+02:00 25.02:00+01:00 25.02:40+01:00"),
        ("0 */20 * * * *", LORD_HOWE, "2026-04-05 01:30", 1, "05.01:40+11:00 05.01:40+10:30 05.02:00+10:30"),
        ("0 0,50 */3 * * *", CHATHAM, "2026-04-05 01:00", 4, "05.03:00+13:45 05.03:00+12:45 05.03:50+12:45"),
        ("0 0 */12 * * *", HAVANA, "2024-11-02 12:00", 13, "03.00:00-04:00 03.00:00-05:00"),
        # Elapsed time: what is left out does not fire, and nothing makes up for it.
        ("@hourly", BERLIN, "2026-03-29 00:30", 2, "29.01:00+01:00 29.03:00+02:00"),
        ("0 45 * * * *", BERLIN, "2026-03-29 01:00", 2, "29.01:45+01:00 29.03:45+02:00"),
        ("0 */40 2 * * *", BERLIN, "2026-03-29 00:00", 26, "30.02:00+02:00 30.02:40+02:00"),
        ("0 */40 2 31 3 *", BERLIN, "2023-04-01 00:00", 24 * 366 * 2, "31.02:00+02:00 31.02:40+02:00"),
        ("0 0 */12 * * *", APIA, "2011-12-29 01:00", 36, "29.12:00-10:00 31.00:00+14:00 31.12:00+14:00"),
    ],
)
def test_t75_cron_follows_the_clocks_of_its_zone(
    expression: str, timezone: str, after: str, hours: int, expected: str
) -> None:
    assert shown(Cron(expression, timezone), after, hours) == expected


def test_t75_an_instant_within_the_repeated_hour_leads_on() -> None:
    """From the second 02:10 on, a daily 02:30 is tomorrow's, and the cron does not turn back to the first."""
    cron = Cron("0 30 2 * * *", "Europe/Berlin")
    assert cron.after(utc("2026-10-25 01:10")) == utc("2026-10-26 01:30")
    assert cron.before(utc("2026-10-25 01:10")) == utc("2026-10-25 00:30")


# Changes of the past: rules for the future differ between editions of the time zone database.
CHANGES = [
    ("Europe/Berlin", "2026-03-29 01:00"),
    ("Europe/Berlin", "2026-10-25 01:00"),
    ("America/New_York", "2026-03-08 07:00"),
    ("America/New_York", "2026-11-01 06:00"),
    ("Australia/Lord_Howe", "2026-04-04 15:00"),  # back by 30 minutes
    ("Australia/Lord_Howe", "2026-10-03 15:30"),
    ("Pacific/Chatham", "2026-04-04 14:00"),  # at 03:45
    ("Africa/Casablanca", "2023-03-19 02:00"),  # for Ramadan, backwards in spring
    ("Asia/Beirut", "2024-03-30 22:00"),  # midnight is left out
    ("America/Havana", "2024-11-03 05:00"),  # midnight comes twice
    ("Antarctica/Troll", "2026-10-25 01:00"),  # by two hours
    ("America/St_Johns", "1988-10-30 02:31"),  # by two hours, at 00:01
    ("Pacific/Apia", "2011-12-30 10:00"),  # no 30 December
    ("Europe/Berlin", "2026-06-01 01:00"),  # nothing changes
]

seconds_fields = st.sampled_from(["0", "*/20", "15,45", "59", "30-32"])
minutes_fields = st.sampled_from(["0", "30", "1,31,59", "0-59", "*", "*/15", "*/31", "58-59"])
hours_fields = st.sampled_from(["0", "1", "2", "1-3", "0,2", "0-23", "12", "23", "*", "*/2", "*/3"])


def values(text: str, limit: int) -> set[int]:
    """An independent reading of the few forms that `seconds_fields` and the like use."""
    if text.startswith("*"):
        return set(range(0, limit, int(text[2:] or "1")))
    terms = (term.partition("-") for term in text.split(","))
    return {value for low, _, high in terms for value in range(int(low), int(high or low) + 1)}


@cache
def clocks(timezone: str, start: datetime) -> tuple[dict[time, list[datetime]], dict[time, list[datetime]]]:
    """Of the four hours after `start`: the seconds at which clocks show a time, and at which a time of day is due."""
    zone = ZoneInfo(timezone)
    showing, due = defaultdict(list), defaultdict(list)
    previous = start.astimezone(zone).replace(tzinfo=None)
    for tick in range(1, 4 * 3600):
        second = start + tick * SECOND
        local = second.astimezone(zone)
        wall = local.replace(tzinfo=None)
        left_out = [previous + n * SECOND for n in range(1, (wall - previous) // SECOND)]
        showing[wall.time()].append(second)
        for first_shown in left_out if local.fold else [*left_out, wall]:
            due[first_shown.time()].append(second)
        previous = wall
    return showing, due


@given(st.tuples(hours_fields, minutes_fields, seconds_fields), st.sampled_from(CHANGES))
@settings(deadline=None, max_examples=60)  # the first example of a change looks at 14,400 seconds
def test_t75_around_a_change_cron_agrees_with_brute_force(
    fields: tuple[str, str, str], change: tuple[str, str]
) -> None:
    timezone, start = change[0], utc(change[1]) - timedelta(hours=1, minutes=30)
    showing, due = clocks(timezone, start)
    instants_of = showing if "*" in fields[0] + fields[1] else due
    hours, minutes, seconds = (values(text, limit) for text, limit in zip(fields, (24, 60, 60), strict=True))
    times = (time(*of_day) for of_day in product(hours, minutes, seconds))
    expected = sorted({instant for of_day in times for instant in instants_of.get(of_day, ())})

    cron = Cron(f"{' '.join(reversed(fields))} * * *", timezone)
    stop = start + timedelta(hours=4) - SECOND
    assert list(walk(cron, start, stop)) == expected
    assert list(walk_back(cron, stop, start)) == expected[::-1]


crons = st.builds(
    Cron,
    st.builds(
        "{} {} {} {} {} {}".format,
        seconds_fields,
        minutes_fields,
        hours_fields,
        st.sampled_from(["*", "1", "*/5", "L", "29-30"]),
        st.sampled_from(["*", "3,10", "1-12"]),
        st.sampled_from(["*", "SUN", "7L", "1-5", "SAT#4"]),
    ),
    st.sampled_from(sorted({zone for zone, _ in CHANGES})),
)


@given(crons, instants, st.integers(0, 2**40), st.integers(0, 2**40))
def test_cron_is_strictly_monotonic(cron: Cron, instant: datetime, first: int, second: int) -> None:
    """From anywhere, in microseconds: later instants never lead to earlier fires, and none lies between."""
    early, late = sorted((instant + timedelta(microseconds=first), instant + timedelta(microseconds=second)))
    following, after_late = cron.after(early), cron.after(late)
    assert following is not None
    assert after_late is not None
    assert early < following <= after_late
    assert (following == after_late) == (late < following)


@given(crons, instants)
@example(Cron("0 * 2 29 2 *", "Europe/Berlin"), utc("1904-02-29 00:59:59"))  # years of nothing, and changes between
def test_cron_looks_back_to_what_it_led_on_to(cron: Cron, instant: datetime) -> None:
    latest, following = cron.before(instant), cron.after(instant)
    assert latest is not None
    assert latest <= instant
    assert cron.after(latest - TICK) == latest
    assert cron.after(latest) == following
    assert following is not None
    assert cron.before(following) == following
    assert cron.before(following - TICK) == latest


def test_before_the_calendar_there_is_nothing() -> None:
    """Beyond the year 1 there is no looking back."""
    first = datetime(1, 1, 1, tzinfo=UTC)
    assert Cron("@daily").before(first) == first
    assert Cron("0 0 12 * * *").before(first) is None
    assert Cron("* * * * *", "America/New_York").before(first) is None


def test_crons_are_equal_by_expression_and_zone() -> None:
    assert Cron("@daily", "Europe/Berlin") == Cron("@daily", "Europe/Berlin")
    assert Cron("@daily", "Europe/Berlin") != Cron("@daily")


# Trigger parameters


@pytest.mark.parametrize(
    ("trigger", "params", "schedule"),
    [
        ("core.intervaltimer", {"unit": "minutes", "interval": 5}, Interval(300, ANCHOR)),
        ("core.intervaltimer", {"unit": "seconds", "interval": 1}, Interval(1, ANCHOR)),
        ("core.intervaltimer", {"unit": "hours", "interval": 2}, Interval(7200, ANCHOR)),
        ("core.intervaltimer", {"unit": "days", "interval": 1}, Interval(86_400, ANCHOR)),
        ("core.intervaltimer", {}, Interval(60, ANCHOR)),  # every 60 seconds
        ("core.crontimer", {"expression": "@daily"}, Cron("@daily", "UTC")),
        (
            "core.crontimer",
            {"expression": "0 0 3 * * *", "timezone": "Asia/Tokyo", "description": "at three"},
            Cron("0 0 3 * * *", "Asia/Tokyo"),
        ),
        ("core.crontimer", {"expression": "0 */59 * * * *"}, Cron("0 */59 * * * *")),  # the longest step
        # What becomes of missed instants is no part of the schedule.
        ("core.crontimer", {"expression": "@daily", "misfire_policy": "skip", "misfire_grace": 5}, Cron("@daily")),
        ("core.datetimetimer", {"fire_at": "2026-03-01T12:00:00+02:00"}, OneShot(utc("2026-03-01 10:00"))),
        ("core.datetimetimer", {"fire_at": "2026-03-01t12:00:00.5z"}, OneShot(utc("2026-03-01 12:00:00.5"))),
        # A zone beside an offset is only shown.
        (
            "core.datetimetimer",
            {"fire_at": "2026-03-01T12:00Z", "timezone": "Asia/Tokyo"},
            OneShot(utc("2026-03-01 12:00"), "Asia/Tokyo"),
        ),
        # Without an offset it is read in the zone that is given,
        (
            "core.datetimetimer",
            {"fire_at": "2026-07-01 12:00", "timezone": "Europe/Berlin"},
            OneShot(utc("2026-07-01 10:00"), "Europe/Berlin"),
        ),
        # as cron reads times of day: left out, then the first instant after it,
        (
            "core.datetimetimer",
            {"fire_at": "2026-03-29T02:30:00.5", "timezone": "Europe/Berlin"},
            OneShot(utc("2026-03-29 01:00"), "Europe/Berlin"),
        ),
        # and twice, then the first.
        (
            "core.datetimetimer",
            {"fire_at": "2026-10-25T02:30:00", "timezone": "Europe/Berlin"},
            OneShot(utc("2026-10-25 00:30"), "Europe/Berlin"),
        ),
    ],
)
def test_parameters_describe_a_schedule(trigger: str, params: JsonObject, schedule: Schedule) -> None:
    assert from_params(trigger, params, ANCHOR) == schedule


@pytest.mark.parametrize(
    ("trigger", "params", "where", "words"),
    [
        ("core.intervaltimer", {"unit": "days", "interval": 3_000_000}, "/interval", "year 9999"),
        ("core.intervaltimer", {"interval": 10**30}, "/interval", "year 9999"),  # beyond any timedelta
        ("core.crontimer", {}, "/expression", "0 fields"),
        ("core.crontimer", {"expression": "x"}, "/expression", "1 field"),
        ("core.crontimer", {"expression": "x " * 400}, "/expression", "400 fields"),
        ("core.crontimer", {"expression": "x" * 900 + " * * * *"}, "/expression", "the minute field cannot be 'XXX"),
        ("core.crontimer", {"expression": "@daily", "timezone": "Nowhere"}, "/timezone", "'Nowhere'"),
        ("core.datetimetimer", {"fire_at": "tomorrow"}, "/fire_at", "'tomorrow' is not an ISO 8601 date and time"),
        ("core.datetimetimer", {"fire_at": "x" * 10_000}, "/fire_at", "is not an ISO 8601 date and time"),
        ("core.datetimetimer", {}, "/fire_at", "'' is not an ISO 8601 date and time"),
        ("core.datetimetimer", {"fire_at": "2026-02-30T12:00Z"}, "/fire_at", "day is out of range"),
        ("core.datetimetimer", {"fire_at": "2026-03-01T12:00"}, "/fire_at", "has no offset"),  # UTC is not guessed
        ("core.datetimetimer", {"fire_at": "2026-03-01", "timezone": "UTC"}, "/fire_at", "has no time of day"),
        ("core.datetimetimer", {"fire_at": "0001-01-01T00:00+05:00"}, "/fire_at", "out of range"),
        ("core.datetimetimer", {"fire_at": "2026-03-01T12:00Z", "timezone": "Mars"}, "/timezone", "'Mars'"),
    ],
)
def test_parameters_are_refused_with_a_pointer(trigger: str, params: JsonObject, where: str, words: str) -> None:
    (problem,) = refusal(trigger, params).problems
    assert problem.where == where
    assert words in problem.what
    assert len(problem.what) < 300


def test_a_number_that_a_schema_takes_for_an_integer_becomes_one() -> None:
    assert repr(from_params("core.intervaltimer", {"interval": 5.0}, ANCHOR)) == repr(Interval(5, ANCHOR))


def test_another_trigger_is_no_timer() -> None:
    assert "core.webhook" not in TRIGGERS
    assert "core.crontimer" in refusal("core.webhook", {}).message


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, (Misfire.FIRE_ONCE, timedelta(hours=1))),
        ({"misfire_policy": "skip"}, (Misfire.SKIP, timedelta(hours=1))),
        ({"misfire_policy": "fire_all", "misfire_grace": 0}, (Misfire.FIRE_ALL, timedelta())),
        ({"misfire_grace": 90.0}, (Misfire.FIRE_ONCE, timedelta(seconds=90))),  # an integer, as JSON Schema has it
        ({"misfire_policy": "skip", "misfire_grace": 10**30}, (Misfire.SKIP, timedelta.max)),  # beyond any timedelta
        ({"interval": 5, "unit": "minutes"}, (Misfire.FIRE_ONCE, timedelta(hours=1))),  # the schedule's
    ],
)
def test_parameters_say_what_becomes_of_missed_instants(
    params: JsonObject, expected: tuple[Misfire, timedelta]
) -> None:
    assert misfire_from_params(params) == expected


# Payloads


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (
            Interval(300, ANCHOR),
            {
                "type": "interval",
                "interval_seconds": 300,
                "scheduled_at": "2026-03-29T01:00:00Z",
                "fired_at": "2026-03-29T01:00:01.500000Z",
                "execution_count": 7,
                "sensor_ref": "core.timer_sensor",
            },
        ),
        (
            Cron("30 2 * * *", "Europe/Berlin"),
            {
                "type": "cron",
                "fired_at": "2026-03-29T01:00:01.500000Z",
                "scheduled_at": "2026-03-29T01:00:00Z",
                "expression": "30 2 * * *",
                "timezone": "Europe/Berlin",  # the real one (T-75)
                "next_fire_at": "2026-03-30T00:30:00Z",
                "execution_count": 7,
                "sensor_ref": "core.timer_sensor",
            },
        ),
        (
            OneShot(utc("2026-03-29 01:00"), "Europe/Berlin"),
            {
                "type": "one_shot",
                "fire_at": "2026-03-29T01:00:00Z",
                "scheduled_at": "2026-03-29T01:00:00Z",
                "fired_at": "2026-03-29T01:00:01.500000Z",
                "timezone": "Europe/Berlin",
                "delay_ms": 1500,
                "sensor_ref": "core.timer_sensor",
            },
        ),
    ],
)
def test_a_payload_has_the_fields_of_its_kind(schedule: Schedule, expected: JsonObject) -> None:
    instant = utc("2026-03-29 01:00")
    fired_at = utc("2026-03-29 01:00:01.5")
    fired = payload(
        schedule, instant=instant, fired_at=fired_at, next_fire_at=schedule.after(fired_at), execution_count=7
    )
    assert fired == expected


def test_the_last_fire_of_a_cron_has_no_next() -> None:
    fired = payload(Cron("@daily"), instant=LAST, fired_at=LAST, next_fire_at=None, execution_count=1)
    assert fired["next_fire_at"] is None
