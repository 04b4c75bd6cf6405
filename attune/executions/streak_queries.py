"""The statements on `attune.streak`: how often actions and rules have failed in a row."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, TypeAlias

from attune.database.pool import Connection, Row

Ref: TypeAlias = tuple[str, str]
"""`rule` or `action`, and which."""


class Failures(NamedTuple):
    """How often in a row a rule or an action has failed, since when, and in which execution the last time."""

    kind: str
    ref: str
    failures: int
    first: datetime
    last: datetime
    execution: int


async def open_streaks(connection: Connection) -> set[Ref]:
    """The rules and the actions that have failed, and have not completed since."""
    return {(row["kind"], row["ref"]) for row in await connection.fetch("SELECT kind, ref FROM attune.streak")}


# Scalar subqueries: a join would be free to read the whole table.
STREAK_FACTS = """
    SELECT id, finished_at, (SELECT rule_ref FROM attune.enforcement WHERE id = e.enforcement) AS rule_ref,
           (SELECT true FROM attune.alert WHERE correlation_id = e.correlation_id) IS NOT NULL AS is_of_alert
      FROM attune.execution AS e
     WHERE id = ANY($1::bigint[])
"""


async def streak_facts(connection: Connection, ids: Sequence[int]) -> dict[int, Row]:
    """What streaks need of executions that have ended, by id: id, finished_at, rule_ref, is_of_alert (an alert has
    caused it)."""
    return {row["id"]: row for row in await connection.fetch(STREAK_FACTS, ids)}


async def end_streaks(connection: Connection, refs: Sequence[Ref]) -> None:
    """Forget how often rules and actions have failed."""
    await connection.execute(
        "DELETE FROM attune.streak WHERE (kind, ref) IN (SELECT * FROM unnest($1::text[], $2::text[]))",
        [kind for kind, _ in refs],
        [ref for _, ref in refs],
    )


async def grow_streaks(connection: Connection, failures: Sequence[Failures]) -> None:
    """Note that rules and actions have failed, each named once."""
    await connection.execute(
        """
        INSERT INTO attune.streak AS s (kind, ref, failures, first, last, execution)
        SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::timestamptz[], $5::timestamptz[], $6::bigint[])
            ON CONFLICT (kind, ref) DO UPDATE
           SET failures = s.failures + excluded.failures, last = excluded.last, execution = excluded.execution
        """,
        *zip(*failures, strict=True),
    )


async def forget_streaks(connection: Connection) -> None:
    """Forget the streaks of rules and actions that are not there any more."""
    await connection.execute(
        """
        DELETE FROM attune.streak
         WHERE (kind = 'rule' AND ref NOT IN (SELECT ref FROM attune.rule))
            OR (kind = 'action' AND ref NOT IN (SELECT ref FROM attune.action))
        """
    )
