"""Rules: made, changed, switched and deleted by people."""

from http import HTTPStatus
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from attune.api.answers import deleted, many, one
from attune.api.endpoints import Answer, Call, Endpoint, NoQuery, Permission
from attune.api.masks import masked, refuse_masks
from attune.api.paging import PageQuery
from attune.api.routes.catalog import exists
from attune.api.routes.timers import instants_view, timer_view
from attune.base.clock import Clock
from attune.base.errors import NotFound
from attune.catalog import queries
from attune.catalog.definitions import Definitions
from attune.catalog.export import rule_yaml
from attune.catalog.model import Rule
from attune.catalog.queries import RuleSpec
from attune.catalog.rules import Rules
from attune.database.paging import Where
from attune.database.pool import Connection, Database
from attune.sources.timers import queries as timers
from attune.sources.timers.previews import upcoming
from attune.sources.timers.queries import TimerRow

Ref = Annotated[str, Field(min_length=1, max_length=255)]
Label = Annotated[str, Field(min_length=1, max_length=255)]

_SKIPS_SHOWN = 5
_INSTANTS_SHOWN = 3


class CreateRuleBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ref: Ref
    pack_ref: Ref
    label: Label
    description: str | None = None
    action_ref: Ref
    trigger_ref: Ref
    conditions: Any = None
    action_params: dict[str, Any] = {}
    trigger_params: dict[str, Any] = {}
    enabled: bool = True
    overlap: Literal["allow", "skip", "queue"] = "allow"


class UpdateRuleBody(BaseModel):
    """What is absent stays; null clears what can be empty."""

    model_config = ConfigDict(extra="forbid")

    label: Label = ""
    description: str | None = None
    action_ref: Ref = ""
    trigger_ref: Ref = ""
    conditions: Any = None
    action_params: dict[str, Any] | None = None
    trigger_params: dict[str, Any] | None = None
    enabled: bool = True
    overlap: Literal["allow", "skip", "queue"] = "allow"

    def changes(self) -> dict[str, Any]:
        """The fields that were sent."""
        empty: dict[str, Any] = {"conditions": [], "action_params": {}, "trigger_params": {}}
        sent = {name: getattr(self, name) for name in self.model_fields_set}
        return {name: empty[name] if value is None and name in empty else value for name, value in sent.items()}


