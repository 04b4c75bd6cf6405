"""Events: what happened, and why it had the consequences that it had."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from starlette.responses import Response

from attune.api.answers import many, one
from attune.api.endpoints import Call, Endpoint, NoQuery, Permission
from attune.api.masks import masked
from attune.api.origins import origin_of
from attune.api.paging import Id, IdPageQuery
from attune.base.clock import Clock
from attune.base.errors import Conflict, Forbidden, NotFound, Problem
from attune.base.json import Json, dumps
from attune.base.schema import refuse, validate
from attune.catalog import queries as catalog
from attune.catalog.definitions import Definitions
from attune.catalog.model import Trigger
from attune.database.paging import Where
from attune.database.pool import Database
from attune.events import queries
from attune.events.ingest import Ingest
from attune.events.model import OWN, Event, NewEvent
from attune.people import queries as people
from attune.people.model import Inquiry
from attune.rules.explain import Explained, Explanation, explain

SOURCE = "api"


class EventQuery(IdPageQuery):
    trigger: Id | None = None
    trigger_ref: str | None = None
    rule: Id | None = None
    rule_ref: str | None = None
    source_ref: str | None = None


class CreateEventBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    trigger_ref: Annotated[str, Field(min_length=1, validation_alias=AliasChoices("trigger_ref", "trigger_type"))]
    payload: Any = None
    config: Any = None
    trigger_instance_id: Annotated[str, Field(pattern=r"^rule_[1-9][0-9]{0,17}$")] | None = None


class EventRoutes:
    def __init__(self, database: Database, definitions: Definitions, ingest: Ingest, clock: Clock) -> None:
        self._database = database
        self._definitions = definitions
        self._ingest = ingest
        self._clock = clock

    def endpoints(self) -> list[Endpoint]:
        read = Permission("events", "read", anonymous=True)
        return [
            Endpoint("GET", "/api/v1/events", read, self.list, "List events", query=EventQuery),
            Endpoint(
                "POST",
                "/api/v1/events",
                Permission("events", "create"),
                self.create,
                "Say that something happened",
                body=CreateEventBody,
                status=HTTPStatus.CREATED,
                replay=self.created,
            ),
            Endpoint("GET", "/api/v1/events/{id}", read, self.show, "Show an event"),
            Endpoint("GET", "/api/v1/events/{id}/explain", read, self.explain, "Why rules matched it or did not"),
        ]

    async def list(self, call: Call[EventQuery, None]) -> Response:
        where = Where()
        for name in ("trigger", "trigger_ref", "rule", "rule_ref", "source_ref"):
            where.add_if(f"{name} = {{}}", getattr(call.query, name))
        async with self._database.acquire() as connection:
            page = await queries.page(connection, where, call.query.window())
        items = [{**row, "source": None} for row in page.rows]
        return many(items, page, call.query, items[-1]["id"] if items else None)

    async def show(self, call: Call[NoQuery, None]) -> Response:
        return one(event_view(await self._event(call.path["id"])))

    async def create(self, call: Call[NoQuery, CreateEventBody]) -> Response:
        body = call.body
        if body.trigger_ref in OWN:
            raise Forbidden(f"Nobody but Attune itself makes events of {body.trigger_ref}: they would not be true.")
        trigger = await self._trigger(body.trigger_ref)
        refuse(f"The payload does not fit the trigger {trigger.ref}.", _payload_problems(body.payload, trigger))
        rule = None if body.trigger_instance_id is None else int(body.trigger_instance_id.removeprefix("rule_"))
        known = None if rule is None else self._definitions.rules.by_id.get(rule)
        origin = await origin_of(call.request, self._database)
        new = NewEvent(
            trigger=trigger.id,
            trigger_ref=trigger.ref,
            payload=None if body.payload is None else dumps(body.payload),
            config=None if body.config is None else dumps(body.config),
            source_ref=SOURCE,
            cause=origin.cause,
            execution=origin.execution,
            # A rule that does not exist any more is named all the same: the event is for nobody then, not for
            # everybody.
            rule=rule,
            rule_ref=None if known is None else known.ref,
        )
        accepted = await self._ingest.accept(new, call.key)
        event = Event(
            accepted.id,
            new.trigger,
            new.trigger_ref,
            body.config,
            body.payload,
            new.source_ref,
            new.rule,
            new.rule_ref,
            new.cause.correlation_id,
            new.cause.causation_id,
            new.cause.depth,
            accepted.created,
            new.execution,
        )
        return one(event_view(event), status=HTTPStatus.CREATED)

    async def created(self, _: Call[NoQuery, CreateEventBody], event_id: int) -> Response:
        return one(event_view(await self._event(event_id)), status=HTTPStatus.CREATED)

    async def explain(self, call: Call[NoQuery, None]) -> Response:
        async with self._database.acquire() as connection:
            explanation = await explain(connection, call.path["id"], self._clock.now())
            if explanation is None:
                raise NotFound(f"There is no event {call.path['id']}.")
            asked = await people.of_executions(connection, explanation.executions)
        return one(self._explanation(explanation, asked))

    async def _event(self, event_id: int) -> Event:
        async with self._database.acquire() as connection:
            event = await queries.event(connection, event_id)
        if event is None:
            raise NotFound(f"There is no event {event_id}.")
        return event

    async def _trigger(self, ref: str) -> Trigger:
        trigger = self._definitions.triggers.by_ref.get(ref)
        if trigger is None:
            async with self._database.acquire() as connection:
                await self._definitions.follow(connection, await catalog.current_version(connection))
            trigger = self._definitions.triggers.by_ref.get(ref)
        if trigger is None:
            raise NotFound(f"There is no trigger {ref}.")
        if not trigger.enabled:
            raise Conflict(f"The trigger {ref} is disabled.")
        return trigger

    def _explanation(self, explanation: Explanation, asked: Sequence[Inquiry]) -> dict[str, Any]:
        return {
            "event": event_view(explanation.event),
            "state": explanation.state,
            "matched_at": explanation.matched_at,
            "dead_letter": explanation.dead_letter,
            "note": explanation.note,
            "rules": [self._explained(one_rule, asked) for one_rule in explanation.rules],
        }

    def _explained(self, explained: Explained, asked: Sequence[Inquiry]) -> dict[str, Any]:
        verdict, consequence = explained.verdict, explained.consequence
        action = self._definitions.actions.by_ref.get(verdict.rule.action_ref)
        return {
            "rule": verdict.rule.id,
            "rule_ref": verdict.rule.ref,
            "decision": verdict.decision,
            "error": verdict.error,
            "conditions": None if verdict.clause is None else verdict.clause.as_json(),
            "parameters": None if verdict.parameters is None else masked(verdict.parameters, action),
            "enforcement": None
            if consequence is None
            else {
                "id": consequence.enforcement,
                "status": consequence.enforcement_status,
                "reason": consequence.reason,
            },
            "execution": None
            if consequence is None or consequence.execution is None
            else {
                "id": consequence.execution,
                "status": consequence.execution_status,
                "error": consequence.error,
                "attempts": consequence.attempts,
                "inquiries": [_asked(inquiry) for inquiry in asked if inquiry.execution == consequence.execution],
            },
        }


def _asked(inquiry: Inquiry) -> dict[str, Any]:
    return {
        "id": inquiry.id,
        "status": inquiry.status,
        "prompt": inquiry.question.prompt,
        "created": inquiry.created,
        "responded_by": inquiry.responded_by,
        "responded_at": inquiry.responded_at,
    }


def _payload_problems(payload: Json, trigger: Trigger) -> list[Problem]:
    if payload is None or isinstance(payload, dict):
        return validate(payload or {}, trigger.out_schema, where="/payload", closed=False)
    return [Problem("/payload", "must be an object: the trigger names its fields")] if trigger.out_schema else []


def event_view(event: Event) -> dict[str, Any]:
    return {
        "id": event.id,
        "trigger": event.trigger,
        "trigger_ref": event.trigger_ref,
        "config": event.config,
        "payload": event.payload,
        "source": None,
        "source_ref": event.source_ref,
        "rule": event.rule,
        "rule_ref": event.rule_ref,
        "execution": event.execution,
        "correlation_id": event.correlation_id,
        "created": event.created,
    }
