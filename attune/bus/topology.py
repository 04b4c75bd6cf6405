"""The routing table, as data, and the check that refuses a broken one.

Every row says what the message class says as well: exchange and key. The redundancy is the point. A queue that waits
where nobody publishes is found before the first message, not by somebody who wonders why nothing happens.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from attune.base.errors import TopologyError
from attune.bus.messages import (
    EnforcementCreated,
    EventCreated,
    ExecutionCancelRequested,
    ExecutionCompleted,
    ExecutionDispatched,
    ExecutionRequested,
    InquiryCreated,
    InquiryResponded,
    Message,
    NotificationCreated,
    RuleChanged,
    placeholders,
)


class ExchangeKind(StrEnum):
    TOPIC = "topic"
    FANOUT = "fanout"


class QueueKind(StrEnum):
    WORK = "work"
    ADDRESSED = "addressed"
    BROADCAST = "broadcast"
    PARKING = "parking"

    @property
    def is_durable(self) -> bool:
        """Whether a message in such a queue is a row until its consumer commits."""
        return self in {QueueKind.WORK, QueueKind.ADDRESSED}


@dataclass(frozen=True, slots=True)
class Exchange:
    name: str
    kind: ExchangeKind
    purpose: str


@dataclass(frozen=True, slots=True)
class Queue:
    """One row of the table. The name and the key of an addressed queue hold the address in braces."""

    name: str
    kind: QueueKind
    exchange: str
    keys: tuple[str, ...]
    message: type[Message] | None
    consumer: str

    def of(self, message: Message) -> str:
        """The name of the queue that `message` goes to: this one, or the receiver's if it is addressed."""
        return self.name.format(**message.__dict__) if self.kind is QueueKind.ADDRESSED else self.name

    def owns(self, name: str) -> bool:
        """Whether this is the name of a queue of this row."""
        if self.kind is not QueueKind.ADDRESSED:
            return name == self.name
        return re.fullmatch(re.sub(r"\\{.*?\\}", r"\\d+", re.escape(self.name)), name) is not None

    def takes(self, message: Message) -> bool:
        """Whether the key of `message` is one of its own."""
        return any(key.format(**message.__dict__) == message.routing_key() for key in self.keys)


@dataclass(frozen=True, slots=True)
class Topology:
    exchanges: tuple[Exchange, ...]
    messages: tuple[type[Message], ...]
    queues: tuple[Queue, ...]

    def routes(self) -> dict[type[Message], tuple[Queue, ...]]:
        """The queues of each message class: a message goes to those of them that take it."""
        return {message: tuple(self._bound(message)) for message in self.messages}

    def row_of(self, queue: str, message: Message) -> Queue | None:
        """The row of the queue of this name, if `message` goes there."""
        bound = self._bound(type(message))
        return next((row for row in bound if row.of(message) == queue and row.takes(message)), None)

    def _bound(self, message: type[Message]) -> Iterator[Queue]:
        for queue in self.queues:
            if queue.message is message and queue.exchange == message.exchange and message.keys() & set(queue.keys):
                yield queue


_RULE_KEYS = ("rule.created", "rule.updated", "rule.enabled", "rule.disabled", "rule.deleted")

TOPOLOGY = Topology(
    exchanges=(
        Exchange("attune.events", ExchangeKind.TOPIC, "event generation and monitoring; rule and pack lifecycle"),
        Exchange(
            "attune.executions",
            ExchangeKind.TOPIC,
            "the execution lifecycle: enforcements, executions, inquiries, worker dispatch",
        ),
        Exchange("attune.notifications", ExchangeKind.FANOUT, "live views: what becomes of what people watch"),
        Exchange("attune.dlx", ExchangeKind.TOPIC, "dead letters"),
    ),
    messages=(
        EventCreated,
        RuleChanged,
        EnforcementCreated,
        ExecutionRequested,
        ExecutionDispatched,
        ExecutionCancelRequested,
        ExecutionCompleted,
        InquiryCreated,
        InquiryResponded,
        NotificationCreated,
    ),
    queues=(
        Queue("attune.events.queue", QueueKind.WORK, "attune.events", ("event.created",), EventCreated, "rule matcher"),
        Queue("attune.rules.timers.queue", QueueKind.BROADCAST, "attune.events", _RULE_KEYS, RuleChanged, "timers"),
        Queue(
            "attune.rules.matcher.queue", QueueKind.BROADCAST, "attune.events", _RULE_KEYS, RuleChanged, "rule cache"
        ),
        Queue(
            "attune.executions.queue",
            QueueKind.WORK,
            "attune.executions",
            ("enforcement.created",),
            EnforcementCreated,
            "enforcement processor",
        ),
        Queue(
            "attune.execution.requests.queue",
            QueueKind.WORK,
            "attune.executions",
            ("execution.requested",),
            ExecutionRequested,
            "scheduler",
        ),
        Queue(
            "worker.{worker_id}.executions",
            QueueKind.ADDRESSED,
            "attune.executions",
            ("execution.dispatch.worker.{worker_id}",),
            ExecutionDispatched,
            "worker",
        ),
        Queue(
            "worker.{worker_id}.cancel",
            QueueKind.ADDRESSED,
            "attune.executions",
            ("execution.cancel.worker.{worker_id}",),
            ExecutionCancelRequested,
            "worker cancel",
        ),
        Queue(
            "attune.execution.completed.queue",
            QueueKind.WORK,
            "attune.executions",
            ("execution.completed",),
            ExecutionCompleted,
            "completion",
        ),
        Queue(
            "attune.inquiry.created.queue",
            QueueKind.WORK,
            "attune.executions",
            ("inquiry.created",),
            InquiryCreated,
            "notifier",
        ),
        Queue(
            "attune.inquiry.responses.queue",
            QueueKind.WORK,
            "attune.executions",
            ("inquiry.responded",),
            InquiryResponded,
            "inquiry handler",
        ),
        Queue(
            "attune.notifications.queue",
            QueueKind.BROADCAST,
            "attune.notifications",
            ("notification.created",),
            NotificationCreated,
            "live views",
        ),
        Queue("attune.dlx.queue", QueueKind.PARKING, "attune.dlx", ("#",), None, "the store"),
    ),
)


