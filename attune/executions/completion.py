"""Completion: what follows from the end of an execution."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import anyio
import structlog

from attune.base.states import ExecutionStatus
from attune.bus.messages import Delivery, ExecutionCompleted, ExecutionRequested
from attune.bus.outcomes import DONE, Outcome
from attune.bus.transaction import Transaction
from attune.catalog.definitions import Definitions
from attune.database.pool import Row
from attune.executions import notices, queries
from attune.executions.queries import NewRetry
from attune.executions.retries import RETRYABLE, delay, why_not
from attune.executions.streaks import Streaks
from attune.executions.turns.turns import pass_on
from attune.telemetry.metrics import Instruments
from attune.telemetry.stages import Stages

log = structlog.get_logger()

SOURCE = "completion"


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
    """Handles ExecutionCompleted: asks for the next attempt, counts failures in a row, passes turns on, and tells the
    log, the metrics and those who wait."""

    def __init__(
        self,
        definitions: Definitions,
        waiters: Waiters,
        stages: Stages,
        instruments: Instruments,
        noise: Callable[[], float],
    ) -> None:
        """`noise` gives numbers from 0 to 1, for the jitter of retries."""
        self._definitions = definitions
        self._waiters = waiters
        self._stages = stages
        self._instruments = instruments
        self._noise = noise
        self._streaks = Streaks()

    async def handle(
        self, transaction: Transaction, batch: Sequence[Delivery[ExecutionCompleted]]
    ) -> Sequence[Outcome]:
        rows = await queries.endings(transaction.connection, [delivery.message.execution_id for delivery in batch])
        ended = {row["id"]: row for row in rows}
        retries = await self._retry(transaction, batch, ended)
        in_order = (ended[one.message.execution_id] for one in batch if one.message.execution_id in ended)
        await self._streaks.count(transaction, [row for row in in_order if row["id"] not in retries])
        turns = [row["id"] for row in rows if row["takes_turns"]]
        if turns:
            await pass_on(transaction, turns, retries, SOURCE)
        transaction.after_commit(lambda: self._tell(batch, ended))
        return [DONE] * len(batch)

    async def _retry(
        self, transaction: Transaction, batch: Sequence[Delivery[ExecutionCompleted]], ended: Mapping[int, Row]
    ) -> dict[int, int]:
        """Ask for the next attempt of what has one; its id by execution."""
        failed = [one for one in batch if one.message.status in RETRYABLE and one.message.execution_id in ended]
        if not failed:
            return {}
        await self._definitions.follow(
            transaction.connection, ended[failed[0].message.execution_id]["definition_version"]
        )
        wanted: dict[tuple[int, int], tuple[NewRetry, Row]] = {}
        for delivery in failed:
            row = ended[delivery.message.execution_id]
            action = self._definitions.actions.by_ref.get(row["action_ref"])
            count, number = row["retry_count"], row["retry_count"] + 1
            if action and why_not(action, delivery.message.status, count, has_run=row["has_run"]) is None:
                new = NewRetry(row["id"], delay(action, number, self._noise()), delivery.envelope.effect())
                wanted[first_attempt(row), number] = (new, row)
        if not wanted:
            return {}
        made = await queries.insert_retries(
            transaction.connection, [new for new, _ in wanted.values()], transaction.now
        )
        retries = {}
        for retry in made:
            new, row = wanted[retry["original_execution"], retry["retry_count"]]
            retries[row["id"]] = retry["id"]
            self._request(transaction, retry, new, row)
        return retries

    def _request(self, transaction: Transaction, retry: Row, new: NewRetry, row: Row) -> None:
        notices.execution_created(
            transaction,
            retry["id"],
            action=retry["action"],
            action_ref=retry["action_ref"],
            enforcement=retry["enforcement"],
            rule_ref=retry["rule_ref"],
            trigger_ref=retry["trigger_ref"],
            parent=retry["parent"],
        )
        transaction.publish(
            ExecutionRequested(
                execution_id=retry["id"],
                action_ref=row["action_ref"],
                enforcement_id=retry["enforcement"],
                event_id=retry["event"],
                rule_ref=retry["rule_ref"],
                trigger_ref=retry["trigger_ref"],
            ),
            new.cause,
            SOURCE,
            after=new.delay,
        )
        transaction.after_commit(
            lambda: log.info(
                "execution is tried again",
                execution=row["id"],
                retry=retry["id"],
                number=retry["retry_count"],
                after_seconds=round(new.delay, 3),
            )
        )

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


def first_attempt(row: Row) -> int:
    """The first attempt of an execution, which may be itself. A re-run has an original as well, and is a first one."""
    original: int = row["original_execution"] if row["retry_count"] else row["id"]
    return original


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
