"""From the parameters of `core.rruletimer` to a schedule: as an RRULE, or as its parts one by one."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, time
from difflib import get_close_matches
from typing import Any
from zoneinfo import ZoneInfo

from attune.base.errors import BadInput, Problem
from attune.base.json import JsonObject
from attune.sources.timers.recurrences import LISTS, MOST_STEPS, WEEK_DAYS, Frequency, Recurrence
from attune.sources.timers.schedules import RRule
from attune.sources.timers.zones import first_instant, wall_at, zone_problem

_PARTS = {
    "FREQ": "freq",
    "INTERVAL": "interval",
    "COUNT": "count",
    "UNTIL": "until",
    "BYDAY": "by_day",
    "WKST": "week_start",
    **{name.replace("_", "").upper(): name for name in LISTS},
}
"""The parts of an RRULE, and the parameters that say the same."""

# So much of a text is repeated in a message.
_SHOWN = 100

_MAX_RULE = 2000
_DATE = re.compile(r"\d{4}-?\d\d-?\d\d")
_NUMBER = re.compile(r"\s*[+-]?\d{1,18}\s*")
_WEEK_DAY = re.compile(r"([+-]?\d{1,2})?(MO|TU|WE|TH|FR|SA|SU)")

# What RFC 5545 forbids: a part, with which frequencies, and what else to do.
_FORBIDDEN = (
    ("by_week_no", set(Frequency) - {Frequency.YEARLY}, "weeks are numbered within years"),
    ("by_year_day", {Frequency.MONTHLY, Frequency.WEEKLY, Frequency.DAILY}, "use by_month and by_month_day"),
    ("by_month_day", {Frequency.WEEKLY}, "use DAILY, or MONTHLY"),
)


class _Refused(Exception):
    """A part is wrong; without a name, what they say together."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(what)
        self.name = name
        self.what = what


def rrule_from_params(params: JsonObject) -> RRule:
    """The schedule. Raises BadInput whose problems point into `params`."""
    timezone = params.get("timezone", "UTC")
    assert isinstance(timezone, str)
    problem = zone_problem(timezone)
    if problem is not None:
        raise _refused("timezone", problem)
    try:
        schedule = _schedule(_parts(params), params.get("dtstart"), ZoneInfo(timezone))
        _check_instants(schedule)
    except _Refused as error:
        if "rule" not in params or error.name in {"dtstart", "rule"}:
            raise _refused(error.name or "freq", error.what) from error
        part = next((f"{part} " for part, name in _PARTS.items() if name == error.name), "")
        raise _refused("rule", part + error.what) from error
    return schedule


def _refused(name: str, what: str) -> BadInput:
    return BadInput("These parameters describe no timer.", [Problem(f"/{name}", what)])


def _parts(params: JsonObject) -> dict[str, Any]:
    """The parts by the names of their parameters."""
    given = {name: params[name] for name in _PARTS.values() if name in params}
    if "rule" not in params:
        if "freq" not in given:
            raise _Refused("freq", "is required, unless there is a rule such as FREQ=WEEKLY;BYDAY=MO,WE")
        return given
    if given:
        raise _Refused("rule", f"says it all; leave out {', '.join(given)}, or the rule")
    return dict(_parsed(str(params["rule"])))


def _parsed(text: str) -> Iterator[tuple[str, Any]]:
    if len(text) > _MAX_RULE:
        raise _Refused("rule", f"is longer than {_MAX_RULE} characters")
    seen = set()
    for part in text.strip().upper().removeprefix("RRULE:").rstrip(";").split(";"):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals or not value or name not in _PARTS:
            raise _Refused("rule", f"{part[:_SHOWN]!r} is no part of an RRULE{_hint(name)}")
        if name in seen:
            raise _Refused("rule", f"{name} is there twice")
        seen.add(name)
        yield _PARTS[name], _value(_PARTS[name], value)
    if "FREQ" not in seen:
        raise _Refused("rule", "has no FREQ, such as FREQ=DAILY")


def _hint(name: str) -> str:
    if name.startswith("DTSTART"):
        return "; when it begins stands in the parameter dtstart"
    if name.startswith(("EXDATE", "RDATE", "EXRULE")):
        return "; leave dates out with a condition of the rule, and add some with a rule more"
    close = get_close_matches(name[:_SHOWN], _PARTS, n=1)
    return f"; did you mean {close[0]}?" if close else " such as FREQ=WEEKLY;BYDAY=MO,WE"


def _value(name: str, text: str) -> Any:
    if name in {"interval", "count"}:
        return _number(name, text)
    if name in LISTS:
        return [_number(name, word) for word in text.split(",")]
    return text.split(",") if name == "by_day" else text


