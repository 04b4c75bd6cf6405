"""What live views are told of the pipeline: every state that anything comes to, wherever that comes from."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attune.base.json import loads
from attune.base.states import ExecutionStatus
from attune.bus.messages import Entity
from attune.catalog.model import Overlap
from attune.database.pool import Database, Row
from attune.engine import Engine
from attune.executions.requests import nobody
from attune.live.forms import messages
from attune.live.notes import Filter
from attune.live.views import Kind, Reader
from tests.people.test_inquiries import LOCAL, ask
from tests.pipeline.shop import SHOP, new_rule, new_trigger, rows
from tests.pipeline.test_cancel import requested, until_quiet, until_status
from tests.pipeline.test_retries import until_attempts
from tests.support.engines import emit, engine_on, pack
from tests.support.waiting import until

S = ExecutionStatus


class Mirror:
    """Holds what it was told, as somebody would who never reads a row."""

    def __init__(self, engine: Engine, reader: Reader) -> None:
        self.engine = engine
        self.states: dict[tuple[str, int], str] = {}
        self.shown: dict[tuple[str, int], Any] = {}
        self.names: list[str] = []
        self._reader = reader

    async def look(self) -> None:
        """Take what waits."""
        while self._reader.waiting or self._reader.reset:
            for text in (await self.engine.live.take(self._reader)).parts:
                self._note(loads(text.decode()))

    def _note(self, told: Any) -> None:
        payload, what = told["payload"], (told["entity_type"], told["entity_id"])
        self.names.append(told["notification_type"])
        assert set(told) == {
            "type",
            "notification_type",
            "entity_type",
            "entity_id",
            "user_id",
            "payload",
            "timestamp",
        }
        if "old_status" in payload:
            assert self.states[what] == payload["old_status"], f"{what} was told of otherwise before: {payload}"
        if "status" in payload:
            self.states[what] = payload["status"]
        self.shown[what] = payload

    async def agrees(self) -> None:
        """Fail unless it comes to hold the states and the values of all rows."""

        async def same() -> bool | None:
            await self.look()
            found = await rows(self.engine, EXECUTIONS)
            return True if self.states == await self._states(found) and all(map(self._shows, found)) else None

        await until(same)

    def _shows(self, row: Row) -> bool:
        told: dict[str, Any] = self.shown["execution", row["id"]]
        return dict(row).items() <= told.items()

    async def _states(self, executions: Sequence[Row]) -> dict[tuple[str, int], str]:
        enforcements = await rows(self.engine, "SELECT id, status FROM attune.enforcement")
        inquiries = await rows(self.engine, "SELECT id, status FROM attune.inquiry")
        found = [("execution", executions), ("enforcement", enforcements), ("inquiry", inquiries)]
        return {(kind, row["id"]): row["status"] for kind, each in found for row in each}


EXECUTIONS = """
    SELECT e.id, e.action AS action_id, e.action_ref, e.status, e.enforcement, e.parent, n.rule_ref, n.trigger_ref,
           left(e.result ->> 'error', 300) AS error
      FROM attune.execution e LEFT JOIN attune.enforcement n ON n.id = e.enforcement
"""


@contextmanager
def mirrored(engine: Engine) -> Iterator[Mirror]:
    """A mirror that is told of everything for the block."""
    reader = Reader(Kind.WEBSOCKET, messages, frozenset({Filter(frozenset(Entity))}))
    with engine.live.reading(reader):
        yield Mirror(engine, reader)


async def test_every_state_is_told_with_the_one_before(engine: Engine) -> None:
    """Cancelled before it ran and while it did, refused, failed, of rules that skip, queue and cannot be filled in."""
    with mirrored(engine) as mirror:
        sleeping = await requested(engine, "core.sleep", '{"seconds": 60}')
        await until_status(engine, sleeping, S.RUNNING)
        await engine.requests.cancel(sleeping)
        await requested(engine, "core.nothing")
        await requested(engine, "core.sleep", '{"seconds": "long"}')
        broken = {"action_params": {"x": "{{ event.payload.n / 0 }}"}}
        for fields in ({"overlap": Overlap.SKIP}, {"overlap": Overlap.QUEUE}, broken):
            trigger = new_trigger()
            await new_rule(engine, trigger, **fields)
            for _ in range(3):
                await emit(engine, trigger, {"n": 1})
        finished = await requested(engine)
        await until_status(engine, finished, S.COMPLETED)
        await engine.requests.rerun(finished, {}, None)
        await until_quiet(engine)
        await mirror.agrees()

    assert set(mirror.states.values()) >= {S.COMPLETED, S.FAILED, S.CANCELLED, "processed", "skipped"}


async def test_questions_are_told_and_how_they_end(database: Database, tmp_path: Path) -> None:
    async with (
        engine_on(database, tmp_path) as engine,
        engine.running(),
    ):
        await _questions(engine)


async def _questions(engine: Engine) -> None:
    with mirrored(engine) as mirror:
        answered = await ask(engine)
        await engine.inquiries.respond(answered.id, True, LOCAL, None)
        await engine.requests.cancel((await ask(engine)).execution)
        await engine.inquiries.change((await ask(engine)).id, withdraw=True, assign=False, to=None)
        await engine.inquiries.create(None, {"prompt": "Shall we?"}, LOCAL, nobody())
        late = await ask(engine, timeout=0.1)
        await until_status(engine, late.execution, S.TIMEOUT)
        await until_quiet(engine)
        await mirror.agrees()

    told = {name for name in mirror.names if name.startswith("inquiry")}
    assert told == {"inquiry_created", "inquiry_responded", "inquiry_cancelled", "inquiry_timeout"}


async def test_a_retry_is_told(database: Database, tmp_path: Path) -> None:
    action = "entry_point: fails.sh\nmax_retries: 1\nretry_delay: 0\n"
    shop = pack(tmp_path, "shop", {**SHOP, "actions/fails.yaml": action, "actions/fails.sh": "exit 1\n"})
    async with engine_on(database, tmp_path, packs=[shop]) as engine:
        with mirrored(engine) as mirror:
            async with engine.running():
                first = await requested(engine, "shop.fails")
                await until_attempts(engine, first, S.FAILED, S.FAILED)
                await until_quiet(engine)
                await mirror.agrees()

    assert list(mirror.states.values()) == [S.FAILED, S.FAILED]
