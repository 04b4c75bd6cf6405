"""When recurrence rules fire: as dateutil has it on the clock on the wall, and like cron where clocks change."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from dateutil.rrule import rrule, weekday
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from attune.base.errors import BadInput, Problem
from attune.base.json import JsonObject
from attune.sources.timers.params import from_params
from attune.sources.timers.recurrences import LISTS, MOST_STEPS, Frequency, Recurrence
from attune.sources.timers.schedules import RRule, payload

SECOND = timedelta(seconds=1)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NEW_YEAR = "2026-01-01T00:00:00"


def made(rule: str = "", dtstart: str = NEW_YEAR, timezone: str = "UTC", **params: Any) -> RRule:
    given_params = {"rule": rule} if rule else params
    schedule = from_params("core.rruletimer", {"dtstart": dtstart, "timezone": timezone, **given_params}, NOW)
    assert isinstance(schedule, RRule)
    return schedule


def refusal(params: JsonObject) -> Problem:
    with pytest.raises(BadInput) as refused:
        from_params("core.rruletimer", params, NOW)
    (problem,) = refused.value.problems
    return problem


def walk(schedule: RRule, after: datetime) -> Iterator[datetime]:
    instant = schedule.after(after)
    while instant is not None:
        yield instant
        instant = schedule.after(instant)


def shown(schedule: RRule, after: str, hours: int) -> str:
    """The fires within `hours` from a wall of the zone: each its day, time and offset."""
    zone = ZoneInfo(schedule.timezone)
    start = datetime.fromisoformat(after).replace(tzinfo=zone).astimezone(UTC)
    fires = takewhile(lambda fire: fire <= start + timedelta(hours=hours), walk(schedule, start - SECOND))
    walls = (fire.astimezone(zone) for fire in fires)
    return " ".join(f"{wall:%d.%H:%M}{wall.isoformat()[19:22]}" for wall in walls)


# What rules mean


@pytest.mark.parametrize(
    ("rule", "dtstart", "expected"),
    [
        # The examples of RFC 5545, 3.8.5.3, in UTC.
        ("FREQ=DAILY;COUNT=3", "1997-09-02T09:00", "1997-09-02 1997-09-03 1997-09-04"),
        ("FREQ=DAILY;INTERVAL=10;COUNT=3", "1997-09-02T09:00", "1997-09-02 1997-09-12 1997-09-22"),
        (
            "FREQ=WEEKLY;INTERVAL=2;COUNT=3;WKST=SU;BYDAY=TU,TH",
            "1997-09-02T09:00",
            "1997-09-02 1997-09-04 1997-09-16",
        ),
        ("FREQ=MONTHLY;COUNT=3;BYDAY=1FR", "1997-09-05T09:00", "1997-09-05 1997-10-03 1997-11-07"),
        (
            "FREQ=MONTHLY;INTERVAL=2;COUNT=3;BYDAY=1SU,-1SU",
            "1997-09-07T09:00",
            "1997-09-07 1997-09-28 1997-11-02",
        ),
        ("FREQ=MONTHLY;BYMONTHDAY=-3;COUNT=3", "1997-09-28T09:00", "1997-09-28 1997-10-29 1997-11-28"),
        (
            "FREQ=YEARLY;INTERVAL=3;COUNT=3;BYYEARDAY=1,100",
            "1997-01-01T09:00",
            "1997-01-01 1997-04-10 2000-01-01",
        ),
        ("FREQ=YEARLY;BYDAY=20MO;COUNT=2", "1997-05-19T09:00", "1997-05-19 1998-05-18"),
        ("FREQ=YEARLY;BYWEEKNO=20;BYDAY=MO;COUNT=2", "1997-05-12T09:00", "1997-05-12 1998-05-11"),
        ("FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13;COUNT=2", "1997-09-02T09:00", "1998-02-13 1998-03-13"),
        (
            "FREQ=YEARLY;INTERVAL=4;BYMONTH=11;BYDAY=TU;BYMONTHDAY=5,7;COUNT=2",
            "1996-11-05T09:00",
            "1996-11-05 2000-11-07",
        ),
        ("FREQ=MONTHLY;COUNT=3;BYDAY=TU,WE,TH;BYSETPOS=3", "1997-09-04T09:00", "1997-09-04 1997-10-07 1997-11-06"),
        ("FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-2;COUNT=2", "1997-09-29T09:00", "1997-09-29 1997-10-30"),
        (
            "FREQ=WEEKLY;INTERVAL=2;COUNT=3;BYDAY=TU,SU;WKST=MO",
            "1997-08-05T09:00",
            "1997-08-05 1997-08-10 1997-08-19",
        ),
        (
            "FREQ=WEEKLY;INTERVAL=2;COUNT=3;BYDAY=TU,SU;WKST=SU",
            "1997-08-05T09:00",
            "1997-08-05 1997-08-17 1997-08-19",
        ),
        ("FREQ=MONTHLY;BYMONTHDAY=15,30;COUNT=3", "2007-01-15T09:00", "2007-01-15 2007-01-30 2007-02-15"),
        # What has no date of its own has that of dtstart: months without it are left out.
        ("FREQ=MONTHLY;COUNT=3", "2026-01-31T09:00", "2026-01-31 2026-03-31 2026-05-31"),
        ("FREQ=YEARLY;COUNT=2", "2024-02-29T09:00", "2024-02-29 2028-02-29"),
        # Both kinds of days, where dateutil would have none that is both.
        ("FREQ=MONTHLY;BYDAY=SU,2TU;BYMONTH=3;COUNT=3", "2026-03-01T09:00", "2026-03-01 2026-03-08 2026-03-10"),
        # In the whole of a week, whose Monday dtstart comes after.
        ("FREQ=WEEKLY;BYDAY=MO,FR;BYSETPOS=1;COUNT=1", "2026-03-04T09:00", "2026-03-09"),
        # The end of the day, and a moment.
        ("FREQ=DAILY;UNTIL=20260102", "2026-01-01T09:00", "2026-01-01 2026-01-02"),
        ("FREQ=DAILY;UNTIL=20260102T085959Z", "2026-01-01T09:00", "2026-01-01"),
        (" rrule:freq=daily;count=1; ", "2026-01-01T09:00", "2026-01-01"),
    ],
)
def test_a_rule_names_its_days(rule: str, dtstart: str, expected: str) -> None:
    fires = list(islice(walk(made(rule, dtstart), datetime(1990, 1, 1, tzinfo=UTC)), 10))
    assert " ".join(f"{fire:%Y-%m-%d}" for fire in fires) == expected
    assert {(fire.hour, fire.minute) for fire in fires} == {(9, 0)}


@pytest.mark.parametrize(
    ("params", "same"),
    [
        ({"freq": "DAILY"}, "FREQ=DAILY"),
        ({"freq": "DAILY", "interval": 2, "count": 3}, "FREQ=DAILY;INTERVAL=2;COUNT=3"),
        ({"freq": "WEEKLY", "by_day": ["WE", "MO"], "week_start": "SU"}, "FREQ=WEEKLY;BYDAY=MO,WE;WKST=SU"),
        ({"freq": "MONTHLY", "by_day": ["-1FR", "+2TU"]}, "FREQ=MONTHLY;BYDAY=2TU,-1FR"),
        ({"freq": "YEARLY", "by_month": [3, 1.0], "by_month_day": [-1]}, "FREQ=YEARLY;BYMONTH=1,3;BYMONTHDAY=-1"),
        ({"freq": "YEARLY", "by_year_day": [-1], "by_set_pos": [1]}, "FREQ=YEARLY;BYYEARDAY=-1;BYSETPOS=1"),
        ({"freq": "YEARLY", "by_week_no": [20]}, "FREQ=YEARLY;BYWEEKNO=20"),
        ({"freq": "DAILY", "by_hour": [8, 8], "by_second": [60]}, "FREQ=DAILY;BYHOUR=8;BYSECOND=59"),
        ({"freq": "DAILY", "by_minute": [30, 0]}, "FREQ=DAILY;BYMINUTE=0,30"),
        ({"freq": "HOURLY", "until": "2026-05-01T00:00:00Z"}, "FREQ=HOURLY;UNTIL=20260501T000000Z"),
    ],
)
def test_the_parts_one_by_one_say_the_same_as_a_rule(params: dict[str, Any], same: str) -> None:
    schedule = made(**params)
    assert schedule == made(same)
    assert str(schedule.recurrence) == same.partition(";UNTIL")[0]


@pytest.mark.parametrize(
    ("dtstart", "until", "expected"),
    [
        ("2026-07-01T07:00", None, "2026-07-01 05:00"),  # in the zone
        ("2026-07-01T07:00Z", None, "2026-07-01 07:00"),  # with an offset
        ("2026-07-01", "2026-06-30T22:00Z", "2026-06-30 22:00"),  # midnight in the zone is the last one
        ("20260701T070000", "20260701T070000", "2026-07-01 05:00"),  # as iCalendar writes it, in the zone
        ("2026-07-01T07:00:00.5", None, "2026-07-01 05:00"),  # a fraction of a second is left out
    ],
)
def test_dtstart_and_until_are_read_in_the_zone(dtstart: str, until: str | None, expected: str) -> None:
    params = {"freq": "DAILY"} if until is None else {"freq": "DAILY", "until": until}
    first = made(dtstart=dtstart, timezone="Europe/Berlin", **params).after(datetime(2026, 1, 1, tzinfo=UTC))
    assert f"{first:%Y-%m-%d %H:%M}" == expected


_ALLOWED_WITH = {
    "by_month_day": set(Frequency) - {Frequency.WEEKLY},
    "by_year_day": {Frequency.YEARLY, Frequency.HOURLY, Frequency.MINUTELY, Frequency.SECONDLY},
    "by_week_no": {Frequency.YEARLY},
}


_NUMBERS = {
    name: st.sampled_from([number for number in allowed if (number or allowed.start >= 0) and number != 60])
    for name, allowed in LISTS.items()
}


@st.composite
def recurrences(draw: st.DrawFn) -> Recurrence:
    frequency = draw(st.sampled_from(Frequency))
    parts: dict[str, Any] = {}
    for name, numbers in _NUMBERS.items():
        if frequency in _ALLOWED_WITH.get(name, set(Frequency)) and draw(st.integers(0, 3)) == 0:
            parts[name] = tuple(sorted(draw(st.sets(numbers, min_size=1, max_size=5))))
    if draw(st.booleans()):
        is_numbered = frequency <= Frequency.MONTHLY and "by_week_no" not in parts and draw(st.booleans())
        numbers = st.sampled_from([1, 2, 5, -1]) if is_numbered else st.just(0)
        parts["by_day"] = tuple(draw(st.sets(st.tuples(st.integers(0, 6), numbers), min_size=1, max_size=3)))
    return Recurrence(
        start=draw(st.datetimes(datetime(1995, 1, 1), datetime(2035, 1, 1))).replace(microsecond=0),  # noqa: DTZ001
        frequency=frequency,
        interval=draw(st.sampled_from([1, 1, 2, 3, 7, 13])),
        count=draw(st.sampled_from([None, 1, 7])),
        week_start=draw(st.integers(0, 6)),
        **parts,
    )


def by_brute_force(recurrence: Recurrence, most: int) -> list[datetime]:
    """What dateutil makes of it, one by one from the start."""
    parts = {name.replace("_", ""): getattr(recurrence, name) for name in LISTS}
    days = [weekday(day, number) if number else weekday(day) for day, number in recurrence.by_day]
    rule = rrule(
        recurrence.frequency,
        recurrence.start,
        interval=recurrence.interval,
        count=recurrence.count,
        wkst=recurrence.week_start,
        byweekday=days or None,
        **{name: values for name, values in parts.items() if values},
    )
    return list(islice(rule, most))


@given(recurrences())
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_on_the_wall_it_agrees_with_dateutil_forth_and_back(recurrence: Recurrence) -> None:
    # dateutil counts positions in the first week from the start on.
    assume(not (recurrence.frequency is Frequency.WEEKLY and recurrence.by_set_pos))
    first = recurrence.nearest(recurrence.start, 1)
    # dateutil looks for what is rare for minutes.
    assume(first is not None and first - recurrence.start < timedelta(days=400))
    assert first is not None
    forth = [first]
    while len(forth) < 8 and (wall := recurrence.nearest(forth[-1] + SECOND, 1)) is not None:
        assume(wall - forth[-1] < timedelta(days=400))
        forth.append(wall)
    assume(len(forth) == 8 or len(forth) == recurrence.count)
    assert forth == by_brute_force(recurrence, 8)
    back = [wall for wall in [recurrence.nearest(forth[-1], -1)] if wall]
    while (wall := recurrence.nearest(back[-1] - SECOND, -1)) is not None:
        back.append(wall)
    assert back[::-1] == forth


@given(recurrences(), st.integers(0, 10**9), st.integers(0, 10**6))
@settings(deadline=None, max_examples=60)
def test_where_somebody_begins_to_look_makes_no_difference(recurrence: Recurrence, far: int, near: int) -> None:
    """An old dtstart is jumped over: what is found far from it is what is found on the way."""
    wall = recurrence.start + far * SECOND
    found = recurrence.nearest(wall, 1)
    assume(found is not None)
    assert found is not None
    assert found >= wall
    assert recurrence.nearest(min(found, wall + near * SECOND), 1) == found
    assert recurrence.nearest(found, -1) == found
    before = recurrence.nearest(found - SECOND, -1)
    assert before is None or before < wall


# Where the clocks change


@pytest.mark.parametrize(
    ("rule", "timezone", "after", "hours", "expected"),
    [
        # Times of day: what is left out fires at the first instant after it, what comes twice when it comes first.
        ("FREQ=DAILY;BYHOUR=2;BYMINUTE=30", "Europe/Berlin", "2026-03-28", 48, "28.02:30+01 29.03:00+02"),
        ("FREQ=DAILY;BYHOUR=2;BYMINUTE=0,30", "Europe/Berlin", "2026-03-29", 24, "29.03:00+02"),
        ("FREQ=WEEKLY;BYDAY=SU;BYHOUR=2;BYMINUTE=30", "Europe/Berlin", "2026-03-28", 100, "29.03:00+02"),
        ("FREQ=MONTHLY;BYDAY=-1SU;BYHOUR=2;BYMINUTE=30", "Europe/Berlin", "2026-10-24", 100, "25.02:30+02"),
        ("FREQ=YEARLY;BYYEARDAY=298;BYHOUR=2", "Europe/Berlin", "2026-10-24", 100, "25.02:00+02"),
        ("FREQ=DAILY", "Asia/Beirut", "2024-03-30T12:00", 48, "31.01:00+03 01.00:00+03"),
        # Elapsed time: nothing in what is left out, and both passes of what comes twice.
        ("FREQ=MINUTELY;INTERVAL=30", "Europe/Berlin", "2026-03-29T01:00", 1, "29.01:00+01 29.01:30+01 29.03:00+02"),
        ("FREQ=HOURLY", "Europe/Berlin", "2026-10-25T01:00", 3, "25.01:00+02 25.02:00+02 25.02:00+01 25.03:00+01"),
        # Hours are those on the wall: every six of them is midnight, six, noon and six, in summer, too.
        ("FREQ=HOURLY;INTERVAL=6", "Europe/Berlin", "2026-03-29", 12, "29.00:00+01 29.06:00+02 29.12:00+02"),
    ],
)
def test_t75_where_clocks_change_a_rule_behaves_like_cron(
    rule: str, timezone: str, after: str, hours: int, expected: str
) -> None:
    assert shown(made(rule, "2020-01-01T00:00", timezone), after, hours) == expected


@given(
    st.sampled_from(["FREQ=HOURLY;BYMINUTE=0,20", "FREQ=MINUTELY;INTERVAL=7", "FREQ=SECONDLY;INTERVAL=1001"]),
    st.sampled_from(["2026-03-28 22:00", "2026-10-24 22:00", "2026-04-04 12:00", "2026-10-03 12:00"]),
    st.sampled_from(["Europe/Berlin", "Australia/Lord_Howe", "UTC"]),
)
@settings(deadline=None, max_examples=24)
def test_what_follows_elapsed_time_fires_whenever_clocks_show_one_of_its_walls(
    rule: str, start: str, timezone: str
) -> None:
    schedule, zone = made(rule, timezone=timezone), ZoneInfo(timezone)
    first = datetime.fromisoformat(start).replace(tzinfo=UTC)
    walls = set()
    wall = schedule.recurrence.nearest(first.replace(tzinfo=None) - timedelta(days=1), 1)
    while wall is not None and wall < first.replace(tzinfo=None) + timedelta(days=2):
        walls.add(wall)
        wall = schedule.recurrence.nearest(wall + SECOND, 1)
    seconds = (first + number * SECOND for number in range(1, 6 * 3600))
    expected = [second for second in seconds if second.astimezone(zone).replace(tzinfo=None) in walls]
    end = first + timedelta(hours=6)
    fires = walk(schedule, first)
    assert [fire for fire in islice(fires, len(expected) + 1) if fire < end] == expected
    latest = schedule.before(end - SECOND)
    assert latest == expected[-1]


# What ends


def test_a_rule_ends_after_its_count_and_at_until() -> None:
    counted = made("FREQ=DAILY;COUNT=3", timezone="America/New_York")
    assert [fire.day for fire in walk(counted, NOW - timedelta(days=400))] == [1, 2, 3]
    assert counted.after(NOW) is None
    last = counted.before(NOW)
    assert last == datetime(2026, 1, 3, 5, tzinfo=UTC)
    until = made("FREQ=DAILY;UNTIL=20260103T050000Z", timezone="America/New_York")
    assert until.before(NOW) == last
    assert until.after(last - SECOND) == last
    assert until.after(last) is None


def test_before_its_start_there_is_nothing_and_long_before_it_the_first() -> None:
    late = made("FREQ=HOURLY;BYHOUR=7", "2300-01-01T00:00")
    first = datetime(2300, 1, 1, 7, tzinfo=UTC)
    assert late.before(NOW) is None
    assert late.before(first - SECOND) is None
    assert late.after(NOW) == first
    assert made("FREQ=SECONDLY", "9999-12-31T23:59:59").after(NOW) == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert made("FREQ=WEEKLY", "0001-01-01").before(datetime(1, 1, 5, tzinfo=UTC)) == datetime(1, 1, 1, tzinfo=UTC)


# What is refused, and what it costs


@pytest.mark.parametrize(
    ("params", "where", "words"),
    [
        ({"freq": "DAILY", "dtstart": None}, "/dtstart", "is required"),
        ({"freq": "DAILY", "dtstart": "tomorrow"}, "/dtstart", "'tomorrow' is not an ISO 8601"),
        ({"freq": "DAILY", "dtstart": "0001-01-01T00:00+05:00"}, "/dtstart", "calendar"),
        ({}, "/freq", "is required, unless there is a rule"),
        ({"freq": "DAILY", "timezone": "Mars"}, "/timezone", "'Mars'"),
        ({"freq": "DAILY", "rule": "FREQ=DAILY"}, "/rule", "leave out freq"),
        ({"freq": "DAILY", "count": 1, "until": NEW_YEAR}, "/until", "leave one of them out"),
        ({"freq": "DAILY", "until": "9999-12-31T23:59-05:00"}, "/until", "calendar"),
        ({"freq": "DAILY", "by_hour": [24]}, "/by_hour", "cannot be 24; allowed are 0 to 23"),
        ({"freq": "DAILY", "by_month_day": [0]}, "/by_month_day", "1 to 31, and from the end -1 to -31"),
        ({"freq": "DAILY", "by_month": [13]}, "/by_month", "1 to 12"),
        ({"freq": "MONTHLY", "by_day": ["2XX"]}, "/by_day", "'2XX'"),
        ({"freq": "MONTHLY", "by_day": ["0MO"]}, "/by_day", "'0MO'"),
        ({"freq": "WEEKLY", "by_day": ["2TU"]}, "/by_day", "cannot have numbers with WEEKLY"),
        ({"freq": "WEEKLY", "by_month_day": [1]}, "/by_month_day", "with WEEKLY"),
        ({"freq": "DAILY", "by_year_day": [1]}, "/by_year_day", "with DAILY"),
        ({"freq": "MONTHLY", "by_week_no": [1]}, "/by_week_no", "with MONTHLY"),
        ({"freq": "YEARLY", "by_week_no": [1], "by_day": ["1MO"]}, "/by_day", "weeks of the year"),
        ({"freq": "DAILY", "by_set_pos": [1]}, "/by_set_pos", "there is none"),
        ({"freq": "DAILY", "until": "2025-01-01"}, "/freq", "between dtstart and its end"),
        ({"rule": "FREQ=DAYLY"}, "/rule", "FREQ 'DAYLY' is none of YEARLY"),
        ({"rule": "INTERVAL=2"}, "/rule", "has no FREQ"),
        ({"rule": ""}, "/rule", "'' is no part"),
        ({"rule": "every day"}, "/rule", "'EVERY DAY' is no part of an RRULE such as"),
        ({"rule": "FREQ=DAILY;BYHOURS=3"}, "/rule", "did you mean BYHOUR?"),
        ({"rule": "FREQ=DAILY;FREQ=DAILY"}, "/rule", "FREQ is there twice"),
        ({"rule": "FREQ=DAILY;INTERVAL=x"}, "/rule", "INTERVAL 'X' is no whole number"),
        ({"rule": "FREQ=DAILY;INTERVAL=0"}, "/rule", "INTERVAL must be at least 1"),
        ({"rule": "FREQ=DAILY;INTERVAL=" + "9" * 100}, "/rule", "no whole number"),
        ({"rule": "FREQ=DAILY;BYHOUR=25"}, "/rule", "BYHOUR cannot be 25"),
        ({"rule": "DTSTART:20260101T000000\nRRULE:FREQ=DAILY"}, "/rule", "in the parameter dtstart"),
        ({"rule": "FREQ=DAILY;EXDATE=20260101"}, "/rule", "leave dates out with a condition"),
        ({"rule": "x" * 2001}, "/rule", "longer than 2000"),
    ],
)
def test_what_is_wrong_is_refused_with_a_pointer(params: JsonObject, where: str, words: str) -> None:
    problem = refusal({"dtstart": NEW_YEAR, **params})
    assert problem.where == where
    assert words in problem.what
    assert len(problem.what) < 300


EVERY_MINUTE = f"BYHOUR={','.join(map(str, range(24)))};BYMINUTE={','.join(map(str, range(60)))}"

NEVER = [
    "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",  # no such day
    "FREQ=DAILY;BYMONTH=4;BYMONTHDAY=31",
    "FREQ=DAILY;INTERVAL=7;BYDAY=MO",  # the first is a Thursday
    "FREQ=HOURLY;INTERVAL=168;BYDAY=MO",
    "FREQ=SECONDLY;INTERVAL=60;BYSECOND=7",  # on the minute, always
    "FREQ=SECONDLY;BYHOUR=3;BYMONTH=2;BYMONTHDAY=30",
    "FREQ=MINUTELY;BYSECOND=5;BYSETPOS=2",  # a minute has one of them
    "FREQ=YEARLY;INTERVAL=2;BYMONTH=2;BYMONTHDAY=29",  # in odd years
]

RARE = [
    "FREQ=SECONDLY;INTERVAL=86399;BYHOUR=3;BYMINUTE=5;BYSECOND=7",  # given up
    "FREQ=SECONDLY;BYHOUR=3;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO",
    "FREQ=DAILY;INTERVAL=1000001;BYDAY=MO",
    f"FREQ=YEARLY;{EVERY_MINUTE};BYDAY=MO,TU,WE,TH,FR,SA,SU;BYSETPOS={','.join(map(str, range(-366, 0)))}",
    "FREQ=SECONDLY;BYDAY=MO;COUNT=999999999999999999",
    "FREQ=YEARLY;COUNT=999999999999999999",
    "FREQ=YEARLY;INTERVAL=999999999999999999",
]


@pytest.mark.parametrize("rule", NEVER)
def test_what_never_fires_is_refused(rule: str) -> None:
    problem = refusal({"dtstart": "2025-01-02T00:00", "rule": rule})
    assert problem.where == "/rule"
    assert (
        f"never fires: there is no time that fits all its parts (the search ends after {MOST_STEPS:,}" in problem.what
    )


def test_a_time_that_the_zone_always_leaves_out_never_fires() -> None:
    rule = "FREQ=HOURLY;BYHOUR=2;BYMINUTE=30;BYMONTH=3;BYDAY=SU;BYMONTHDAY=25,26,27,28,29,30,31"
    problem = refusal({"dtstart": NEW_YEAR, "rule": rule, "timezone": "Europe/Berlin"})
    assert "no such time in Europe/Berlin" in problem.what


def test_a_count_whose_last_cannot_be_found_is_refused() -> None:
    problem = refusal({"dtstart": NEW_YEAR, "rule": "FREQ=DAILY;BYDAY=MO;COUNT=100000"})
    assert problem.where == "/rule"
    assert problem.what.startswith("COUNT is too many")
    # Where all are equally far apart it needs no search.
    assert made("FREQ=MINUTELY;COUNT=100000").recurrence.last == datetime(2026, 3, 11, 10, 39)  # noqa: DTZ001


@pytest.mark.parametrize("rule", RARE)
def test_no_search_goes_on_for_ever(rule: str) -> None:
    """dateutil alone would look for minutes and longer, until the year 9999."""
    try:
        schedule = made(rule, "2025-01-02T00:00")
    except BadInput:
        return
    for instant in (NOW, NOW + timedelta(days=100_000)):
        schedule.after(instant)
        schedule.before(instant)


@pytest.mark.parametrize(
    "rule",
    ["FREQ=SECONDLY", "FREQ=SECONDLY;INTERVAL=7", "FREQ=MINUTELY;BYDAY=MO;BYHOUR=8", "FREQ=DAILY", "FREQ=MONTHLY"],
)
def test_an_old_dtstart_costs_nothing(rule: str) -> None:
    """1.8 billion seconds lie between, and none of them is looked at."""
    recurrence = made(rule, "1970-01-01", "Europe/Berlin").recurrence
    wall = NOW.replace(tzinfo=None)
    looked_at = list(islice(recurrence._periods(wall, 1), 3))
    found = recurrence.nearest(wall, 1)
    assert found is not None
    assert recurrence._period(found) in looked_at


# Payloads


def test_a_payload_has_the_fields_of_its_kind() -> None:
    schedule = made("FREQ=DAILY;BYHOUR=7;COUNT=300", timezone="Europe/Berlin")
    instant = datetime(2026, 3, 1, 6, tzinfo=UTC)
    fired_at = instant + timedelta(seconds=1.5)
    assert payload(
        schedule, instant=instant, fired_at=fired_at, next_fire_at=schedule.after(instant), execution_count=60
    ) == {
        "type": "rrule",
        "scheduled_at": "2026-03-01T06:00:00Z",
        "fired_at": "2026-03-01T06:00:01.500000Z",
        "rule": "FREQ=DAILY;COUNT=300;BYHOUR=7",
        "timezone": "Europe/Berlin",
        "delay_ms": 1500,
        "next_fire_at": "2026-03-02T06:00:00Z",
        "execution_count": 60,
        "sensor_ref": "core.timer_sensor",
    }
