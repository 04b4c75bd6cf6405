"""How much waits, and when that is too much."""

from dataclasses import dataclass

from attune.base.clock import Clock
from attune.base.errors import BacklogFull

REOPENS_AT = 0.9
"""The share of the limit below which it is not too much any more: without a gap the answer would flicker."""

_SHORTEST, _LONGEST = 1, 60
_GUESS = 5
_ENOUGH_TO_TELL = 1.0


@dataclass(slots=True)
class Backlog:
    """How many deliveries wait: added up from commits, and set right now and then."""

    waiting: int = 0


class BacklogLimit:
    """Says whether too much waits."""

    def __init__(self, backlog: Backlog, limit: int, clock: Clock) -> None:
        self._backlog = backlog
        self._limit = limit
        self._clock = clock
        self._is_over = False
        # Where the backlog turned: what it has lost since tells how fast it shrinks.
        self._peak = 0
        self._peaked_at = 0.0

    def refusal(self) -> BacklogFull | None:
        """Why nothing more should come, or None."""
        waiting, now = self._backlog.waiting, self._clock.monotonic()
        reopens = int(REOPENS_AT * self._limit)
        was_over = self._is_over
        self._is_over = waiting >= reopens if was_over else waiting > self._limit
        if not self._is_over:
            return None
        if not was_over or waiting >= self._peak:
            self._peak, self._peaked_at = waiting, now
        return BacklogFull(
            f"{waiting:,} deliveries wait already. More is taken when fewer than {reopens:,} do (bus.max_backlog is "
            f"{self._limit:,}); attune bus queues shows where they wait.",
            self._retry_after(waiting - reopens, self._peak - waiting, now - self._peaked_at),
        )

    def _retry_after(self, excess: int, lost: int, seconds: float) -> int:
        """Seconds until the excess is gone, as far as what was lost in some seconds tells."""
        if seconds < _ENOUGH_TO_TELL:
            return _GUESS
        return min(max(round(excess * seconds / lost), _SHORTEST), _LONGEST) if lost else _LONGEST