def check(topology: Topology, consumers: Mapping[str, type[Message]], discards: Collection[type[Message]]) -> None:
    """Refuse a topology in which a message could get lost, or what waits for one wait for ever.

    `consumers` maps the queue name of a row to the message class that its consumer takes; `discards` are the classes
    whose dead letters can be discarded. Raises TopologyError that names every broken row and what would mend it.
    """
    faults = [
        *_queue_faults(topology, consumers),
        *_message_faults(topology),
        *_consumer_faults(topology, consumers),
        *_discard_faults(topology, discards),
    ]
    if faults:
        raise TopologyError("The routing table is broken:\n" + "\n".join(f"  - {fault}" for fault in faults))


def _queue_faults(topology: Topology, consumers: Mapping[str, type[Message]]) -> Iterator[str]:
    exchanges = {exchange.name for exchange in topology.exchanges}
    names = [queue.name for queue in topology.queues]
    for queue in topology.queues:
        if queue.exchange not in exchanges:
            yield f"queue {queue.name}: exchange {queue.exchange} is unknown; known are {_list(exchanges)}."
            continue
        if names.count(queue.name) > 1:
            yield f"queue {queue.name}: stands in the table twice; a queue has one row."
        if queue.kind is QueueKind.PARKING:
            continue
        if queue.message is None:
            yield f"queue {queue.name}: has no message class; only a parking queue may have none."
            continue
        yield from _binding_faults(queue, queue.message)
        consumed = consumers.get(queue.name)
        if consumed is None:
            yield f"queue {queue.name}: has no consumer; register {queue.consumer!r} or remove the row."
        elif consumed is not queue.message:
            yield (
                f"queue {queue.name}: holds {queue.message.__name__}, but its consumer {queue.consumer!r} "
                f"takes {consumed.__name__}."
            )


def _binding_faults(queue: Queue, message: type[Message]) -> Iterator[str]:
    if queue.exchange != message.exchange:
        yield (
            f"queue {queue.name}: is bound to {queue.exchange}, but {message.__name__} is published to "
            f"{message.exchange}; bind the queue to {message.exchange}."
        )
    possible = message.keys()
    if not queue.keys:
        yield f"queue {queue.name}: has no key, so nothing reaches it; its keys may be {_list(possible)}."
    for key in queue.keys:
        if "*" in key or "#" in key:
            yield f"queue {queue.name}: key {key!r} is a wildcard; name the exact keys."
        elif key not in possible:
            yield (
                f"queue {queue.name}: key {key!r} is never published by {message.__name__}; "
                f"its keys are {_list(possible)}."
            )
    address = message.address()
    if (address is not None) != (queue.kind is QueueKind.ADDRESSED):
        yield (
            f"queue {queue.name}: is of kind {queue.kind}, but {message.__name__} is "
            f"{'addressed by ' + address if address else 'not addressed'}."
        )
    braces = set(placeholders(queue.name))
    if braces != ({address} if address else set()):
        yield (
            f"queue {queue.name}: its name must hold {{{address}}}, and nothing else in braces."
            if address
            else f"queue {queue.name}: its name holds braces, but {message.__name__} is not addressed."
        )


def _message_faults(topology: Topology) -> Iterator[str]:
    exchanges = {exchange.name for exchange in topology.exchanges}
    for message in topology.messages:
        if message.exchange not in exchanges:
            unknown = message.exchange or "(none)"
            yield f"message {message.__name__}: exchange {unknown} is unknown; known are {_list(exchanges)}."
            continue
        yield from _twin_faults(message, topology.messages)
        bound = {
            key
            for queue in topology.queues
            if queue.message is message and queue.exchange == message.exchange
            for key in queue.keys
        }
        for key in sorted(message.keys() - bound):
            yield f"message {message.__name__}: no queue is bound to {message.exchange} with key {key!r}; add one."
    for queue in topology.queues:
        if queue.message is not None and queue.message not in topology.messages:
            yield f"queue {queue.name}: message class {queue.message.__name__} is not in the table of messages."


def _twin_faults(message: type[Message], messages: Sequence[type[Message]]) -> Iterator[str]:
    for other in messages[: messages.index(message)]:
        if other.__name__ == message.__name__:
            yield f"message {message.__name__}: there are two classes of this name; rows are read by it: rename one."
        shared = message.keys() & other.keys()
        if other.exchange == message.exchange and shared:
            yield (
                f"message {message.__name__}: is published to {message.exchange} with key {_list(shared)}, as "
                f"{other.__name__} is; give it a key of its own."
            )


def _consumer_faults(topology: Topology, consumers: Mapping[str, type[Message]]) -> Iterator[str]:
    rows = {queue.name for queue in topology.queues if queue.kind is not QueueKind.PARKING}
    for name in consumers:
        if name not in rows:
            yield f"consumer of {name}: the table has no such queue that may be consumed."


def _discard_faults(topology: Topology, discards: Collection[type[Message]]) -> Iterator[str]:
    for message in topology.messages:
        if message.about and message not in discards:
            yield (
                f"message {message.__name__}: nothing ends what its {message.about} names when its dead letter is "
                "discarded; register what does."
            )
    for message in discards:
        if message not in topology.messages:
            yield f"discard of {message.__name__}: the table has no such message."


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
