"""Enforcements: that a rule matched an event."""

from typing import Any

from starlette.responses import Response

from attune.api.answers import fragment, many, one
from attune.api.endpoints import Call, Endpoint, NoQuery, Permission
from attune.api.masks import masked
from attune.api.paging import Id, IdPageQuery
from attune.api.waits import Letters, beside_enforcements, of_enforcement
from attune.base.errors import NotFound
from attune.base.json import loads
from attune.base.states import EnforcementStatus
from attune.catalog import queries as catalog
from attune.catalog.definitions import Definitions
from attune.catalog.model import Rule
from attune.database.paging import Where
from attune.database.pool import Database, Row
from attune.executions import enforcement_queries
from attune.rules.conditions import junction_of


class EnforcementQuery(IdPageQuery):
    rule: Id | None = None
    event: Id | None = None
    status: EnforcementStatus | None = None
    trigger_ref: str | None = None
    rule_ref: str | None = None


class EnforcementRoutes:
    def __init__(self, database: Database, definitions: Definitions) -> None:
        self._database = database
        self._definitions = definitions

    def endpoints(self) -> list[Endpoint]:
        read = Permission("enforcements", "read", anonymous=True)
        return [
            Endpoint("GET", "/api/v1/enforcements", read, self.list, "List enforcements", query=EnforcementQuery),
            Endpoint("GET", "/api/v1/enforcements/{id}", read, self.show, "Show an enforcement"),
        ]

    async def list(self, call: Call[EnforcementQuery, None]) -> Response:
        where = Where()
        for name in ("rule", "event", "status", "trigger_ref", "rule_ref"):
            where.add_if(f"n.{name} = {{}}", getattr(call.query, name))
        async with self._database.acquire() as connection:
            page = await enforcement_queries.enforcements_page(connection, where, call.query.window())
            letters = await beside_enforcements(connection, page.rows)
        items = [{**row, **_wait(row, letters)} for row in page.rows]
        return many(items, page, call.query, items[-1]["id"] if items else None)

    async def show(self, call: Call[NoQuery, None]) -> Response:
        async with self._database.acquire() as connection:
            row = await enforcement_queries.enforcement_row(connection, call.path["id"])
            if row is None:
                raise NotFound(f"There is no enforcement {call.path['id']}.")
            version = row["definition_version"]
            rule = None if version is None else await catalog.rule_at(connection, version, row["rule"])
            letters = await beside_enforcements(connection, [row])
        return one(self._view(row, rule) | _wait(row, letters))

    def _view(self, row: Row, rule: Rule | None) -> dict[str, Any]:
        action_ref = row["action_ref"] or (rule.action_ref if rule else None)
        action = self._definitions.actions.by_ref.get(action_ref) if action_ref else None
        shown = {name: value for name, value in row.items() if name not in {"action_ref", "definition_version"}}
        return shown | {
            "config": masked(loads(row["config"]), action),
            "condition": "all" if rule is None else junction_of(rule.conditions),
            "conditions": [] if rule is None else rule.conditions,
            "payload": fragment(row["payload"]),
        }


def _wait(row: Row, letters: Letters) -> dict[str, Any]:
    wait = of_enforcement(row, letters)
    return {"waiting_for": wait and wait.what, "waiting_since": wait and wait.since}
