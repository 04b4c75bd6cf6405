"""Alerts: what goes wrong becomes an event of the trigger core.alert, so that rules can act on it.

An alert follows from rows, and is noted in the transaction that records its event: whatever is killed when, none is
lost and none doubled. Its events are a chain of their own. What belongs to such a chain raises no alert, so that a rule
which fails to tell of failures does not feed itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias
from uuid import UUID

import structlog

from attune.base.json import dumps
from attune.bus import queries as bus_queries
from attune.bus.bus import Bus
from attune.bus.messages import Cause
from attune.bus.transaction import Transaction
from attune.catalog import queries as catalog
from attune.catalog.definitions import Definitions
from attune.catalog.model import Trigger
from attune.database.ids import uuid7
from attune.database.pool import Connection, DatabaseUnavailable, Row
from attune.events.ingest import Ingest
from attune.events.model import ALERT, NewEvent
from attune.executions import streak_queries
from attune.rules import queries as rules
from attune.settings import Alerts as Limits
from attune.upkeep import queries
from attune.upkeep.queries import Raised

log = structlog.get_logger()

SOURCE = "alerts"
MOST = 25
"""Alerts that are raised at a time."""

_EVERY = 5.0
_FORGET_EVERY = 3_600.0


class Kind(StrEnum):
    DEAD_LETTER = "dead_letter"
    FAILING_RULE = "failing_rule"
    FAILING_ACTION = "failing_action"
    RETENTION_BEHIND = "retention_behind"
    DISK_LOW = "disk_low"
    LOOP = "loop"


class Severity(StrEnum):
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Something that people should know of, and the payload of the event. `subject` is what it is about, such as
    `rule:shop.x`; `message` is a sentence on what is wrong, `remedy` the command to type."""

    kind: Kind
    severity: Severity
    subject: str
    message: str
    remedy: str
    first: datetime
    last: datetime
    count: int = 1
    rule: str | None = None
    action: str | None = None
    event: int | None = None
    enforcement: int | None = None
    execution: int | None = None
    dead_letter: int | None = None

    @property
    def about(self) -> tuple[str, str]:
        """What no two alarms have in common that are one alert."""
        return self.kind, self.subject


Watch: TypeAlias = Callable[[], Sequence[Alarm]]
"""Says what is wrong at the moment. It is asked again and again, and answers at once."""


class Alerts:
    """Looks for what goes wrong, and raises the alerts."""

    def __init__(self, bus: Bus, ingest: Ingest, definitions: Definitions, limits: Limits) -> None:
        self._bus = bus
        self._ingest = ingest
        self._definitions = definitions
        self._limits = limits
        self._watches: list[Watch] = []
        self._forgot_at: float | None = None

    def register(self, watch: Watch) -> None:
        """Ask `watch` as well."""
        self._watches.append(watch)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self._bus.clock.sleep(_EVERY)
            try:
                await self.once()
                await self._forget()
            except DatabaseUnavailable as error:
                log.debug("alerts wait for the database", error=str(error))

    async def once(self) -> int:
        """Raise the alerts that are due, not too many at a time; how many those were."""
        async with self._bus.transaction() as transaction:
            trigger = await self._trigger(transaction.connection)
            if trigger is None or not trigger.enabled:
                return 0
            quiet_since = transaction.now - timedelta(seconds=self._limits.cooldown)
            alarms = await self._watched(transaction.connection, quiet_since, MOST)
            alarms += await self._failing(transaction.connection, quiet_since, MOST - len(alarms))
            alarms += await self._loops(transaction.connection, quiet_since, MOST - len(alarms))
            alarms += await self._letters(transaction.connection, MOST - len(alarms))
            if alarms:
                await self._raise(transaction, trigger, alarms)
        return len(alarms)

    async def _trigger(self, connection: Connection) -> Trigger | None:
        await self._definitions.follow(connection, await catalog.current_version(connection))
        return self._definitions.triggers.by_ref.get(ALERT)

    async def _watched(self, connection: Connection, quiet_since: datetime, limit: int) -> list[Alarm]:
        alarms = {alarm.about: alarm for watch in self._watches for alarm in watch()}
        if not alarms:
            return []
        known = await queries.alerts(connection, list(alarms))
        due = [alarm for about, alarm in alarms.items() if about not in known or known[about]["raised"] <= quiet_since]
        return due[:limit]

    async def _failing(self, connection: Connection, quiet_since: datetime, limit: int) -> list[Alarm]:
        rows = await queries.long_streaks(connection, self._limits.failures, quiet_since, limit)
        return [_failing(row) for row in rows]

    async def _loops(self, connection: Connection, quiet_since: datetime, limit: int) -> list[Alarm]:
        return [_loop(row) for row in await rules.take_loops(connection, quiet_since, limit)]

    async def _letters(self, connection: Connection, limit: int) -> list[Alarm]:
        rows = await bus_queries.take_not_alerted(connection, limit)
        return [_letter(row) for row in rows if not row["is_of_alert"]]

    async def _raise(self, transaction: Transaction, trigger: Trigger, alarms: Sequence[Alarm]) -> None:
        known = await queries.alerts(transaction.connection, [alarm.about for alarm in alarms])
        chains = [known[alarm.about]["correlation_id"] if alarm.about in known else uuid7() for alarm in alarms]
        events = [_event(trigger, alarm, chain) for alarm, chain in zip(alarms, chains, strict=True)]
        accepted = await self._ingest.record(transaction, events)
        raised = [
            Raised(*alarm.about, event.id, chain) for alarm, event, chain in zip(alarms, accepted, chains, strict=True)
        ]
        await queries.put_alerts(transaction.connection, raised, transaction.now)
        transaction.after_commit(lambda: _tell(alarms, raised))

    async def _forget(self) -> None:
        """Forget, now and then, what nobody needs any more."""
        now = self._bus.clock.monotonic()
        if self._forgot_at is not None and now - self._forgot_at < _FORGET_EVERY:
            return
        async with self._bus.transaction() as transaction:
            before = transaction.now - timedelta(seconds=self._limits.cooldown)
            await queries.forget_alerts(transaction.connection, before)
            await streak_queries.forget_streaks(transaction.connection)
        self._forgot_at = now


