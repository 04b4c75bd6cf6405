"""Reading what is new in tables, though ids commit out of order.

An id is drawn from its sequence before its row is visible: a later id may be seen earlier. So "id > the last one seen"
loses rows. What is certain: once every transaction that was open when an id was drawn has ended, its row is visible or
never will be. A reader starts at `settled`, below which that is so, and drops what it has had already.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from attune.database.pool import Connection

_OPEN = """
    SELECT pid || '@' || extract(epoch FROM xact_start) AS name
      FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
       AND backend_type = 'client backend'
"""


@dataclass(frozen=True, slots=True)
class Horizon:
    """Up to which ids of some tables everything has been read (`settled`), and up to which ids were drawn (`drawn`) by
    transactions of which `pending` had not ended."""

    settled: Sequence[int]
    drawn: Sequence[int]
    pending: frozenset[str]

    @property
    def is_settled(self) -> bool:
        """Whether nothing is new until another id is drawn."""
        return self.settled == self.drawn


async def now(connection: Connection, tables: Sequence[str]) -> Horizon:
    """The horizon of a reader who wants what is new from now on."""
    drawn = await _drawn(connection, tables)
    return Horizon(drawn, drawn, frozenset())


async def advance(connection: Connection, tables: Sequence[str], before: Horizon) -> Horizon:
    """The horizon of a reader who then reads all ids above `before.settled`. Not in a transaction: each statement sees
    what was committed before it."""
    # In this order: who draws an id after the first statement is no concern of the second.
    drawn = await _drawn(connection, tables)
    pending = frozenset(row["name"] for row in await connection.fetch(_OPEN))
    if before.pending & pending:
        return Horizon(before.settled, before.drawn, before.pending & pending)
    settled = before.drawn
    return Horizon(settled, drawn, frozenset() if settled == drawn else pending)


async def _drawn(connection: Connection, tables: Sequence[str]) -> list[int]:
    # One statement, and no function: `last_value` of a sequence is what was drawn, committed or not.
    parts = (f"(SELECT last_value - (NOT is_called)::int FROM attune.{table}_id_seq)" for table in tables)
    row = await connection.fetchrow(f"SELECT ARRAY[{', '.join(parts)}] AS drawn")
    assert row is not None
    return list(row["drawn"])
