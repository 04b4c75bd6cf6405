"""Histograms of durations, for those who have many at once."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from itertools import accumulate

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
"""The largest duration of each bucket, in seconds; beyond the last there is one more."""

_LABELS = (*map(str, BOUNDS), "+Inf")


class Histogram:
    """Counts durations by their size. `sum` is what they are together, in seconds."""

    __slots__ = ("_counts", "sum")

    def __init__(self) -> None:
        self.sum = 0.0
        self._counts = [0] * (len(BOUNDS) + 1)

    def observe(self, seconds: float, count: int = 1) -> None:
        """Count a duration, or so many of the same."""
        # A wall clock that was set back, or a timer that is early by a tick, is no negative duration.
        seconds = max(seconds, 0.0)
        self.sum += seconds * count
        self._counts[bisect_left(BOUNDS, seconds)] += count

    def observe_since(self, moments: Iterable[datetime], now: datetime) -> None:
        """Count the time from each moment until now. What was written together has one moment, so there are few."""
        for moment, count in Counter(moments).items():
            self.observe((now - moment).total_seconds(), count)

    def buckets(self) -> list[tuple[str, float]]:
        """For each bound how many durations did not exceed it; the last counts all."""
        return list(zip(_LABELS, accumulate(self._counts), strict=True))
