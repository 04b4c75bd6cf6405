"""Schedules in words, for people."""

from collections.abc import Iterable
from zoneinfo import ZoneInfo

from attune.sources.timers.recurrences import Frequency, Recurrence, Times
from attune.sources.timers.schedules import Cron, Interval, OneShot, RRule, Schedule

_UNITS = ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_PERIODS = {
    Frequency.YEARLY: "year",
    Frequency.MONTHLY: "month",
    Frequency.WEEKLY: "week",
    Frequency.DAILY: "day",
    Frequency.HOURLY: "hour",
    Frequency.MINUTELY: "minute",
    Frequency.SECONDLY: "second",
}

# More times of day than these are not listed.
_MOST_TIMES = 4


def in_words(schedule: Schedule) -> str:
    """When it fires, without its zone."""
    match schedule:
        case Interval():
            size, unit = next(one for one in _UNITS if schedule.seconds % one[0] == 0)
            return _every(schedule.seconds // size, unit)
        case Cron():
            return schedule.explained()
        case OneShot():
            return f"once, at {schedule.fire_at.astimezone(ZoneInfo(schedule.timezone)):%Y-%m-%d %H:%M:%S}"
        case RRule():
            until = schedule.until and schedule.until.astimezone(ZoneInfo(schedule.timezone))
            return _recurrence(schedule.recurrence) + (f", until {until:%Y-%m-%d %H:%M:%S}" if until else "")
        case _:
            raise TypeError(f"no words are known for {schedule!r}")


def timezone_of(schedule: Schedule) -> str:
    """The zone whose clocks a schedule goes by; intervals go by none, and are shown in UTC."""
    return schedule.timezone if isinstance(schedule, Cron | OneShot | RRule) else "UTC"


def _every(count: int, unit: str) -> str:
    return f"every {unit}" if count == 1 else f"every {count} {unit}s"


def _recurrence(rule: Recurrence) -> str:
    days = rule.days
    weekdays = [_numbered_day(day, number) for day, number in days.week_days]
    parts = [
        _every(rule.interval, _PERIODS[rule.frequency]),
        _listed("in", [_MONTHS[month - 1] for month in days.months if len(days.months) < 12]),
        _listed("in week", _from_end(days.weeks)),
        _listed("on day", _from_end(days.month_days)),
        _listed("on day of the year", _from_end(days.year_days)),
        _listed("on", weekdays),
        _times(rule),
    ]
    text = " ".join(part for part in parts if part)
    if rule.by_set_pos:
        text += f", of these {_and([_ordinal(place) for place in rule.by_set_pos])}"
    if rule.count is not None:
        text += f", {rule.count} times" if rule.count > 1 else ", once"
    return text


def _times(rule: Recurrence) -> str:
    if rule.frequency <= Frequency.DAILY:
        times = rule.times_in(0)
        if len(times) <= _MOST_TIMES:
            return f"at {_and([_clock(times[index]) for index in range(len(times))])}"
        return _parts_of_times(times)
    named = Times(rule.by_hour, rule.by_minute, rule.by_second)
    return _parts_of_times(named)


def _parts_of_times(times: Times) -> str:
    named = (("at hour", times.hours), ("at minute", times.minutes), ("at second", times.seconds))
    return " ".join(_listed(name, map(str, numbers)) for name, numbers in named if numbers)


def _clock(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    return f"{hours:02}:{rest // 60:02}" + (f":{rest % 60:02}" if rest % 60 else "")


def _numbered_day(day: int, number: int) -> str:
    return f"{_ordinal(number)} {_DAYS[day]}" if number else _DAYS[day]


def _ordinal(number: int) -> str:
    if number == -1:
        return "the last"
    suffix = "th" if abs(number) % 100 in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(abs(number) % 10, "th")
    return f"the {abs(number)}{suffix}" + (" from the end" if number < 0 else "")


def _from_end(numbers: Iterable[int]) -> list[str]:
    """Numbers from the beginning on, then those that count from the end."""
    return [str(one) if one > 0 else _ordinal(one) for one in sorted(numbers, key=lambda one: (one < 0, one))]


def _listed(word: str, names: Iterable[str]) -> str:
    text = _and(list(names))
    return f"{word} {text}" if text else ""


def _and(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
