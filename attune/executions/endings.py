"""The end of an execution: its terminal state and the message about it, in one transaction, wherever it comes from."""

from collections.abc import Sequence

from attune.bus.messages import ExecutionCompleted
from attune.bus.transaction import Transaction
from attune.executions import queries
from attune.executions.model import Finished
from attune.executions.states import target


async def end(transaction: Transaction, ends: Sequence[Finished], source: str) -> Sequence[bool]:
    """End executions, the only way to a terminal state. For each, whether it could end so: another end may have come
    first."""
    ended = await queries.finish(transaction.connection, ends, transaction.now)
    for one in ends:
        if one.execution in ended:
            transaction.publish(
                ExecutionCompleted(
                    execution_id=one.execution,
                    action_ref=one.action_ref,
                    status=target(one.step),
                    event_id=one.event,
                ),
                one.cause,
                source,
            )
    return [one.execution in ended for one in ends]
