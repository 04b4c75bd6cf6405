"""The check of the routing table: no message may get lost, and nothing that waits for one may wait for ever."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from attune.base.errors import TopologyError
from attune.bus.messages import EventCreated, Message, RuleChanged
from attune.bus.topology import TOPOLOGY, Queue, QueueKind, Topology, check

CONSUMERS = {queue.name: queue.message for queue in TOPOLOGY.queues if queue.message is not None}
WAITED_FOR: set[type[Message]] = {message for message in TOPOLOGY.messages if message.about}


def test_a_table_in_which_every_dead_letter_has_an_end_is_good() -> None:
    check(TOPOLOGY, CONSUMERS, WAITED_FOR)
    # That nothing waits for a message does not forbid that something follows from its end.
    check(TOPOLOGY, CONSUMERS, WAITED_FOR | {RuleChanged})


@pytest.mark.parametrize("message", sorted(WAITED_FOR, key=str), ids=lambda one: one.__name__)
def test_t26_a_message_whose_dead_letter_leaves_somebody_waiting_is_refused_by_name(message: type[Message]) -> None:
    with pytest.raises(TopologyError, match=f"message {message.__name__}: nothing ends what its {message.about} names"):
        check(TOPOLOGY, CONSUMERS, WAITED_FOR - {message})


def test_an_end_for_a_message_that_does_not_exist_is_refused_by_name() -> None:
    stray = type("Stray", (Message,), {}, exchange="test", key="stray")
    with pytest.raises(TopologyError, match="discard of Stray: the table has no such message"):
        check(TOPOLOGY, CONSUMERS, WAITED_FOR | {stray})


EVENTS = "attune.events.queue"
WORKER = "worker.{worker_id}.executions"


class Twin(Message, exchange="attune.events", key="event.created"):
    """Another message with a key that is taken."""


class Namesake(Message, exchange="attune.events", key="namesake"):
    """Another message with a name that is taken."""


Namesake.__name__ = "EventCreated"


def changed(row: str, /, **fields: Any) -> Topology:
    """The table with one row that is otherwise."""
    assert row in CONSUMERS
    queues = tuple(replace(queue, **fields) if queue.name == row else queue for queue in TOPOLOGY.queues)
    return replace(TOPOLOGY, queues=queues)


def without(name: str) -> Topology:
    return replace(TOPOLOGY, queues=tuple(queue for queue in TOPOLOGY.queues if queue.name != name))


def beside(*messages: type[Message]) -> Topology:
    """The table with more messages, each with a queue of its own."""
    queues = [
        Queue(f"{number}", QueueKind.WORK, message.exchange, (message.key,), message, "another")
        for number, message in enumerate(messages)
    ]
    return replace(TOPOLOGY, messages=(*TOPOLOGY.messages, *messages), queues=(*TOPOLOGY.queues, *queues))


# A table that is broken, the consumers that are there, and what is said.
BROKEN: list[tuple[str, Topology, Mapping[str, type[Message]], str]] = [
    ("T-11, one key", beside(Twin), {**CONSUMERS, "0": Twin}, "published to attune.events with key event.created, as"),
    ("T-11, one name", beside(Namesake), {**CONSUMERS, "0": Namesake}, "there are two classes of this name"),
    ("T-12, another exchange", changed(EVENTS, exchange="attune.executions"), CONSUMERS, "bind the queue to attune.ev"),
    ("T-12, no exchange", changed(EVENTS, exchange="attune.event"), CONSUMERS, "exchange attune.event is unknown"),
    ("T-12, another key", changed(EVENTS, keys=("event.made",)), CONSUMERS, "'event.made' is never published by Event"),
    ("T-13, a wildcard", changed(EVENTS, keys=("event.#",)), CONSUMERS, "'event.#' is a wildcard; name the exact keys"),
    ("T-13, all", changed(EVENTS, keys=("*",)), CONSUMERS, "'*' is a wildcard"),
    (
        "T-14, another consumer",
        TOPOLOGY,
        {**CONSUMERS, EVENTS: RuleChanged},
        "its consumer 'rule matcher' takes RuleCh",
    ),
    ("T-14, two rows", changed(WORKER, name=EVENTS), CONSUMERS, "stands in the table twice; a queue has one row"),
    ("T-16, no consumer", TOPOLOGY, {EVENTS: EventCreated}, "has no consumer; register 'completion' or remove the row"),
    ("T-16, no key", changed(EVENTS, keys=()), CONSUMERS, "has no key, so nothing reaches it"),
    ("T-16, no message", changed(EVENTS, message=None), CONSUMERS, "has no message class; only a parking queue may"),
    ("T-17, no queue", without(EVENTS), CONSUMERS, "message EventCreated: no queue is bound to attune.events with key"),
    ("T-18, nobody's", changed(WORKER, name="worker.executions"), CONSUMERS, "its name must hold {worker_id}"),
    (
        "T-18, of all",
        changed(WORKER, kind=QueueKind.WORK),
        CONSUMERS,
        "is of kind work, but ExecutionDispatched is add",
    ),
    ("a stranger", TOPOLOGY, {**CONSUMERS, "attune.dlx.queue": EventCreated}, "no such queue that may be consumed"),
]


@pytest.mark.parametrize(
    ("topology", "consumers", "told"), [case[1:] for case in BROKEN], ids=[one[0] for one in BROKEN]
)
def test_a_table_in_which_a_message_could_get_lost_is_refused_with_the_row_and_the_remedy(
    topology: Topology, consumers: Mapping[str, type[Message]], told: str
) -> None:
    with pytest.raises(TopologyError) as refused:
        check(topology, consumers, WAITED_FOR)
    assert told in refused.value.message


def test_all_that_is_wrong_is_said_at_once() -> None:
    queues = tuple(replace(queue, keys=("#",)) for queue in TOPOLOGY.queues)
    with pytest.raises(TopologyError) as refused:
        check(replace(TOPOLOGY, queues=queues), CONSUMERS, WAITED_FOR)
    for queue in TOPOLOGY.queues:
        assert queue.kind is QueueKind.PARKING or f"queue {queue.name}: key '#' is a wildcard" in refused.value.message
