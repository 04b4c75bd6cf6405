"""What live views are shown of enforcements and executions."""

from collections.abc import Iterable

from attune.base.states import EnforcementStatus, ExecutionStatus
from attune.bus.messages import Entity, NotificationType
from attune.bus.transaction import Transaction
from attune.database.pool import Row
from attune.executions.model import NewEnforcement


def columns_if(flag: str, values: dict[str, str]) -> str:
    """Columns for live views, which are null unless `flag` is true: then they cost next to nothing."""
    return ", ".join(f"CASE WHEN {flag} THEN {value} END AS {name}" for name, value in values.items())


def execution_columns(flag: str) -> str:
    """What live views show of executions `e` that a statement changes. A subquery sees the row as it was before."""
    return columns_if(
        flag,
        {
            "action": "e.action",
            "action_ref": "e.action_ref",
            "enforcement": "e.enforcement",
            "parent": "e.parent",
            "created": "e.created",
            "started_at": "e.started_at",
            "finished_at": "e.finished_at",
            "error": "left(e.result ->> 'error', 300)",
            "rule_ref": "(SELECT rule_ref FROM attune.enforcement WHERE id = e.enforcement)",
            "trigger_ref": "(SELECT trigger_ref FROM attune.enforcement WHERE id = e.enforcement)",
            "old_status": "(SELECT status FROM attune.execution WHERE id = e.id)",
        },
    )


ENFORCEMENT_COLUMNS = {name: f"n.{name}" for name in ("rule", "rule_ref", "trigger_ref", "event", "created")}


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
