"""Streaks: how often in a row a rule or an action has failed.

A streak is a row as long as it lasts. What succeeds is looked up in a set, and asks the database nothing unless a
streak may end with it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from attune.base.states import ExecutionStatus
from attune.bus.transaction import Transaction
from attune.database.pool import Row
from attune.executions import streak_queries
from attune.executions.retries import RETRYABLE
from attune.executions.streak_queries import Failures, Ref

_COUNTED = RETRYABLE | {ExecutionStatus.COMPLETED}
"""Whoever cancels something does not say whether it works."""


@dataclass(slots=True)
class _Run:
    """What happened to a rule or an action in a batch: whether something completed, and what has failed since."""

    has_completed: bool = False
    failed: list[Row] = field(default_factory=list)


class Streaks:
    """Counts for Completion, whose batches come one after the other."""

    def __init__(self) -> None:
        # All that have a row, and perhaps more: what a commit was to remove stays until the commit is certain.
        self._open: set[Ref] | None = None

    async def count(self, transaction: Transaction, ended: Sequence[Row]) -> None:
        """Count executions that have ended and are not tried again, in their order."""
        if self._open is None:
            self._open = await streak_queries.open_streaks(transaction.connection)
        concerned = _concerned(ended, self._open)
        if not concerned:
            return
        facts = await streak_queries.streak_facts(transaction.connection, [row["id"] for row in concerned])
        await self._write(transaction, _runs(concerned, facts, self._open), self._open)

    async def _write(self, transaction: Transaction, runs: Mapping[Ref, _Run], known: set[Ref]) -> None:
        over = sorted(ref for ref, run in runs.items() if run.has_completed)
        grown = sorted(ref for ref, run in runs.items() if run.failed)
        known.update(grown)
        if over:
            await streak_queries.end_streaks(transaction.connection, over)
            transaction.after_commit(lambda: known.difference_update(set(over) - set(grown)))
        if grown:
            await streak_queries.grow_streaks(
                transaction.connection, [_failures(ref, runs[ref].failed) for ref in grown]
            )


def _concerned(ended: Sequence[Row], known: set[Ref]) -> list[Row]:
    """What may begin a streak, add to it or end it. Which rule something was for has to be asked for first."""
    if any(kind == "rule" for kind, _ in known) or any(row["status"] in RETRYABLE for row in ended):
        return [row for row in ended if row["status"] in _COUNTED]
    return [row for row in ended if row["status"] in _COUNTED and ("action", row["action_ref"]) in known]


def _runs(ended: Iterable[Row], facts: Mapping[int, Row], known: set[Ref]) -> dict[Ref, _Run]:
    """What happened to whom, leaving out what alerts have caused: they would never end."""
    runs: dict[Ref, _Run] = {}
    for row in ended:
        fact = facts[row["id"]]
        if fact["is_of_alert"]:
            continue
        for ref in _refs(row["action_ref"], fact["rule_ref"]):
            if row["status"] in RETRYABLE:
                runs.setdefault(ref, _Run()).failed.append(fact)
            elif ref in runs or ref in known:
                runs[ref] = _Run(has_completed=True)
    return runs


def _refs(action_ref: str, rule_ref: str | None) -> list[Ref]:
    return [("action", action_ref)] if rule_ref is None else [("action", action_ref), ("rule", rule_ref)]


def _failures(ref: Ref, failed: Sequence[Row]) -> Failures:
    return Failures(*ref, len(failed), failed[0]["finished_at"], failed[-1]["finished_at"], failed[-1]["id"])
