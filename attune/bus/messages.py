"""The messages, each with its route. A message carries ids and refs; its consumer reads the rows it needs.

`event_created` goes along all the way, so that the worker need not read two rows to tell how long an event waited.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from itertools import product
from string import Formatter
from typing import Any, ClassVar, Generic, NamedTuple, TypeAlias, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from attune.base.errors import TopologyError
from attune.base.states import ExecutionStatus

M = TypeVar("M", bound="Message")

MAX_SIZE = 8_000
"""Characters of a payload as JSON: ids and refs are short, and queues hold a thousand of them."""

_OVERHEAD = 500
"""Bytes of a delivery in memory, beside its payload."""


class Message(BaseModel):
    """Something that happened. A subclass names its exchange and its routing key, once and for all.

    A key may hold fields of the payload in braces: an enum's values make a closed list of exact keys, an integer id
    makes the message *addressed* to one receiver.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    exchange: ClassVar[str] = ""
    key: ClassVar[str] = ""
    version: ClassVar[str] = "1.0"
    has_one_key: ClassVar[bool] = True
    about: ClassVar[str] = ""
    """The field that names the row that this message moves on, as `kind_id`."""

    def __init_subclass__(cls, *, exchange: str = "", key: str = "", about: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.exchange, cls.key, cls.about = exchange, key, about
        cls.has_one_key = not placeholders(key)

    def subject(self) -> str | None:
        """The row that waits for this message, as `execution:42`; None when no row does."""
        return f"{self.about.removesuffix('_id')}:{getattr(self, self.about)}" if self.about else None

    @classmethod
    def address(cls) -> str | None:
        """The field that addresses the message to one receiver; None for the others."""
        fields = [name for name in placeholders(cls.key) if cls.model_fields[name].annotation is int]
        return fields[0] if fields else None

    @classmethod
    def keys(cls) -> frozenset[str]:
        """Every routing key that the message can have; the placeholder of an address stays in its braces."""
        choices: list[list[tuple[str, str]]] = []
        for name in placeholders(cls.key):
            annotation = cls.model_fields[name].annotation if name in cls.model_fields else None
            if annotation is int:
                choices.append([(name, f"{{{name}}}")])
            elif isinstance(annotation, type) and issubclass(annotation, StrEnum):
                choices.append([(name, member.value) for member in annotation])
            else:
                raise TopologyError(
                    f"{cls.__name__}: the key {cls.key!r} names {name!r}, "
                    "which is no enum or integer field of its payload."
                )
        return frozenset(cls.key.format(**dict(choice)) for choice in product(*choices))

    def routing_key(self) -> str:
        """The exact key of this one."""
        return self.key if self.has_one_key else self.key.format(**self.__dict__)


def placeholders(template: str) -> list[str]:
    """The names in braces."""
    return [name for _, name, _, _ in Formatter().parse(template) if name]


class EventCreated(Message, exchange="attune.events", key="event.created", about="event_id"):
    event_id: int
    trigger_ref: str


class Change(StrEnum):
    CREATED = "created"
    UPDATED = "updated"
    ENABLED = "enabled"
    DISABLED = "disabled"
    DELETED = "deleted"


class RuleChanged(Message, exchange="attune.events", key="rule.{change}"):
    rule_id: int
    rule_ref: str
    trigger_ref: str
    change: Change


class EnforcementCreated(Message, exchange="attune.executions", key="enforcement.created", about="enforcement_id"):
    enforcement_id: int
    event_id: int
    rule_id: int
    rule_ref: str
    trigger_ref: str
    event_created: datetime | None = None


class ExecutionRequested(Message, exchange="attune.executions", key="execution.requested", about="execution_id"):
    execution_id: int
    action_ref: str
    enforcement_id: int | None
    event_id: int | None
    rule_ref: str | None
    trigger_ref: str | None
    event_created: datetime | None = None


class ExecutionDispatched(
    Message, exchange="attune.executions", key="execution.dispatch.worker.{worker_id}", about="execution_id"
):
    execution_id: int
    action_ref: str
    worker_id: int
    event_id: int | None
    rule_ref: str | None
    trigger_ref: str | None
    event_created: datetime | None = None


class ExecutionCancelRequested(
    Message, exchange="attune.executions", key="execution.cancel.worker.{worker_id}", about="execution_id"
):
    execution_id: int
    worker_id: int


class ExecutionCompleted(Message, exchange="attune.executions", key="execution.completed", about="execution_id"):
    execution_id: int
    action_ref: str
    status: ExecutionStatus
    event_id: int | None


class InquiryCreated(Message, exchange="attune.executions", key="inquiry.created", about="inquiry_id"):
    inquiry_id: int
    execution_id: int


class InquiryResponded(Message, exchange="attune.executions", key="inquiry.responded", about="inquiry_id"):
    inquiry_id: int
    execution_id: int


class Entity(StrEnum):
    """What people watch."""

    EVENT = "event"
    ENFORCEMENT = "enforcement"
    EXECUTION = "execution"
    INQUIRY = "inquiry"
    DEAD_LETTER = "dead_letter"
    RULE = "rule"


class NotificationType(StrEnum):
    """What can become of an entity. The name begins with it."""

    EVENT_CREATED = "event_created"
    EVENT_EXAMINED = "event_examined"
    """The rule matcher took it."""
    ENFORCEMENT_CREATED = "enforcement_created"
    ENFORCEMENT_STATUS_CHANGED = "enforcement_status_changed"
    EXECUTION_CREATED = "execution_created"
    EXECUTION_STATUS_CHANGED = "execution_status_changed"
    INQUIRY_CREATED = "inquiry_created"
    INQUIRY_RESPONDED = "inquiry_responded"
    INQUIRY_TIMEOUT = "inquiry_timeout"
    INQUIRY_CANCELLED = "inquiry_cancelled"
    DEAD_LETTER_CREATED = "dead_letter_created"
    DEAD_LETTER_REPLAYED = "dead_letter_replayed"
    DEAD_LETTER_DISCARDED = "dead_letter_discarded"
    RULE_CREATED = "rule_created"
    RULE_UPDATED = "rule_updated"
    RULE_ENABLED = "rule_enabled"
    RULE_DISABLED = "rule_disabled"
    RULE_DELETED = "rule_deleted"

    @property
    def entity(self) -> Entity:
        """What it is about."""
        return _ENTITIES[self]


_ENTITIES = {kind: next(one for one in Entity if kind.startswith(one)) for kind in NotificationType}

Shown: TypeAlias = Mapping[str, str | int | bool | datetime | None]
"""What live views show of a row."""


class Notification(NamedTuple):
    """What became of something that people watch: enough to show it."""

    kind: NotificationType
    entity_id: int
    at: datetime
    payload: Shown


class NotificationCreated(Message, exchange="attune.notifications", key="notification.created"):
    """All that a transaction has to show. Transient, and published only while somebody may look:
    `Transaction.notify`. `missed` are entities of which something may have happened that is not told."""

    notifications: tuple[Notification, ...] = ()
    missed: frozenset[Entity] = frozenset()


class Cause(NamedTuple):
    """Where something stands in its chain: `correlation_id` is the chain's, `causation_id` the message that caused it
    (None at the root), `depth` the number of messages before it."""

    correlation_id: UUID
    causation_id: UUID | None
    depth: int


class Envelope(NamedTuple, Generic[M]):
    """A message on its way."""

    message_id: UUID
    cause: Cause
    timestamp: datetime
    source: str
    payload: M

    def effect(self) -> Cause:
        """The cause of what this message causes."""
        return Cause(self.cause.correlation_id, self.message_id, self.cause.depth + 1)


class Delivery(NamedTuple, Generic[M]):
    """A message in one queue, where its id identifies it. `text` is its payload as JSON; `attempt` counts from 1."""

    queue: str
    envelope: Envelope[M]
    text: str
    attempt: int

    @property
    def id(self) -> UUID:
        return self.envelope.message_id

    @property
    def message(self) -> M:
        return self.envelope.payload

    @property
    def size(self) -> int:
        """About the bytes that it takes in memory."""
        return len(self.text) + _OVERHEAD


class Letter(NamedTuple):
    """A dead letter: a delivery that was given up after so many attempts, the last with `error`. `text` is its payload
    as JSON, which this release need not be able to read."""

    id: int
    queue: str
    message_id: UUID
    cause: Cause
    message_type: str
    source: str
    text: str
    subject: str | None
    error: str
    published_at: datetime
