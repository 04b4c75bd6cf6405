"""What a timer is doing, and when it will fire."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from zoneinfo import ZoneInfo

import anyio

from attune.base.errors import BadInput
from attune.sources.timers.params import from_params
from attune.sources.timers.queries import TimerRow
from attune.sources.timers.schedules import Schedule
from attune.sources.timers.words import in_words, timezone_of


class State(StrEnum):
    WAITING = "waiting"
    DISABLED = "disabled"
    ENDED = "ended"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Preview:
    """A timer for people. `schedule` is in words; without one, `problem` says why it cannot be read."""

    state: State
    schedule: str | None
    timezone: str | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment, in UTC and on the clocks of the schedule's zone."""

    utc: datetime
    local: datetime


def preview(row: TimerRow, *, enabled: bool) -> Preview:
    """What a timer is doing; `enabled` is its rule."""
    schedule, problem = _read(row)
    if schedule is None:
        return Preview(State.UNREADABLE, None, None, problem)
    ended = State.ENDED if row.next_fire_at is None else State.WAITING
    return Preview(ended if enabled else State.DISABLED, in_words(schedule), timezone_of(schedule), None)


async def upcoming(row: TimerRow, now: datetime, count: int, *, enabled: bool) -> list[Instant]:
    """The next instants of a timer, at most `count`; of a rule that is disabled those it would have, enabled now."""
    schedule, _ = _read(row if enabled else replace(row, anchor=now))
    if schedule is None:
        return []
    zone = ZoneInfo(timezone_of(schedule))
    instant = row.next_fire_at if enabled else schedule.after(now)
    found: list[Instant] = []
    while instant is not None and len(found) < count:
        found.append(Instant(instant, instant.astimezone(zone)))
        # Rare ones take milliseconds each.
        await anyio.lowlevel.checkpoint()
        instant = schedule.after(instant)
    return found


def _read(row: TimerRow) -> tuple[Schedule | None, str | None]:
    try:
        return from_params(row.trigger_ref, row.trigger_params, row.anchor), None
    except BadInput as error:
        return None, "; ".join(f"{problem.where}: {problem.what}" for problem in error.problems)
    except Exception as error:
        # Whatever a schema of an earlier version has let through.
        return None, repr(error)
