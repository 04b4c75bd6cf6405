"""Executions: what ran, what runs, what waits; and asking for one."""

from http import HTTPStatus
from typing import Annotated, Any, Self

import anyio
import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import PlainTextResponse, Response

from attune.api.answers import fragment, many, one
from attune.api.endpoints import Answer, Call, Endpoint, NoQuery, Permission
from attune.api.masks import masked, refuse_masks
from attune.api.origins import origin_of
from attune.api.paging import LARGEST_ID, Id, IdPageQuery, Query
from attune.api.waits import Beside, beside_executions, of_execution
from attune.base.errors import NotFound
from attune.base.json import loads
from attune.base.states import ExecutionStatus
from attune.catalog.definitions import Definitions
from attune.database.paging import Where
from attune.database.pool import Database, Row
from attune.executions import listing_queries, queries
from attune.executions.completion import Waiters
from attune.executions.requests import Requests
from attune.workers.logs import STREAMS, Logs
from attune.workers.scripts import script_path

_LONGEST_WAIT = 30
_LOOK_AGAIN = 5.0


class ExecutionQuery(IdPageQuery):
    """`action_ref`, `rule_ref` and `trigger_ref` take `pack.*` as well."""

    status: ExecutionStatus | None = None
    action_ref: str | None = None
    pack_name: str | None = None
    rule_ref: str | None = None
    trigger_ref: str | None = None
    executor: Id | None = None
    enforcement: Id | None = None
    event: Id | None = None
    parent: Id | None = None
    original_execution: Id | None = None
    top_level_only: bool = False
    result_contains: str | None = None


class WaitQuery(Query):
    wait: Annotated[int, Field(ge=0, le=_LONGEST_WAIT)] = 0


class LogQuery(Query):
    """`tail` are the last lines; `offset` the bytes to leave out, of which at most a megabyte more are answered, as
    they are."""

    tail: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    offset: Annotated[int, Field(ge=0, le=LARGEST_ID)] | None = None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.tail is not None and self.offset is not None:
            raise ValueError("tail counts from the end and offset from the start; send one of them")
        return self


class ExecuteBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    action_ref: Annotated[str, Field(min_length=1, max_length=255)]
    parameters: dict[str, Any] = {}


class RerunBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    parameters: dict[str, Any] = {}


