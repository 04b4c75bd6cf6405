"""Pages of rows, with totals that are honest about being estimates."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from attune.base.json import loads
from attune.database.pool import Connection, Row

COUNTED = 10_000
"""Totals are exact up to this many rows; counting more would make everybody wait for a number that few read."""


@dataclass(frozen=True, slots=True)
class Window:
    """Which rows: `limit` of them after `offset`, or after the row whose cursor is `after`."""

    limit: int
    offset: int = 0
    after: Any = None
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """`has_next`: there is at least one row more."""

    rows: Sequence[Row]
    total: int
    total_is_exact: bool
    has_next: bool


@dataclass(slots=True)
class Where:
    """Conditions that must all hold, with their arguments."""

    conditions: list[str] = field(default_factory=list)
    arguments: list[Any] = field(default_factory=list)

    def add(self, condition: str, *arguments: Any) -> None:
        """Add a condition in which each `{}` stands for one of `arguments`."""
        first = len(self.arguments) + 1
        self.conditions.append(condition.format(*(f"${first + index}" for index in range(len(arguments)))))
        self.arguments.extend(arguments)

    def add_if(self, condition: str, argument: Any) -> None:
        """Add a condition unless its argument is None."""
        if argument is not None:
            self.add(condition, argument)

    @property
    def text(self) -> str:
        return f" WHERE {' AND '.join(self.conditions)}" if self.conditions else ""


async def fetch_page(
    connection: Connection, columns: str, source: str, where: Where, window: Window, *, cursor: str, descending: bool
) -> Page:
    """The rows of a window over `SELECT columns FROM source`, in the order of the unique column `cursor`."""
    total, is_exact = await _total(connection, source, where, exact=window.exact)
    limits = Where(list(where.conditions), list(where.arguments))
    if window.after is not None:
        limits.add(f"{cursor} {'<' if descending else '>'} {{}}", window.after)
    count = len(limits.arguments)
    rows = await connection.fetch(
        f"SELECT {columns} FROM {source}{limits.text} ORDER BY {cursor}{' DESC' if descending else ''} "
        f"LIMIT ${count + 1} OFFSET ${count + 2}",
        *limits.arguments,
        window.limit + 1,
        window.offset,
    )
    return Page(rows[: window.limit], total, is_exact, len(rows) > window.limit)


async def _total(connection: Connection, source: str, where: Where, *, exact: bool) -> tuple[int, bool]:
    if exact:
        total: int = await connection.fetchval(f"SELECT count(*) FROM {source}{where.text}", *where.arguments)
        return total, True
    counted: int = await connection.fetchval(
        f"SELECT count(*) FROM (SELECT FROM {source}{where.text} LIMIT {COUNTED + 1}) AS counted", *where.arguments
    )
    if counted <= COUNTED:
        return counted, True
    plan = loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) SELECT FROM {source}{where.text}", *where.arguments))
    return max(counted, int(plan[0]["Plan"]["Plan Rows"])), False
