"""Time zones: their names, and the way from the clock on the wall to the instant and back.

Instants are aware datetimes in UTC. A "wall" is what the clocks of a zone show: a naive datetime.
"""

from bisect import bisect_left
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

_SECOND = timedelta(seconds=1)

# Files beside the zones of the IANA: other forms of them, and names whose meaning depends on the machine.
_NOT_ZONES = ("posix/", "right/", "posixrules", "localtime", "Factory")

# A name is cut to so many characters before anybody reads or compares it.
_MAX_NAME = 100


def zone_problem(name: str) -> str | None:
    """What is wrong with the name of a time zone; None if `ZoneInfo` takes it and it is one of the IANA."""
    try:
        if not name.startswith(_NOT_ZONES):
            ZoneInfo(name)
            return None
    except (KeyError, ValueError, OSError):
        # OSError: a folder such as "America", or a name that is too long for a file.
        pass
    zones = _zone_names()
    close = get_close_matches(name[:_MAX_NAME].lower(), zones, n=1)
    hint = f"; did you mean {zones[close[0]]!r}?" if close else ""
    return f"{name[:_MAX_NAME]!r} is not a time zone of the IANA, such as 'Europe/Berlin'{hint}"


@cache
def _zone_names() -> dict[str, str]:
    """The zones by the words that a person may mean them with: the lower-case name, and its last part alone."""
    names = sorted(name for name in available_timezones() if not name.startswith(_NOT_ZONES))
    return {name.rpartition("/")[2].lower(): name for name in names} | {name.lower(): name for name in names}


def wall_at(zone: ZoneInfo, instant: datetime) -> datetime:
    """What the clocks of `zone` show at `instant`."""
    return instant.astimezone(zone).replace(tzinfo=None)


def offset_at(zone: ZoneInfo, instant: datetime) -> timedelta | None:
    """How far the clocks of `zone` are ahead of UTC at `instant`."""
    return instant.astimezone(zone).utcoffset()


def latest_wall(zone: ZoneInfo, second: datetime) -> datetime:
    """The latest wall that clocks have shown up to `second`: not what they show while they repeat themselves."""
    local = second.astimezone(zone)
    if local.fold:
        first_pass = local.replace(fold=0).astimezone(UTC)
        return wall_at(zone, change_between(zone, second, first_pass))
    return local.replace(tzinfo=None)


def first_instant(zone: ZoneInfo, wall: datetime) -> datetime:
    """The first instant at which clocks show `wall`; if they leave it out, the first one after what they leave out."""
    instant = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if wall_at(zone, instant) == wall:
        return instant
    return change_between(zone, wall.replace(tzinfo=zone, fold=1, microsecond=0).astimezone(UTC), instant)


def change_between(zone: ZoneInfo, start: datetime, end: datetime) -> datetime:
    """The first second with another offset on the way from `start` to `end`, into the future or the past.

    `start` is a whole second, and on the way the offset changes once.
    """
    offset = offset_at(zone, start)
    step = _SECOND if start < end else -_SECOND
    steps = range((end - start) // step)
    return start + step * bisect_left(steps, True, key=lambda count: offset_at(zone, start + count * step) != offset)
