"""Rules whose executions do not overlap: whose turn it is, and who comes next.

A turn belongs to an execution, and passes to its retries. Whoever looks at the turn of a rule, or changes it, holds the
lock of its row until the end of the transaction, so that "one more is asked for" and "the last one has ended" have an
order. There is a row only while somebody has the turn.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from attune.base.errors import Problem
from attune.base.states import ExecutionStatus
from attune.bus.messages import Cause, ExecutionRequested
from attune.bus.transaction import Transaction
from attune.catalog.model import Overlap, Rule
from attune.catalog.queries import RuleSpec
from attune.executions import notices
from attune.executions import queries as executions
from attune.executions.turns import queries

MOST_WAITING = 1_000
"""Executions that wait for the turn of one rule. One that asks for more has an action that cannot keep up."""


class TurnRules:
    """What turns have to say about rules."""

    def problems(self, _: RuleSpec) -> Iterable[Problem]:
        """Nothing."""
        return ()

    async def changed(self, transaction: Transaction, before: Rule | None, after: Rule | None) -> Sequence[str]:
        """Give the turn of a rule that ceases to overlap to what runs of it."""
        if before is not None and after is not None and before.overlap == Overlap.ALLOW != after.overlap:
            # Its row is locked: it has not ended before this is true, so that its end passes the turn on.
            execution = await executions.lock_newest_open_of(transaction.connection, after.id)
            if execution is not None:
                await queries.lock_turns(transaction.connection, [after.id])
                await queries.give_turn(transaction.connection, after.id, execution)
        return ()


class Admission:
    """Which enforcements of a batch become executions at once, which wait for their turn, and which are skipped."""

    def __init__(self, holders: Mapping[int, int | None], waiting: Mapping[int, int]) -> None:
        """`holders` maps rules to the executions that have their turns, `waiting` to how many wait for them."""
        self._holders = holders
        self._waiting = {**waiting}
        self._claimed: dict[int, int] = {}
        self._held: dict[int, int] = {}

    @classmethod
    async def to(cls, transaction: Transaction, rules: Iterable[Rule]) -> "Admission":
        """The admission to the turns of those of `rules` that do not overlap."""
        ids = sorted({rule.id for rule in rules if rule.overlap != Overlap.ALLOW})
        if not ids:
            return cls({}, {})
        holders = await queries.lock_turns(transaction.connection, ids)
        return cls(holders, await queries.waiting_for_turns(transaction.connection, ids))

    def refusal(self, rule: Rule, enforcement: int) -> str | None:
        """Why an enforcement is skipped; None when it becomes an execution, now or in its turn."""
        if rule.overlap == Overlap.ALLOW:
            return None
        holder = self._holders.get(rule.id)
        if holder is None and rule.id not in self._claimed:
            self._claimed[rule.id] = enforcement
            return None
        if rule.overlap == Overlap.SKIP:
            who = f"execution {holder}" if holder is not None else "the one before it"
            return f"{who} of the rule {rule.ref} had not ended, and its overlap is skip"
        if self._waiting.get(rule.id, 0) >= MOST_WAITING:
            return f"{MOST_WAITING:,} executions of the rule {rule.ref} wait for their turn already"
        self._waiting[rule.id] = self._waiting.get(rule.id, 0) + 1
        self._held[enforcement] = rule.id
        return None

    async def settle(self, transaction: Transaction, made: Mapping[int, int]) -> Collection[int]:
        """Record the turns, now that enforcements have executions (`made`); the ids of those that wait for theirs."""
        for rule, enforcement in self._claimed.items():
            await queries.give_turn(transaction.connection, rule, made.get(enforcement))
        held = {made[enforcement]: rule for enforcement, rule in self._held.items() if enforcement in made}
        if held:
            await executions.hold(transaction.connection, sorted(held), transaction.now)
            await queries.wait_for_turns(transaction.connection, held)
        return held.keys()


async def pass_on(transaction: Transaction, ended: Iterable[int], retries: Mapping[int, int], source: str) -> None:
    """Pass the turns of executions that have ended on: to their retries, by execution, or else to who waits longest."""
    connection = transaction.connection
    ids = sorted(ended)
    turns = await queries.lock_turns_of(connection, ids)
    await queries.stop_waiting(connection, ids)
    for rule, execution in turns.items():
        successor = retries.get(execution) or await _next(transaction, rule, source)
        await queries.give_turn(connection, rule, successor)


async def _next(transaction: Transaction, rule: int, source: str) -> int | None:
    """The one that waits longest for the turn of a rule, requested again; one that was cancelled meanwhile has gone."""
    while (execution := await queries.take_waiting(transaction.connection, rule)) is not None:
        row = await executions.release(transaction.connection, execution, transaction.now)
        if row is not None:
            notices.executions_changed(transaction, [row], ExecutionStatus.REQUESTED)
            transaction.publish(
                ExecutionRequested(
                    execution_id=execution,
                    action_ref=row["action_ref"],
                    enforcement_id=row["enforcement"],
                    event_id=row["event"],
                    rule_ref=row["rule_ref"],
                    trigger_ref=row["trigger_ref"],
                ),
                Cause(row["correlation_id"], row["causation_id"], row["depth"] + 1),
                source,
            )
            return execution
    return None
