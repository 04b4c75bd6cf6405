"""What is measured while it happens: durations, and how executions ended."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime

from prometheus_client.metrics_core import Metric

from attune.telemetry import families
from attune.telemetry.histogram import Histogram

MOST_ACTIONS = 500
"""Actions that are told apart: each is a time series for every status."""

OTHER = "other"


class Instruments:
    """Told what happens, once for a batch or a transaction."""

    def __init__(self) -> None:
        self._handlers: defaultdict[str, Histogram] = defaultdict(Histogram)
        self._hops: defaultdict[str, Histogram] = defaultdict(Histogram)
        self._starts = Histogram()
        self._timers = Histogram()
        self._lag = Histogram()
        self._ended: Counter[tuple[str, ...]] = Counter()
        self._actions: set[str] = set()

    def handled(self, consumer: str, seconds: float) -> None:
        """A consumer worked on a batch."""
        self._handlers[consumer].observe(seconds)

    def done(self, consumer: str, published: Iterable[datetime], now: datetime) -> None:
        """Deliveries, published at these times, are done."""
        self._hops[consumer].observe_since(published, now)

    def started(self, events: Iterable[datetime], now: datetime) -> None:
        """Executions started that follow from events of these times."""
        self._starts.observe_since(events, now)

    def fired(self, instants: Iterable[datetime], now: datetime) -> None:
        """Timers have their events for these instants."""
        self._timers.observe_since(instants, now)

    def ended(self, ends: Iterable[tuple[str, str]]) -> None:
        """Executions ended: the status and the action of each."""
        for (status, action_ref), count in Counter(ends).items():
            self._ended[status, self._bounded(action_ref)] += count

    def lagged(self, seconds: float) -> None:
        """The event loop was late."""
        self._lag.observe(seconds)

    def collect(self) -> list[Metric]:
        """All of it, as it is now."""
        return [
            families.HANDLER.of_histograms({(consumer,): one for consumer, one in self._handlers.items()}),
            families.HOP.of_histograms({(consumer,): one for consumer, one in self._hops.items()}),
            families.EVENT_TO_START.of_histograms({(): self._starts}),
            families.TIMER_LATENESS.of_histograms({(): self._timers}),
            families.LOOP_LAG.of_histograms({(): self._lag}),
            families.EXECUTIONS.of(self._ended),
        ]

    def _bounded(self, action_ref: str) -> str:
        if len(self._actions) < MOST_ACTIONS:
            self._actions.add(action_ref)
        return action_ref if action_ref in self._actions else OTHER
