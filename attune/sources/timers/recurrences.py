"""Recurrence after RFC 5545, on the clock on the wall: the walls that a rule names.

Walls are naive datetimes of whole seconds; days are numbered as by `date.toordinal`, times of day in seconds.
dateutil says which days of a year a rule names. Its own search has no bound and begins at the start: a rule of 1970
would cost every second since, and one that never matches would stop everybody.
"""

from bisect import bisect_left, bisect_right
from calendar import isleap, monthrange
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import IntEnum
from functools import cached_property, lru_cache

from dateutil.rrule import YEARLY, rrule, weekday

MOST_STEPS = 2_000
"""After so many steps the search for one instant is given up, so that no rule can hold others up.

A step goes on to what the interval allows, or to what the other parts allow. Only rules in which the two hardly ever
meet take many.
"""

WEEK_DAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")

LISTS = {
    "by_month": range(1, 13),
    "by_month_day": range(-31, 32),
    "by_year_day": range(-366, 367),
    "by_week_no": range(-53, 54),
    "by_hour": range(24),
    "by_minute": range(60),
    "by_second": range(61),
    "by_set_pos": range(-366, 367),
}
"""The parts that are lists of numbers, and what these may be; where they may be negative they are not 0."""

_DAY = 86_400
_FIRST_DAY, _LAST_DAY = date.min.toordinal(), date.max.toordinal()
_LAST_WALL = datetime.fromordinal(_LAST_DAY) + timedelta(seconds=_DAY - 1)


class Frequency(IntEnum):
    YEARLY = 0
    MONTHLY = 1
    WEEKLY = 2
    DAILY = 3
    HOURLY = 4
    MINUTELY = 5
    SECONDLY = 6


_SECONDS = {Frequency.HOURLY: 3600, Frequency.MINUTELY: 60, Frequency.SECONDLY: 1}

_LENGTHS = {
    Frequency.WEEKLY: timedelta(weeks=1),
    Frequency.DAILY: timedelta(days=1),
    **{frequency: timedelta(seconds=seconds) for frequency, seconds in _SECONDS.items()},
}


@dataclass(frozen=True, slots=True)
class Days:
    """Which days of a year a rule names: those that pass every part that is not empty. `week_days` are pairs of a day
    (0: Monday) and a number within the year, or within each of `months` (0: every such day)."""

    months: tuple[int, ...]
    month_days: tuple[int, ...]
    year_days: tuple[int, ...]
    weeks: tuple[int, ...]
    week_days: tuple[tuple[int, int], ...]
    week_start: int

    def first_from(self, day: int) -> int | None:
        """The first of these days that is not before `day`."""
        while day <= _LAST_DAY:
            year, new_year = _year_of(day)
            named = self.of(year)
            index = bisect_left(named, day - new_year)
            if index < len(named):
                return new_year + named[index]
            day = new_year + 365 + isleap(year)
        return None

    def last_to(self, day: int) -> int | None:
        """The latest of these days that is not after `day`."""
        while day >= _FIRST_DAY:
            year, new_year = _year_of(day)
            named = self.of(year)
            index = bisect_right(named, day - new_year)
            if index:
                return new_year + named[index - 1]
            day = new_year - 1
        return None

    def between(self, first: int, last: int) -> Sequence[int]:
        """These days from `first` to `last`, both included."""
        found: list[int] = []
        for year in range(_year_of(first)[0], _year_of(last)[0] + 1):
            new_year = date(year, 1, 1).toordinal()
            named = self.of(year)
            start, stop = bisect_left(named, first - new_year), bisect_right(named, last - new_year)
            found += [new_year + day for day in named[start:stop]]
        return found

    def of(self, year: int) -> tuple[int, ...]:
        """These days of a year, counted from 0."""
        # All that the days depend on, so that there are 21 kinds of years.
        return _days(self, isleap(year - 1), isleap(year), date(year, 1, 1).weekday())


def _year_of(day: int) -> tuple[int, int]:
    """The year of a day, and its first day."""
    year = date.fromordinal(day).year
    return year, date(year, 1, 1).toordinal()


@lru_cache(maxsize=1024)
def _days(days: Days, after_leap_year: bool, is_leap_year: bool, new_year: int) -> tuple[int, ...]:
    kind = (after_leap_year, is_leap_year, new_year)
    new_years = (date(year, 1, 1) for year in range(2000, 2400))
    found_year = next(day for day in new_years if (isleap(day.year - 1), isleap(day.year), day.weekday()) == kind)
    start = datetime.fromordinal(found_year.toordinal())
    every = [weekday(day) for day, number in days.week_days if not number]
    numbered = [weekday(day, number) for day, number in days.week_days if number]
    found: set[int] = set()
    # To dateutil "every Monday" and "the second Tuesday" together are days that are both.
    for week_days in [every, numbered] if every and numbered else [every or numbered]:
        # With this interval the next year would be beyond the calendar: there is one year to look at.
        rule = rrule(
            YEARLY,
            start,
            interval=10_000,
            bymonth=days.months or None,
            bymonthday=days.month_days or (None if days.year_days or days.weeks or week_days else range(1, 32)),
            byyearday=days.year_days or None,
            byweekno=days.weeks or None,
            byweekday=week_days or None,
            wkst=days.week_start,
            byhour=0,
            byminute=0,
            bysecond=0,
        )
        found.update((wall - start).days for wall in rule)
    return tuple(sorted(found))


