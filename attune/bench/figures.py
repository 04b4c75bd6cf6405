"""Figures of a measurement."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from attune.telemetry.stages import Stages


@dataclass(frozen=True, slots=True)
class Spread:
    """Milliseconds that half, and 99 of 100, did not exceed."""

    p50: float
    p99: float


def spread(seconds: Sequence[float]) -> Spread:
    """The spread of durations in seconds; zeros without any."""
    return Spread(_at(seconds, 0.5), _at(seconds, 0.99))


def _at(seconds: Sequence[float], share: float) -> float:
    ordered = sorted(seconds)
    return round(1000 * ordered[min(int(share * len(ordered)), len(ordered) - 1)], 2) if ordered else 0.0


class Recorder(Stages):
    """Notes when each event reached each stage, by the wall clock in seconds, while it is switched on."""

    def __init__(self) -> None:
        super().__init__(visible=False, debug=False)
        self.reached: dict[int, dict[str, float]] = {}

    def log(self, stage: str, *, event: int | None, **_: object) -> None:
        if self.enabled and event is not None:
            self.reached.setdefault(event, {})[stage] = time.time()

    def between(self, first: str, last: str) -> list[float]:
        """Seconds from one stage to another, of all events that reached both."""
        return [stages[last] - stages[first] for stages in self.reached.values() if first in stages and last in stages]