def _failing(streak: Row) -> Alarm:
    kind, ref, execution = streak["kind"], streak["ref"], streak["execution"]
    times = "once" if streak["failures"] == 1 else f"{streak['failures']} times in a row"
    error = f": {streak['error'].splitlines()[0]}" if streak["error"] else "."
    return Alarm(
        kind=Kind(f"failing_{kind}"),
        severity=Severity.ERROR,
        subject=f"{kind}:{ref}",
        message=f"The {kind} {ref} has failed {times}, the last time in execution {execution}{error}",
        remedy=f"attune why execution {execution}",
        first=streak["first"],
        last=streak["last"],
        count=streak["failures"],
        rule=ref if kind == "rule" else None,
        action=ref if kind == "action" else None,
        execution=execution,
    )


def _loop(loop: Row) -> Alarm:
    rule, event = loop["rule_ref"], loop["event"]
    times = "once" if loop["stopped"] == 1 else f"{loop['stopped']} times"
    return Alarm(
        kind=Kind.LOOP,
        severity=Severity.ERROR,
        subject=f"rule:{rule}",
        message=f"The rule {rule} causes the events that fire it; it was stopped {times}, at last for event {event}.",
        remedy=f"attune why event {event}",
        first=loop["first"],
        last=loop["last"],
        count=loop["stopped"],
        rule=rule,
        event=event,
    )


def _letter(letter: Row) -> Alarm:
    number = letter["id"]
    # Not why: whoever may read events may not read dead letters.
    given_up = f"{letter['message_type']} in {letter['queue']} was given up after attempt {letter['attempts']}"
    kind, _, waiting = (letter["subject"] or "").partition(":")
    about = {kind: int(waiting)} if waiting else {}
    return Alarm(
        kind=Kind.DEAD_LETTER,
        severity=Severity.ERROR,
        subject=f"dead_letter:{number}",
        message=f"{given_up}, and {kind} {waiting} waits for it." if waiting else f"{given_up}.",
        remedy=f"attune bus dead show {number}",
        first=letter["created"],
        last=letter["created"],
        event=about.get("event"),
        enforcement=about.get("enforcement"),
        execution=about.get("execution"),
        dead_letter=number,
    )


def _event(trigger: Trigger, alarm: Alarm, chain: UUID) -> NewEvent:
    cause = Cause(chain, None, 0)
    return NewEvent(trigger.id, trigger.ref, dumps(alarm), SOURCE, cause, execution=alarm.execution)


def _tell(alarms: Sequence[Alarm], raised: Sequence[Raised]) -> None:
    for alarm, event in zip(alarms, raised, strict=True):
        log.warning("an alert was raised", kind=alarm.kind.value, subject=alarm.subject, _event=event.event)
