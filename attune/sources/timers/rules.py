"""What timers have to say about rules on timer triggers."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from attune.base.errors import BadInput, Problem
from attune.base.json import dumps
from attune.bus.transaction import Transaction
from attune.catalog.model import Rule
from attune.catalog.queries import RuleSpec
from attune.sources.timers import queries
from attune.sources.timers.params import TRIGGERS, from_params
from attune.sources.timers.schedules import OneShot, Schedule

_FAR = datetime(3000, 1, 1, tzinfo=UTC)
"""An interval that ends in the calendar from here does so from any moment at which somebody enables its rule."""


class TimerRules:
    """What timers have to say about rules on timer triggers."""

    def problems(self, rule: RuleSpec) -> Iterable[Problem]:
        """What is wrong with the schedule of a rule."""
        if rule.trigger_ref not in TRIGGERS:
            return
        try:
            from_params(rule.trigger_ref, rule.trigger_params, _FAR)
        except BadInput as error:
            for problem in error.problems:
                yield Problem(f"/trigger_params{problem.where}", problem.what)

    async def changed(self, transaction: Transaction, before: Rule | None, after: Rule | None) -> Sequence[str]:
        """Plan the timer of a rule anew, if its schedule changed. A change of anything else leaves its phase alone."""
        connection = transaction.connection
        if after is None or after.trigger_ref not in TRIGGERS:
            if before is not None and before.trigger_ref in TRIGGERS:
                await queries.delete_timer(connection, before.id)
            return ()
        if before is not None and _timer_key(before) == _timer_key(after):
            return ()
        if not after.enabled:
            await queries.put_timer(connection, after.id, anchor=transaction.now, next_fire_at=None)
            return ()
        schedule = from_params(after.trigger_ref, after.trigger_params, transaction.now)
        if before is not None and before.enabled and _schedule_of(before, transaction.now) == schedule:
            await queries.raise_generation(connection, after.id)
            return ()
        next_fire_at = schedule.after(transaction.now)
        await queries.put_timer(connection, after.id, anchor=transaction.now, next_fire_at=next_fire_at)
        if next_fire_at is None and isinstance(schedule, OneShot):
            return (f"{after.ref} never fires: its moment {schedule.fire_at:%Y-%m-%d %H:%M:%S} UTC has passed.",)
        if next_fire_at is None:
            return (f"{after.ref} never fires: its schedule has ended.",)
        return ()


def _timer_key(rule: Rule) -> tuple[object, ...]:
    return rule.trigger_ref, dumps(rule.trigger_params), rule.enabled


def _schedule_of(rule: Rule, anchor: datetime) -> Schedule | None:
    try:
        return from_params(rule.trigger_ref, rule.trigger_params, anchor)
    except BadInput:
        return None
