"""Which state an execution may go to, and why: one table, one function.

Whoever changes a status does it by compare-and-set on what `sources` gives, so that a terminal state never changes and
the first of two who race wins.
"""

from enum import StrEnum

from attune.base.states import TERMINAL, ExecutionStatus

S = ExecutionStatus


class Step(StrEnum):
    """What happens to an execution."""

    HOLD = "hold"
    """It has to wait until another execution of its rule has ended."""
    RELEASE = "release"
    """Its turn has come."""
    DISPATCH = "dispatch"
    """A worker was chosen."""
    REFUSE = "refuse"
    """It cannot be run: no such action, or the parameters do not fit."""
    GIVE_UP = "give up"
    """Somebody discarded the dead letter that it waited for."""
    START = "start"
    """The worker begins."""
    ASK = "ask"
    """Somebody is asked: no worker runs it, it waits for the answer."""
    COMPLETE = "complete"
    FAIL = "fail"
    TIME_OUT = "time out"
    """Its deadline has passed, and it was stopped."""
    ASK_TO_STOP = "ask to stop"
    """Somebody cancels it while it runs."""
    CANCEL = "cancel"
    """It was cancelled before it ran, or was stopped because somebody asked for it."""
    WITHDRAW = "withdraw"
    """It waited for an answer, which nobody has to give any more."""
    ABANDON = "abandon"
    """Attune stopped while it ran: nobody knows what it did."""


TRANSITIONS: dict[tuple[ExecutionStatus, Step], ExecutionStatus] = {
    (S.REQUESTED, Step.HOLD): S.SCHEDULING,
    (S.REQUESTED, Step.DISPATCH): S.SCHEDULED,
    (S.REQUESTED, Step.ASK): S.RUNNING,
    (S.REQUESTED, Step.REFUSE): S.FAILED,
    (S.REQUESTED, Step.GIVE_UP): S.FAILED,
    (S.REQUESTED, Step.CANCEL): S.CANCELLED,
    (S.SCHEDULING, Step.RELEASE): S.REQUESTED,
    (S.SCHEDULING, Step.DISPATCH): S.SCHEDULED,
    (S.SCHEDULING, Step.ASK): S.RUNNING,
    (S.SCHEDULING, Step.REFUSE): S.FAILED,
    (S.SCHEDULING, Step.GIVE_UP): S.FAILED,
    (S.SCHEDULING, Step.CANCEL): S.CANCELLED,
    (S.SCHEDULED, Step.REFUSE): S.FAILED,
    (S.SCHEDULED, Step.GIVE_UP): S.FAILED,
    (S.SCHEDULED, Step.START): S.RUNNING,
    (S.SCHEDULED, Step.CANCEL): S.CANCELLED,
    (S.RUNNING, Step.COMPLETE): S.COMPLETED,
    (S.RUNNING, Step.FAIL): S.FAILED,
    (S.RUNNING, Step.TIME_OUT): S.TIMEOUT,
    (S.RUNNING, Step.ASK_TO_STOP): S.CANCELING,
    (S.RUNNING, Step.WITHDRAW): S.CANCELLED,
    (S.RUNNING, Step.ABANDON): S.ABANDONED,
    # Who is asked to stop may be faster: what it did then counts.
    (S.CANCELING, Step.COMPLETE): S.COMPLETED,
    (S.CANCELING, Step.FAIL): S.FAILED,
    (S.CANCELING, Step.TIME_OUT): S.TIMEOUT,
    (S.CANCELING, Step.CANCEL): S.CANCELLED,
    (S.CANCELING, Step.ABANDON): S.ABANDONED,
}


def after(status: ExecutionStatus, step: Step) -> ExecutionStatus | None:
    """The state that `step` leads to from `status`; None when it cannot happen there."""
    return TRANSITIONS.get((status, step))


def sources(step: Step) -> frozenset[ExecutionStatus]:
    """The states in which `step` can happen."""
    return frozenset(status for status, possible in TRANSITIONS if possible is step)


def target(step: Step) -> ExecutionStatus:
    """The one state that `step` leads to, wherever it starts."""
    (status,) = {state for (_, possible), state in TRANSITIONS.items() if possible is step}
    return status


__all__ = ["TERMINAL", "TRANSITIONS", "Step", "after", "sources", "target"]
