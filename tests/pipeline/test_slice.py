"""The thin slice: one event through matcher, processor, scheduler and worker, on the real bus and a real database."""

from pathlib import Path

from attune.database.pool import Database
from attune.engine import Engine
from tests.support.engines import emit, engine_on, make_rule, pack, rule
from tests.support.waiting import until


async def test_an_event_becomes_a_completed_execution(database: Database, tmp_path: Path) -> None:
    shop = pack(tmp_path, "shop", {"triggers/sold.yaml": "ref: shop.sold\nlabel: Sold\n"})
    async with engine_on(database, tmp_path, packs=[shop]) as engine, engine.running():
        await make_rule(engine, rule("shop.thank", "shop.sold", "core.echo", action_params={"message": "thanks"}))
        event = await emit(engine, "shop.sold", {"item": "tea"})

        execution = await until(lambda: _finished(engine, event))

    assert execution["status"] == "completed"
    assert execution["result"] is not None


async def _finished(engine: Engine, event: int) -> dict[str, object] | None:
    row = await engine.database.fetch_one(
        """
        SELECT e.status, e.result FROM attune.execution e JOIN attune.enforcement n ON n.id = e.enforcement
         WHERE n.event = :event AND e.finished_at IS NOT NULL
        """,
        event=event,
    )
    return None if row is None else dict(row)
