"""Whether an execution that did not complete is tried again, and after how long: pure functions."""

from attune.base.states import ExecutionStatus
from attune.catalog.model import Action, Backoff

RETRYABLE = frozenset({ExecutionStatus.FAILED, ExecutionStatus.TIMEOUT, ExecutionStatus.ABANDONED})
"""The ends after which an action may ask for another attempt."""

LONGEST_DELAY = 86_400.0
"""Seconds."""


def why_not(action: Action | None, status: ExecutionStatus, retry_count: int, *, has_run: bool) -> str | None:
    """Why an attempt that ended in `status` is not followed by another; None when it is. One that never ran is not:
    what it lacks, an action or parameters that fit, no repetition brings."""
    if action is None:
        return "action gone"
    if not has_run or not action.max_retries or status.value not in action.retry_on:
        return "action not retryable"
    return None if retry_count < action.max_retries else "no retries left"


def delay(action: Action, number: int, noise: float) -> float:
    """Seconds to wait before retry `number`, which counts from 1. `noise` is a number from 0 to 1: with a jitter of 0.2
    it makes the delay 80 to 120 % of what it would be."""
    match Backoff(action.retry_backoff):
        case Backoff.CONSTANT:
            factor = 1.0
        case Backoff.LINEAR:
            factor = float(number)
        case Backoff.EXPONENTIAL:
            # The exponent is bounded, or the power would not be a float any more.
            factor = 2.0 ** min(number - 1, 100)
    spread = 1 + action.retry_jitter * (2 * noise - 1)
    return min(action.retry_delay * factor * spread, LONGEST_DELAY)
