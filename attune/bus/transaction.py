"""A database transaction that can publish: the message and the change that causes it are one."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeAlias

import structlog

from attune.base.crash_points import reach
from attune.base.json import dumps
from attune.bus import queries
from attune.bus.messages import (
    MAX_SIZE,
    Cause,
    Delivery,
    Entity,
    Envelope,
    Message,
    Notification,
    NotificationCreated,
    NotificationType,
    Shown,
)
from attune.bus.queries import Attempts
from attune.database.ids import uuid7
from attune.database.pool import Connection

log = structlog.get_logger()

Routes: TypeAlias = Sequence[tuple[str, bool]]
"""The names of queues, and whether a message in them is a row until its consumer commits."""


@dataclass(slots=True)
class Traffic:
    """What a transaction sends. `messages` are numbers by type; `due` are deliveries, `later` those that become due at
    a moment, `returned` those whose rows were put back into their queues; `broadcasts` are the names of queues and what
    they are told; `watched`, what live views are told of."""

    watched: frozenset[Entity] = frozenset()
    messages: Counter[str] = field(default_factory=Counter)
    due: list[Delivery[Any]] = field(default_factory=list)
    later: list[tuple[Delivery[Any], datetime]] = field(default_factory=list)
    returned: list[Delivery[Any]] = field(default_factory=list)
    broadcasts: list[tuple[str, Message]] = field(default_factory=list)


class Carrier(Protocol):
    """Where a transaction's messages go. `watched` is what somebody may look at in live views."""

    watched: frozenset[Entity]

    def route(self, message: Message) -> Routes:
        """The queues of a message. Raises Unroutable when there are none."""
        ...

    def committed(self, traffic: Traffic) -> None:
        """Take what a commit has made true."""
        ...

    def doubted(self, traffic: Traffic) -> None:
        """Take note of what a commit has made true, or not: nobody knows."""
        ...


class Transaction:
    """Made by `Bus.transaction`. `now` is the time of all that it writes."""

    __slots__ = ("_attempts", "_carrier", "_hints", "_notifications", "_stages", "_traffic", "connection", "now")

    def __init__(self, connection: Connection, now: datetime, carrier: Carrier) -> None:
        self.connection = connection
        self.now = now
        self._carrier = carrier
        self._attempts: list[Attempts] = []
        self._traffic = Traffic(carrier.watched)
        self._notifications: list[Notification] = []
        self._hints: list[Callable[[], None]] = []
        self._stages: list[str] = []

    def publish(self, message: Message, cause: Cause, source: str, *, after: float = 0) -> None:
        """Send `message` when, and only when, this transaction commits; a durable one may be delivered `after` some
        seconds. Raises Unroutable when no queue is bound."""
        envelope = Envelope(uuid7(), cause, self.now, source, message)
        text = dumps(message.__dict__)
        if len(text) > MAX_SIZE:
            raise ValueError(f"{type(message).__name__}: {len(text)} characters; a message carries ids and refs.")
        routes = self._carrier.route(message)
        self._traffic.messages[type(message).__name__] += 1
        for name, is_durable in routes:
            if not is_durable:
                self._traffic.broadcasts.append((name, message))
            elif after > 0:
                due = self.now + timedelta(seconds=after)
                self._traffic.later.append((Delivery(name, envelope, text, 1), due))
            else:
                self._traffic.due.append(Delivery(name, envelope, text, 1))

    def shows(self, entity: Entity) -> bool:
        """Whether somebody looks at such in live views: whoever would have to compute for `notify` asks this before."""
        return entity in self._traffic.watched

    def notify(self, kind: NotificationType, entity_id: int, payload: Shown) -> None:
        """Show in live views, when this transaction commits, what became of something. `payload` says enough of its
        row to show it, with its refs as `…ref` and its state as `status`. Does nothing while nobody looks at such."""
        if self.shows(kind.entity):
            self._notifications.append(Notification(kind, entity_id, self.now, payload))

    def give_back(self, deliveries: Iterable[Delivery[Any]]) -> None:
        """Hand over, when this transaction commits, deliveries whose rows it has put back into their queues."""
        self._traffic.returned.extend(deliveries)

    def does(self, stage: str) -> None:
        """Name something that this transaction does, for the crash points around its commit."""
        self._stages.append(stage)

    def record(self, attempts: Attempts) -> None:
        """Let the trace tell what became of deliveries."""
        self._attempts.append(attempts)

    def after_commit(self, hint: Callable[[], None]) -> None:
        """Call `hint` after the commit. It may be lost in a crash: only for what recovery can derive again."""
        self._hints.append(hint)

    async def flush(self, now: datetime) -> None:
        """Write what was published and what was recorded; `now` is when the attempts ended."""
        if self._notifications:
            self._show()
        await queries.insert_traffic(self.connection, self._attempts, self._traffic.due, now)
        for delivery, due in self._traffic.later:
            await queries.insert_later(self.connection, delivery, attempt=1, available_at=due, error=None)
        self._reach("before_commit")

    async def commit(self) -> None:
        """Commit, then hand over. Must be shielded: a commit without its hand-over leaves rows for the sweep."""
        try:
            ended = await self.connection.execute("COMMIT")
        except BaseException:
            self._carrier.doubted(self._traffic)
            raise
        if ended != "COMMIT":
            raise RuntimeError("A statement of this transaction failed and nobody minded: nothing of it was committed.")
        self._reach("committed")
        self._carrier.committed(self._traffic)
        self._reach("handed_over")
        for hint in self._hints:
            try:
                hint()
            except Exception:
                # The commit stands: whoever asked for it must not take it for failed, and do it again.
                log.exception("what was to follow a commit failed")

    def _show(self) -> None:
        """One message for all: there may be thousands of them a second. They were made here, and are not checked."""
        message = NotificationCreated.model_construct(notifications=tuple(self._notifications))
        self._traffic.messages[NotificationCreated.__name__] += 1
        self._traffic.broadcasts += [(name, message) for name, _ in self._carrier.route(message)]

    def _reach(self, moment: str) -> None:
        for stage in self._stages:
            reach(f"{stage}.{moment}")
