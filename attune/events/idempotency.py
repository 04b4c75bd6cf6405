"""Idempotency keys: a request with one is carried out once, and answered the same as often as it is sent.

The key is a row in the transaction of what the request makes. So there is never one without the other, and of two
requests with the same key, whatever became of their callers, the second finds the row of the first.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeAlias, TypeVar

import structlog

from attune.base.clock import Clock
from attune.base.errors import BadInput, Conflict
from attune.bus.transaction import Transaction
from attune.database.group_commit import GroupCommit, Operation
from attune.database.pool import Database, DatabaseUnavailable
from attune.events import queries
from attune.events.model import Kept, Key

log = structlog.get_logger()

Item = TypeVar("Item")
Result = TypeVar("Result")
Keyed: TypeAlias = tuple[Item, Key]

WINDOW = timedelta(hours=24)
"""How long a key is kept, counted from the first request."""

_FORGET_EVERY = 60.0
_BATCH = 1_000


class Taken(Exception):
    """Another request had the key first: one whose caller did not wait for it."""


class Keys:
    """The keys of requests."""

    def __init__(self, database: Database, writer: GroupCommit[Transaction], clock: Clock) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock
        self._held: set[tuple[str, str]] = set()

    @contextmanager
    def held(self, key: Key) -> Iterator[None]:
        """Let nobody else have the key during the block. Raises Conflict when somebody has it."""
        if key.name in self._held:
            raise Conflict("The first request with this Idempotency-Key is still under way; send it again later.")
        self._held.add(key.name)
        try:
            yield
        finally:
            self._held.discard(key.name)

    async def kept(self, key: Key) -> Kept | None:
        """What was carried out under a key, if anything. Raises BadInput when that was another request."""
        async with self._database.acquire() as connection:
            kept = await queries.kept(connection, key, self._clock.now() - WINDOW)
        if kept is not None and kept.fingerprint != key.fingerprint:
            raise BadInput("Another request was sent with this Idempotency-Key; give each request a key of its own.")
        return kept

    async def keep(self, key: Key, answer: str) -> None:
        """Keep the first answer. Without the database it is not: a later one is made of what the request has made."""
        try:
            await self._writer.submit(_keep, (key, answer))
        except DatabaseUnavailable as error:
            log.debug("an answer is not kept", error=str(error))

    async def run(self) -> None:
        """Forget what is outdated until cancelled."""
        while True:
            try:
                await self.forget()
            except DatabaseUnavailable as error:
                log.debug("forgetting keys waits for the database", error=str(error))
            await self._clock.sleep(_FORGET_EVERY)

    async def forget(self) -> None:
        """Forget the keys that are outdated, in batches."""
        outdated = self._clock.now() - WINDOW
        async with self._database.acquire() as connection:
            while await queries.forget_keys(connection, outdated, _BATCH) == _BATCH:
                pass


async def write_once(
    transaction: Transaction,
    items: Sequence[Keyed[Item]],
    write: Operation[Transaction, Item, Result],
    subject: Callable[[Result], int],
) -> Sequence[Result | None]:
    """Write the items whose keys are free, and the keys with the `subject` of each; what they became, in their order,
    None for the others."""
    # Two of a batch have the same key when the caller of the first did not wait for it.
    first: dict[tuple[str, str], Keyed[Item]] = {}
    for item, key in items:
        first.setdefault(key.name, (item, key))
    keys = [key for _, key in first.values()]
    free = await queries.claim_keys(transaction.connection, keys, transaction.now, transaction.now - WINDOW)
    new = [(item, key) for item, key in first.values() if key.name in free]
    if not new:
        return [None] * len(items)
    results = await write(transaction, [item for item, _ in new])
    made = [(key, result) for (_, key), result in zip(new, results, strict=True)]
    await queries.name_subjects(transaction.connection, [(key, subject(result)) for key, result in made])
    by_name = {key.name: result for key, result in made}
    return [by_name.pop(key.name, None) for _, key in items]


async def _keep(transaction: Transaction, answers: Sequence[tuple[Key, str]]) -> Sequence[None]:
    await queries.keep_answers(transaction.connection, answers)
    return [None] * len(answers)
