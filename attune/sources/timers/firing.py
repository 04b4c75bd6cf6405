"""A timer that waits, and what it does when its instant has come."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from attune.base.errors import BadInput
from attune.base.json import dumps
from attune.bus.messages import Cause
from attune.database.ids import uuid7
from attune.events.model import NewEvent
from attune.sources.timers.misfires import Misfire, Plan, plan
from attune.sources.timers.params import from_params, misfire_from_params
from attune.sources.timers.queries import Advance, TimerRow
from attune.sources.timers.schedules import SENSOR_REF, Schedule, payload

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Timer:
    """A rule that waits for `next_fire_at`."""

    row: TimerRow
    schedule: Schedule
    policy: Misfire
    grace: timedelta
    next_fire_at: datetime


@dataclass(frozen=True, slots=True)
class Fire:
    """What a timer does now. `recorded` are the instants of its plan that have an event already."""

    timer: Timer
    plan: Plan
    recorded: frozenset[datetime] = frozenset()

    @property
    def rule(self) -> int:
        return self.timer.row.rule

    @property
    def advance(self) -> Advance:
        count = len(self.plan.fires) - len(self.recorded)
        return Advance(self.rule, self.timer.row.generation, self.timer.next_fire_at, self.plan.next_fire_at, count)


class Plans:
    """What to do at one moment. Timers with the same schedule, due at the same instant, share the arithmetic."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._known: dict[tuple[Schedule, datetime, Misfire, timedelta], Plan] = {}

    def of(self, timer: Timer) -> Plan:
        key = (timer.schedule, timer.next_fire_at, timer.policy, timer.grace)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = plan(timer.schedule, timer.next_fire_at, self._now, timer.policy, timer.grace)
        return known


def timer_of(row: TimerRow) -> Timer | None:
    """The timer of a row; None if it waits for nothing, or if its schedule cannot be read."""
    if row.next_fire_at is None:
        return None
    try:
        schedule = from_params(row.trigger_ref, row.trigger_params, row.anchor)
        policy, grace = misfire_from_params(row.trigger_params)
    except Exception as error:
        # It was right when it was saved: a zone is gone, say. The other timers have nothing to do with it.
        problems = [str(problem) for problem in error.problems] if isinstance(error, BadInput) else [repr(error)]
        log.error(  # noqa: TRY400 - the problems say where, and a traceback would not
            "a rule does not fire: its schedule cannot be read", rule=row.rule_ref, problems=problems
        )
        return None
    return Timer(row, schedule, policy, grace, row.next_fire_at)


def events_of(fire: Fire, fired_so_far: int, now: datetime) -> Iterator[NewEvent]:
    """The events of what a timer does now, which has fired so often afterwards."""
    row = fire.timer.row
    number = fired_so_far - fire.advance.fires
    # Between the instants of a plan lie no others.
    for instant, following in zip(fire.plan.fires, (*fire.plan.fires, fire.plan.next_fire_at)[1:], strict=True):
        if instant in fire.recorded:
            continue
        number += 1
        yield NewEvent(
            trigger=row.trigger,
            trigger_ref=row.trigger_ref,
            payload=dumps(
                payload(
                    fire.timer.schedule,
                    instant=instant,
                    fired_at=now,
                    next_fire_at=following,
                    execution_count=number,
                )
            ),
            source_ref=SENSOR_REF,
            cause=Cause(uuid7(), None, 0),
            rule=row.rule,
            rule_ref=row.rule_ref,
            scheduled_at=instant,
        )
