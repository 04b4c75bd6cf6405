"""Consuming: batches in, one transaction each, explicit outcomes."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar, assert_never

import anyio
import structlog

from attune.base.crash_points import reach
from attune.bus import queries
from attune.bus.bus import Bus
from attune.bus.messages import Delivery, Message, NotificationType
from attune.bus.outcomes import DONE, Done, Outcome, Reject, Retry, back_off
from attune.bus.queries import Attempts
from attune.bus.transaction import Transaction
from attune.database.pool import DatabaseUnavailable
from attune.telemetry.metrics import Instruments

log = structlog.get_logger()

M = TypeVar("M", bound=Message)

Handler = Callable[[Transaction, Sequence[Delivery[M]]], Awaitable[Sequence[Outcome]]]
"""Makes the effects of a batch in the transaction and says for each delivery, in order, what became of it. It never
waits for anything but the database, and relies on no order between the messages. When it raises, the batch is rolled
back and handled one by one."""

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
_LONGEST_ERROR = 4_000
_LONGEST_SHOWN = 300


async def _always_room() -> int:
    return 1_000_000


@dataclass(frozen=True, slots=True)
class Consumer(Generic[M]):
    """The one consumer of a queue. `row` is the queue's name in the topology, `queue` the name of the queue itself:
    they differ for addressed queues. `capacity` returns, as soon as it is not 0, how many deliveries may come. `stage`
    names what it does, for the crash points."""

    row: str
    message: type[M]
    name: str
    handle: Handler[M]
    queue: str = ""
    capacity: Callable[[], Awaitable[int]] = field(default=_always_room)
    stage: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "queue", self.queue or self.row)


class ConsumerLoop:
    """Runs one consumer: takes batches from the broker and settles them, one at a time."""

    def __init__(
        self,
        bus: Bus,
        consumer: Consumer[Any],
        instruments: Instruments,
        *,
        max_attempts: int,
        ready: Callable[[], Awaitable[None]],
    ) -> None:
        """`ready` returns when this process may work on the database: it owns it and is not stopping."""
        self._bus = bus
        self._consumer = consumer
        self._instruments = instruments
        self._max_attempts = max_attempts
        self._ready = ready
        bus.broker.declare(consumer.queue)

    async def run(self) -> None:
        """Consume until cancelled. A batch that is in its transaction is finished first."""
        while True:
            await self._ready()
            try:
                await self._bus.broker.wait(self._consumer.queue, await self._consumer.capacity())
            except DatabaseUnavailable as error:
                log.debug("a queue cannot be read", queue=self._consumer.queue, error=str(error))
                await self._bus.clock.sleep(_FIRST_PAUSE)
                continue
            await self._settle(self._take, self._handle)

    async def _take(self) -> Sequence[Delivery[Any]]:
        return self._bus.broker.take(self._consumer.queue, await self._consumer.capacity())

    async def _handle(self, transaction: Transaction, batch: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
        """Let the consumer handle a batch, and note how long that took."""
        clock = self._bus.clock
        begun = clock.monotonic()
        try:
            return await self._consumer.handle(transaction, batch)
        finally:
            self._instruments.handled(self._consumer.name, clock.monotonic() - begun)

    async def _settle(
        self, take: Callable[[], Awaitable[Sequence[Delivery[Any]]]], handle: Handler[Any], *, is_last: bool = False
    ) -> None:
        """Get a batch decided upon, however often the infrastructure fails meanwhile: that counts as no attempt.

        The batch is taken when it has its turn, so that what comes while others have theirs goes in as well. `is_last`:
        nothing is left to be done about deliveries that `handle` cannot settle, but to try again.
        """
        batch: Sequence[Delivery[Any]] = ()
        pause = _FIRST_PAUSE
        while True:
            try:
                async with self._bus.turns.turn():
                    batch = batch or await take()
                    if not batch:
                        return
                    with anyio.CancelScope(shield=True):
                        await self._transact(batch, handle)
                return
            except DatabaseUnavailable as error:
                log.warning("the database is away; a batch waits", consumer=self._consumer.name, error=str(error))
            except Exception as error:
                if not is_last:
                    await self._blame(batch, handle, error)
                    return
                log.exception("a failed delivery cannot be put aside; its queue waits", queue=self._consumer.queue)
            await self._bus.clock.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            await self._ready()

    async def _blame(self, batch: Sequence[Delivery[Any]], handle: Handler[Any], error: Exception) -> None:
        """Handle a failed batch one by one; of the one that fails alone, record the failed attempt."""
        if len(batch) > 1:
            for delivery in batch:
                await self._settle(_taken([delivery]), handle)
            return
        (delivery,) = batch
        log.error("a delivery failed", consumer=self._consumer.name, attempt=delivery.attempt, exc_info=error)
        failed = Retry(back_off(delivery.attempt), _describe(error))

        async def record(_: Transaction, __: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
            return [failed]

        await self._settle(_taken(batch), record, is_last=True)

    async def _transact(self, batch: Sequence[Delivery[Any]], handle: Handler[Any]) -> None:
        queue = self._consumer.queue
        taken_at = self._bus.clock.now()
        ids = [delivery.envelope.message_id for delivery in batch]
        settled: dict[str, list[Delivery[Any]]] = defaultdict(list)
        reach(f"{self._consumer.stage}.taken")
        # A batch is of one attempt. What waits for a later one by now is another delivery than this.
        async with self._bus.claiming(queue, ids, batch[0].attempt) as (transaction, claimed):
            transaction.does(self._consumer.stage)
            live = [delivery for delivery in batch if delivery.envelope.message_id in claimed]
            if live:
                outcomes = await handle(transaction, live)
                for attempts in await self._apply(transaction, live, outcomes, taken_at):
                    transaction.record(attempts)
                    settled[attempts.outcome] += attempts.deliveries
        self._bus.broker.settle(queue, batch)
        self._count(len(batch), settled)

    def _count(self, delivered: int, settled: Mapping[str, Sequence[Delivery[Any]]]) -> None:
        counters = self._bus.counters.of(self._consumer.queue)
        counters.delivered += delivered
        counters.done += len(settled["done"])
        counters.retried += len(settled["retry"])
        counters.dead += len(settled["dead"])
        self._bus.backlog.waiting -= len(settled["done"]) + len(settled["dead"])
        published = (delivery.envelope.timestamp for delivery in settled["done"])
        self._instruments.done(self._consumer.name, published, self._bus.clock.now())

    async def _apply(
        self,
        transaction: Transaction,
        live: Sequence[Delivery[Any]],
        outcomes: Sequence[Outcome],
        taken_at: datetime,
    ) -> list[Attempts]:
        """Make the outcomes true, and say what the trace is to tell."""
        name = self._consumer.name
        done = []
        others = []
        for delivery, outcome in zip(live, outcomes, strict=True):
            if outcome is DONE:
                done.append(delivery)
            else:
                became, error = await self._put_aside(transaction, delivery, outcome)
                others.append(Attempts(name, [delivery], taken_at, became, error))
        return [*others, Attempts(name, done, taken_at, "done", None)] if done else others

    async def _put_aside(
        self, transaction: Transaction, delivery: Delivery[Any], outcome: Outcome
    ) -> tuple[str, str | None]:
        match outcome:
            case Done():
                return "done", None
            case Retry(after, reason) if delivery.attempt < self._max_attempts:
                due = transaction.now + timedelta(seconds=after)
                reason = _storable(reason)
                # Before the commit, whose answer may be lost: a look too many does no harm.
                self._bus.broker.wake_at(delivery.queue, due)
                await queries.insert_later(
                    transaction.connection, delivery, attempt=delivery.attempt + 1, available_at=due, error=reason
                )
                return "retry", reason
            case Retry(_, reason) | Reject(reason):
                reason = _storable(reason)
                transaction.does("dead_letter")
                number = await queries.insert_dead_letter(
                    transaction.connection, delivery, error=reason, now=transaction.now
                )
                transaction.after_commit(lambda: _tell_of_death(delivery, number, reason))
                _show(transaction, delivery, number, reason)
                return "dead", reason
            case _:
                assert_never(outcome)


def _show(transaction: Transaction, delivery: Delivery[Any], number: int, reason: str) -> None:
    transaction.notify(
        NotificationType.DEAD_LETTER_CREATED,
        number,
        {
            "queue": delivery.queue,
            "message_type": type(delivery.message).__name__,
            "subject": delivery.message.subject(),
            "attempts": delivery.attempt,
            "error": reason[:_LONGEST_SHOWN],
            "created": transaction.now,
        },
    )


def _tell_of_death(delivery: Delivery[Any], number: int, reason: str) -> None:
    log.error(
        "a delivery is dead",
        dead_letter=number,
        queue=delivery.queue,
        subject=delivery.message.subject(),
        attempts=delivery.attempt,
        error=reason,
    )


def _taken(batch: Sequence[Delivery[Any]]) -> Callable[[], Awaitable[Sequence[Delivery[Any]]]]:
    async def take() -> Sequence[Delivery[Any]]:
        return batch

    return take


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _storable(text: str) -> str:
    """Text that PostgreSQL takes: an error that cannot be stored would never end."""
    return text[:_LONGEST_ERROR].replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