@dataclass(frozen=True, slots=True)
class Times:
    """Times of day, as the hours, minutes and seconds of which they are all combinations; each in order."""

    hours: Sequence[int]
    minutes: Sequence[int]
    seconds: Sequence[int]

    def __len__(self) -> int:
        return len(self.hours) * len(self.minutes) * len(self.seconds)

    def __getitem__(self, index: int) -> int:
        rest, second = divmod(index, len(self.seconds))
        hour, minute = divmod(rest, len(self.minutes))
        return self.hours[hour] * 3600 + self.minutes[minute] * 60 + self.seconds[second]


@dataclass(frozen=True)
class Recurrence:
    """The walls that an RRULE names from `start` on. An empty part does not restrict.

    Where the RFC leaves room it is what dateutil makes of it, but for two things: "MO,2TU" are both kinds of days, and
    BYSETPOS counts in the whole of the first week, also if `start` is in the middle of it.
    """

    start: datetime
    frequency: Frequency
    interval: int = 1
    count: int | None = None
    by_month: tuple[int, ...] = ()
    by_month_day: tuple[int, ...] = ()
    by_year_day: tuple[int, ...] = ()
    by_week_no: tuple[int, ...] = ()
    by_day: tuple[tuple[int, int], ...] = ()
    by_hour: tuple[int, ...] = ()
    by_minute: tuple[int, ...] = ()
    by_second: tuple[int, ...] = ()
    by_set_pos: tuple[int, ...] = ()
    week_start: int = 0

    def __str__(self) -> str:
        """The RRULE, without UNTIL: that is an instant, and this knows no zone."""
        interval = self.interval if self.interval > 1 else None
        parts = {"FREQ": self.frequency.name, "INTERVAL": interval, "COUNT": self.count}
        for name in LISTS:
            parts[name.replace("_", "").upper()] = ",".join(map(str, getattr(self, name)))
        parts["BYDAY"] = ",".join(f"{number or ''}{WEEK_DAYS[day]}" for day, number in self.by_day)
        parts["WKST"] = WEEK_DAYS[self.week_start] if self.week_start else ""
        return ";".join(f"{name}={value}" for name, value in parts.items() if value)

    def nearest(self, wall: datetime, way: int) -> datetime | None:
        """The first wall from `wall` on (`way` 1), or the latest up to it (`way` -1), itself included."""
        if self.count is not None and self.last is None:
            return None
        if way > 0:
            wall = max(wall, self.start)
        elif self.last is not None:
            wall = min(wall, self.last)
        for period in self._periods(wall, way):
            walls = _Walls(self, period)
            index = walls.index(wall) if way > 0 else walls.index(wall + timedelta(seconds=1)) - 1
            if 0 <= index < len(walls):
                return self._within(walls[index])
        return None

    @cached_property
    def last(self) -> datetime | None:
        """The last one of `count`; None without, or if it is so far away that it is not found."""
        if self.count is None:
            return None
        if self._is_plain:
            try:
                return self.start + (self.count - 1) * self.interval * _LENGTHS[self.frequency]
            except OverflowError:
                return None
        left = self.count
        for period in self._periods(self.start, 1):
            walls = _Walls(self, period)
            index = walls.index(self.start) + left - 1
            if index < len(walls):
                return walls[index]
            left = index + 1 - len(walls)
        return None

    def _within(self, wall: datetime) -> datetime | None:
        is_over = self.last is not None and wall > self.last
        return None if wall < self.start or is_over else wall

    @property
    def _is_plain(self) -> bool:
        """Whether all of them are equally far apart."""
        return self.frequency in _LENGTHS and not (self.by_day or any(getattr(self, name) for name in LISTS))

    def _periods(self, wall: datetime, way: int) -> Iterator[int]:
        """The periods from that of `wall` on, into the future or the past, in which there may be some."""
        first, latest = self._period(self.start), self._period(_LAST_WALL)
        period = self._aligned(self._period(wall), way)
        for _ in range(MOST_STEPS):
            candidate = self._candidate(period, way) if first <= period <= latest else None
            if candidate is None:
                return
            if candidate == period:
                yield period
                period += way * self.interval
            else:
                period = self._aligned(candidate, way)

    def _aligned(self, period: int, way: int) -> int:
        """The first period from `period` on that is a multiple of the interval away from the first."""
        distance = self._period(self.start) - period
        return period + (distance % self.interval if way > 0 else -(-distance % self.interval))

    def _candidate(self, period: int, way: int) -> int | None:
        """The first period from `period` on whose day and time pass, whatever the interval."""
        unit = _SECONDS.get(self.frequency)
        first, last = self.days_of(period)
        day = self.days.first_from(first) if way > 0 else self.days.last_to(last)
        if unit is None or day is None:
            return None if day is None else self._period_of_day(day)
        if day == first:
            time = period * unit % _DAY
            index = bisect_left(self._starts, time) if way > 0 else bisect_right(self._starts, time) - 1
            if 0 <= index < len(self._starts):
                return (day * _DAY + self._starts[index]) // unit
            day = self.days.first_from(day + 1) if way > 0 else self.days.last_to(day - 1)
        if day is None:
            return None
        return (day * _DAY + self._starts[0 if way > 0 else len(self._starts) - 1]) // unit

    def _period(self, wall: datetime) -> int:
        """The number of the period that `wall` is in."""
        unit = _SECONDS.get(self.frequency)
        if unit is None:
            return self._period_of_day(wall.toordinal())
        return (wall.toordinal() * _DAY + _time_of(wall)) // unit

    def _period_of_day(self, day: int) -> int:
        match self.frequency:
            case Frequency.YEARLY:
                return date.fromordinal(day).year
            case Frequency.MONTHLY:
                found = date.fromordinal(day)
                return found.year * 12 + found.month - 1
            case Frequency.WEEKLY:
                return (day - 1 - self.week_start) // 7
            case _:
                return day

    def days_of(self, period: int) -> tuple[int, int]:
        """The first and the last day of a period."""
        match self.frequency:
            case Frequency.YEARLY:
                return date(period, 1, 1).toordinal(), date(period, 12, 31).toordinal()
            case Frequency.MONTHLY:
                year, month = period // 12, period % 12 + 1
                first = date(year, month, 1).toordinal()
                return first, first + monthrange(year, month)[1] - 1
            case Frequency.WEEKLY:
                first = period * 7 + 1 + self.week_start
                return max(first, _FIRST_DAY), min(first + 6, _LAST_DAY)
            case _:
                day = period * _SECONDS.get(self.frequency, _DAY) // _DAY
                return day, day

    @cached_property
    def days(self) -> Days:
        """The days that pass; what the rule does not say of them is as in `start`."""
        months, month_days, week_days = self.by_month, self.by_month_day, self.by_day
        if not (month_days or week_days or self.by_year_day or self.by_week_no):
            match self.frequency:
                case Frequency.YEARLY:
                    months, month_days = months or (self.start.month,), (self.start.day,)
                case Frequency.MONTHLY:
                    month_days = (self.start.day,)
                case Frequency.WEEKLY:
                    week_days = ((self.start.weekday(), 0),)
                case _:
                    pass
        if self.frequency is Frequency.MONTHLY:
            # "The second Tuesday" is one of a month then.
            months = months or tuple(range(1, 13))
        return Days(months, month_days, self.by_year_day, self.by_week_no, week_days, self.week_start)

    def times_in(self, period: int) -> Times:
        """The times of day in a period."""
        frequency, times = self.frequency, self._times
        if frequency <= Frequency.DAILY:
            return times
        time = period * _SECONDS[frequency] % _DAY
        return Times(
            (time // 3600,),
            times.minutes if frequency < Frequency.MINUTELY else (time // 60 % 60,),
            times.seconds if frequency < Frequency.SECONDLY else (time % 60,),
        )

    @cached_property
    def _times(self) -> Times:
        frequency, start = self.frequency, self.start
        return Times(
            self.by_hour or ((start.hour,) if frequency < Frequency.HOURLY else range(24)),
            self.by_minute or ((start.minute,) if frequency < Frequency.MINUTELY else range(60)),
            self.by_second or ((start.second,) if frequency < Frequency.SECONDLY else range(60)),
        )

    @cached_property
    def _starts(self) -> Times:
        """The times of day at which periods shorter than a day begin, if they pass."""
        times = self._times
        return Times(
            times.hours,
            times.minutes if self.frequency >= Frequency.MINUTELY else (0,),
            times.seconds if self.frequency >= Frequency.SECONDLY else (0,),
        )


class _Walls:
    """The walls in a period, in order."""

    def __init__(self, recurrence: Recurrence, period: int) -> None:
        self._days = recurrence.days.between(*recurrence.days_of(period))
        self._times = recurrence.times_in(period)
        count = len(self._days) * len(self._times)
        self._chosen: Sequence[int] = range(count)
        if recurrence.by_set_pos:
            places = (place - 1 if place > 0 else count + place for place in recurrence.by_set_pos)
            self._chosen = sorted({place for place in places if 0 <= place < count})

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> datetime:
        day, time = divmod(self._chosen[index], len(self._times))
        return datetime.fromordinal(self._days[day]) + timedelta(seconds=self._times[time])

    def index(self, wall: datetime) -> int:
        """How many of them are before `wall`."""
        day = bisect_left(self._days, wall.toordinal())
        place = day * len(self._times)
        if day < len(self._days) and self._days[day] == wall.toordinal():
            place += bisect_left(self._times, _time_of(wall))
        return bisect_left(self._chosen, place)


def _time_of(wall: datetime) -> int:
    return wall.hour * 3600 + wall.minute * 60 + wall.second
