"""The pack of these tests, and what they look at."""

from collections.abc import Sequence
from itertools import count
from typing import Any

from attune.base.json import JsonObject, loads
from attune.catalog.model import Rule
from attune.database.pool import Row
from attune.engine import Engine
from tests.support.engines import emit, make_rule, rule
from tests.support.waiting import until

TRIGGERS = [f"shop.t{number:02}" for number in range(60)]

SHOP = {
    "pack.yaml": """
        ref: shop
        label: Shop
        version: 1.0.0
        conf_schema:
          currency: {type: string}
        config: {currency: EUR}
        """,
    **{f"triggers/{ref[5:]}.yaml": f"ref: {ref}\nlabel: A trigger\n" for ref in TRIGGERS},
    "actions/charge.yaml": """
        ref: shop.charge
        label: Charge
        entry_point: charge.sh
        parameters:
          amount: {type: number, minimum: 0, required: true}
          currency: {type: string, default: EUR}
        """,
    "actions/charge.sh": "#!/bin/sh\ncat\n",
}

_triggers = count()
_rules = count()


def new_trigger() -> str:
    """A trigger on which no other test of the module has a rule."""
    return TRIGGERS[next(_triggers) % len(TRIGGERS)]


async def new_rule(engine: Engine, trigger: str, action: str = "core.noop", **fields: Any) -> Rule:
    """A rule that nobody else has."""
    saved = await make_rule(engine, rule(f"shop.rule{next(_rules):04}", trigger, action, **fields))
    return saved.rule


async def rows(engine: Engine, query: str, *arguments: Any) -> Sequence[Row]:
    """The rows of a query with `$1` for its arguments."""
    async with engine.database.acquire() as connection:
        return await connection.fetch(query, *arguments)


async def matched(engine: Engine, event: int) -> list[int]:
    """The rules that an event has matched, as soon as it was taken."""

    async def taken() -> bool | None:
        return True if await rows(engine, "SELECT FROM attune.event_match WHERE event = $1", event) else None

    await until(taken)
    found = await rows(engine, "SELECT rule FROM attune.enforcement WHERE event = $1 ORDER BY rule", event)
    return [row["rule"] for row in found]


async def settled(engine: Engine, event: int) -> list[dict[str, Any]]:
    """The enforcements of an event with their executions, in the order of their rules, when nothing is to be done any
    more."""

    async def done() -> list[dict[str, Any]] | None:
        if not await rows(engine, "SELECT FROM attune.event_match WHERE event = $1", event):
            return None
        found = await rows(
            engine,
            """
            SELECT n.rule, n.id AS enforcement, n.status AS enforcement_status, n.reason, n.config, e.id, e.status,
                   e.config AS parameters, e.result
              FROM attune.enforcement n LEFT JOIN attune.execution e ON e.enforcement = n.id
             WHERE n.event = $1
             ORDER BY n.rule, e.id
            """,
            event,
        )
        over = all(
            row["enforcement_status"] != "created" and (row["id"] is None or row["result"] is not None) for row in found
        )
        return [dict(row) for row in found] if over else None

    return await until(done)


async def outcome(engine: Engine, trigger: str, payload: JsonObject | None) -> list[dict[str, Any]]:
    """What becomes of a new event."""
    return await settled(engine, await emit(engine, trigger, payload))


async def parameters(engine: Engine, trigger: str, payload: JsonObject | None) -> Any:
    """The parameters of the one execution that follows from a new event."""
    (row,) = await outcome(engine, trigger, payload)
    assert row["parameters"] is not None, row
    return loads(row["parameters"])
