"""Asking for executions, and asking them to stop."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from attune.base.errors import BadInput, Conflict, NotFound
from attune.base.json import JsonObject, dumps
from attune.base.schema import validate, with_defaults
from attune.base.states import ExecutionStatus
from attune.bus.bus import Bus
from attune.bus.messages import Cause, ExecutionCancelRequested, ExecutionRequested
from attune.bus.transaction import Transaction
from attune.catalog import queries as catalog
from attune.catalog.model import Action
from attune.database.group_commit import GroupCommit
from attune.database.ids import uuid7
from attune.database.pool import Connection
from attune.events.idempotency import Keyed, Taken, write_once
from attune.events.ingress import Ingress
from attune.events.model import Key
from attune.executions import endings, notices, queries
from attune.executions.model import Execution, Finished, NewExecution, Origin
from attune.executions.states import Step, sources

SOURCE = "api"

Withdraw: TypeAlias = Callable[[Transaction, int], Awaitable[None]]
"""Withdraws the questions that an execution has asked."""


def nobody() -> Origin:
    """Where something comes from that no execution of ours has asked for: the beginning of a chain."""
    return Origin(None, Cause(uuid7(), None, 0))


class Requests:
    """What people ask of executions."""

    def __init__(self, bus: Bus, writer: GroupCommit[Transaction], ingress: Ingress, withdraw: Withdraw) -> None:
        self._bus = bus
        self._writer = writer
        self._ingress = ingress
        self._withdraw = withdraw

    async def execute(
        self,
        action_ref: str,
        parameters: JsonObject,
        executor: int | None,
        key: Key | None = None,
        origin: Origin | None = None,
    ) -> int:
        """The id of a new execution of an action, which begins a chain unless an `origin` is given. Raises NotFound for
        an unknown action and BadInput for parameters that do not fit it, with JSON Pointers below /parameters.

        With a `key` it is asked for once. Raises Taken when it was before, and Unavailable while nothing may come in.
        """
        self._ingress.check()
        async with self._bus.database.acquire() as connection:
            action, config = await _completed(connection, action_ref, parameters)
        origin = origin or nobody()
        new = NewExecution(
            action=action.id,
            action_ref=action.ref,
            config=dumps(config),
            enforcement=None,
            executor=executor,
            cause=origin.cause,
            parent=origin.execution,
        )
        if key is None:
            return await self._writer.submit(_request, new)
        execution = await self._writer.submit(_request_once, (new, key))
        if execution is None:
            raise Taken
        return execution

    async def rerun(
        self, execution_id: int, changes: JsonObject, executor: int | None, origin: Origin | None = None
    ) -> int:
        """The id of an execution that does once more what another did, with its parameters and `changes` to them.

        Raises NotFound, Conflict unless that one has ended, BadInput when the parameters do not fit the action as it is
        now, and Unavailable while nothing may come in.
        """
        self._ingress.check()
        async with self._bus.transaction() as transaction:
            original = await queries.lock(transaction.connection, execution_id)
            if original is None:
                raise NotFound(f"There is no execution {execution_id}.")
            if not original.status.is_terminal:
                raise Conflict(f"Execution {execution_id} has not ended: it is {original.status}. Cancel it first.")
            _, config = await _completed(transaction.connection, original.action_ref, original.config | changes)
            origin = origin or nobody()
            row = await queries.insert_rerun(
                transaction.connection, execution_id, dumps(config), executor, origin, transaction.now
            )
            assert row is not None, "its row is locked"
            notices.execution_created(
                transaction,
                row["id"],
                action=row["action"],
                action_ref=row["action_ref"],
                enforcement=row["enforcement"],
                rule_ref=row["rule_ref"],
                trigger_ref=row["trigger_ref"],
                parent=origin.execution,
            )
            transaction.publish(
                ExecutionRequested(
                    execution_id=row["id"],
                    action_ref=row["action_ref"],
                    enforcement_id=row["enforcement"],
                    event_id=row["event"],
                    rule_ref=row["rule_ref"],
                    trigger_ref=row["trigger_ref"],
                ),
                origin.cause,
                SOURCE,
            )
            rerun: int = row["id"]
            return rerun

    async def cancel(self, execution_id: int) -> Execution:
        """The execution after it was asked to stop: `cancelled` if it had not begun or waited for an answer,
        `canceling` while it runs. What it has asked is withdrawn.

        Asking again changes nothing. Raises NotFound, and Conflict when it has ended already.
        """
        async with self._bus.transaction() as transaction:
            # First, in the order in which everybody locks: inquiries, then executions.
            await self._withdraw(transaction, execution_id)
            execution = await queries.lock(transaction.connection, execution_id)
            if execution is None:
                raise NotFound(f"There is no execution {execution_id}.")
            if execution.status.is_terminal:
                raise Conflict(f"Execution {execution_id} has ended already: it is {execution.status}.")
            if execution.status is ExecutionStatus.RUNNING:
                await self._stop(transaction, execution)
            elif execution.status in sources(Step.CANCEL) and execution.status is not ExecutionStatus.CANCELING:
                await endings.end(transaction, [_cancelled(execution)], SOURCE)
            changed = await queries.execution(transaction.connection, execution_id)
            assert changed is not None
            return changed

    async def _stop(self, transaction: Transaction, execution: Execution) -> None:
        if execution.worker is None:
            await endings.end(transaction, [withdrawn(execution, "It was cancelled while it waited.")], SOURCE)
            return
        rows = await queries.ask_to_stop(transaction.connection, execution.id, transaction.now)
        notices.executions_changed(transaction, rows, ExecutionStatus.CANCELING)
        transaction.publish(
            ExecutionCancelRequested(execution_id=execution.id, worker_id=execution.worker), _cause(execution), SOURCE
        )


async def _completed(connection: Connection, action_ref: str, parameters: JsonObject) -> tuple[Action, JsonObject]:
    """An action, and the parameters for it with their defaults. Raises NotFound and BadInput."""
    action = await catalog.definition(connection, "action", action_ref)
    if not isinstance(action, Action):
        raise NotFound(f"There is no action {action_ref}.")
    config = with_defaults(parameters, action.param_schema)
    problems = validate(config, action.param_schema, where="/parameters")
    if problems:
        raise BadInput(f"The parameters do not fit {action_ref}.", problems)
    return action, config


async def _request(transaction: Transaction, new: Sequence[NewExecution]) -> Sequence[int]:
    ids = []
    for execution in new:
        execution_id = await queries.insert_execution(transaction.connection, execution, transaction.now)
        notices.execution_created(
            transaction,
            execution_id,
            action=execution.action,
            action_ref=execution.action_ref,
            parent=execution.parent,
        )
        transaction.publish(
            ExecutionRequested(
                execution_id=execution_id,
                action_ref=execution.action_ref,
                enforcement_id=None,
                event_id=None,
                rule_ref=None,
                trigger_ref=None,
            ),
            execution.cause,
            SOURCE,
        )
        ids.append(execution_id)
    return ids


async def _request_once(transaction: Transaction, new: Sequence[Keyed[NewExecution]]) -> Sequence[int | None]:
    return await write_once(transaction, new, _request, lambda execution: execution)


def withdrawn(execution: Execution, why: str) -> Finished:
    """The end of an execution that waited for an answer which nobody has to give any more."""
    return Finished(
        execution=execution.id,
        action_ref=execution.action_ref,
        event=execution.event,
        step=Step.WITHDRAW,
        result=dumps({"succeeded": False, "cancelled": True, "error": why}),
        cause=_cause(execution),
    )


def _cancelled(execution: Execution) -> Finished:
    return Finished(
        execution=execution.id,
        action_ref=execution.action_ref,
        event=execution.event,
        step=Step.CANCEL,
        result=dumps({"succeeded": False, "cancelled": True, "error": "It was cancelled before it began."}),
        cause=_cause(execution),
    )


def _cause(execution: Execution) -> Cause:
    return Cause(execution.correlation_id, execution.causation_id, execution.depth + 1)
