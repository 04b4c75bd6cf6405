"""The scheduler: a requested execution is checked and given to a worker, or refused with the reason."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

from attune.base.json import dumps, loads
from attune.base.states import ExecutionStatus
from attune.bus.messages import Cause, Delivery, Entity, ExecutionDispatched, ExecutionRequested
from attune.bus.outcomes import DONE, Outcome, Reject
from attune.bus.transaction import Transaction
from attune.catalog.definitions import Definitions
from attune.executions import endings, notices, queries
from attune.executions.model import Finished, Requested
from attune.executions.states import Step, sources
from attune.telemetry.stages import Stages

SOURCE = "scheduler"

Begin: TypeAlias = Callable[[Transaction, Sequence[tuple[Requested, Cause]]], Awaitable[Mapping[int, str]]]
"""Begins executions, each with the cause of what it publishes; why some of them cannot begin, by their ids."""

_Wanted: TypeAlias = tuple[Requested, Delivery[ExecutionRequested]]


class Scheduler:
    """Handles ExecutionRequested. There is one worker: it gets everything but what begins elsewhere."""

    def __init__(self, definitions: Definitions, stages: Stages, worker: int, begins: Mapping[str, Begin]) -> None:
        """`begins` are those who begin what no worker runs, by the refs of actions."""
        self._definitions = definitions
        self._stages = stages
        self._worker = worker
        self._begins = begins

    async def handle(
        self, transaction: Transaction, batch: Sequence[Delivery[ExecutionRequested]]
    ) -> Sequence[Outcome]:
        connection = transaction.connection
        found, version = await queries.requested_with_version(
            connection, [delivery.message.execution_id for delivery in batch]
        )
        await self._definitions.follow(connection, version)
        outcomes: list[Outcome] = []
        dispatched: dict[int, Delivery[ExecutionRequested]] = {}
        elsewhere: dict[str, list[_Wanted]] = {}
        refused: list[Finished] = []
        for delivery in batch:
            execution = found.get(delivery.message.execution_id)
            if execution is None:
                outcomes.append(Reject(f"There is no execution {delivery.message.execution_id}."))
                continue
            outcomes.append(DONE)
            if execution.status not in sources(Step.DISPATCH):
                continue
            reason = self._refusal(execution)
            if reason is not None:
                refused.append(_refused(execution, delivery, reason))
            elif execution.action_ref in self._begins:
                elsewhere.setdefault(execution.action_ref, []).append((execution, delivery))
            else:
                dispatched[execution.id] = delivery
        if dispatched:
            await self._dispatch(transaction, dispatched)
        for action_ref, wanted in elsewhere.items():
            refused += await self._begin(transaction, action_ref, wanted)
        if refused:
            await endings.end(transaction, refused, SOURCE)
        return outcomes

    def _refusal(self, execution: Requested) -> str | None:
        action = self._definitions.actions.by_ref.get(execution.action_ref)
        if action is None:
            return f"There is no action {execution.action_ref}."
        problems = self._definitions.parameters.of(action).problems(loads(execution.config))
        if problems:
            return f"The parameters do not fit {action.ref}: " + "; ".join(str(problem) for problem in problems)
        return None

    async def _begin(self, transaction: Transaction, action_ref: str, wanted: Sequence[_Wanted]) -> list[Finished]:
        """Begin executions that no worker runs; the ends of those that cannot begin."""
        begun = [(execution, delivery.envelope.effect()) for execution, delivery in wanted]
        reasons = await self._begins[action_ref](transaction, begun)
        return [_refused(one, delivery, reasons[one.id]) for one, delivery in wanted if one.id in reasons]

    async def _dispatch(self, transaction: Transaction, wanted: dict[int, Delivery[ExecutionRequested]]) -> None:
        rows = await queries.dispatch(
            transaction.connection,
            sorted(wanted),
            self._worker,
            transaction.now,
            watched=transaction.shows(Entity.EXECUTION),
        )
        notices.executions_changed(transaction, rows, ExecutionStatus.SCHEDULED)
        for row in rows:
            execution_id = row["id"]
            delivery = wanted[execution_id]
            message = delivery.message
            transaction.publish(
                ExecutionDispatched(
                    execution_id=execution_id,
                    action_ref=message.action_ref,
                    worker_id=self._worker,
                    event_id=message.event_id,
                    rule_ref=message.rule_ref,
                    trigger_ref=message.trigger_ref,
                    event_created=message.event_created,
                ),
                delivery.envelope.effect(),
                SOURCE,
            )
            if self._stages.enabled:
                transaction.after_commit(
                    partial(
                        self._stages.log,
                        "execution scheduled",
                        event=message.event_id,
                        execution=execution_id,
                        worker=self._worker,
                    )
                )


def _refused(execution: Requested, delivery: Delivery[ExecutionRequested], reason: str) -> Finished:
    return Finished(
        execution=execution.id,
        action_ref=execution.action_ref,
        event=delivery.message.event_id,
        step=Step.REFUSE,
        result=dumps({"succeeded": False, "error": reason}),
        cause=delivery.envelope.effect(),
    )
