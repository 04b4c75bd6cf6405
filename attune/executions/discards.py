"""What becomes of executions and enforcements whose dead letters are discarded."""

from attune.base.json import dumps
from attune.base.states import EnforcementStatus
from attune.bus.messages import (
    Delivery,
    EnforcementCreated,
    ExecutionCancelRequested,
    ExecutionCompleted,
    ExecutionDispatched,
    ExecutionRequested,
    Letter,
)
from attune.bus.transaction import Transaction
from attune.database.pool import Connection
from attune.executions import endings, enforcement_queries, queries
from attune.executions.model import Finished
from attune.executions.states import Step
from attune.executions.turns.turns import pass_on

SOURCE = "dead letters"


async def fail_enforcement(transaction: Transaction, delivery: Delivery[EnforcementCreated], letter: Letter) -> str:
    """Close an enforcement that was not processed: it failed."""
    enforcement = delivery.message.enforcement_id
    decision = (enforcement, EnforcementStatus.FAILED, _reason(letter))
    await endings.resolve(transaction, [decision])
    row = await enforcement_queries.enforcement_row(transaction.connection, enforcement)
    return _state("enforcement", enforcement, None if row is None else row["status"])


async def fail_execution(
    transaction: Transaction, delivery: Delivery[ExecutionRequested] | Delivery[ExecutionDispatched], letter: Letter
) -> str:
    """End an execution that has not begun: it failed, and everybody hears of it."""
    message = delivery.message
    finished = Finished(
        execution=message.execution_id,
        action_ref=message.action_ref,
        event=message.event_id,
        step=Step.GIVE_UP,
        result=dumps({"succeeded": False, "error": _reason(letter)}),
        cause=delivery.envelope.effect(),
    )
    await endings.end(transaction, [finished], SOURCE)
    return await _execution(transaction.connection, message.execution_id)


async def let_others_go_on(transaction: Transaction, delivery: Delivery[ExecutionCompleted], _: Letter) -> str:
    """Let whoever waits for the end of an execution go on. It is not tried again."""
    await pass_on(transaction, [delivery.message.execution_id], {}, SOURCE)
    return await _execution(transaction.connection, delivery.message.execution_id)


async def leave_execution(transaction: Transaction, delivery: Delivery[ExecutionCancelRequested], _: Letter) -> str:
    """Change nothing: an execution that nobody could stop goes on."""
    return await _execution(transaction.connection, delivery.message.execution_id)


async def _execution(connection: Connection, execution: int) -> str:
    return _state("execution", execution, (await queries.statuses(connection, [execution])).get(execution))


def _state(kind: str, number: int, status: str | None) -> str:
    return f"there is no {kind} {number}" if status is None else f"{kind} {number} is {status}"


def _reason(letter: Letter) -> str:
    return f"Its dead letter {letter.id} was discarded: {letter.error}"
