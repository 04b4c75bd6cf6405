"""Inquiries: what people are asked, and their answers."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import Response

from attune.api.answers import deleted, many, one
from attune.api.endpoints import Call, Endpoint, NoQuery, Permission
from attune.api.origins import origin_of
from attune.api.paging import Id, IdPageQuery
from attune.base.errors import NotFound
from attune.database.paging import Where
from attune.database.pool import Database
from attune.executions import queries as executions
from attune.people import queries
from attune.people.inquiries import Inquiries
from attune.people.model import Inquiry, InquiryStatus

_LONGEST_TIMEOUT = 315_360_000

Assignee = Id | Annotated[str, Field(min_length=1, max_length=255)]


class InquiryQuery(IdPageQuery):
    status: InquiryStatus | None = None
    execution: Id | None = None
    assigned_to: Id | None = None


class CreateInquiryBody(BaseModel):
    """`execution` is who asks; it does not wait for the answer. Without it, an execution of core.ask is made that does.
    `timeout` in seconds, or `timeout_at`, says until when it can be answered."""

    model_config = ConfigDict(extra="forbid")

    execution: Id | None = None
    prompt: Annotated[str, Field(min_length=1, max_length=10_000)]
    response_schema: dict[str, Any] | None = None
    assigned_to: Assignee | None = None
    context: Any = None
    timeout: Annotated[float, Field(gt=0, le=_LONGEST_TIMEOUT)] | None = None
    timeout_at: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None


class UpdateInquiryBody(BaseModel):
    """`status` withdraws the question, and ends the execution that waits; `assigned_to` null lets everybody answer."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["cancelled"] | None = None
    assigned_to: Assignee | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("send status, assigned_to, or both")
        return self


class RespondBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    response: Any


class InquiryRoutes:
    def __init__(self, database: Database, inquiries: Inquiries) -> None:
        self._database = database
        self._inquiries = inquiries

    def endpoints(self) -> list[Endpoint]:
        read, path = Permission("inquiries", "read"), "/api/v1/inquiries/{id}"
        return [
            Endpoint("GET", "/api/v1/inquiries", read, self.list, "List inquiries", query=InquiryQuery),
            Endpoint(
                "POST",
                "/api/v1/inquiries",
                Permission("inquiries", "create"),
                self.create,
                "Ask a person",
                body=CreateInquiryBody,
                status=HTTPStatus.CREATED,
            ),
            Endpoint("GET", path, read, self.show, "Show an inquiry"),
            Endpoint(
                "PUT",
                path,
                Permission("inquiries", "update"),
                self.update,
                "Withdraw an inquiry, or let somebody else answer it",
                body=UpdateInquiryBody,
                aliases=("PATCH",),
            ),
            Endpoint("DELETE", path, Permission("inquiries", "delete"), self.delete, "Forget an inquiry"),
            Endpoint(
                "POST",
                f"{path}/respond",
                Permission("inquiries", "respond"),
                self.respond,
                "Answer an inquiry",
                body=RespondBody,
            ),
            Endpoint(
                "GET",
                "/api/v1/inquiries/status/{status}",
                read,
                self.with_status,
                "List the inquiries in a state",
                query=IdPageQuery,
            ),
            Endpoint(
                "GET",
                "/api/v1/executions/{id}/inquiries",
                read,
                self.of_execution,
                "List what an execution has asked",
                query=IdPageQuery,
            ),
        ]

    async def list(self, call: Call[InquiryQuery, None]) -> Response:
        query = call.query
        return await self._page(query, status=query.status, execution=query.execution, assigned_to=query.assigned_to)

    async def with_status(self, call: Call[IdPageQuery, None]) -> Response:
        name = call.path["status"]
        # The contract spells this one with one l, here and only here.
        status = "cancelled" if name == "canceled" else name
        if status not in set(InquiryStatus):
            raise NotFound(f"There is no state {name}; there are {', '.join(InquiryStatus)}.")
        return await self._page(call.query, status=status)

    async def of_execution(self, call: Call[IdPageQuery, None]) -> Response:
        async with self._database.acquire() as connection:
            if await executions.execution(connection, call.path["id"]) is None:
                raise NotFound(f"There is no execution {call.path['id']}.")
        return await self._page(call.query, execution=call.path["id"])

    async def create(self, call: Call[NoQuery, CreateInquiryBody]) -> Response:
        parameters = call.body.model_dump(mode="json", exclude={"execution"}, exclude_none=True)
        origin = await origin_of(call.request, self._database)
        inquiry = await self._inquiries.create(call.body.execution, parameters, call.caller, origin)
        return one(view(inquiry), status=HTTPStatus.CREATED)

    async def show(self, call: Call[NoQuery, None]) -> Response:
        async with self._database.acquire() as connection:
            inquiry = await queries.inquiry(connection, call.path["id"])
        if inquiry is None:
            raise NotFound(f"There is no inquiry {call.path['id']}.")
        return one(view(inquiry))

    async def update(self, call: Call[NoQuery, UpdateInquiryBody]) -> Response:
        body = call.body
        inquiry = await self._inquiries.change(
            call.path["id"],
            withdraw=body.status is not None,
            assign="assigned_to" in body.model_fields_set,
            to=body.assigned_to,
        )
        return one(view(inquiry))

    async def delete(self, call: Call[NoQuery, None]) -> Response:
        await self._inquiries.delete(call.path["id"])
        return deleted(f"Inquiry {call.path['id']} is deleted.")

    async def respond(self, call: Call[NoQuery, RespondBody]) -> Response:
        origin = await origin_of(call.request, self._database)
        inquiry = await self._inquiries.respond(call.path["id"], call.body.response, call.caller, origin.execution)
        return one(view(inquiry), "Response submitted successfully")

    async def _page(self, query: IdPageQuery, **values: Any) -> Response:
        where = Where()
        for name, value in values.items():
            where.add_if(f"i.{name} = {{}}", value)
        async with self._database.acquire() as connection:
            page, found = await queries.page(connection, where, query.window())
        return many([_summary(inquiry) for inquiry in found], page, query, found[-1].id if found else None)


def _summary(inquiry: Inquiry) -> Mapping[str, Any]:
    """An inquiry as lists show it."""
    return {
        "id": inquiry.id,
        "execution": inquiry.execution,
        "prompt": inquiry.question.prompt,
        "assigned_to": inquiry.question.assigned_to,
        "status": inquiry.status,
        "has_response": inquiry.status is InquiryStatus.RESPONDED,
        "responded_by": inquiry.responded_by,
        "responded_at": inquiry.responded_at,
        "timeout_at": inquiry.question.timeout_at,
        "created": inquiry.created,
    }


def view(inquiry: Inquiry) -> dict[str, Any]:
    """All of an inquiry."""
    return {
        **_summary(inquiry),
        "response_schema": inquiry.question.response_schema,
        "context": inquiry.question.context,
        "response": inquiry.response,
        "correlation_id": inquiry.cause.correlation_id,
        "updated": inquiry.updated,
    }
