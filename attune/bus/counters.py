"""What the bus counts since its start, per queue and per route."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class QueueCounters:
    """`rescued` are deliveries that only the sweep found: each is a defect of the hand-over, but none was lost."""

    delivered: int = 0
    done: int = 0
    retried: int = 0
    dead: int = 0
    rescued: int = 0


@dataclass(slots=True)
class Counters:
    queues: dict[str, QueueCounters] = field(default_factory=dict)
    messages: Counter[str] = field(default_factory=Counter)
    """Those that were published, by type, whatever the number of their queues."""
    published: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By message type and queue."""
    commits: int = 0
    """Transactions that may have changed something: who watches for changes need not look while it stays the same."""
    unroutable: Counter[str] = field(default_factory=Counter)
    """By message type."""

    def of(self, queue: str) -> QueueCounters:
        """The counters of a queue."""
        return self.queues.setdefault(queue, QueueCounters())
