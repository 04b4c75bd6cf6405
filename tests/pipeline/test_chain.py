"""Every row and every message of a pipeline says what it belongs to, and what has caused it."""

from typing import Any

from attune.base.json import JsonObject
from attune.base.states import ExecutionStatus
from attune.bus.messages import Cause
from attune.database.ids import uuid7
from attune.engine import Engine
from attune.events.model import NewEvent
from tests.pipeline.shop import new_rule, new_trigger, rows, settled
from tests.support.engines import emit
from tests.support.waiting import until

# Message, depth, source, consumer.
HOPS = [
    ("EventCreated", 0, "test", "rule matcher"),
    ("EnforcementCreated", 1, "rule matcher", "enforcement processor"),
    ("ExecutionRequested", 2, "enforcement processor", "scheduler"),
    ("ExecutionDispatched", 3, "scheduler", "worker"),
    ("ExecutionCompleted", 4, "worker", "completion"),
]


async def test_a_chain_can_be_followed_from_each_row_and_message(engine: Engine) -> None:
    trigger = new_trigger()
    await new_rule(engine, trigger)
    event = await emit(engine, trigger)
    await settled(engine, event)

    (happened,) = await rows(engine, "SELECT * FROM attune.event WHERE id = $1", event)
    hops = await _hops(engine, happened["correlation_id"], len(HOPS))

    assert [(hop["message_type"], hop["depth"], hop["source"], hop["consumer"]) for hop in hops] == HOPS
    # Each message was caused by the one before.
    assert [hop["causation_id"] for hop in hops] == [None, *(hop["message_id"] for hop in hops[:-1])]
    (enforcement,) = await rows(engine, "SELECT * FROM attune.enforcement WHERE event = $1", event)
    (execution,) = await rows(engine, "SELECT * FROM attune.execution WHERE enforcement = $1", enforcement["id"])
    # A row was caused by the message whose consumer wrote it.
    assert [_links(row) for row in (happened, enforcement, execution)] == [
        (happened["correlation_id"], None, 0),
        (happened["correlation_id"], hops[0]["message_id"], 1),
        (happened["correlation_id"], hops[1]["message_id"], 2),
    ]


async def test_a_chain_goes_on_where_its_cause_has_come_from(engine: Engine) -> None:
    trigger = new_trigger()
    await new_rule(engine, trigger)
    definition = engine.definitions.triggers.by_ref[trigger]
    cause = Cause(uuid7(), uuid7(), 7)

    accepted = await engine.ingest.accept(NewEvent(definition.id, trigger, None, "test", cause))

    hops = await _hops(engine, cause.correlation_id, len(HOPS))
    assert hops[0]["causation_id"] == cause.causation_id
    assert [hop["depth"] for hop in hops] == [7, 8, 9, 10, 11]
    (execution,) = await settled(engine, accepted.id)
    (row,) = await rows(engine, "SELECT * FROM attune.execution WHERE id = $1", execution["id"])
    assert (row["correlation_id"], row["depth"]) == (cause.correlation_id, 9)


async def test_two_rules_of_an_event_share_the_chain_and_branch_at_the_event(engine: Engine) -> None:
    trigger = new_trigger()
    for _ in range(2):
        await new_rule(engine, trigger)
    event = await emit(engine, trigger)
    await settled(engine, event)

    (happened,) = await rows(engine, "SELECT correlation_id FROM attune.event WHERE id = $1", event)
    hops = await _hops(engine, happened["correlation_id"], 9)

    branches = [hop for hop in hops if hop["message_type"] == "EnforcementCreated"]
    assert [hop["causation_id"] for hop in branches] == [hops[0]["message_id"]] * 2


async def test_an_execution_that_somebody_asks_for_is_a_chain_of_its_own(engine: Engine) -> None:
    execution = await engine.requests.execute("core.echo", {"message": "hi"}, None)
    row = await until(lambda: _ended(engine, execution))

    hops = await _hops(engine, row["correlation_id"], 3)

    assert _links(row) == (row["correlation_id"], None, 0)
    assert [(hop["message_type"], hop["depth"]) for hop in hops] == [
        ("ExecutionRequested", 0),
        ("ExecutionDispatched", 1),
        ("ExecutionCompleted", 2),
    ]


async def test_the_end_of_an_execution_that_never_ran_belongs_to_its_chain(engine: Engine) -> None:
    """T-26: a terminal state without its message would leave others waiting."""
    trigger = new_trigger()
    params: JsonObject = {"amount": "{{ event.payload.n }}"}
    await new_rule(engine, trigger, "shop.charge", action_params=params)
    event = await emit(engine, trigger, {"n": -1})
    await settled(engine, event)

    (happened,) = await rows(engine, "SELECT correlation_id FROM attune.event WHERE id = $1", event)
    hops = await _hops(engine, happened["correlation_id"], 4)

    assert [(hop["message_type"], hop["depth"], hop["source"]) for hop in hops[2:]] == [
        ("ExecutionRequested", 2, "enforcement processor"),
        ("ExecutionCompleted", 3, "scheduler"),
    ]
    assert hops[3]["causation_id"] == hops[2]["message_id"]


def _links(row: Any) -> tuple[Any, Any, int]:
    return row["correlation_id"], row["causation_id"], row["depth"]


async def _hops(engine: Engine, correlation_id: Any, count: int) -> Any:
    async def all_of_them() -> Any:
        hops = await rows(
            engine, "SELECT * FROM attune.trace WHERE correlation_id = $1 ORDER BY message_id", correlation_id
        )
        return hops if len(hops) == count else None

    return await until(all_of_them)


async def _ended(engine: Engine, execution: int) -> Any:
    (row,) = await rows(engine, "SELECT * FROM attune.execution WHERE id = $1", execution)
    return row if ExecutionStatus(row["status"]).is_terminal else None
