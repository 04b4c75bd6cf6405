"""What became of a rule's events over a time: how often it fired, and why it did not the other times."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from attune.base.clock import Clock
from attune.base.json import Json
from attune.base.verdicts import Clause
from attune.catalog import queries as catalog
from attune.catalog.model import Rule
from attune.database.pool import Connection, Row
from attune.events import queries as events
from attune.events.model import Event
from attune.rules import queries
from attune.rules.evaluation import Decision, concerned, decide, deciding, error_of, written

COUNTED = 100_000
"""Events that are counted, at most: the newest."""
EVALUATED = 2_000
"""Events whose conditions are evaluated again, at most: the newest that the rule did not match."""

_BATCH = 1_000
# An event may have a megabyte, and what it becomes in Python is larger.
_AT_ONCE = 20
_SECONDS = 5.0
_REASONS = 50
_OTHER = "for other reasons"
_LARGEST_ID = 2**63 - 1


@dataclass(slots=True)
class Reason:
    """Something that happened `count` times, the last time with the event `event`."""

    text: str
    event: int
    count: int = 0
    actual: Json = None
    actual_missing: bool | None = None
    """Whether what the clause looked at was missing; None: it looked at no single value, or it is no clause."""


class Reasons:
    """Reasons by their text. Texts may come from payloads: of too many different ones, the rest are one."""

    def __init__(self) -> None:
        self._known: dict[str, Reason] = {}

    def add(self, text: str, event: int, clause: Clause | None = None) -> None:
        """Count a reason. The newest event comes first."""
        if text not in self._known and len(self._known) >= _REASONS:
            text, clause = _OTHER, None
        reason = self._known.setdefault(text, Reason(text, event))
        if clause is not None and reason.count == 0 and clause.has_actual:
            reason.actual, reason.actual_missing = clause.actual, clause.actual_missing
        reason.count += 1

    def listed(self) -> list[Reason]:
        """The most frequent first."""
        return sorted(self._known.values(), key=lambda reason: -reason.count)


@dataclass(slots=True)
class History:
    """What a rule made of the events of its trigger. `events` counts those that came while the rule was there.

    `complete` is False when there were more than `COUNTED`; `unexamined` counts those that did not match and were not
    evaluated again: there are more than `EVALUATED`, or it would have taken too long.
    """

    rule: Rule
    since: datetime
    until: datetime
    events: int = 0
    complete: bool = True
    fired: int = 0
    last_fired: int | None = None
    newest: tuple[int, datetime] | None = None
    """The newest event of the trigger that was for the rule, whenever that was."""
    waiting: int = 0
    disabled: int = 0
    unexamined: int = 0
    not_matched: Reasons = field(default_factory=Reasons)
    errors: Reasons = field(default_factory=Reasons)
    not_run: Reasons = field(default_factory=Reasons)
    """Why nothing was run though the rule matched."""
    executions: Counter[str] = field(default_factory=Counter)
    failures: Reasons = field(default_factory=Reasons)


class _Unmatched(NamedTuple):
    """An event that the rule did not match; the matcher never saw one that was discarded."""

    event: int
    version: int
    discarded: bool


async def history(connection: Connection, rule: Rule, since: datetime, clock: Clock, *, has_timer: bool) -> History:
    """What became of a rule's events since a moment, in bounded time and memory."""
    found = History(rule, since, clock.now())
    unmatched: list[_Unmatched] = []
    pages = _by_instant(connection, rule, found) if has_timer else _by_id(connection, rule, found)
    async for row in pages:
        if row["definition_version"] is None:
            found.events += 1
            found.waiting += 1
        elif row["enforcement_status"] is not None:
            _note_match(found, row)
        elif len(unmatched) < EVALUATED:
            unmatched.append(_Unmatched(row["id"], row["definition_version"], row["note"] is not None))
        else:
            found.events += 1
            found.unexamined += 1
    await _evaluate(connection, found, unmatched, clock)
    return found


async def _by_id(connection: Connection, rule: Rule, found: History) -> AsyncIterator[Row]:
    before, read = _LARGEST_ID, 0
    while True:
        page = await queries.history(connection, rule.id, rule.trigger_ref, before, _BATCH)
        for row in page:
            if row["rule"] not in {None, rule.id}:
                continue
            found.newest = found.newest or (row["id"], row["created"])
            if row["created"] >= found.since:
                yield row
        read += len(page)
        if len(page) < _BATCH or page[-1]["created"] < found.since:
            return
        if read >= COUNTED:
            found.complete = False
            return
        before = page[-1]["id"]


async def _by_instant(connection: Connection, rule: Rule, found: History) -> AsyncIterator[Row]:
    # A moment more: an instant may be this very one.
    before, read = found.until + timedelta(seconds=1), 0
    while True:
        page = await queries.timer_history(connection, rule.id, before, found.since, _BATCH)
        for row in page:
            found.newest = found.newest or (row["id"], row["created"])
            yield row
        read += len(page)
        if len(page) < _BATCH:
            return
        if read >= COUNTED:
            found.complete = False
            return
        before = page[-1]["scheduled_at"]


def _note_match(found: History, row: Row) -> None:
    found.events += 1
    found.fired += 1
    found.last_fired = found.last_fired or row["id"]
    if row["reason"] is not None:
        found.not_run.add(row["reason"], row["id"])
    if row["execution_status"] is not None:
        found.executions[row["execution_status"]] += 1
    if row["error"] is not None:
        found.failures.add(row["error"], row["id"])


async def _evaluate(connection: Connection, found: History, unmatched: Sequence[_Unmatched], clock: Clock) -> None:
    deadline = clock.monotonic() + _SECONDS
    versions: dict[int, Rule | None] = {}
    for start in range(0, len(unmatched), _AT_ONCE):
        if clock.monotonic() > deadline:
            left = len(unmatched) - start
            found.events += left
            found.unexamined += left
            return
        some = unmatched[start : start + _AT_ONCE]
        read, _ = await events.events_with_version(connection, [one.event for one in some])
        for one in some:
            if one.version not in versions:
                versions[one.version] = await catalog.rule_at(connection, one.version, found.rule.id)
            if one.event in read:
                _note_verdict(found, read[one.event], versions[one.version], discarded=one.discarded)


def _note_verdict(found: History, event: Event, rule: Rule | None, *, discarded: bool) -> None:
    if rule is None or not concerned(event, rule):
        # It came before the rule, or before the rule had this trigger.
        return
    found.events += 1
    verdict = decide(rule, event)
    if verdict.decision is Decision.DISABLED:
        found.disabled += 1
    elif discarded:
        found.errors.add("its dead letter was discarded", event.id)
    elif verdict.decision is Decision.ERROR:
        found.errors.add(error_of(verdict), event.id)
    elif verdict.clause is not None:
        clause = deciding(verdict.clause)
        found.not_matched.add(written(clause), event.id, clause)
