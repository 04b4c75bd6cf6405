"""The end of an execution: its terminal state and the message about it, in one transaction, wherever it comes from; and
what becomes of an enforcement."""

from collections.abc import Sequence

from attune.base.states import EnforcementStatus
from attune.bus.messages import Entity, ExecutionCompleted
from attune.bus.transaction import Transaction
from attune.database.arrays import grouped
from attune.executions import enforcement_queries, notices, queries
from attune.executions.model import Finished
from attune.executions.states import Step, target


async def end(transaction: Transaction, ends: Sequence[Finished], source: str) -> Sequence[bool]:
    """End executions, the only way to a terminal state. For each, whether it could end so: another end may have come
    first."""
    ended: set[int] = set()
    for step, group in grouped(ends, _step).items():
        rows = await queries.finish(
            transaction.connection, step, group, transaction.now, watched=transaction.shows(Entity.EXECUTION)
        )
        notices.executions_changed(transaction, rows, target(step))
        ended.update(row["id"] for row in rows)
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


async def resolve(transaction: Transaction, decisions: Sequence[tuple[int, EnforcementStatus, str | None]]) -> None:
    """Close enforcements that are not closed: id, status and the reason for it."""
    for status, group in grouped(decisions, _decision).items():
        reasons = {enforcement: reason for enforcement, _, reason in group}
        rows = await enforcement_queries.resolve_enforcements(
            transaction.connection, status, reasons, transaction.now, watched=transaction.shows(Entity.ENFORCEMENT)
        )
        notices.enforcements_resolved(transaction, rows, status)


def _step(one: Finished) -> Step:
    return one.step


def _decision(row: tuple[int, EnforcementStatus, str | None]) -> EnforcementStatus:
    return row[1]
