"""From a rule's trigger parameters to its schedule, and what is wrong with them.

They fit the schema of their trigger: here is what a schema cannot say.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from zoneinfo import ZoneInfo

from cronsim import CronSimError
from cronsim.cronsim import FIELD_NAMES, RANGES, Field

from attune.base.errors import BadInput, Problem
from attune.base.json import JsonObject
from attune.sources.timers.misfires import Misfire
from attune.sources.timers.rrules import rrule_from_params
from attune.sources.timers.schedules import ALIASES, Cron, Interval, OneShot, Schedule
from attune.sources.timers.zones import first_instant, zone_problem

TRIGGERS = ("core.intervaltimer", "core.crontimer", "core.datetimetimer", "core.rruletimer")

_UNITS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400}

_MAX_EXPRESSION = 1000

# So much of a text is repeated in a message.
_SHOWN = 100

# The longest ISO 8601 date; a date with a time is longer.
_DATE_LENGTH = 10

_ALLOWED = {
    Field.SECOND: "0-59",
    Field.MINUTE: "0-59",
    Field.HOUR: "0-23",
    Field.DAY: "1-31, L (the last day) and LW (the last weekday)",
    Field.MONTH: "1-12 and JAN-DEC",
    Field.DOW: "0-7 (0 and 7 are Sunday), SUN-SAT, 5L (the last Friday) and 5#2 (the second Friday)",
}


def from_params(trigger_ref: str, params: JsonObject, anchor: datetime) -> Schedule:
    """The schedule that a rule's trigger parameters describe; intervals count from `anchor` (UTC).

    Raises BadInput whose problems point into `params`.
    """
    match trigger_ref:
        case "core.intervaltimer":
            return _interval(params, anchor)
        case "core.crontimer":
            return _cron(params)
        case "core.datetimetimer":
            return _one_shot(params)
        case "core.rruletimer":
            return rrule_from_params(params)
        case _:
            raise BadInput(f"{trigger_ref!r} is not a timer trigger; those are {', '.join(TRIGGERS)}.")


def misfire_from_params(params: JsonObject) -> tuple[Misfire, timedelta]:
    """Which missed instants a rule's timer makes up for, and the grace of `fire_once`."""
    try:
        grace = timedelta(seconds=_whole(params, "misfire_grace", 3600))
    except OverflowError:
        grace = timedelta.max
    return Misfire(_text(params, "misfire_policy", Misfire.FIRE_ONCE)), grace


def _interval(params: JsonObject, anchor: datetime) -> Interval:
    unit = _UNITS[_text(params, "unit", "seconds")]
    schedule = Interval(_whole(params, "interval", 60) * unit, anchor)
    if schedule.after(anchor) is None:
        raise _refused(Problem("/interval", "is so long that it ends beyond the year 9999"))
    return schedule


def _cron(params: JsonObject) -> Cron:
    cron = Cron(_text(params, "expression", ""), _text(params, "timezone", "UTC"))
    problems = [Problem("/expression", what) for what in _expression_problems(cron.expression)]
    zone = zone_problem(cron.timezone)
    if zone is not None:
        problems.append(Problem("/timezone", zone))
    if problems:
        raise _refused(*problems)
    never = Problem("/expression", f"{cron.expression!r} never fires: there is no such time in {cron.timezone}")
    try:
        if cron.after(datetime(2000, 1, 1, tzinfo=UTC)) is None:
            raise _refused(never)
    except CronSimError as error:
        # Each field is right, but no month that it names has such a day.
        raise _refused(never) from error
    return cron


def _expression_problems(expression: str) -> Iterator[str]:
    name = expression.strip().lower()
    fields = ALIASES.get(name, expression).upper().split()
    if len(expression) > _MAX_EXPRESSION:
        yield f"is longer than {_MAX_EXPRESSION} characters"
    elif len(fields) == 1 and name == "@reboot":
        yield "'@reboot' is no time: a timer fires by the clock, not when the server starts"
    elif len(fields) == 1 and name.startswith("@"):
        close = get_close_matches(name, ALIASES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        yield f"{name[:_SHOWN]!r} is none of the aliases {', '.join(ALIASES)}{hint}"
    elif len(fields) not in (5, 6):
        year = "; a year cannot be given" if len(fields) == 7 else ""
        yield (
            f"{expression[:_SHOWN]!r} has {len(fields)} field{'' if len(fields) == 1 else 's'}, but needs six: second "
            f"(may be left out), minute, hour, day-of-month, month, day-of-week{year}"
        )
    else:
        for field, text in zip(Field, ["0", *fields][-6:], strict=True):
            yield from _field_problems(field, text)


def _field_problems(field: Field, text: str) -> Iterator[str]:
    name, most = FIELD_NAMES[field], max(RANGES[field])
    for term in text.split(","):
        _, _, step = term.partition("/")
        try:
            field.parse(term)
        except CronSimError:
            hint = "; '?' is not known, write '*'" if term == "?" else ""
            yield (
                f"the {name} field cannot be {term[:_SHOWN]!r}; allowed are {_ALLOWED[field]}, also as ranges that "
                f"go up (a-b), steps (*/n, a-b/n) and lists (a,b){hint}"
            )
        else:
            if step and int(step) > most:
                # cron takes */90 for minutes and means "once an hour", which nobody who writes it does.
                yield f"the {name} field cannot be {term[:_SHOWN]!r}; a step is at most {most}"


def _one_shot(params: JsonObject) -> OneShot:
    timezone = _text(params, "timezone", "UTC")
    problem = zone_problem(timezone)
    if problem is not None:
        raise _refused(Problem("/timezone", problem))
    text = _text(params, "fire_at", "")
    shown = repr(text[:_SHOWN])
    try:
        moment = datetime.fromisoformat(text.upper())
        if moment.tzinfo is not None:
            moment = moment.astimezone(UTC)
        elif "timezone" in params:
            moment = first_instant(ZoneInfo(timezone), moment)
    except (ValueError, OverflowError) as error:
        what = f"is not an ISO 8601 date and time such as 2026-03-29T02:30:00+01:00: {str(error)[:_SHOWN]}"
        raise _refused(Problem("/fire_at", f"{shown} {what}")) from error
    if len(text) <= _DATE_LENGTH:
        raise _refused(Problem("/fire_at", f"{shown} has no time of day"))
    if moment.tzinfo is None:
        lacks = "has no offset: end it with Z or +02:00, or say its timezone"
        raise _refused(Problem("/fire_at", f"{shown} {lacks}"))
    return OneShot(moment, timezone)


def _text(params: JsonObject, name: str, default: str) -> str:
    value = params.get(name, default)
    assert isinstance(value, str)
    return value


def _whole(params: JsonObject, name: str, default: int) -> int:
    value = params.get(name, default)
    # To a schema 60.0 is an integer, too.
    assert isinstance(value, int | float)
    return int(value)


def _refused(*problems: Problem) -> BadInput:
    return BadInput("These parameters describe no timer.", problems)
