"""Completion: what follows from the end of an execution."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import anyio
import structlog

from attune.base.states import ExecutionStatus
from attune.bus.messages import Delivery, ExecutionCompleted
from attune.bus.outcomes import DONE, Outcome
from attune.bus.transaction import Transaction
from attune.database.pool import Row
from attune.executions import queries
from attune.telemetry.metrics import Instruments
from attune.telemetry.stages import Stages

log = structlog.get_logger()


class Waiters:
    """Those in this process who wait for the end of an execution (subject `execution:7`), or of the executions of an
    event (`event:5`, at each end). A hint wakes them; the row tells them."""

    def __init__(self) -> None:
        self._events: dict[str, set[anyio.Event]] = {}

    @contextmanager
    def expect(self, subject: str) -> Iterator[anyio.Event]:
        """Is set when the subject may have ended. Whoever reads its row inside the block misses no end."""
        event = anyio.Event()
        self._events.setdefault(subject, set()).add(event)
        try:
            yield event
        finally:
            waiting = self._events[subject]
            waiting.discard(event)
            if not waiting:
                del self._events[subject]

    def wake(self, subject: str) -> None:
        """Tell those who wait for this subject."""
        for event in self._events.get(subject, ()):
            event.set()


class Completion:
    """Handles ExecutionCompleted: tells the log, the metrics and those who wait."""

    def __init__(self, waiters: Waiters, stages: Stages, instruments: Instruments) -> None:
        self._waiters = waiters
        self._stages = stages
        self._instruments = instruments

    async def handle(
        self, transaction: Transaction, batch: Sequence[Delivery[ExecutionCompleted]]
    ) -> Sequence[Outcome]:
        rows = await queries.endings(transaction.connection, [delivery.message.execution_id for delivery in batch])
        ended = {row["id"]: row for row in rows}
        transaction.after_commit(lambda: self._tell(batch, ended))
        return [DONE] * len(batch)

    def _tell(self, batch: Sequence[Delivery[ExecutionCompleted]], ended: dict[int, Row]) -> None:
        self._instruments.ended((delivery.message.status, delivery.message.action_ref) for delivery in batch)
        for delivery in batch:
            message = delivery.message
            row = ended.get(message.execution_id)
            self._waiters.wake(f"execution:{message.execution_id}")
            if message.event_id is not None:
                self._waiters.wake(f"event:{message.event_id}")
            if row is not None:
                _log(message, row)


def _log(message: ExecutionCompleted, row: Row) -> None:
    values = {
        "_event": message.event_id,
        "execution": message.execution_id,
        "action": message.action_ref,
        "status": row["status"],
        "duration_ms": row["duration_ms"],
        "error": row["error"],
    }
    known = {name: value for name, value in values.items() if value is not None}
    if message.status is ExecutionStatus.COMPLETED:
        log.info("execution finished", **known)
    else:
        log.warning("execution finished", **known)
