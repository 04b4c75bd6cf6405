"""What happens, as it happens: a long poll that misses nothing."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import anyio
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from attune.api.answers import one
from attune.api.endpoints import Call, Endpoint, Permission
from attune.api.paging import LARGEST_ID, Query
from attune.api.routes.executions import summary
from attune.api.waits import beside_executions
from attune.base.errors import BadInput, NotFound, Problem
from attune.base.states import ExecutionStatus
from attune.bus.bus import Bus
from attune.catalog.definitions import Definitions
from attune.database import horizon
from attune.database.horizon import Horizon
from attune.database.paging import Where
from attune.database.pool import Connection, Row
from attune.events import queries as events
from attune.executions import queries as executions
from attune.rules.verdicts import Brief, Matched, verdicts

SHOWN = 500
"""Events, and executions, in one answer, and ids that can be asked about again."""
_EVALUATED = 100
_LONGEST_WAIT = 30
_TABLES = ("event", "execution")
# A busy server is asked five times a second; one whose transactions have not ended, twice.
_PAUSE = 0.2
_UNSETTLED = 0.5

_Number = Annotated[int, Field(ge=0, le=LARGEST_ID)]


class Cursor(BaseModel):
    """Where a caller stands, to whom it is a text without meaning. `commits` counts in the boot `boot`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    boot: str
    commits: int
    settled: Annotated[list[_Number], Field(min_length=len(_TABLES), max_length=len(_TABLES))]
    drawn: Annotated[list[_Number], Field(min_length=len(_TABLES), max_length=len(_TABLES))]
    pending: Annotated[list[str], Field(max_length=1000)]

    @property
    def horizon(self) -> Horizon:
        return Horizon(self.settled, self.drawn, frozenset(self.pending))

    def text(self) -> str:
        return urlsafe_b64encode(self.model_dump_json().encode()).decode()


Ids = Annotated[str, Field(pattern=rf"^([1-9][0-9]{{0,17}}(,[1-9][0-9]{{0,17}}){{0,{SHOWN - 1}}})?$")]


class WatchQuery(Query):
    """`events` and `executions` are ids, joined by commas, to be shown again: events whose verdicts are not known yet,
    executions that had not ended."""

    cursor: str | None = None
    wait: Annotated[int, Field(ge=0, le=_LONGEST_WAIT)] = 0
    events: Ids = ""
    executions: Ids = ""
    rule: str | None = None
    action: str | None = None
    trigger: str | None = None
    status: ExecutionStatus | None = None


