"""The dead letters: what was given up waits here until somebody lets it be tried again, or discards it.

Nothing here can become a dead letter: a letter leaves in the transaction that does with it what was asked, or stays.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

import structlog

from attune.base.errors import AttuneError, Conflict, NotFound
from attune.bus import queries
from attune.bus.bus import Bus, Unreadable
from attune.bus.messages import Delivery, Envelope, Letter, Message, NotificationType
from attune.bus.transaction import Transaction
from attune.database.pool import DatabaseUnavailable

log = structlog.get_logger()

M = TypeVar("M", bound=Message)

Discard = Callable[[Transaction, Delivery[M], Letter], Awaitable[str]]
"""Ends what waits for the message of a dead letter, in the transaction that removes the letter, and publishes the end.
Says for people what is so now. What waits may have ended by something else meanwhile: that is no error."""


class Route(NamedTuple):
    """The way that a letter came, as far as this release knows it. `refusal`: why it cannot go there again."""

    exchange: str | None
    routing_key: str | None
    consumer: str | None
    refusal: str | None


@dataclass(frozen=True, slots=True)
class Handled:
    """What became of letters, by their numbers, and why others are as they were."""

    became: dict[int, str] = field(default_factory=dict)
    failures: dict[int, AttuneError] = field(default_factory=dict)


class DeadLetters:
    """Gives dead letters back to their queues, or ends what they are about."""

    def __init__(self, bus: Bus, discards: Mapping[type[Message], Discard[Any]]) -> None:
        """`discards` has an entry for every message that something waits for."""
        self._bus = bus
        self._discards = discards

    def route(self, letter: Letter) -> Route:
        """The way of a letter, and whether it can go it again."""
        try:
            message = self._delivery(letter).message
        except Unreadable as error:
            return Route(None, None, None, str(error))
        row = self._bus.topology.row_of(letter.queue, message)
        is_there = row is not None and self._bus.broker.has(letter.queue)
        refusal = None if is_there else f"There is no queue {letter.queue} any more."
        return Route(message.exchange, message.routing_key(), row.consumer if row else None, refusal)

    async def replay(self, numbers: Sequence[int], by: str) -> Handled:
        """Put letters back into their queues, in one transaction. Each is the message that it was, at its first
        attempt."""
        async with self._bus.transaction() as transaction:
            letters = await queries.lock_dead_letters(transaction.connection, numbers)
            handled, again = Handled(), dict[int, Delivery[Any]]()
            for number in numbers:
                try:
                    again[number] = self._again(number, letters.get(number))
                except AttuneError as error:
                    handled.failures[number] = error
                else:
                    handled.became[number] = f"it waits in {letters[number].queue} again"
                    transaction.after_commit(partial(_tell, "a dead letter was replayed", letters[number], by))
            await queries.restore_deliveries(transaction.connection, list(again))
            for number in again:
                _show(transaction, NotificationType.DEAD_LETTER_REPLAYED, letters[number])
            transaction.give_back(again.values())
        return handled

    async def discard(self, numbers: Sequence[int], by: str) -> Handled:
        """End what letters are about and remove them, each in a transaction of its own: one that cannot be discarded
        does not keep the others."""
        handled = Handled()
        for number in numbers:
            try:
                handled.became[number] = await self._discard(number, by)
            except DatabaseUnavailable:
                raise
            except AttuneError as error:
                handled.failures[number] = error
            except Exception as error:
                log.exception("a dead letter cannot be discarded", dead_letter=number)
                handled.failures[number] = AttuneError(
                    f"Dead letter {number} cannot be discarded: {type(error).__name__}: {error}. It is as it was, and "
                    "the log tells more."
                )
        return handled

    async def _discard(self, number: int, by: str) -> str:
        async with self._bus.transaction() as transaction:
            letter = await queries.take_dead_letter(transaction.connection, number)
            if letter is None:
                raise missing(number)
            became = await self._end(transaction, letter)
            transaction.after_commit(partial(_tell, "a dead letter was discarded", letter, by, became=became))
            _show(transaction, NotificationType.DEAD_LETTER_DISCARDED, letter)
        return became

    async def _end(self, transaction: Transaction, letter: Letter) -> str:
        try:
            delivery = self._delivery(letter)
        except Unreadable as error:
            return f"only the letter was removed: {error}"
        discard = self._discards.get(type(delivery.message))
        if discard is None:
            return f"only the letter was removed: nothing waits for {letter.message_type}"
        return await discard(transaction, delivery, letter)

    def _again(self, number: int, letter: Letter | None) -> Delivery[Any]:
        if letter is None:
            raise missing(number)
        refusal = self.route(letter).refusal
        if refusal is not None:
            raise Conflict(f"Dead letter {number} cannot be replayed: {refusal}")
        return self._delivery(letter)

    def _delivery(self, letter: Letter) -> Delivery[Any]:
        message = self._bus.message(letter.message_type, letter.text)
        envelope = Envelope(letter.message_id, letter.cause, letter.published_at, letter.source, message)
        return Delivery(letter.queue, envelope, letter.text, 1)


def missing(number: int) -> NotFound:
    """The error for a letter that is not there."""
    return NotFound(f"There is no dead letter {number}. It may have been replayed or discarded.")


def _show(transaction: Transaction, kind: NotificationType, letter: Letter) -> None:
    transaction.notify(
        kind,
        letter.id,
        {
            "queue": letter.queue,
            "message_type": letter.message_type,
            "subject": letter.subject,
            "updated": transaction.now,
        },
    )


def _tell(what: str, letter: Letter, by: str, **more: str) -> None:
    log.info(what, dead_letter=letter.id, queue=letter.queue, subject=letter.subject, by=by, **more)
