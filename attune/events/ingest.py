"""How an event comes in: recorded and published in one transaction, shared with whoever comes at the same moment."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from attune.bus.messages import Entity, EventCreated, NotificationType
from attune.bus.transaction import Transaction
from attune.database.group_commit import GroupCommit
from attune.events import queries
from attune.events.idempotency import Keyed, Taken, write_once
from attune.events.ingress import Ingress
from attune.events.model import Key, NewEvent
from attune.telemetry.stages import Stages


@dataclass(frozen=True, slots=True)
class Accepted:
    id: int
    created: datetime


class Ingest:
    """Accepts events."""

    def __init__(self, writer: GroupCommit[Transaction], ingress: Ingress, stages: Stages) -> None:
        self._writer = writer
        self._ingress = ingress
        self._stages = stages

    async def accept(self, event: NewEvent, key: Key | None = None) -> Accepted:
        """The id and time of an event from outside, once it is committed: it will have every enforcement that its rules
        ask for.

        With a `key` it is recorded once. Raises Taken when it was before, and Unavailable while nothing may come in.
        """
        self._ingress.check()
        if key is None:
            return await self._writer.submit(self.record, event)
        accepted = await self._writer.submit(self._record_once, (event, key))
        if accepted is None:
            raise Taken
        return accepted

    async def record(self, transaction: Transaction, events: Sequence[NewEvent]) -> Sequence[Accepted]:
        """Record and publish events in a transaction; what they became, in their order."""
        transaction.does("ingest")
        ids = await queries.insert_events(transaction.connection, events, transaction.now)
        for event_id, event in zip(ids, events, strict=True):
            transaction.publish(
                EventCreated(event_id=event_id, trigger_ref=event.trigger_ref), event.cause, event.source_ref
            )
            if transaction.shows(Entity.EVENT):
                _show(transaction, event_id, event)
            if self._stages.enabled:
                transaction.after_commit(
                    partial(self._stages.log, "event accepted", event=event_id, trigger=event.trigger_ref)
                )
        return [Accepted(event_id, transaction.now) for event_id in ids]

    async def _record_once(
        self, transaction: Transaction, events: Sequence[Keyed[NewEvent]]
    ) -> Sequence[Accepted | None]:
        return await write_once(transaction, events, self.record, lambda accepted: accepted.id)


def _show(transaction: Transaction, event_id: int, event: NewEvent) -> None:
    transaction.notify(
        NotificationType.EVENT_CREATED,
        event_id,
        {
            "trigger": event.trigger,
            "trigger_ref": event.trigger_ref,
            "source_ref": event.source_ref,
            "rule": event.rule,
            "rule_ref": event.rule_ref,
            "has_payload": event.payload is not None,
            "created": transaction.now,
        },
    )
