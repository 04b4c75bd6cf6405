"""Loops: a rule whose action causes the event that fires it, again and again. Pure functions."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from attune.events.model import Event

WINDOW = timedelta(seconds=60)
"""What comes round more slowly is no loop but a chain that waits for something, and may go on for ever."""
_DEEPER = 3
"""From an event to the next one that it causes there are at least so many messages: a rule, an execution, an event."""
_NAMED = 5


class Firing(NamedTuple):
    """That a rule fired for an event from `at`, and led to an execution."""

    rule: int
    execution: int
    at: datetime


class Loop(NamedTuple):
    """How often a rule has caused an event that fires it, within how many seconds, and through which executions, the
    oldest first."""

    times: int
    seconds: float
    executions: tuple[int, ...]


def may_loop(event: Event, most: int) -> bool:
    """Whether there is room in the chain before an event for a rule to have fired `most` times."""
    return event.execution is not None and event.depth >= _DEEPER * most


def find(rule: int, ancestors: Sequence[Firing], at: datetime, most: int) -> Loop | None:
    """The loop that ends in an event from `at`, whose ancestors are given, the newest first; None when `rule` fired for
    fewer than `most` of them not long ago."""
    fired = [one for one in ancestors if one.rule == rule and at - one.at <= WINDOW]
    if len(fired) < most:
        return None
    seconds = max((at - fired[-1].at).total_seconds(), 0.0)
    return Loop(len(fired), seconds, tuple(one.execution for one in reversed(fired)))


def reason(rule_ref: str, loop: Loop) -> str:
    """Why a rule was stopped, for people."""
    named = ", ".join(map(str, loop.executions[-_NAMED:]))
    before = "…, " if len(loop.executions) > _NAMED else ""
    times, through = ("once", "execution") if loop.times == 1 else (f"{loop.times} times", "executions")
    return (
        f"a loop: the rule {rule_ref} has caused the event that fires it {times} within {loop.seconds:.3g} s, through "
        f"{through} {before}{named}, and is stopped here; rules.max_loops sets how often it may"
    )
