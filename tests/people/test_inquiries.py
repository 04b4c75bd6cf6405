"""Questions to people: an execution waits as a row, one answer counts, and everybody hears of one end."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from attune.access.model import Caller, How
from attune.base.errors import AttuneError, BadInput, Conflict, NotFound
from attune.base.json import JsonObject, loads
from attune.base.states import ExecutionStatus
from attune.bus.messages import Cause
from attune.database.embedded import Cluster
from attune.database.ids import uuid7
from attune.database.pool import Database
from attune.engine import Engine
from attune.events.model import INQUIRY_CREATED, INQUIRY_RESPONDED
from attune.executions.requests import nobody
from attune.people import queries
from attune.people.deadlines import AT_ONCE
from attune.people.model import ASK, Inquiry, InquiryStatus, NewInquiry, Question
from tests.pipeline.shop import SHOP, new_rule, new_trigger, rows
from tests.pipeline.test_cancel import hops, status, until_quiet, until_status
from tests.support.clock import START, VirtualClock
from tests.support.databases import new_database, pool_on
from tests.support.engines import emit, engine_on, pack
from tests.support.waiting import until

S, Q = ExecutionStatus, InquiryStatus
LOCAL = Caller(How.LOCAL, None)
DEPLOY: JsonObject = {"prompt": "Deploy 1.2?", "response_schema": {"approved": {"type": "boolean", "required": True}}}


@pytest.fixture(scope="module")
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture(scope="module")
async def engine(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, clock: VirtualClock
) -> AsyncIterator[Engine]:
    folder = tmp_path_factory.mktemp("engine")
    async with (
        new_database(cluster) as dsn,
        pool_on(dsn) as database,
        engine_on(database, folder, packs=[pack(folder, "shop", SHOP)], clock=clock) as engine,
        engine.running(),
    ):
        yield engine


async def ask(engine: Engine, **parameters: Any) -> Inquiry:
    """An execution of `core.ask` that waits: its inquiry."""
    execution = await engine.requests.execute(ASK, {"prompt": "Shall we?", **parameters}, None)
    return await asked(engine, execution)


async def asked(engine: Engine, execution: int) -> Inquiry:
    async def found() -> Inquiry | None:
        async with engine.database.acquire() as connection:
            return next(iter(await queries.of_executions(connection, [execution])), None)

    return await until(found)


async def again(engine: Engine, inquiry: Inquiry) -> Inquiry:
    """The inquiry as it is now."""
    async with engine.database.acquire() as connection:
        found = await queries.inquiry(connection, inquiry.id)
    assert found is not None
    return found


async def result(engine: Engine, execution: int) -> Any:
    (row,) = await rows(engine, "SELECT result FROM attune.execution WHERE id = $1", execution)
    return loads(row["result"])


async def told(engine: Engine, trigger: str, inquiry: Inquiry) -> list[Any]:
    """What rules heard of an inquiry."""
    found = await rows(
        engine,
        "SELECT payload FROM attune.event WHERE trigger_ref = $1 AND payload ->> 'inquiry_id' = $2",
        trigger,
        str(inquiry.id),
    )
    return [loads(row["payload"]) for row in found]


# Asking and answering


async def test_who_asks_waits_as_a_row_and_goes_on_with_the_answer(engine: Engine, clock: VirtualClock) -> None:
    inquiry = await ask(engine, **DEPLOY)
    (row,) = await rows(engine, "SELECT * FROM attune.execution WHERE id = $1", inquiry.execution)
    assert (row["status"], row["worker"], row["lease_until"], row["started_at"]) == (S.RUNNING, None, None, clock.now())
    assert engine.worker.running == 0

    clock.advance(3600)
    answered = await engine.inquiries.respond(inquiry.id, {"approved": True}, LOCAL, None)
    await until_status(engine, inquiry.execution, S.COMPLETED)

    assert (answered.status, answered.response, answered.responded_by) == (Q.RESPONDED, {"approved": True}, "local")
    assert answered.responded_at == clock.now() == inquiry.created + timedelta(hours=1)
    found = await result(engine, inquiry.execution)
    assert found.items() >= {"succeeded": True, "response": {"approved": True}, "responded_by": "local"}.items()


async def test_rules_hear_of_the_question_and_of_the_answer(engine: Engine) -> None:
    parameters = {
        "prompt": "Deploy {{ event.payload.version }}?",
        "context": {"version": "{{ event.payload.version }}"},
    }
    rule = await new_rule(engine, trigger := new_trigger(), ASK, action_params=parameters)
    event = await emit(engine, trigger, {"version": 12})

    async def execution() -> int | None:
        found = await rows(
            engine,
            "SELECT e.id FROM attune.execution e JOIN attune.enforcement n ON n.id = e.enforcement WHERE n.event = $1",
            event,
        )
        return found[0]["id"] if found else None

    inquiry = await asked(engine, await until(execution))
    await engine.inquiries.respond(inquiry.id, "yes", LOCAL, None)
    await until_quiet(engine)

    about = {"inquiry_id": inquiry.id, "execution_id": inquiry.execution, "event_id": event, "rule_ref": rule.ref}
    about |= {"trigger_ref": trigger, "prompt": "Deploy 12?", "context": {"version": 12}}
    (created,) = await told(engine, INQUIRY_CREATED, inquiry)
    (responded,) = await told(engine, INQUIRY_RESPONDED, inquiry)
    assert created == about | {"response_schema": None, "assigned_to": None, "timeout_at": None}
    assert responded.items() >= (about | {"response": "yes", "responded_by": "local"}).items()


async def test_question_and_answer_stand_in_the_chain_of_their_event(engine: Engine) -> None:
    inquiry = await ask(engine)
    await engine.inquiries.respond(inquiry.id, 1, LOCAL, None)
    await until_quiet(engine)

    found = await hops(engine, inquiry.execution)
    assert {row["message_type"] for row in found} >= {"InquiryCreated", "InquiryResponded", "ExecutionCompleted"}
    assert all(row["depth"] > 0 for row in found if row["message_type"].startswith("Inquiry"))


@pytest.mark.parametrize(
    ("response", "where", "what"),
    [
        ({}, "/response/approved", "is required"),
        ({"approved": "yes"}, "/response/approved", 'is not of type "boolean"'),
        ({"approved": True, "aproved": 1}, "/response/aproved", "is unknown; did you mean 'approved'?"),
        ("yes", "/response", "must be an object"),
        (None, "/response", "must be an object"),
    ],
)
async def test_t84_an_answer_that_does_not_fit_is_refused_and_the_question_stays_open(
    engine: Engine, response: Any, where: str, what: str
) -> None:
    inquiry = await ask(engine, **DEPLOY)

    with pytest.raises(BadInput) as refused:
        await engine.inquiries.respond(inquiry.id, response, LOCAL, None)

    (problem,) = refused.value.problems
    assert problem.where == where
    assert what in problem.what
    assert (await again(engine, inquiry)).status is Q.PENDING
    assert await status(engine, inquiry.execution) is S.RUNNING


async def test_an_answer_is_completed_with_the_defaults_of_its_schema(engine: Engine) -> None:
    schema = {"type": "object", "properties": {"when": {"type": "string", "default": "now"}}, "required": []}
    inquiry = await ask(engine, response_schema=schema)

    assert (await engine.inquiries.respond(inquiry.id, {}, LOCAL, None)).response == {"when": "now"}


@pytest.mark.parametrize("response", [None, False, 0, "", [], {"any": ["thing"]}])
async def test_without_a_schema_anything_is_an_answer(engine: Engine, response: Any) -> None:
    inquiry = await ask(engine)

    answered = await engine.inquiries.respond(inquiry.id, response, LOCAL, None)
    await until_status(engine, inquiry.execution, S.COMPLETED)

    assert (answered.status, answered.response) == (Q.RESPONDED, response)
    assert (await result(engine, inquiry.execution))["response"] == response


async def test_of_many_who_answer_at_once_the_first_does(engine: Engine) -> None:
    inquiry = await ask(engine)
    outcomes: list[Inquiry | AttuneError] = []

    async def answer(number: int) -> None:
        try:
            outcomes.append(await engine.inquiries.respond(inquiry.id, number, LOCAL, None))
        except Conflict as error:
            outcomes.append(error)

    async with anyio.create_task_group() as people:
        for number in range(8):
            people.start_soon(answer, number)
    await until_quiet(engine)

    (first,) = [one for one in outcomes if isinstance(one, Inquiry)]
    late = {str(one) for one in outcomes if isinstance(one, Conflict)}
    assert late == {f"Inquiry {inquiry.id} is answered: local did at {engine.bus.clock.now():%F %T} UTC."}
    assert (await result(engine, inquiry.execution))["response"] == first.response
    assert len(await told(engine, INQUIRY_RESPONDED, inquiry)) == 1


# What cannot be asked


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"response_schema": {"a": 1}}, "/response_schema/a: a parameter is a map like {type: string}"),
        ({"response_schema": {"a": {"type": "strin"}}}, "/response_schema/a/type: is no schema"),
        ({"assigned_to": 999_999}, "/assigned_to: there is no identity 999999"),
        ({"assigned_to": "nobody"}, "/assigned_to: there is no identity nobody"),
        ({"timeout": 1, "timeout_at": "2026-03-02T00:00:00Z"}, "/timeout_at: timeout says the same in seconds"),
        ({"timeout_at": "tomorrow"}, "/timeout_at: 'tomorrow' is no time"),
        ({"timeout_at": "2026-03-02T00:00:00"}, "/timeout_at: names no zone"),
    ],
)
async def test_a_question_that_cannot_be_asked_fails_its_execution_with_the_reason(
    engine: Engine, parameters: JsonObject, error: str
) -> None:
    execution = await engine.requests.execute(ASK, {"prompt": "Shall we?", **parameters}, None)

    await until_status(engine, execution, S.FAILED)

    assert error in (await result(engine, execution))["error"]
    with pytest.raises(BadInput, match="cannot be asked") as refused:
        await engine.inquiries.create(None, {"prompt": "Shall we?", **parameters}, LOCAL, nobody())
    (problem,) = refused.value.problems
    assert error in str(problem)


async def test_types_may_be_written_short_in_the_schema_of_an_answer(engine: Engine) -> None:
    inquiry = await ask(engine, response_schema={"approved": "boolean"})
    assert inquiry.question.response_schema == {"approved": {"type": "boolean"}}


# Asking from outside


async def test_somebody_can_ask_without_an_execution(engine: Engine) -> None:
    inquiry = await engine.inquiries.create(None, {**DEPLOY}, LOCAL, nobody())
    assert await status(engine, inquiry.execution) is S.RUNNING

    await engine.inquiries.respond(inquiry.id, {"approved": False}, LOCAL, None)
    await until_status(engine, inquiry.execution, S.COMPLETED)
    await until_quiet(engine)

    assert len(await told(engine, INQUIRY_CREATED, inquiry)) == 1


async def test_an_execution_that_has_a_question_asked_does_not_wait_for_it(engine: Engine) -> None:
    execution = await engine.requests.execute("core.noop", {}, None)
    await until_status(engine, execution, S.COMPLETED)

    first = await engine.inquiries.create(execution, {"prompt": "One?"}, LOCAL, nobody())
    second = await engine.inquiries.create(execution, {"prompt": "Two?"}, LOCAL, nobody())
    await engine.inquiries.respond(second.id, 2, LOCAL, None)
    await until_quiet(engine)

    assert (await result(engine, execution))["exit_code"] == 0
    assert [(await again(engine, one)).status for one in (first, second)] == [Q.PENDING, Q.RESPONDED]
    (heard,) = await told(engine, INQUIRY_RESPONDED, second)
    assert heard["execution_id"] == execution
    with pytest.raises(NotFound, match="no execution 10"):
        await engine.inquiries.create(10**15, {"prompt": "Three?"}, LOCAL, nobody())


# Time


async def test_who_gets_no_answer_in_time_ends_as_timeout(engine: Engine, clock: VirtualClock) -> None:
    inquiry = await ask(engine, timeout=600)
    (row,) = await rows(engine, "SELECT deadline FROM attune.execution WHERE id = $1", inquiry.execution)
    over = clock.now() + timedelta(minutes=10)
    assert inquiry.question.timeout_at == row["deadline"] == over

    clock.advance(599)
    await until_quiet(engine)
    assert await status(engine, inquiry.execution) is S.RUNNING
    clock.advance(1)
    await until_status(engine, inquiry.execution, S.TIMEOUT)

    assert (await again(engine, inquiry)).status is Q.TIMEOUT
    error = (await result(engine, inquiry.execution))["error"]
    assert error == f"Nobody answered inquiry {inquiry.id} until {over:%F %T} UTC."
    with pytest.raises(Conflict, match=f"was over at {over:%F %T} UTC"):
        await engine.inquiries.respond(inquiry.id, 1, LOCAL, None)
    assert await told(engine, INQUIRY_RESPONDED, inquiry) == []


async def test_an_answer_after_the_time_is_refused_though_nobody_has_noticed_yet(
    shared_database: Database, tmp_path: Path
) -> None:
    """T-85: one owner of the time. Whoever answers late does not end the question, and does not answer it either."""
    clock = VirtualClock()
    async with engine_on(shared_database, tmp_path, clock=clock) as engine:
        inquiry = await engine.inquiries.create(None, {"prompt": "Shall we?", "timeout": 1}, LOCAL, nobody())
        clock.advance(1)

        with pytest.raises(Conflict, match="was over"):
            await engine.inquiries.respond(inquiry.id, 1, LOCAL, None)

        assert (await again(engine, inquiry)).status is Q.PENDING
        assert await engine._deadlines.once() == 1
        assert await status(engine, inquiry.execution) is S.TIMEOUT


async def test_a_clock_that_is_set_forward_ends_what_is_over_and_one_set_back_gives_more_time(
    engine: Engine, clock: VirtualClock
) -> None:
    soon, late = await ask(engine, timeout=600), await ask(engine, timeout=6000)

    clock.set(clock.now() - timedelta(hours=1))
    await until_quiet(engine)
    assert await status(engine, soon.execution) is S.RUNNING
    clock.set(clock.now() + timedelta(hours=1, minutes=20))
    await until_status(engine, soon.execution, S.TIMEOUT)

    assert await status(engine, late.execution) is S.RUNNING


async def test_more_than_a_batch_can_be_over_at_once(shared_database: Database, tmp_path: Path) -> None:
    clock = VirtualClock()
    async with engine_on(shared_database, tmp_path, clock=clock) as engine:
        cause = Cause(uuid7(), None, 0)
        question = Question("Shall we?", timeout_at=START)
        async with engine.bus.transaction() as transaction:
            new = [NewInquiry(10**9 + number, question, False, cause) for number in range(AT_ONCE + 1)]
            await queries.insert(transaction.connection, new, transaction.now)

        assert [await engine._deadlines.once() for _ in range(3)] == [AT_ONCE, 1, 0]


# Ends that meet


async def test_to_cancel_who_waits_withdraws_the_question(engine: Engine) -> None:
    inquiry = await ask(engine)

    cancelled = await engine.requests.cancel(inquiry.execution)
    await until_quiet(engine)

    assert cancelled.status is S.CANCELLED
    assert (await again(engine, inquiry)).status is Q.CANCELLED
    with pytest.raises(Conflict, match="was withdrawn at"):
        await engine.inquiries.respond(inquiry.id, 1, LOCAL, None)
    with pytest.raises(Conflict, match="has ended already"):
        await engine.requests.cancel(inquiry.execution)


async def test_to_withdraw_a_question_cancels_who_waits(engine: Engine) -> None:
    inquiry = await ask(engine)

    withdrawn = await engine.inquiries.change(inquiry.id, withdraw=True, assign=False, to=None)
    await until_quiet(engine)

    assert withdrawn.status is Q.CANCELLED
    assert await status(engine, inquiry.execution) is S.CANCELLED
    assert f"Inquiry {inquiry.id} was withdrawn." in (await result(engine, inquiry.execution))["error"]


async def test_who_was_cancelled_between_the_answer_and_its_arrival_stays_cancelled(
    shared_database: Database, tmp_path: Path
) -> None:
    async with engine_on(shared_database, tmp_path) as engine:
        inquiry = await engine.inquiries.create(None, {"prompt": "Shall we?"}, LOCAL, nobody())
        await engine.inquiries.respond(inquiry.id, 1, LOCAL, None)
        assert (await engine.requests.cancel(inquiry.execution)).status is S.CANCELLED

        async with engine.running():
            await until_quiet(engine)

        assert await status(engine, inquiry.execution) is S.CANCELLED
        assert (await again(engine, inquiry)).status is Q.RESPONDED
        assert await told(engine, INQUIRY_RESPONDED, inquiry) == []


async def test_answer_cancel_and_timeout_at_once_have_one_winner(shared_database: Database, tmp_path: Path) -> None:
    clock = VirtualClock()
    async with engine_on(shared_database, tmp_path, clock=clock) as engine, engine.running():
        inquiries = [
            await engine.inquiries.create(None, {"prompt": "?", "timeout": 5}, LOCAL, nobody()) for _ in range(20)
        ]

        async def attempt(what: Any, *arguments: Any) -> None:
            try:
                await what(*arguments)
            except Conflict:
                return

        async with anyio.create_task_group() as tasks:
            for inquiry in inquiries:
                tasks.start_soon(attempt, engine.inquiries.respond, inquiry.id, 1, LOCAL, None)
                tasks.start_soon(attempt, engine.requests.cancel, inquiry.execution)
            clock.advance(5)
        await until_quiet(engine)

        allowed = {
            (Q.RESPONDED, S.COMPLETED),
            (Q.RESPONDED, S.CANCELLED),
            (Q.CANCELLED, S.CANCELLED),
            (Q.TIMEOUT, S.TIMEOUT),
        }
        ends = [((await again(engine, one)).status, await status(engine, one.execution)) for one in inquiries]
        assert set(ends) <= allowed
        assert await rows(engine, "SELECT FROM attune.execution_open") == []


async def test_a_restart_forgets_no_question(shared_database: Database, tmp_path: Path) -> None:
    async with engine_on(shared_database, tmp_path) as engine, engine.running():
        inquiry = await ask(engine, timeout=3600)
    async with engine_on(shared_database, tmp_path) as engine, engine.running():
        assert engine.recovery.interrupted == ()
        (waiting,) = engine.recovery.waiting
        assert (waiting.waits_for, waiting.ids) == ("an answer", (inquiry.execution,))
        await engine.inquiries.respond(inquiry.id, 1, LOCAL, None)
        await until_status(engine, inquiry.execution, S.COMPLETED)


# Forgetting


async def test_to_delete_what_somebody_waits_for_is_refused(engine: Engine) -> None:
    inquiry = await ask(engine)
    with pytest.raises(Conflict, match="is open"):
        await engine.inquiries.delete(inquiry.id)

    await engine.inquiries.respond(inquiry.id, 1, LOCAL, None)
    await until_status(engine, inquiry.execution, S.COMPLETED)
    await engine.inquiries.delete(inquiry.id)

    with pytest.raises(NotFound):
        await engine.inquiries.delete(inquiry.id)


async def test_an_answer_that_has_not_arrived_cannot_be_deleted(shared_database: Database, tmp_path: Path) -> None:
    async with engine_on(shared_database, tmp_path) as engine:
        inquiry = await engine.inquiries.create(None, {"prompt": "Shall we?"}, LOCAL, nobody())
        await engine.inquiries.respond(inquiry.id, 1, LOCAL, None)
        with pytest.raises(Conflict, match="has not seen the answer"):
            await engine.inquiries.delete(inquiry.id)


async def test_a_rule_that_does_not_overlap_asks_one_question_at_a_time(engine: Engine) -> None:
    await new_rule(engine, trigger := new_trigger(), ASK, action_params={"prompt": "Shall we?"}, overlap="skip")
    first, second = await emit(engine, trigger), await emit(engine, trigger)
    await until_quiet(engine)

    found = await rows(
        engine, "SELECT event, status FROM attune.enforcement WHERE event = ANY($1::bigint[])", [first, second]
    )
    assert sorted(row["status"] for row in found) == ["processed", "skipped"]