def _number(name: str, text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise _Refused(name, f"{text[:_SHOWN]!r} is no whole number")
    return int(text)


def _schedule(parts: dict[str, Any], dtstart: Any, zone: ZoneInfo) -> RRule:
    start = _start(dtstart, zone)
    frequency = str(parts["freq"]).upper()
    if frequency not in Frequency.__members__:
        raise _Refused("freq", f"{frequency[:_SHOWN]!r} is none of {', '.join(Frequency.__members__)}")
    if "count" in parts and "until" in parts:
        raise _Refused("until", "and count say both when it ends; leave one of them out")
    recurrence = Recurrence(
        start=start,
        frequency=Frequency[frequency],
        interval=_at_least_one("interval", parts.get("interval", 1)),
        count=_at_least_one("count", parts["count"]) if "count" in parts else None,
        by_day=tuple(sorted({_week_day("by_day", word) for word in parts.get("by_day", ())})),
        week_start=_week_day("week_start", parts.get("week_start", "MO"))[0],
        **{name: _numbers(name, parts.get(name, ())) for name in LISTS},
    )
    _check_parts(recurrence)
    return RRule(recurrence, zone.key, _until(str(parts["until"]), zone) if "until" in parts else None)


def _start(dtstart: Any, zone: ZoneInfo) -> datetime:
    if dtstart is None:
        raise _Refused("dtstart", "is required: when it begins, such as 2026-03-01T07:00:00")
    start = _moment("dtstart", str(dtstart))
    try:
        return (wall_at(zone, start) if start.tzinfo else start).replace(microsecond=0)
    except OverflowError as error:
        raise _Refused("dtstart", "is not in the calendar") from error


def _until(text: str, zone: ZoneInfo) -> datetime:
    until = _moment("until", text)
    if _DATE.fullmatch(text.strip()):
        until = datetime.combine(until, time(23, 59, 59))
    try:
        return until.astimezone(UTC) if until.tzinfo else first_instant(zone, until)
    except OverflowError as error:
        raise _Refused("until", "is not in the calendar") from error


def _moment(name: str, text: str) -> datetime:
    try:
        return datetime.fromisoformat(text.strip().upper())
    except ValueError as error:
        what = f"{text[:_SHOWN]!r} is not an ISO 8601 date and time such as 2026-03-01T07:00:00: {str(error)[:_SHOWN]}"
        raise _Refused(name, what) from error


def _at_least_one(name: str, number: float) -> int:
    if number < 1:
        raise _Refused(name, "must be at least 1")
    return int(number)


def _numbers(name: str, values: Any) -> tuple[int, ...]:
    allowed = LISTS[name]
    for value in values:
        if value not in allowed or (value == 0 and allowed.start < 0):
            most = allowed[-1]
            text = f"1 to {most}, and from the end -1 to -{most}" if allowed.start < 0 else f"{allowed.start} to {most}"
            raise _Refused(name, f"cannot be {str(value)[:_SHOWN]}; allowed are {text}")
    # A leap second is the one before it, as the RFC has it for who does not know them.
    return tuple(sorted({min(int(value), 59) if name == "by_second" else int(value) for value in values}))


def _week_day(name: str, text: Any) -> tuple[int, int]:
    found = _WEEK_DAY.fullmatch(str(text).strip().upper())
    number = int(found[1] or 0) if found else 0
    if found is None or abs(number) > 53 or (found[1] and (not number or name == "week_start")):
        example = "" if name == "week_start" else ", or with a number such as 2TU (the second) and -1FR (the last)"
        raise _Refused(name, f"cannot be {str(text)[:_SHOWN]!r}; allowed are {', '.join(WEEK_DAYS)}{example}")
    return WEEK_DAYS.index(found[2]), number


def _check_parts(recurrence: Recurrence) -> None:
    """Refuse what RFC 5545 forbids."""
    frequency = recurrence.frequency
    for name, frequencies, instead in _FORBIDDEN:
        if getattr(recurrence, name) and frequency in frequencies:
            raise _Refused(name, f"cannot be given with {frequency.name}: {instead}")
    if any(number for _, number in recurrence.by_day):
        if frequency > Frequency.MONTHLY:
            raise _Refused("by_day", f"cannot have numbers with {frequency.name}: they count in months and years")
        if recurrence.by_week_no:
            raise _Refused("by_day", "cannot have numbers together with weeks of the year")
    others = [name for name in LISTS if name != "by_set_pos" and getattr(recurrence, name)]
    if recurrence.by_set_pos and not (others or recurrence.by_day):
        raise _Refused("by_set_pos", "chooses from what the other lists name, and there is none")


def _check_instants(schedule: RRule) -> None:
    """Refuse what never fires, or ends nobody knows when."""
    recurrence = schedule.recurrence
    searched = f"the search ends after {MOST_STEPS:,} steps"
    if replace(recurrence, count=None).nearest(recurrence.start, 1) is None:
        raise _Refused("", f"never fires: there is no time that fits all its parts ({searched})")
    if recurrence.count is not None and recurrence.last is None:
        raise _Refused("count", f"is too many to find the last one ({searched}); give until instead")
    if schedule.after(datetime.min.replace(tzinfo=UTC)) is None:
        raise _Refused("", f"never fires: there is no such time in {schedule.timezone} between dtstart and its end")
