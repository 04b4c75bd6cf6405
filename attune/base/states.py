"""The states that rows can have. Who may go where stands in `executions.states`."""

from enum import StrEnum


class ExecutionStatus(StrEnum):
    REQUESTED = "requested"
    SCHEDULING = "scheduling"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELING = "canceling"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    ABANDONED = "abandoned"

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL


TERMINAL = frozenset(
    {
        ExecutionStatus.COMPLETED,
        ExecutionStatus.FAILED,
        ExecutionStatus.CANCELLED,
        ExecutionStatus.TIMEOUT,
        ExecutionStatus.ABANDONED,
    }
)


class EnforcementStatus(StrEnum):
    CREATED = "created"
    PROCESSED = "processed"
    DISABLED = "disabled"
    """Its rule, or what that needs, was gone or switched off by the time."""
    SKIPPED = "skipped"
    """An execution of the rule had not ended, and the rule says that they do not overlap."""
    FAILED = "failed"
    """The rule matched, and the parameters for its action cannot be filled in, or the action causes what fires it."""
