"""The check of the routing table: nothing that waits for a message may wait for ever."""

import pytest

from attune.base.errors import TopologyError
from attune.bus.messages import Message, RuleChanged
from attune.bus.topology import TOPOLOGY, check

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