class WatchRoutes:
    """`boot` tells this run of the server from others."""

    def __init__(self, bus: Bus, definitions: Definitions, boot: str) -> None:
        self._bus = bus
        self._definitions = definitions
        self._boot = boot

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                "GET",
                "/api/v1/watch",
                Permission("events", "watch"),
                self.watch,
                "New events with their verdicts, and executions: after `cursor`, or within `wait` seconds",
                query=WatchQuery,
            )
        ]

    async def watch(self, call: Call[WatchQuery, None]) -> Response:
        query = call.query
        cursor = None if query.cursor is None else _parse(query.cursor)
        if cursor is None:
            self._check(query)
            return one(await self._begin())
        await self._news(cursor, query.wait, lambda: getattr(call.request.app.state, "stopping", False))
        return one(await self._look(cursor, query))

    def _check(self, query: WatchQuery) -> None:
        """Refuse what could only be waited for in vain, or is a slip."""
        definitions = self._definitions
        for kind, ref, known in (
            ("rule", query.rule, definitions.rules.by_ref),
            ("action", query.action, definitions.actions.by_ref),
            ("trigger", query.trigger, definitions.triggers.by_ref),
        ):
            if ref is not None and ref not in known:
                raise NotFound(f"There is no {kind} {ref}.")

    async def _begin(self) -> dict[str, Any]:
        """Where one stands who sees what happens from now on, and the executions that have not ended."""
        commits = self._bus.counters.commits
        async with self._bus.database.acquire() as connection:
            begin = await horizon.now(connection, _TABLES)
            ids = await executions.newest_open(connection, SHOWN)
            where = Where()
            where.add("e.id = ANY({}::bigint[])", ids)
            found = await _executions(connection, where)
        return self._answer(begin, commits, [], found, cut=False)

    async def _news(self, cursor: Cursor, wait: int, is_stopping: Callable[[], bool]) -> None:
        """Return when there may be something new. Nothing is asked of the database meanwhile."""
        counters = self._bus.counters
        if cursor.boot == self._boot:
            with anyio.move_on_after(wait if cursor.horizon.is_settled else min(wait, _UNSETTLED)):
                while counters.commits == cursor.commits and not is_stopping():  # noqa: ASYNC110 - one number, for all who watch
                    await anyio.sleep(_PAUSE)
        # What follows at once comes along: who is behind is not asked for each row.
        await anyio.sleep(_PAUSE if wait else 0)

    async def _look(self, cursor: Cursor, query: WatchQuery) -> dict[str, Any]:
        commits = self._bus.counters.commits
        before = cursor.horizon
        async with self._bus.database.acquire() as connection:
            after = await horizon.advance(connection, _TABLES, before)
            shown, cut = await self._events(connection, before.settled[0], query)
            ran = await _executions(connection, _of_executions(query, before.settled[1]))
        return self._answer(after, commits, shown, ran, cut=cut or len(ran) > SHOWN)

    async def _events(self, connection: Connection, settled: int, query: WatchQuery) -> tuple[list[Any], bool]:
        """New events and those that were asked for, the oldest first, and whether there were more."""
        if query.status is not None:
            return [], False
        where = Where()
        where.add("(id > {} OR id = ANY({}::bigint[]))", settled, _ids(query.events))
        where.add_if("trigger_ref = {}", query.trigger)
        if query.rule is not None or query.action is not None:
            where.add("trigger_ref = ANY({}::text[])", self._triggers(query))
        if query.rule is not None:
            where.add("(rule IS NULL OR rule_ref = {})", query.rule)
        rows = await events.newer(connection, where, SHOWN + 1)
        known = await verdicts(connection, [row["id"] for row in rows], _EVALUATED)
        found = [_event(row, known.get(row["id"]), query) for row in reversed(rows[:SHOWN])]
        return found, len(rows) > SHOWN

    def _triggers(self, query: WatchQuery) -> list[str]:
        rules = self._definitions.rules.by_ref.values()
        return sorted(
            {
                rule.trigger_ref
                for rule in rules
                if query.rule in {None, rule.ref} and query.action in {None, rule.action_ref}
            }
        )

    def _answer(
        self, now: Horizon, commits: int, shown: Sequence[Any], ran: Sequence[Any], *, cut: bool
    ) -> dict[str, Any]:
        cursor = Cursor(
            boot=self._boot,
            commits=commits,
            settled=list(now.settled),
            drawn=list(now.drawn),
            pending=sorted(now.pending),
        )
        return {
            "cursor": cursor.text(),
            "settled": dict(zip(("events", "executions"), now.settled, strict=True)),
            "events": shown,
            "executions": ran[-SHOWN:],
            "cut": cut,
        }


def _ids(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def _parse(text: str) -> Cursor:
    try:
        return Cursor.model_validate_json(urlsafe_b64decode(text.encode()))
    except (ValidationError, ValueError) as error:
        raise BadInput("The query is wrong.", [Problem("/cursor", "must be the cursor of an answer before")]) from error


def _of_executions(query: WatchQuery, settled: int) -> Where:
    where = Where()
    where.add("(e.id > {} OR e.id = ANY({}::bigint[]))", settled, _ids(query.executions))
    where.add_if("n.rule_ref = {}", query.rule)
    where.add_if("n.trigger_ref = {}", query.trigger)
    where.add_if("e.action_ref = {}", query.action)
    return where


async def _executions(connection: Connection, where: Where) -> list[dict[str, Any]]:
    """The executions that fit, the oldest first."""
    rows = await executions.newer(connection, where, SHOWN + 1)
    beside = await beside_executions(connection, rows)
    return [summary(row, beside) | {"error": row["error"]} for row in reversed(rows)]


def _event(row: Row, matched: Matched | None, query: WatchQuery) -> dict[str, Any]:
    return {**row, "matched": None if matched is None else _matched(matched, query)}


def _matched(matched: Matched, query: WatchQuery) -> Mapping[str, Any]:
    shown = asdict(matched)
    if matched.rules is not None:
        shown["rules"] = [asdict(brief) for brief in matched.rules if _is_wanted(brief, query)]
    return shown


def _is_wanted(brief: Brief, query: WatchQuery) -> bool:
    return query.rule in {None, brief.rule_ref} and query.action in {None, brief.action_ref}
