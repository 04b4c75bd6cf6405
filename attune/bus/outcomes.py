"""What a consumer says of a delivery."""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Done:
    """Its effects are in this transaction."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Not now: once more after `after` seconds, which counts as an attempt."""

    after: float
    reason: str


@dataclass(frozen=True, slots=True)
class Reject:
    """Never: a dead letter, at once."""

    reason: str


Outcome: TypeAlias = Done | Retry | Reject

DONE = Done()


def back_off(attempt: int) -> float:
    """Seconds to wait after `attempt` failed: 1, 4, 16, 64, 256, then always 300."""
    return float(min(4 ** min(attempt - 1, 9), 300))


class BatchTooLarge(Exception):
    """What a handler raises when a batch would cause more than one transaction should write: each delivery is handled
    in a transaction of its own then."""
