"""Dead letters, for people: what was given up and why, to be replayed or discarded."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import Response

from attune.api.answers import fragment, many, one
from attune.api.endpoints import Call, Endpoint, NoQuery, Permission
from attune.api.paging import Id, IdPageQuery
from attune.api.spans import Span, length
from attune.bus import queries
from attune.bus.bus import Bus
from attune.bus.dead_letters import DeadLetters, Handled, missing
from attune.database.paging import Where
from attune.database.pool import Connection, Row
from attune.events import queries as events
from attune.executions import enforcement_queries
from attune.executions import queries as executions
from attune.rules import queries as rules

_PATH = "/api/v1/bus/dead-letters"
_AT_ONCE = 500

_Text = Annotated[str, Field(min_length=1)]


class DeadLetterFilter(BaseModel):
    """What letters are like: the whole of `queue`, `message_type` and `subject`, a part of `error`; given up `since`
    so long, or `before` that."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    queue: _Text | None = None
    message_type: _Text | None = None
    subject: _Text | None = None
    error: _Text | None = None
    since: Span | None = None
    before: Span | None = None

    def where(self, now: datetime) -> Where:
        """The conditions on a dead letter."""
        where = Where()
        for name in ("queue", "message_type", "subject"):
            where.add_if(f"{name} = {{}}", getattr(self, name))
        where.add_if("strpos(lower(error), lower({})) > 0", self.error)
        where.add_if("created >= {}", None if self.since is None else now - length(self.since))
        where.add_if("created < {}", None if self.before is None else now - length(self.before))
        return where


class DeadLetterQuery(IdPageQuery, DeadLetterFilter):
    """A page of the letters that fit."""


class DeadLettersBody(BaseModel):
    """Which letters: those with these `ids`; or, the oldest first and at most `limit` of them, those that fit a
    `filter`, or `all`. To go on, `after` takes the `next_after` of the answer before."""

    model_config = ConfigDict(extra="forbid")

    ids: Annotated[list[Id], Field(min_length=1, max_length=_AT_ONCE)] | None = None
    filter: DeadLetterFilter | None = None
    all: Literal[True] | None = None
    after: Id | None = None
    limit: Annotated[int, Field(ge=1, le=_AT_ONCE)] = _AT_ONCE

    @model_validator(mode="after")
    def _is_clear(self) -> Self:
        if sum(choice is not None for choice in (self.ids, self.filter, self.all)) != 1:
            raise ValueError("send one of ids, filter and all")
        if self.filter == DeadLetterFilter():
            raise ValueError("the filter is empty; send all: true if every dead letter is meant")
        if self.ids is not None and self.model_fields_set & {"after", "limit"}:
            raise ValueError("after and limit are for a filter, or all")
        return self


Handler = Callable[[Sequence[int], str], Awaitable[Handled]]


class DeadLetterRoutes:
    def __init__(self, bus: Bus, dead_letters: DeadLetters) -> None:
        self._bus = bus
        self._dead_letters = dead_letters

    def endpoints(self) -> list[Endpoint]:
        read, manage = Permission("bus", "read"), Permission("bus", "manage")
        body = DeadLettersBody
        return [
            Endpoint("GET", _PATH, read, self.list, "List dead letters", query=DeadLetterQuery),
            Endpoint("GET", f"{_PATH}/{{id}}", read, self.show, "Show a dead letter, its way, and what it is about"),
            Endpoint("POST", f"{_PATH}/{{id}}/replay", manage, self.replay, "Let a dead letter be tried again"),
            Endpoint("POST", f"{_PATH}/{{id}}/discard", manage, self.discard, "End what a dead letter is about"),
            Endpoint("POST", f"{_PATH}/replay", manage, self.replay_many, "Let dead letters be tried again", body=body),
            Endpoint(
                "POST", f"{_PATH}/discard", manage, self.discard_many, "End what dead letters are about", body=body
            ),
        ]

    async def list(self, call: Call[DeadLetterQuery, None]) -> Response:
        async with self._bus.database.acquire() as connection:
            where = call.query.where(self._bus.clock.now())
            page = await queries.dead_letters_page(connection, where, call.query.window())
        items = [_view(row) for row in page.rows]
        return many(items, page, call.query, items[-1]["id"] if items else None)

    async def show(self, call: Call[NoQuery, None]) -> Response:
        number = call.path["id"]
        async with self._bus.database.acquire() as connection:
            row = await queries.dead_letter_row(connection, number)
            if row is None:
                raise missing(number)
            state = await _state(connection, row["subject"])
        route = self._dead_letters.route(queries.letter_of(row))
        return one(_view(row) | {"subject_state": state} | route._asdict())

    async def replay(self, call: Call[NoQuery, None]) -> Response:
        return await self._one(self._dead_letters.replay, call)

    async def discard(self, call: Call[NoQuery, None]) -> Response:
        return await self._one(self._dead_letters.discard, call)

    async def replay_many(self, call: Call[NoQuery, DeadLettersBody]) -> Response:
        return await self._many(self._dead_letters.replay, call)

    async def discard_many(self, call: Call[NoQuery, DeadLettersBody]) -> Response:
        return await self._many(self._dead_letters.discard, call)

    async def _one(self, handle: Handler, call: Call[NoQuery, None]) -> Response:
        number = call.path["id"]
        handled = await handle([number], call.caller.name)
        for error in handled.failures.values():
            raise error
        return one({"id": number, "became": handled.became[number]})

    async def _many(self, handle: Handler, call: Call[NoQuery, DeadLettersBody]) -> Response:
        numbers, remaining = await self._named(call.body)
        handled = await handle(numbers, call.caller.name)
        return one(
            {
                "affected": len(handled.became),
                "remaining": remaining,
                "next_after": numbers[-1] if remaining else None,
                "letters": [{"id": number, "became": became} for number, became in handled.became.items()],
                "failures": [{"id": number, "error": error.message} for number, error in handled.failures.items()],
            }
        )

    async def _named(self, body: DeadLettersBody) -> tuple[Sequence[int], int]:
        """The letters that a body names, and how many more it does not get to."""
        if body.ids is not None:
            return sorted(set(body.ids)), 0
        where = (body.filter or DeadLetterFilter()).where(self._bus.clock.now())
        where.add_if("id > {}", body.after)
        async with self._bus.database.acquire() as connection:
            return await queries.next_dead_letters(connection, where, body.limit)


def _view(row: Row) -> dict[str, Any]:
    return {**row, "payload": fragment(row["payload"])}


async def _state(connection: Connection, subject: str | None) -> str | None:
    """The state of the row that a letter is about; None when there is none."""
    kind, _, number = (subject or "").partition(":")
    match kind:
        case "event":
            if await events.event(connection, int(number)) is None:
                return None
            return "waiting" if await rules.seen_by_matcher(connection, int(number)) is None else "matched"
        case "enforcement":
            row = await enforcement_queries.enforcement_row(connection, int(number))
            return None if row is None else str(row["status"])
        case "execution":
            return (await executions.statuses(connection, [int(number)])).get(int(number))
        case _:
            return None
