"""Timers: what waits for the clock, and when it will fire."""

from typing import Annotated, Any

import anyio
from pydantic import Field
from starlette.responses import Response

from attune.api.answers import many, one
from attune.api.endpoints import Call, Endpoint, Permission
from attune.api.paging import PageQuery, Query
from attune.base.clock import Clock
from attune.base.errors import NotFound
from attune.catalog import queries as catalog
from attune.catalog.model import Rule
from attune.database.paging import Where
from attune.database.pool import Connection, Database
from attune.sources.timers import queries
from attune.sources.timers.params import TRIGGERS
from attune.sources.timers.previews import Instant, preview, upcoming
from attune.sources.timers.queries import TimerRow

_MOST_INSTANTS = 100


class NextQuery(Query):
    """How many instants."""

    count: Annotated[int, Field(ge=1, le=_MOST_INSTANTS)] = 5


class TimerRoutes:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def endpoints(self) -> list[Endpoint]:
        read = Permission("rules", "read", anonymous=True)
        path = "/api/v1/timers"
        return [
            Endpoint("GET", path, read, self.list, "List timers", query=PageQuery),
            Endpoint("GET", f"{path}/{{ref}}/next", read, self.next, "Show when a timer fires next", query=NextQuery),
        ]

    async def list(self, call: Call[PageQuery, None]) -> Response:
        where = Where()
        where.add("trigger_ref = ANY({})", list(TRIGGERS))
        async with self._database.acquire() as connection:
            page = await catalog.page(connection, "rule", where, call.query.window())
            rules = [Rule.from_row(row) for row in page.rows]
            timers = await queries.timers(connection, [rule.id for rule in rules])
        by_rule = {timer.rule: timer for timer in timers}
        items = []
        for rule in rules:
            # A rule that was made or deleted meanwhile is in one of them only.
            if rule.id in by_rule:
                items.append(_whole(rule, by_rule[rule.id]))
            await anyio.lowlevel.checkpoint()
        return many(items, page, call.query, rules[-1].ref if rules else None)

    async def next(self, call: Call[NextQuery, None]) -> Response:
        async with self._database.acquire() as connection:
            rule, timer = await _timer(connection, call.path["ref"])
        instants = await upcoming(timer, self._clock.now(), call.query.count, enabled=rule.enabled)
        return one(_whole(rule, timer) | {"next": instants_view(instants)})


def instants_view(instants: list[Instant]) -> list[dict[str, Any]]:
    """Instants as they are answered."""
    return [{"utc": instant.utc, "local": instant.local} for instant in instants]


async def _timer(connection: Connection, ref: str) -> tuple[Rule, TimerRow]:
    rule = await catalog.definition(connection, "rule", ref)
    if not isinstance(rule, Rule):
        raise NotFound(f"There is no rule {ref}.")
    timers = await queries.timers(connection, [rule.id])
    if not timers:
        raise NotFound(f"The rule {ref} is on {rule.trigger_ref}, which is no timer; those are {', '.join(TRIGGERS)}.")
    return rule, timers[0]


def timer_view(rule: Rule, timer: TimerRow) -> dict[str, Any]:
    """What a timer is doing, as it is answered with its rule."""
    seen = preview(timer, enabled=rule.enabled)
    return {
        "state": seen.state,
        "schedule": seen.schedule,
        "timezone": seen.timezone,
        "problem": seen.problem,
        "last_fired_at": timer.last_fired_at,
        "execution_count": timer.execution_count,
    }


def _whole(rule: Rule, timer: TimerRow) -> dict[str, Any]:
    named = {"rule": rule.id, "rule_ref": rule.ref, "trigger_ref": rule.trigger_ref}
    return named | timer_view(rule, timer) | {"next_fire_at": timer.next_fire_at}
