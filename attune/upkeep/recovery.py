"""What an earlier boot left behind: executions that ran when it ended."""

from dataclasses import dataclass

from attune.base.json import JsonObject, dumps
from attune.base.states import ExecutionStatus
from attune.bus.bus import Bus
from attune.bus.messages import Cause
from attune.executions import endings, queries
from attune.executions.model import Execution, Finished
from attune.executions.states import Step

SOURCE = "recovery"


@dataclass(frozen=True, slots=True)
class Recovered:
    """Ids of executions that were running, or being cancelled, when Attune ended."""

    abandoned: tuple[int, ...]
    cancelled: tuple[int, ...]


async def recover(bus: Bus) -> Recovered:
    """End what no process runs any more. Everything else goes on by its deliveries."""
    async with bus.transaction() as transaction:
        transaction.does("recover")
        left = await queries.open_executions(
            transaction.connection, [ExecutionStatus.RUNNING, ExecutionStatus.CANCELING]
        )
        if left:
            await endings.end(transaction, [_end(execution) for execution in left], SOURCE)
    return Recovered(
        tuple(execution.id for execution in left if execution.status is ExecutionStatus.RUNNING),
        tuple(execution.id for execution in left if execution.status is ExecutionStatus.CANCELING),
    )


def _end(execution: Execution) -> Finished:
    cancelled = execution.status is ExecutionStatus.CANCELING
    result: JsonObject = (
        {"succeeded": False, "cancelled": True, "error": "It was being cancelled when Attune ended."}
        if cancelled
        else {"succeeded": False, "error": "Attune ended while it ran; what it did is unknown."}
    )
    return Finished(
        execution=execution.id,
        action_ref=execution.action_ref,
        event=execution.event,
        step=Step.CANCEL if cancelled else Step.ABANDON,
        result=dumps(result),
        cause=Cause(execution.correlation_id, execution.causation_id, execution.depth + 1),
    )