class RuleRoutes:
    def __init__(self, database: Database, rules: Rules, definitions: Definitions, clock: Clock) -> None:
        self._database = database
        self._rules = rules
        self._definitions = definitions
        self._clock = clock

    def endpoints(self) -> list[Endpoint]:
        read = Permission("rules", "read", anonymous=True)
        update = Permission("rules", "update")
        path = "/api/v1/rules/{ref}"
        return [
            self._list("/api/v1/rules"),
            self._list("/api/v1/rules/enabled", enabled=True),
            self._list("/api/v1/packs/{pack}/rules"),
            self._list("/api/v1/actions/{action}/rules"),
            self._list("/api/v1/triggers/{trigger}/rules"),
            Endpoint(
                "POST",
                "/api/v1/rules",
                Permission("rules", "create"),
                self.create,
                "Make a rule",
                body=CreateRuleBody,
                status=HTTPStatus.CREATED,
            ),
            Endpoint("GET", path, read, self.show, "Show a rule"),
            Endpoint("PUT", path, update, self.update, "Change a rule", body=UpdateRuleBody, aliases=("PATCH",)),
            Endpoint("DELETE", path, Permission("rules", "delete"), self.delete, "Delete a rule"),
            Endpoint(
                "GET",
                f"{path}/source",
                Permission("rules", "export"),
                self.source,
                "Show a rule as a file",
                answer=Answer.FILE,
            ),
            Endpoint("POST", f"{path}/enable", update, self.enable, "Switch a rule on"),
            Endpoint("POST", f"{path}/disable", update, self.disable, "Switch a rule off"),
        ]

    def _list(self, path: str, *, enabled: bool | None = None) -> Endpoint:
        async def answer(call: Call[PageQuery, None]) -> Response:
            where = Where()
            where.add_if("enabled = {}", enabled)
            async with self._database.acquire() as connection:
                for kind in ("pack", "action", "trigger"):
                    await exists(connection, kind, call.path.get(kind))
                    where.add_if(f"{kind}_ref = {{}}", call.path.get(kind))
                page = await queries.page(connection, "rule", where, call.query.window())
                found = [Rule.from_row(row) for row in page.rows]
                planned = await _timers(connection, found)
            items = [self._summary(rule, planned.get(rule.id)) for rule in found]
            return many(items, page, call.query, found[-1].ref if found else None)

        return Endpoint("GET", path, Permission("rules", "read", anonymous=True), answer, "List rules", query=PageQuery)

    async def show(self, call: Call[NoQuery, None]) -> Response:
        return one(await self._view(call.path["ref"]))

    async def create(self, call: Call[NoQuery, CreateRuleBody]) -> Response:
        values = call.body.model_dump()
        _refuse_masks(values)
        values["conditions"] = values["conditions"] if values["conditions"] is not None else []
        saved = await self._rules.create(RuleSpec(**values), call.caller.id)
        return one(await self._view(saved.rule.ref, saved.warnings), status=HTTPStatus.CREATED)

    async def update(self, call: Call[NoQuery, UpdateRuleBody]) -> Response:
        changes = call.body.changes()
        _refuse_masks(changes)
        return await self._change(call.path["ref"], changes)

    async def enable(self, call: Call[NoQuery, None]) -> Response:
        return await self._change(call.path["ref"], {"enabled": True})

    async def disable(self, call: Call[NoQuery, None]) -> Response:
        return await self._change(call.path["ref"], {"enabled": False})

    async def delete(self, call: Call[NoQuery, None]) -> Response:
        await self._rules.delete(call.path["ref"])
        return deleted(f"The rule {call.path['ref']} is deleted.")

    async def source(self, call: Call[NoQuery, None]) -> Response:
        ref = call.path["ref"]
        async with self._database.acquire() as connection:
            file = await queries.file_of(connection, "rule", ref)
            rule = await queries.definition(connection, "rule", ref)
        if not isinstance(rule, Rule):
            raise NotFound(f"There is no rule {ref}.")
        content = file[1] if file else rule_yaml(rule).encode()
        return Response(content, media_type="application/yaml")

    async def _change(self, ref: str, changes: dict[str, Any]) -> Response:
        saved = await self._rules.update(ref, changes)
        return one(await self._view(ref, saved.warnings))

    async def _view(self, ref: str, warnings: tuple[str, ...] = ()) -> dict[str, Any]:
        async with self._database.acquire() as connection:
            rule = await queries.definition(connection, "rule", ref)
            if not isinstance(rule, Rule):
                raise NotFound(f"There is no rule {ref}.")
            timer = (await _timers(connection, [rule])).get(rule.id)
            skips = [] if timer is None else await timers.skips(connection, rule.id, _SKIPS_SHOWN)
        view = self._summary(rule, timer) | {
            "pack": rule.pack,
            "action": rule.action,
            "trigger": rule.trigger,
            "conditions": rule.conditions,
            "owner_identity": rule.owner_identity,
        }
        if timer is not None:
            instants = await upcoming(timer, self._clock.now(), _INSTANTS_SHOWN, enabled=rule.enabled)
            view["timer"] = timer_view(rule, timer) | {
                "next": instants_view(instants),
                "skipped": [dict(skip) for skip in skips],
            }
        if warnings:
            view["warnings"] = warnings
        return view

    def _summary(self, rule: Rule, timer: TimerRow | None) -> dict[str, Any]:
        summary = {
            "id": rule.id,
            "ref": rule.ref,
            "pack_ref": rule.pack_ref,
            "label": rule.label,
            "description": rule.description,
            "action_ref": rule.action_ref,
            "trigger_ref": rule.trigger_ref,
            "action_params": masked(rule.action_params, self._definitions.actions.by_ref.get(rule.action_ref)),
            "trigger_params": masked(rule.trigger_params, self._definitions.triggers.by_ref.get(rule.trigger_ref)),
            "enabled": rule.enabled,
            "overlap": rule.overlap,
            "is_adhoc": rule.is_adhoc,
            "created": rule.created,
            "updated": rule.updated,
        }
        if timer is not None:
            summary["next_fire_at"] = timer.next_fire_at
        return summary


def _refuse_masks(values: dict[str, Any]) -> None:
    for name in ("trigger_params", "action_params"):
        refuse_masks(values.get(name, {}), f"/{name}")


async def _timers(connection: Connection, rules: list[Rule]) -> dict[int, TimerRow]:
    return {timer.rule: timer for timer in await timers.timers(connection, [rule.id for rule in rules])}
