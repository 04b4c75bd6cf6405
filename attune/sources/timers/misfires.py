"""What becomes of the instants that passed while nobody looked: the server was down, the machine slept."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice

from attune.sources.timers.schedules import Interval, Schedule

# Handled this late, an instant still counts as on time.
LATE = timedelta(seconds=5)

# `fire_all` makes up for so many missed instants.
MOST = 100

# So many skipped instants are counted by looking at each.
MOST_COUNTED = 100

_TICK = timedelta(microseconds=1)


class Misfire(StrEnum):
    """Which missed instants a timer makes up for."""

    FIRE_ONCE = "fire_once"
    SKIP = "skip"
    FIRE_ALL = "fire_all"


_MADE_UP_FOR = {Misfire.SKIP: 0, Misfire.FIRE_ONCE: 1, Misfire.FIRE_ALL: MOST}

_REASONS = {
    Misfire.SKIP: "missed; the policy is skip",
    Misfire.FIRE_ONCE: "missed; fire_once makes up for the latest only",
    Misfire.FIRE_ALL: f"missed; fire_all makes up for the latest {MOST} only",
}


@dataclass(frozen=True, slots=True)
class Skipped:
    """Instants in a row, from `first` to `last`, for which nothing fires; `count` is None for very many."""

    first: datetime
    last: datetime
    count: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now: instants to fire, in order, and what is passed over; `next_fire_at` is the one to wait for."""

    fires: tuple[datetime, ...]
    skipped: tuple[Skipped, ...]
    next_fire_at: datetime | None


def plan(
    schedule: Schedule,
    next_fire_at: datetime,
    now: datetime,
    policy: Misfire = Misfire.FIRE_ONCE,
    grace: timedelta = timedelta(hours=1),
) -> Plan:
    """What to do at `now` about a timer that waits for `next_fire_at`.

    The instants of `schedule` from `next_fire_at` up to and including `now` are due. Those not older than LATE fire;
    the older ones are missed, and `policy` decides:

    - fire_once: the latest missed one fires, unless it is older than `grace`;
    - skip: none fires;
    - fire_all: the latest MOST fire, however old.

    Before `next_fire_at` (the clock went back) nothing is due, so no instant ever fires twice.
    """
    if now < next_fire_at:
        return Plan((), (), next_fire_at)
    on_time = max(next_fire_at, now - LATE)
    made_up_for = list(islice(_back(schedule, on_time, next_fire_at), _MADE_UP_FOR[policy]))
    reason = _REASONS[policy]
    if policy is Misfire.FIRE_ONCE and made_up_for and now - made_up_for[0] > grace:
        made_up_for = []
        reason = f"missed by more than the grace of {grace}"
    skipped = _skipped(schedule, next_fire_at, made_up_for[-1] if made_up_for else on_time, reason)
    fires = (*reversed(made_up_for), *_forth(schedule, on_time, now))
    return Plan(fires, skipped, schedule.after(now))


def reanchored(schedule: Schedule, next_fire_at: datetime, now: datetime) -> datetime | None:
    """When a timer that waits for `next_fire_at` fires next, now that the clock went back; None if it goes on as it is.

    An interval begins anew at `now`, else it would pause for as long as the clock went back. The others wait: an
    instant that comes again does not fire again.
    """
    if not isinstance(schedule, Interval):
        return None
    period = timedelta(seconds=schedule.seconds)
    return now + period if next_fire_at - now > period else None


def _skipped(schedule: Schedule, start: datetime, stop: datetime, reason: str) -> tuple[Skipped, ...]:
    """The instants from `start` to before `stop`, if there are any."""
    last = next(_back(schedule, stop, start), None)
    if last is None:
        return ()
    first = next(_forth(schedule, start, last))
    return (Skipped(first, last, _count(schedule, first, last), reason),)


def _count(schedule: Schedule, first: datetime, last: datetime) -> int | None:
    if isinstance(schedule, Interval):
        return (last - first) // timedelta(seconds=schedule.seconds) + 1
    count = sum(1 for _ in islice(_forth(schedule, first, last), MOST_COUNTED + 1))
    return count if count <= MOST_COUNTED else None


def _forth(schedule: Schedule, start: datetime, until: datetime) -> Iterator[datetime]:
    """The instants from `start` to `until`, both included."""
    instant = schedule.after(start - _TICK)
    while instant is not None and instant <= until:
        yield instant
        instant = schedule.after(instant)


def _back(schedule: Schedule, stop: datetime, start: datetime) -> Iterator[datetime]:
    """The instants before `stop`, the latest first, down to `start`, included."""
    instant = schedule.before(stop - _TICK)
    while instant is not None and instant >= start:
        yield instant
        instant = schedule.before(instant - _TICK)
