"""Every metric of Attune: its name, its kind, its labels and what it tells. The page on metrics is made of this."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from attune.telemetry.histogram import Histogram


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric with a value, or a histogram, for each combination of its labels."""

    name: str
    kind: Kind
    text: str
    labels: tuple[str, ...] = ()

    def of(self, values: Mapping[tuple[str, ...], float]) -> Metric:
        """The family with these values, each by its labels."""
        family = CounterMetricFamily if self.kind is Kind.COUNTER else GaugeMetricFamily
        metric = family(self.name, self.text, labels=self.labels)
        for labels, value in values.items():
            metric.add_metric(labels, value)
        return metric

    def of_histograms(self, histograms: Mapping[tuple[str, ...], Histogram]) -> Metric:
        """The family with these histograms, each by its labels."""
        metric = HistogramMetricFamily(self.name, self.text, labels=self.labels)
        for labels, histogram in histograms.items():
            metric.add_metric(labels, histogram.buckets(), histogram.sum)
        return metric


_QUEUE = ("queue", "message_type")

PUBLISHED = Family("attune_bus_published_total", Kind.COUNTER, "Messages that were published.", ("message_type",))
ROUTED = Family(
    "attune_bus_routed_total", Kind.COUNTER, "Deliveries of published messages: one for each queue.", _QUEUE
)
UNROUTABLE = Family(
    "attune_bus_unroutable_total",
    Kind.COUNTER,
    "Messages that had no queue. What would have caused them was refused.",
    ("message_type",),
)
DELIVERED = Family("attune_bus_delivered_total", Kind.COUNTER, "Deliveries that a consumer took, each attempt.", _QUEUE)
DONE = Family("attune_bus_done_total", Kind.COUNTER, "Deliveries that were handled.", _QUEUE)
RETRIED = Family("attune_bus_retried_total", Kind.COUNTER, "Failed attempts after which another follows.", _QUEUE)
DEAD = Family("attune_bus_dead_total", Kind.COUNTER, "Deliveries that became dead letters.", _QUEUE)
RESCUED = Family(
    "attune_bus_rescued_total",
    Kind.COUNTER,
    "Deliveries that only the sweep found: each is a defect of the hand-over, but none was lost.",
    _QUEUE,
)
WAITING = Family(
    "attune_bus_waiting", Kind.GAUGE, "Deliveries that wait for their consumer or for their next attempt.", _QUEUE
)
OLDEST = Family(
    "attune_bus_oldest_seconds", Kind.GAUGE, "Seconds since the oldest of them was published; 0 without any.", _QUEUE
)
DEAD_LETTERS = Family("attune_bus_dead_letters", Kind.GAUGE, "Dead letters that are kept.")
INGRESS_CLOSED = Family(
    "attune_ingress_closed",
    Kind.GAUGE,
    "1 while nothing is taken from outside: too little is free on the disk (`storage`), or too much waits (`backlog`).",
    ("reason",),
)
INGRESS_REFUSED = Family(
    "attune_ingress_refused_total", Kind.COUNTER, "Events and executions from outside that were refused.", ("reason",)
)
STORAGE_FREE = Family(
    "attune_storage_free_bytes", Kind.GAUGE, "Bytes that are free where the data lies, on the disk with the fewest."
)
HANDLER = Family(
    "attune_bus_handler_seconds", Kind.HISTOGRAM, "Seconds that a consumer worked on a batch.", ("consumer",)
)
HOP = Family(
    "attune_bus_hop_seconds",
    Kind.HISTOGRAM,
    "Seconds from the publication of a message to the commit of its consumer, of deliveries that were handled.",
    ("consumer",),
)
EVENT_TO_START = Family(
    "attune_event_to_start_seconds",
    Kind.HISTOGRAM,
    "Seconds from an event to the start of an execution that follows from it.",
)
TIMER_LATENESS = Family(
    "attune_timer_lateness_seconds",
    Kind.HISTOGRAM,
    "Seconds from the instant of a timer to its committed event, of missed instants that were made up for as well.",
)
EXECUTIONS = Family(
    "attune_executions_ended_total",
    Kind.COUNTER,
    "Executions that ended. Actions after the first 500 are counted as `other`.",
    ("status", "action_ref"),
)
WORKER_SLOTS = Family("attune_worker_slots", Kind.GAUGE, "Executions that can run at once.")
WORKER_SLOTS_BUSY = Family("attune_worker_slots_busy", Kind.GAUGE, "Executions that run.")
DATABASE_UP = Family(
    "attune_database_up",
    Kind.GAUGE,
    "1 when the database answered within two seconds. When it is 0, what stands in the database is left out.",
)
CONNECTIONS = Family("attune_database_connections", Kind.GAUGE, "Connections to the database.")
CONNECTIONS_IDLE = Family("attune_database_connections_idle", Kind.GAUGE, "Connections that nobody uses.")
CONNECTIONS_MAX = Family("attune_database_connections_max", Kind.GAUGE, "Connections to the database, at most.")
LOOP_LAG = Family(
    "attune_event_loop_lag_seconds",
    Kind.HISTOGRAM,
    "Seconds by which the event loop was late, measured four times a second.",
)
REMOVED = Family(
    "attune_retention_removed_total",
    Kind.COUNTER,
    "Rows that retention removed; of `logs`, the executions whose output it removed.",
    ("table",),
)
OVERDUE = Family(
    "attune_retention_overdue_seconds",
    Kind.GAUGE,
    "How old, beyond its limit, the oldest row is that should be gone; 0 when retention keeps up.",
)
STREAM_READERS = Family("attune_stream_readers", Kind.GAUGE, "Readers of live views, by how they read.", ("kind",))
STREAM_NOTIFICATIONS = Family(
    "attune_stream_notifications_total", Kind.COUNTER, "Notifications that were passed on, to each reader."
)
STREAM_CUT = Family("attune_stream_cut_total", Kind.COUNTER, "Readers that were cut because they did not keep up.")
BUILD_INFO = Family("attune_build_info", Kind.GAUGE, "Always 1; the label tells which release runs.", ("version",))
START_TIME = Family("attune_start_time_seconds", Kind.GAUGE, "When Attune was started, in seconds since 1970.")
