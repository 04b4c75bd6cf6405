"""What live views are shown of enforcements and executions."""

from collections.abc import Iterable

from attune.base.states import EnforcementStatus, ExecutionStatus
from attune.bus.messages import Entity, NotificationType
from attune.bus.transaction import Transaction
from attune.database.pool import Row
from attune.executions.model import NewEnforcement


def enforcement_created(transaction: Transaction, enforcement_id: int, new: NewEnforcement) -> None:
    """Show a new enforcement."""
    if transaction.shows(Entity.ENFORCEMENT):
        transaction.notify(
            NotificationType.ENFORCEMENT_CREATED,
            enforcement_id,
            {
                "rule": new.rule,
                "rule_ref": new.rule_ref,
                "trigger_ref": new.trigger_ref,
                "event": new.event,
                "status": EnforcementStatus.CREATED,
                "created": transaction.now,
                "resolved_at": None,
            },
        )


def enforcements_resolved(transaction: Transaction, rows: Iterable[Row], status: EnforcementStatus) -> None:
    """Show enforcements that were closed: rows of `resolve_enforcements`."""
    if not transaction.shows(Entity.ENFORCEMENT):
        return
    for row in rows:
        transaction.notify(
            NotificationType.ENFORCEMENT_STATUS_CHANGED,
            row["id"],
            {
                "rule": row["rule"],
                "rule_ref": row["rule_ref"],
                "trigger_ref": row["trigger_ref"],
                "event": row["event"],
                "status": status,
                "created": row["created"],
                "resolved_at": transaction.now,
            },
        )


def execution_created(
    transaction: Transaction,
    execution_id: int,
    *,
    action: int | None,
    action_ref: str,
    enforcement: int | None = None,
    rule_ref: str | None = None,
    trigger_ref: str | None = None,
    parent: int | None = None,
    status: ExecutionStatus = ExecutionStatus.REQUESTED,
) -> None:
    """Show a new execution."""
    if transaction.shows(Entity.EXECUTION):
        transaction.notify(
            NotificationType.EXECUTION_CREATED,
            execution_id,
            {
                "action_id": action,
                "action_ref": action_ref,
                "status": status,
                "enforcement": enforcement,
                "rule_ref": rule_ref,
                "trigger_ref": trigger_ref,
                "parent": parent,
                "started_at": None,
                "finished_at": None,
                "error": None,
                "created": transaction.now,
                "updated": transaction.now,
            },
        )


def executions_changed(transaction: Transaction, rows: Iterable[Row], status: ExecutionStatus) -> None:
    """Show executions that came to another state: rows with what live views show of them."""
    if not transaction.shows(Entity.EXECUTION):
        return
    for row in rows:
        transaction.notify(
            NotificationType.EXECUTION_STATUS_CHANGED,
            row["id"],
            {
                "action_id": row["action"],
                "action_ref": row["action_ref"],
                "status": status,
                "old_status": row["old_status"],
                "enforcement": row["enforcement"],
                "rule_ref": row["rule_ref"],
                "trigger_ref": row["trigger_ref"],
                "parent": row["parent"],
                "started_at": row["started_at"],
                "finished_at": row["finished_at"],
                "error": row["error"],
                "created": row["created"],
                "updated": transaction.now,
            },
        )