class ExecutionRoutes:
    def __init__(
        self, database: Database, definitions: Definitions, requests: Requests, waiters: Waiters, logs: Logs
    ) -> None:
        self._database = database
        self._definitions = definitions
        self._requests = requests
        self._waiters = waiters
        self._logs = logs

    def endpoints(self) -> list[Endpoint]:
        read = Permission("executions", "read", anonymous=True)
        path = "/api/v1/executions/{id}"
        return [
            Endpoint("GET", "/api/v1/executions", read, self.list, "List executions", query=ExecutionQuery),
            Endpoint(
                "POST",
                "/api/v1/executions/execute",
                Permission("actions", "execute"),
                self.execute,
                "Run an action; with `wait`, answer when it has ended or after so many seconds",
                query=WaitQuery,
                body=ExecuteBody,
                status=HTTPStatus.CREATED,
                replay=self.executed,
            ),
            Endpoint("GET", path, read, self.show, "Show an execution", query=WaitQuery),
            Endpoint(
                "POST", f"{path}/cancel", Permission("executions", "cancel"), self.cancel, "Ask an execution to stop"
            ),
            Endpoint(
                "POST",
                f"{path}/rerun",
                Permission("actions", "execute"),
                self.rerun,
                "Do once more what an execution did; `parameters` replace those of the same name",
                query=WaitQuery,
                body=RerunBody,
                status=HTTPStatus.CREATED,
            ),
            Endpoint(
                "GET",
                f"{path}/logs/{{stream}}",
                Permission("executions", "logs"),
                self.log,
                "What an execution printed to stdout or stderr",
                query=LogQuery,
                answer=Answer.TEXT,
            ),
        ]

    async def list(self, call: Call[ExecutionQuery, None]) -> Response:
        async with self._database.acquire() as connection:
            page = await listing_queries.executions_page(connection, _where(call.query), call.query.window())
            beside = await beside_executions(connection, page.rows)
        items = [summary(row, beside) for row in page.rows]
        return many(items, page, call.query, items[-1]["id"] if items else None)

    async def execute(self, call: Call[WaitQuery, ExecuteBody]) -> Response:
        refuse_masks(call.body.parameters, "/parameters")
        execution_id = await self._requests.execute(
            call.body.action_ref,
            call.body.parameters,
            call.caller.id,
            call.key,
            await origin_of(call.request, self._database),
        )
        return await self.executed(call, execution_id)

    async def executed(self, call: Call[WaitQuery, ExecuteBody], execution_id: int) -> Response:
        return one(await self._after(execution_id, call.query.wait), status=HTTPStatus.CREATED)

    async def show(self, call: Call[WaitQuery, None]) -> Response:
        return one(await self._after(call.path["id"], call.query.wait))

    async def cancel(self, call: Call[NoQuery, None]) -> Response:
        await self._requests.cancel(call.path["id"])
        return one(await self._view(call.path["id"]))

    async def rerun(self, call: Call[WaitQuery, RerunBody]) -> Response:
        refuse_masks(call.body.parameters, "/parameters")
        origin = await origin_of(call.request, self._database)
        execution_id = await self._requests.rerun(call.path["id"], call.body.parameters, call.caller.id, origin)
        return one(await self._after(execution_id, call.query.wait), status=HTTPStatus.CREATED)

    async def log(self, call: Call[LogQuery, None]) -> Response:
        stream = call.path["stream"]
        if stream not in STREAMS:
            raise NotFound(f"There is no stream {stream}; there are stdout and stderr.")
        async with self._database.acquire() as connection:
            if await queries.execution(connection, call.path["id"]) is None:
                raise NotFound(f"There is no execution {call.path['id']}.")
        if call.query.offset is not None:
            part = await anyio.to_thread.run_sync(self._logs.part, call.path["id"], stream, call.query.offset)
            return PlainTextResponse(part)
        text = await anyio.to_thread.run_sync(self._logs.read, call.path["id"], stream, call.query.tail)
        return PlainTextResponse(text)

    async def _after(self, execution_id: int, seconds: int) -> dict[str, Any]:
        """The execution when it has ended, or as it is after some seconds."""
        deadline = anyio.current_time() + seconds
        with self._waiters.expect(f"execution:{execution_id}") as ended:
            while True:
                view = await self._view(execution_id)
                left = deadline - anyio.current_time()
                if left <= 0 or ExecutionStatus(view["status"]).is_terminal:
                    return view
                with anyio.move_on_after(min(left, _LOOK_AGAIN)):
                    await ended.wait()

    async def _view(self, execution_id: int) -> dict[str, Any]:
        async with self._database.acquire() as connection:
            row = await listing_queries.execution_row(connection, execution_id)
            if row is None:
                raise NotFound(f"There is no execution {execution_id}.")
            beside = await beside_executions(connection, [row])
        action = self._definitions.actions.by_ref.get(row["action_ref"])
        return summary(row, beside) | {
            "action": row["action"],
            "config": masked(loads(row["config"]), action),
            "executor": row["executor"],
            "boot": row["boot"],
            "deadline": row["deadline"],
            "lease_until": row["lease_until"],
            "retried_as": row["retried_as"],
            "result": fragment(row["result"]),
            "causation_id": row["causation_id"],
            "depth": row["depth"],
            "script": self._script(row["action_ref"]),
        }

    def _script(self, action_ref: str) -> str | None:
        action = self._definitions.actions.by_ref.get(action_ref)
        pack = self._definitions.packs.by_ref.get(action.pack_ref) if action else None
        path = script_path(action, pack) if action and pack else None
        return None if path is None else str(path)


def _where(query: ExecutionQuery) -> Where:
    where = Where()
    for name in ("status", "executor", "parent", "original_execution", "enforcement"):
        where.add_if(f"e.{name} = {{}}", getattr(query, name))
    where.add_if("n.event = {}", query.event)
    for column, ref in (
        ("e.action_ref", query.action_ref),
        ("n.rule_ref", query.rule_ref),
        ("n.trigger_ref", query.trigger_ref),
    ):
        if ref is not None and ref.endswith(".*"):
            where.add(f"starts_with({column}, {{}})", ref.removesuffix("*"))
        else:
            where.add_if(f"{column} = {{}}", ref)
    if query.pack_name is not None:
        where.add("starts_with(e.action_ref, {})", f"{query.pack_name}.")
    if query.top_level_only:
        where.add("e.parent IS NULL")
    if query.result_contains is not None:
        where.add("strpos(lower(e.result::text), lower({})) > 0", query.result_contains)
    return where


def summary(row: Row, beside: Beside) -> dict[str, Any]:
    """An execution as lists show it."""
    wait = of_execution(row, beside)
    return {
        "id": row["id"],
        "action_ref": row["action_ref"],
        "status": row["status"],
        "parent": row["parent"],
        "enforcement": row["enforcement"],
        "event": row["event"],
        "rule_ref": row["rule_ref"],
        "trigger_ref": row["trigger_ref"],
        "original_execution": row["original_execution"],
        "retry_count": row["retry_count"],
        "retry_reason": row["retry_reason"],
        "not_before": row["not_before"],
        "worker": row["worker"],
        "correlation_id": row["correlation_id"],
        "waiting_for": wait and wait.what,
        "waiting_since": wait and wait.since,
        "created": row["created"],
        "started_at": row["started_at"],
        "finished_at": row["finished_at"],
        "updated": row["updated"],
    }
