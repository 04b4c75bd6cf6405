"""What happens, as it happens: streams of server-sent events."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from attune.access.model import Caller, How
from attune.api.authentication import Gate
from attune.api.endpoints import Answer, Call, Endpoint, Permission
from attune.api.paging import LARGEST_ID, MOST_IDS, Ids, Query, ids_of
from attune.api.streams import EventStream
from attune.base.errors import BadInput, Forbidden, Problem, Unauthenticated
from attune.base.states import EnforcementStatus, ExecutionStatus
from attune.bus.messages import Entity
from attune.live.forms import Form, named, unnamed
from attune.live.notes import Filter
from attune.live.views import Kind, LiveViews, Reader
from attune.people.model import InquiryStatus

READ: Final[Mapping[Entity, Permission]] = {
    Entity.EVENT: Permission("events", "read", anonymous=True),
    Entity.ENFORCEMENT: Permission("enforcements", "read", anonymous=True),
    Entity.EXECUTION: Permission("executions", "read", anonymous=True),
    Entity.INQUIRY: Permission("inquiries", "read"),
    Entity.RULE: Permission("rules", "read", anonymous=True),
    Entity.DEAD_LETTER: Permission("bus", "read"),
}
"""What somebody has to be allowed to read to be told of it: the same as in the lists."""

_STATUSES: Final[Mapping[Entity, type[StrEnum]]] = {
    Entity.ENFORCEMENT: EnforcementStatus,
    Entity.EXECUTION: ExecutionStatus,
    Entity.INQUIRY: InquiryStatus,
}
_Words = Annotated[str, Field(max_length=5_000, pattern=rf"^[^,\s]+(,[^,\s]+){{0,{MOST_IDS - 1}}}$")]


class StreamQuery(Query):
    """Each filter takes several values, joined by commas. `ref` is that of a rule, an action or a trigger."""

    entity: _Words | None = None
    ref: _Words | None = None
    id: Ids | None = None
    status: _Words | None = None


class ExecutionStreamQuery(Query):
    execution_id: Annotated[int, Field(ge=1, le=LARGEST_ID)] | None = None


class StreamRoutes:
    def __init__(self, live: LiveViews, gate: Gate) -> None:
        self._live = live
        self._gate = gate
        self._all = Endpoint(
            "GET",
            "/api/v1/stream",
            Permission("stream", "read", anonymous=True),
            self.stream,
            "What happens from now on, of all that the caller may read",
            query=StreamQuery,
            answer=Answer.STREAM,
        )
        self._executions = Endpoint(
            "GET",
            "/api/v1/executions/stream",
            READ[Entity.EXECUTION],
            self.stream_executions,
            "Executions as they are made and come to other states, without names of events",
            query=ExecutionStreamQuery,
            answer=Answer.STREAM,
        )

    def endpoints(self) -> list[Endpoint]:
        return [self._all, self._executions]

    async def stream(self, call: Call[StreamQuery, None]) -> Response:
        query = call.query
        entities = self._entities(call.caller, query.entity)
        statuses = dict.fromkeys(
            status for entity in Entity if entity in entities for status in _STATUSES.get(entity, ())
        )
        wanted = Filter(
            entities=entities,
            ids=frozenset(ids_of(query.id or "")),
            refs=frozenset(_split(query.ref)),
            statuses=frozenset(_known("status", query.status, list(statuses))),
        )
        return self._answer(call.request, self._all, wanted, named)

    async def stream_executions(self, call: Call[ExecutionStreamQuery, None]) -> Response:
        number = call.query.execution_id
        wanted = Filter(frozenset({Entity.EXECUTION}), ids=frozenset() if number is None else frozenset({number}))
        return self._answer(call.request, self._executions, wanted, unnamed)

    def _answer(self, request: Request, endpoint: Endpoint, wanted: Filter, form: Form) -> Response:
        self._live.check()
        reader = Reader(Kind.SSE, form, frozenset({wanted}))
        last = request.headers.get("last-event-id")
        return EventStream(self._live, reader, last, lambda: self._gate.caller(request, endpoint))

    def _entities(self, caller: Caller, asked: str | None) -> frozenset[Entity]:
        """What somebody is told of. Raises for what it asks for by name and may not read."""
        allowed = readable(self._gate, caller)
        if asked is None:
            return allowed
        entities = frozenset(map(Entity, _known("entity", asked, list(Entity))))
        for entity in sorted(entities - allowed):
            if caller.how is How.ANONYMOUS:
                raise Unauthenticated(f"Send a token to be told of {entity}: nobody in particular is not.")
            raise Forbidden(f"Insufficient permissions: {READ[entity].resource}:{READ[entity].action}")
        return entities


def readable(gate: Gate, caller: Caller) -> frozenset[Entity]:
    """What somebody may be told of."""
    return frozenset(entity for entity, permission in READ.items() if gate.allows(caller, permission))


def _known(name: str, text: str | None, known: Sequence[str]) -> list[str]:
    """The values of a filter. Raises BadInput for one that nothing will ever have."""
    values = _split(text)
    unknown = sorted(set(values) - set(known))
    if unknown:
        what = f"does not know {', '.join(unknown)}; it takes {', '.join(known) or 'nothing here'}"
        raise BadInput("The query is wrong.", [Problem(f"/{name}", what)])
    return values


def _split(text: str | None) -> list[str]:
    return text.split(",") if text else []
