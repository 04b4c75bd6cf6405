"""Inquiries: what people are asked, by executions that wait for the answer or by whoever wants to know."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from attune.access import queries as access
from attune.access.model import Caller
from attune.base.errors import BadInput, Conflict, Forbidden, NotFound, Problem
from attune.base.json import Json, JsonObject, dumps, loads
from attune.base.schema import check_schema, refuse, validate, with_defaults
from attune.base.states import ExecutionStatus
from attune.bus.bus import Bus
from attune.bus.messages import Cause, Entity, InquiryCreated, InquiryResponded
from attune.bus.transaction import Transaction
from attune.catalog import queries as catalog
from attune.catalog.formats import spelt_out
from attune.catalog.model import Action
from attune.database.pool import Connection
from attune.events.ingress import Ingress
from attune.executions import endings
from attune.executions import queries as executions
from attune.executions.model import NewExecution, Origin, Requested
from attune.executions.notices import execution_created, executions_changed
from attune.executions.requests import withdrawn
from attune.people import notices, queries
from attune.people.model import ASK, Inquiry, InquiryStatus, NewInquiry, Question

SOURCE = "inquiries"
_STEPS = 1_000
"""How far back it is looked for who asks: further than rules get that fire each other."""


class Inquiries:
    """Asks people, and takes their answers."""

    def __init__(self, bus: Bus, ingress: Ingress, expect: Callable[[datetime], None]) -> None:
        """`expect` is told of each moment after which a question cannot be answered any more."""
        self._bus = bus
        self._ingress = ingress
        self._expect = expect

    async def begin(self, transaction: Transaction, asked: Sequence[tuple[Requested, Cause]]) -> Mapping[int, str]:
        """Begin executions of `core.ask`: they wait, as rows, for the answers. Why some cannot ask, by their ids."""
        parameters = {one.id: loads(one.config) for one, _ in asked}
        people = await _people(transaction.connection, parameters.values())
        refused: dict[int, str] = {}
        new: list[NewInquiry] = []
        for one, cause in asked:
            try:
                new.append(NewInquiry(one.id, _question(parameters[one.id], people, transaction.now), True, cause))
            except BadInput as error:
                refused[one.id] = "; ".join(map(str, error.problems))
        await self._ask(transaction, new)
        return refused

    async def create(self, execution_id: int | None, parameters: JsonObject, asker: Caller, origin: Origin) -> Inquiry:
        """A new inquiry: of an execution, which does not wait for it; or without one, of an execution of `core.ask`
        that is made for it, and is what `origin` asks for.

        Raises NotFound for an unknown execution, BadInput with JSON Pointers to what is wrong with the question, and
        Unavailable while nothing may come in.
        """
        self._ingress.check()
        async with self._bus.transaction() as transaction:
            connection = transaction.connection
            people = await _people(connection, [parameters])
            question = _question(parameters, people, transaction.now)
            if execution_id is None:
                (new,) = await self._ask(transaction, [await _asker(transaction, question, parameters, asker, origin)])
            else:
                execution = await executions.execution(connection, execution_id)
                if execution is None:
                    raise NotFound(f"There is no execution {execution_id}.")
                cause = Cause(execution.correlation_id, execution.causation_id, execution.depth + 1)
                (new,) = await self._insert(transaction, [NewInquiry(execution_id, question, False, cause)])
            inquiry = await queries.inquiry(connection, new)
            assert inquiry is not None, "it was inserted"
            return inquiry

    async def respond(self, inquiry_id: int, response: Json, caller: Caller, execution: int | None) -> Inquiry:
        """The inquiry, answered by somebody, who is an `execution` or none. Of several who answer at once the first one
        does.

        Raises NotFound; Forbidden when somebody else is asked, or who asks would answer; Conflict when it is not open
        any more; and BadInput when the answer is not what was asked for, with JSON Pointers below /response: then it
        stays open.
        """
        async with self._bus.transaction() as transaction:
            transaction.does("respond")
            inquiry = await self._open(transaction, inquiry_id)
            question = inquiry.question
            if question.assigned_to not in {None, caller.id}:
                raise Forbidden(
                    f"Inquiry {inquiry_id} is for identity {question.assigned_to} to answer. An administrator can "
                    "assign it to somebody else."
                )
            if execution is not None:
                await self._refuse_loop(transaction, inquiry, execution)
            response = _checked(response, question.response_schema)
            await queries.respond(transaction.connection, inquiry_id, response, caller.name, transaction.now)
            notices.ended(transaction, inquiry, InquiryStatus.RESPONDED)
            transaction.publish(
                InquiryResponded(inquiry_id=inquiry_id, execution_id=inquiry.execution),
                inquiry.cause._replace(depth=inquiry.cause.depth + 1),
                SOURCE,
            )
            return await _read(transaction, inquiry_id)

    async def _refuse_loop(self, transaction: Transaction, inquiry: Inquiry, execution: int) -> None:
        """Refuse the answer of an execution that has asked, or that follows from one that has."""
        if inquiry.execution in await executions.ancestors(transaction.connection, execution, _STEPS):
            raise Forbidden(
                f"Execution {execution} cannot answer inquiry {inquiry.id}: execution {inquiry.execution}, which asks, "
                "has led to it. That would be a privilege loop; a person has to answer."
            )

    async def change(self, inquiry_id: int, *, withdraw: bool, assign: bool, to: int | str | None) -> Inquiry:
        """The inquiry after it was withdrawn, and its execution with it if that waits; or was assigned `to` somebody.

        Raises NotFound, Conflict when it is not open any more, and BadInput for an unknown identity.
        """
        async with self._bus.transaction() as transaction:
            connection = transaction.connection
            inquiry = await self._open(transaction, inquiry_id)
            if assign:
                await queries.assign(connection, inquiry_id, await _assignee(connection, to), transaction.now)
            if withdraw:
                await queries.close(connection, [inquiry_id], InquiryStatus.CANCELLED, transaction.now)
                notices.ended(transaction, inquiry, InquiryStatus.CANCELLED)
                execution = await executions.lock(connection, inquiry.execution) if inquiry.waits else None
                if execution is not None:
                    end = withdrawn(execution, f"Inquiry {inquiry_id} was withdrawn.")
                    await endings.end(transaction, [end], SOURCE)
            return await _read(transaction, inquiry_id)

    async def delete(self, inquiry_id: int) -> None:
        """Forget an inquiry. Raises NotFound, and Conflict when something still waits for it."""
        async with self._bus.transaction() as transaction:
            inquiry = await queries.lock(transaction.connection, inquiry_id)
            if inquiry is None:
                raise NotFound(f"There is no inquiry {inquiry_id}.")
            if inquiry.status is InquiryStatus.PENDING:
                raise Conflict(f"Inquiry {inquiry_id} is open. Answer it or withdraw it first.")
            if inquiry.waits and await executions.not_ended(transaction.connection, [inquiry.execution]):
                raise Conflict(f"Execution {inquiry.execution} has not seen the answer to inquiry {inquiry_id} yet.")
            await queries.delete(transaction.connection, inquiry_id)

    async def withdraw_of(self, transaction: Transaction, execution_id: int) -> None:
        """Withdraw what an execution has asked: it is cancelled."""
        for inquiry in await queries.close_of(transaction.connection, execution_id, transaction.now):
            notices.ended(transaction, inquiry, InquiryStatus.CANCELLED)

    async def _open(self, transaction: Transaction, inquiry_id: int) -> Inquiry:
        """The inquiry, locked, if somebody can still answer it."""
        inquiry = await queries.lock(transaction.connection, inquiry_id)
        if inquiry is None:
            raise NotFound(f"There is no inquiry {inquiry_id}.")
        at = inquiry.question.timeout_at
        if inquiry.status is InquiryStatus.RESPONDED:
            raise Conflict(
                f"Inquiry {inquiry_id} is answered: {inquiry.responded_by} did at {_utc(inquiry.responded_at)}."
            )
        if inquiry.status is InquiryStatus.CANCELLED:
            raise Conflict(f"Inquiry {inquiry_id} was withdrawn at {_utc(inquiry.updated)}.")
        if inquiry.status is InquiryStatus.TIMEOUT or (at is not None and at <= transaction.now):
            raise Conflict(f"The time to answer inquiry {inquiry_id} was over at {_utc(at)}.")
        return inquiry

    async def _ask(self, transaction: Transaction, new: Sequence[NewInquiry]) -> list[int]:
        """Let executions ask and wait, those that have not begun; the ids of the inquiries."""
        rows = await executions.ask(
            transaction.connection,
            [one.execution for one in new],
            [one.question.timeout_at for one in new],
            transaction.now,
            watched=transaction.shows(Entity.EXECUTION),
        )
        executions_changed(transaction, rows, ExecutionStatus.RUNNING)
        begun = {row["id"] for row in rows}
        return await self._insert(transaction, [one for one in new if one.execution in begun])

    async def _insert(self, transaction: Transaction, new: Sequence[NewInquiry]) -> list[int]:
        ids = await queries.insert(transaction.connection, new, transaction.now)
        for one in new:
            message = InquiryCreated(inquiry_id=ids[one.execution], execution_id=one.execution)
            transaction.publish(message, one.cause, SOURCE)
            notices.created(transaction, ids[one.execution], one.execution, one.question.timeout_at)
        deadlines = [one.question.timeout_at for one in new if one.question.timeout_at is not None]
        if deadlines:
            transaction.after_commit(lambda: self._expect(min(deadlines)))
        return [*ids.values()]


async def _read(transaction: Transaction, inquiry_id: int) -> Inquiry:
    inquiry = await queries.inquiry(transaction.connection, inquiry_id)
    assert inquiry is not None, "its row is locked"
    return inquiry


async def _asker(
    transaction: Transaction, question: Question, parameters: JsonObject, asker: Caller, origin: Origin
) -> NewInquiry:
    """The inquiry of a new execution of `core.ask`."""
    action = await catalog.definition(transaction.connection, "action", ASK)
    assert isinstance(action, Action), "the core pack is there"
    new = NewExecution(action.id, action.ref, dumps(parameters), None, asker.id, origin.cause, parent=origin.execution)
    execution = await executions.insert_execution(transaction.connection, new, transaction.now)
    execution_created(transaction, execution, action=new.action, action_ref=new.action_ref, parent=new.parent)
    return NewInquiry(execution, question, True, origin.cause._replace(depth=origin.cause.depth + 1))


def _question(parameters: Mapping[str, Any], people: Mapping[int | str, int], now: datetime) -> Question:
    """The question that parameters of `core.ask` describe. Raises BadInput."""
    problems: list[Problem] = []
    schema = spelt_out(parameters.get("response_schema"))
    if schema is not None:
        problems += check_schema(schema, "/response_schema")
    assignee = parameters.get("assigned_to")
    if assignee is not None and assignee not in people:
        problems.append(Problem("/assigned_to", f"there is no identity {assignee}"))
    timeout_at = _timeout_at(parameters, now, problems)
    refuse("The question cannot be asked.", problems)
    return Question(
        prompt=parameters["prompt"],
        response_schema=schema,
        assigned_to=None if assignee is None else people[assignee],
        context=parameters.get("context"),
        timeout_at=timeout_at,
    )


def _timeout_at(parameters: Mapping[str, Any], now: datetime, problems: list[Problem]) -> datetime | None:
    seconds, at = parameters.get("timeout"), parameters.get("timeout_at")
    if seconds is not None and at is not None:
        problems.append(Problem("/timeout_at", "timeout says the same in seconds; give one of them"))
    if seconds is not None:
        return now + timedelta(seconds=seconds)
    moment: datetime | None = None
    try:
        moment = None if at is None else datetime.fromisoformat(at)
    except ValueError:
        problems.append(Problem("/timeout_at", f"{at!r} is no time; write 2026-12-24T18:00:00Z"))
    if moment is not None and moment.tzinfo is None:
        problems.append(Problem("/timeout_at", "names no zone; write 2026-12-24T18:00:00Z, or +01:00 at its end"))
    return moment


def _checked(response: Json, schema: JsonObject | None) -> Json:
    """An answer with its defaults. Raises BadInput when it does not fit."""
    if not schema:
        return response
    if not isinstance(response, dict):
        raise BadInput("The answer does not fit.", [Problem("/response", "must be an object")])
    complete = with_defaults(response, schema)
    refuse("The answer does not fit.", validate(complete, schema, where="/response"))
    return complete


async def _assignee(connection: Connection, to: int | str | None) -> int | None:
    """The id of an identity. Raises BadInput when there is none."""
    if to is None:
        return None
    people = await _people(connection, [{"assigned_to": to}])
    if to not in people:
        raise BadInput("Nobody can be asked.", [Problem("/assigned_to", f"there is no identity {to}")])
    return people[to]


async def _people(connection: Connection, parameters: Iterable[Mapping[str, Any]]) -> Mapping[int | str, int]:
    """The ids of identities by what parameters call them: id or login."""
    named = [one["assigned_to"] for one in parameters if one.get("assigned_to") is not None]
    if not named:
        return {}
    return await access.identity_ids(
        connection, [one for one in named if isinstance(one, int)], [one for one in named if isinstance(one, str)]
    )


def _utc(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
