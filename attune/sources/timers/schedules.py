"""When a timer fires: arithmetic on instants, without a clock. Instants are aware datetimes in UTC."""

from abc import ABC, abstractmethod
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import ClassVar, Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim

from attune.base.json import JsonObject
from attune.sources.timers.recurrences import Frequency, Recurrence
from attune.sources.timers.zones import change_between, first_instant, latest_wall, offset_at, wall_at

SENSOR_REF = "core.timer_sensor"

ALIASES = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}

_SECOND = timedelta(seconds=1)

# A zone's offset changes once at most in so short a time: the closest changes are 3.98 days apart (Freetown, 1939).
_DAY = timedelta(days=1)

_LATEST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)

# The rarest day of the calendar, a certain weekday on 29 February, comes back after 40 years at most.
_HORIZON_YEARS = 50


class Schedule(Protocol):
    """The instants at which a timer fires, in UTC."""

    kind: ClassVar[str]

    def after(self, instant: datetime) -> datetime | None:
        """The first instant strictly later than `instant`; None if there is none up to the year 9999."""
        ...

    def before(self, instant: datetime) -> datetime | None:
        """The latest instant not later than `instant`; None if there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Interval:
    """Every `seconds` from `anchor` (UTC): at anchor + seconds first, free of drift however far from it."""

    kind: ClassVar[str] = "interval"
    seconds: int
    anchor: datetime

    def after(self, instant: datetime) -> datetime | None:
        try:
            period = timedelta(seconds=self.seconds)
            return self.anchor + (max(0, (instant - self.anchor) // period) + 1) * period
        except OverflowError:
            return None

    def before(self, instant: datetime) -> datetime | None:
        period = timedelta(seconds=self.seconds)
        passed = (instant - self.anchor) // period
        return self.anchor + passed * period if passed > 0 else None


@dataclass(frozen=True, slots=True)
class OneShot:
    """Once, at `fire_at` (UTC). `timezone` is the zone in which a person gave it."""

    kind: ClassVar[str] = "one_shot"
    fire_at: datetime
    timezone: str = "UTC"

    def after(self, instant: datetime) -> datetime | None:
        return self.fire_at if instant < self.fire_at else None

    def before(self, instant: datetime) -> datetime | None:
        return self.fire_at if self.fire_at <= instant else None


class _OnWalls(ABC):
    """The instants at which the clocks of a zone show certain walls.

    Where those clocks change, it depends on what names the walls:

    - It names *times of day*: each happens once a day. Times that the clocks leave out (spring) fire together, once, at
      the first instant after them; times that come twice (autumn) fire when they come first.
    - Otherwise it follows *elapsed time*, second by second: what comes twice fires twice, what is left out does not
      fire.
    """

    timezone: str

    @property
    @abstractmethod
    def _names_times(self) -> bool:
        """Whether these are times of day."""

    @abstractmethod
    def _match(self, wall: datetime, way: int) -> datetime | None:
        """The first wall that matches, from `wall` on, itself included, into the future (`way` 1) or the past (-1)."""

    @cached_property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    def _nearest(self, second: datetime, way: int) -> datetime | None:
        """The first instant later than `second` (`way` 1), or the latest that is not (`way` -1)."""
        skip = _SECOND if way > 0 else timedelta()
        try:
            if not self._names_times:
                return self._elapsed(second + skip, way)
            wall = self._match(latest_wall(self._zone, second) + skip, way)
            return None if wall is None else first_instant(self._zone, wall)
        except OverflowError:
            return None

    def _elapsed(self, start: datetime, way: int) -> datetime | None:
        """The first instant whose wall matches, from `start` on, itself included, into the future or the past."""
        second = start
        while abs(second.year - start.year) <= _HORIZON_YEARS:
            wall = wall_at(self._zone, second)
            match = self._match(wall, way)
            if match is None:
                return None
            distance = abs(match - wall)
            near = second + way * min(distance, _DAY)
            if offset_at(self._zone, near) != offset_at(self._zone, second):
                second = change_between(self._zone, second, near)
            elif distance <= _DAY:
                return near
            else:
                # All offsets lie within two days, so what clocks show until then lies between `wall` and `match`.
                second = near + way * max(timedelta(), distance - 3 * _DAY)
        return None


@dataclass(frozen=True)
class Cron(_OnWalls):
    """The times of a cron expression: second (may be left out: 0), minute, hour, day, month, weekday; or an alias.

    As in Debian's cron, a day must match both day fields if one of them begins with `*`, and either otherwise. The
    expression names times of day if neither minute nor hour begins with `*`, with five fields and with six alike.

    Where no match lies within 50 years, there is none. `from_params` refuses what is wrong or never fires.
    """

    kind: ClassVar[str] = "cron"
    expression: str
    timezone: str = "UTC"

    def after(self, instant: datetime) -> datetime | None:
        return self._nearest(instant.replace(microsecond=0), 1)

    def before(self, instant: datetime) -> datetime | None:
        return self._nearest(instant.replace(microsecond=0), -1)

    def explained(self) -> str:
        """The expression in words."""
        text: str = self._sim.explain()
        return text[:1].lower() + text[1:]

    @cached_property
    def _sim(self) -> CronSim:
        # cronsim sees naive walls only. With a zone, what it does at a change of clocks depends on the count of fields,
        # and where that change is not at a full hour it leaves out matches or never returns (0 50 */3 * * *, Chatham).
        expression = ALIASES.get(self.expression.strip().lower(), self.expression)
        return CronSim(expression, datetime(2000, 1, 1, tzinfo=UTC))

    @property
    def _names_times(self) -> bool:
        return not any(field.startswith("*") for field in self._sim.parts[1:3])

    def _match(self, wall: datetime, way: int) -> datetime | None:
        sim = copy(self._sim)
        sim.dt = wall - way * _SECOND
        sim.tick_direction = way
        return next(sim, None)


@dataclass(frozen=True)
class RRule(_OnWalls):
    """The walls of a recurrence after RFC 5545, in a zone, up to and including `until` (UTC).

    It names times of day, unless its frequency is HOURLY, MINUTELY or SECONDLY. Of those, what lies 50 years away from
    the instant before is not found.
    """

    kind: ClassVar[str] = "rrule"
    recurrence: Recurrence
    timezone: str = "UTC"
    until: datetime | None = None

    def after(self, instant: datetime) -> datetime | None:
        first, last = self._span
        found = self._nearest(max(instant.replace(microsecond=0), first), 1)
        return None if found is None or found > last else found

    def before(self, instant: datetime) -> datetime | None:
        _, last = self._span
        return self._nearest(min(instant.replace(microsecond=0), last), -1)

    @cached_property
    def _span(self) -> tuple[datetime, datetime]:
        """An instant before the first one, and one that is not before the last one."""
        first, last = self.recurrence.start.replace(tzinfo=UTC), self.recurrence.last
        ends = [_LATEST if self.until is None else self.until]
        if last is not None and last.year < _LATEST.year:
            ends.append(last.replace(tzinfo=UTC) + 2 * _DAY)
        return first - 2 * _DAY if first.year > 1 else first, min(ends)

    @property
    def _names_times(self) -> bool:
        return self.recurrence.frequency <= Frequency.DAILY

    def _match(self, wall: datetime, way: int) -> datetime | None:
        return self.recurrence.nearest(wall, way)


def payload(
    schedule: Schedule, *, instant: datetime, fired_at: datetime, next_fire_at: datetime | None, execution_count: int
) -> JsonObject:
    """The payload of the event for one firing: due at `instant`, handled at `fired_at`."""
    common: JsonObject = {
        "type": schedule.kind,
        "scheduled_at": _rfc3339(instant),
        "fired_at": _rfc3339(fired_at),
        "sensor_ref": SENSOR_REF,
    }
    match schedule:
        case Interval():
            return common | {"interval_seconds": schedule.seconds, "execution_count": execution_count}
        case Cron():
            return common | {
                "expression": schedule.expression,
                "timezone": schedule.timezone,
                "next_fire_at": None if next_fire_at is None else _rfc3339(next_fire_at),
                "execution_count": execution_count,
            }
        case RRule():
            return common | {
                "rule": str(schedule.recurrence),
                "timezone": schedule.timezone,
                "delay_ms": (fired_at - instant) // timedelta(milliseconds=1),
                "next_fire_at": None if next_fire_at is None else _rfc3339(next_fire_at),
                "execution_count": execution_count,
            }
        case OneShot():
            return common | {
                "fire_at": _rfc3339(schedule.fire_at),
                "timezone": schedule.timezone,
                "delay_ms": (fired_at - instant) // timedelta(milliseconds=1),
            }
        case _:
            raise TypeError(f"no payload is known for {schedule!r}")


def _rfc3339(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
