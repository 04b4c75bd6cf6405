"""What an earlier run of Attune left unfinished: found, classified, and brought to an end where nobody else does
that."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from attune.base.json import JsonObject, dumps
from attune.base.states import ExecutionStatus
from attune.bus import queries as bus_queries
from attune.bus.bus import Bus
from attune.bus.messages import Cause
from attune.catalog.definitions import Definitions
from attune.executions import endings, queries
from attune.executions.model import Execution, Finished
from attune.executions.queries import Unfinished
from attune.executions.retries import why_not
from attune.executions.states import Step

SOURCE = "recovery"
SHOWN = 20
"""Ids that are named of each kind."""


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The run before this one, if it did not end cleanly: its boot id, and its children that were still there."""

    boot: str
    children: tuple[int, ...]


class Outcome(StrEnum):
    """What becomes of an execution that was running when Attune ended."""

    RETRIED = "retried"
    ABANDONED = "abandoned"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Interrupted:
    """An execution that was running, or being cancelled, when Attune ended; `reason` says why it is not tried again."""

    execution: int
    action_ref: str
    outcome: Outcome
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a start found. `waiting` is what goes on by itself, by what it waits for; `deliveries` are counts by queue,
    and `letters` the dead letters that somebody has to look at."""

    at: datetime
    predecessor: Predecessor | None = None
    interrupted: tuple[Interrupted, ...] = ()
    waiting: tuple[Unfinished, ...] = ()
    deliveries: Mapping[str, int] = field(default_factory=dict)
    letters: tuple[int, ...] = ()


async def recover(bus: Bus, definitions: Definitions, predecessor: Predecessor | None) -> Recovery:
    """End what no process runs any more; everything else goes on by its deliveries. What was found, all of it."""
    async with bus.transaction() as transaction:
        transaction.does("recover")
        connection = transaction.connection
        left = await queries.in_a_worker(connection)
        if left:
            await endings.end(transaction, [_end(execution) for execution in left], SOURCE)
        letters = await bus_queries.dead_subjects(connection)
        waiting = await queries.unfinished(connection, transaction.now, _dead_executions(letters), SHOWN)
        deliveries = await bus_queries.waiting_by_queue(connection)
    return Recovery(
        transaction.now,
        predecessor,
        tuple(_interrupted(execution, definitions) for execution in left),
        tuple(waiting),
        {name: count for name, (count, _) in deliveries.items()},
        tuple(letters),
    )


def _dead_executions(letters: Mapping[int, str | None]) -> list[int]:
    """The executions that dead letters are about."""
    subjects = (subject.partition(":") for subject in letters.values() if subject is not None)
    return [int(number) for kind, _, number in subjects if kind == "execution"]


def _interrupted(execution: Execution, definitions: Definitions) -> Interrupted:
    if execution.status is ExecutionStatus.CANCELING:
        return Interrupted(execution.id, execution.action_ref, Outcome.CANCELLED)
    action = definitions.actions.by_ref.get(execution.action_ref)
    reason = why_not(action, ExecutionStatus.ABANDONED, execution.retry_count, has_run=True)
    outcome = Outcome.RETRIED if reason is None else Outcome.ABANDONED
    return Interrupted(execution.id, execution.action_ref, outcome, reason)


def _end(execution: Execution) -> Finished:
    cancelled = execution.status is ExecutionStatus.CANCELING
    result: JsonObject = (
        {"succeeded": False, "cancelled": True, "error": "It was being cancelled when Attune ended."}
        if cancelled
        else {"succeeded": False, "error": "Attune ended while it ran; what it did is unknown."}
    )
    return Finished(
        execution=execution.id,
        action_ref=execution.action_ref,
        event=execution.event,
        step=Step.CANCEL if cancelled else Step.ABANDON,
        result=dumps(result),
        cause=Cause(execution.correlation_id, execution.causation_id, execution.depth + 1),
    )


def report(found: Recovery) -> Iterator[str]:
    """What a start found, for people, a sentence a line; nothing when nothing was left."""
    if found.predecessor is not None:
        children = found.predecessor.children
        ended = f"; {_counted(len(children), 'process', 'es')} of it ended ({_listed(children)})" if children else ""
        yield f"Attune did not end cleanly the last time{ended}"
    if found.interrupted:
        count = _counted(len(found.interrupted), "execution")
        were = "was" if len(found.interrupted) == 1 else "were"
        yield f"{count} {were} running when Attune stopped: {', '.join(_fates(found.interrupted))}"
    for one in found.waiting:
        wait = "waits" if one.count == 1 else "wait"
        yield f"{_counted(one.count, 'execution')} {wait} for {one.waits_for}: {_listed(one.ids, one.count)}"
    if found.deliveries:
        queues = (f"{count:,} in {name}" for name, count in sorted(found.deliveries.items()))
        yield f"deliveries go on: {', '.join(queues)}"
    if found.letters:
        yield f"dead letters wait for somebody to look at them: {_listed(found.letters)}"


def _fates(interrupted: Sequence[Interrupted]) -> Iterator[str]:
    """`1 retried (17), 2 abandoned: action not retryable (15, 16)`."""
    groups: dict[tuple[Outcome, str | None], list[int]] = {}
    for one in interrupted:
        groups.setdefault((one.outcome, one.reason), []).append(one.execution)
    for (outcome, reason), ids in sorted(groups.items(), key=lambda group: list(Outcome).index(group[0][0])):
        why = f": {reason}" if reason else ""
        yield f"{len(ids):,} {outcome}{why} ({_listed(ids)})"


def _counted(count: int, noun: str, plural: str = "s") -> str:
    return f"{count:,} {noun}{'' if count == 1 else plural}"


def _listed(ids: Sequence[int], count: int | None = None) -> str:
    """The first ids of `count`, or of themselves."""
    left = (len(ids) if count is None else count) - len(ids[:SHOWN])
    return ", ".join(map(str, ids[:SHOWN])) + (f", and {left:,} more" if left else "")
