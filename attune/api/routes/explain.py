"""Why rules fired or did not: one over a time, and all that some events were for."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from starlette.responses import Response

from attune.api.answers import one
from attune.api.endpoints import Call, Endpoint, Permission
from attune.api.paging import Ids, Query, ids_of
from attune.api.spans import Span, length
from attune.base.clock import Clock
from attune.base.errors import NotFound
from attune.catalog import queries as catalog
from attune.catalog.definitions import Definitions
from attune.catalog.model import Rule
from attune.database.pool import Database, Row
from attune.rules.history import COUNTED, EVALUATED, History, history
from attune.rules.verdicts import verdicts
from attune.sources.timers import queries as timers

_SKIPS = 100


class SinceQuery(Query):
    since: Span = "24h"
    """How far back."""


class VerdictsQuery(Query):
    event: Ids = ""
    """Of events."""


class ExplainRoutes:
    def __init__(
        self, database: Database, definitions: Definitions, clock: Clock, kept_since: Callable[[], datetime]
    ) -> None:
        """`kept_since` tells from which moment on all events are there."""
        self._database = database
        self._definitions = definitions
        self._clock = clock
        self._kept_since = kept_since

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                "GET",
                "/api/v1/rules/{ref}/explain",
                Permission("rules", "read", anonymous=True),
                self.rule,
                "How often it fired, and why not the other times, `since` (30m, 24h, 7d) until now",
                query=SinceQuery,
            ),
            Endpoint(
                "GET",
                "/api/v1/verdicts",
                Permission("events", "read", anonymous=True),
                self.verdicts,
                "What rules made of up to a hundred events, `event=1,2,3`, briefly",
                query=VerdictsQuery,
            ),
        ]

    async def rule(self, call: Call[SinceQuery, None]) -> Response:
        since = self._clock.now() - length(call.query.since)
        async with self._database.acquire() as connection:
            rule = await catalog.definition(connection, "rule", call.path["ref"])
            if not isinstance(rule, Rule):
                raise NotFound(f"There is no rule {call.path['ref']}.")
            (timer,) = await timers.timers(connection, [rule.id]) or (None,)
            found = await history(connection, rule, since, self._clock, has_timer=timer is not None)
            skips = [] if timer is None else await timers.skips(connection, rule.id, _SKIPS)
        skipped = [dict(skip) for skip in skips if skip["created"] >= since]
        return one(_view(found, skipped) | {"next_fire_at": timer and timer.next_fire_at, "notes": self._notes(found)})

    async def verdicts(self, call: Call[VerdictsQuery, None]) -> Response:
        async with self._database.acquire() as connection:
            found = await verdicts(connection, ids_of(call.query.event))
        return one(
            {
                "verdicts": [
                    {"event": event, "rules": [asdict(brief) for brief in found[event]]} for event in sorted(found)
                ]
            }
        )

    def _notes(self, found: History) -> list[str]:
        rule = found.rule
        notes = [] if rule.enabled else ["The rule is disabled now."]
        trigger = self._definitions.triggers.by_ref.get(rule.trigger_ref)
        if trigger is None:
            notes.append(f"There is no trigger {rule.trigger_ref} any more.")
        elif not trigger.enabled:
            notes.append(f"The trigger {rule.trigger_ref} is disabled now.")
        if rule.action_ref not in self._definitions.actions.by_ref:
            notes.append(f"There is no action {rule.action_ref} any more.")
        kept_since = self._kept_since()
        if max(found.since, rule.created) < kept_since:
            notes.append(f"Events from before {kept_since:%Y-%m-%d %H:%M} UTC are not kept any more.")
        if not found.complete:
            notes.append(f"There were more events: only the newest {COUNTED:,} are counted.")
        if found.unexamined:
            notes.append(
                f"{found.unexamined:,} events that did not match were not evaluated again; of the others, the newest "
                f"{EVALUATED:,} at most were."
            )
        return notes


def _view(found: History, skipped: Sequence[Row]) -> dict[str, Any]:
    return {
        "rule": found.rule.id,
        "rule_ref": found.rule.ref,
        "enabled": found.rule.enabled,
        "trigger_ref": found.rule.trigger_ref,
        "action_ref": found.rule.action_ref,
        "since": found.since,
        "until": found.until,
        "events": found.events,
        "complete": found.complete,
        "newest_event": None if found.newest is None else {"id": found.newest[0], "created": found.newest[1]},
        "fired": found.fired,
        "last_fired_event": found.last_fired,
        "waiting": found.waiting,
        "disabled": found.disabled,
        "unexamined": found.unexamined,
        "not_matched": [asdict(reason) for reason in found.not_matched.listed()],
        "errors": [asdict(reason) for reason in found.errors.listed()],
        "not_run": [asdict(reason) for reason in found.not_run.listed()],
        "executions": found.executions,
        "failures": [asdict(reason) for reason in found.failures.listed()],
        "skipped": skipped,
    }
