"""What is kept for a time: for each kind of row, which are the oldest, and how they go.

A row goes when it is old enough, nothing needs it, and its chain is closed: nothing that has its correlation id has
still to end. Deliveries and dead letters tell, executions that have not ended, and open questions. An enforcement of
which nothing has become so far has one of the first two: each is written in the transaction that takes away the other.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

from attune.bus import queries as bus
from attune.database.pool import Connection, Row
from attune.events import queries as events
from attune.executions import enforcement_queries, removal_queries
from attune.executions import queries as executions
from attune.people import queries as people
from attune.people.model import InquiryStatus
from attune.rules import queries as rules
from attune.sources.timers import queries as timers


@dataclass(slots=True)
class Removed:
    """How many rows went, by table, and the executions among them: their logs are to follow."""

    rows: Counter[str]
    executions: Sequence[int] = field(default_factory=tuple)


Oldest: TypeAlias = Callable[[Connection, int, datetime, int], Awaitable[Sequence[Row]]]
"""The first rows after an id, so many at most: id, correlation_id (None: of no chain), created, rows (how many go with
it, itself included), is_needed (by something that has not ended, or not before that moment)."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Rows of a table, and what goes with them. `at_once`: so many are looked at together, at most."""

    name: str
    at_once: int
    oldest: Oldest
    remove: Callable[[Connection, Sequence[int]], Awaitable[Removed]]


async def closed(connection: Connection, rows: Sequence[Row], before: datetime) -> list[Row]:
    """Those of some rows that can go."""
    ready = [row for row in rows if row["created"] < before and not row["is_needed"]]
    chains = list({row["correlation_id"] for row in ready} - {None})
    unfinished = await _open(connection, chains) if chains else frozenset()
    return [row for row in ready if row["correlation_id"] not in unfinished]


async def _open(connection: Connection, chains: Sequence[UUID]) -> set[UUID]:
    unfinished = await bus.open_chains(connection, chains) | await removal_queries.open_chains(connection, chains)
    return unfinished | await people.open_chains(connection, chains)


async def _remove_events(connection: Connection, ids: Sequence[int]) -> Removed:
    """An event goes with all that became of it: there is never half a story."""
    enforcements, ran = await removal_queries.delete_of_events(connection, ids)
    matches = await rules.delete_matches(connection, ids)
    happened = await events.delete(connection, ids)
    asked = await people.delete_of_executions(connection, ran)
    counts = {
        "event": happened,
        "event_match": matches,
        "enforcement": enforcements,
        "execution": len(ran),
        "inquiry": asked,
    }
    return Removed(Counter(counts), ran)


async def _remove_executions(connection: Connection, ids: Sequence[int]) -> Removed:
    asked = await people.delete_of_executions(connection, ids)
    return Removed(Counter(execution=await removal_queries.delete_executions(connection, ids), inquiry=asked), ids)


async def _oldest_skips(connection: Connection, after: int, _: datetime, limit: int) -> Sequence[Row]:
    return await timers.oldest_skips(connection, after, limit)


async def _remove_skips(connection: Connection, ids: Sequence[int]) -> Removed:
    return Removed(Counter(timer_skip=await timers.delete_skips(connection, ids)))


async def _oldest_dead_letters(connection: Connection, after: int, _: datetime, limit: int) -> Sequence[Row]:
    rows = await bus.oldest_dead_letters(connection, after, limit)
    waiting = await _waiting(connection, [row["subject"] for row in rows if row["subject"] is not None])
    return [{**row, "is_needed": row["subject"] in waiting} for row in rows]


async def _not_settled(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Those of some inquiries that are open, or whose executions still wait."""
    found = await people.inquiries(connection, ids)
    waiting = await executions.not_ended(connection, [one.execution for one in found.values()])
    return {one.id for one in found.values() if one.status is InquiryStatus.PENDING or one.execution in waiting}


UNFINISHED: dict[str, Callable[[Connection, Sequence[int]], Awaitable[set[int]]]] = {
    "event": rules.not_matched,
    "enforcement": enforcement_queries.not_resolved,
    "execution": executions.not_ended,
    "inquiry": _not_settled,
}
"""What can be the subject of a dead letter, and which of some such still wait for something."""


async def _waiting(connection: Connection, subjects: Iterable[str]) -> set[str]:
    """Those of some subjects of dead letters that still wait for theirs."""
    ids: dict[str, list[int]] = {}
    for subject in subjects:
        kind, _, number = subject.partition(":")
        ids.setdefault(kind, []).append(int(number))
    waiting: set[str] = set()
    for kind, numbers in ids.items():
        waiting.update(f"{kind}:{number}" for number in await UNFINISHED[kind](connection, numbers))
    return waiting


async def _remove_dead_letters(connection: Connection, ids: Sequence[int]) -> Removed:
    return Removed(Counter(dead_letter=await bus.delete_dead_letters(connection, ids)))


HISTORY: tuple[Kept, ...] = (
    Kept("event", 250, rules.oldest_events, _remove_events),
    # Those that no event led to.
    Kept("execution", 1_000, removal_queries.oldest_executions, _remove_executions),
    Kept("timer_skip", 1_000, _oldest_skips, _remove_skips),
)
DEAD_LETTERS = Kept("dead_letter", 1_000, _oldest_dead_letters, _remove_dead_letters)

TABLES = {
    "event": "id",
    "event_match": "event",
    "enforcement": "id",
    "execution": "id",
    "inquiry": "id",
    "timer_skip": "id",
}
"""The tables that history is in, and the keys in whose order their rows were created."""
