"""Idempotency keys in the writer, which many requests share: each is decided for itself."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import pytest

from attune.base.errors import BadInput, Conflict
from attune.bus.messages import Cause
from attune.database.ids import uuid7
from attune.database.pool import Database
from attune.engine import Engine
from attune.events import queries
from attune.events.idempotency import WINDOW, Taken
from attune.events.model import Key, NewEvent
from tests.pipeline.shop import SHOP, TRIGGERS, rows
from tests.support.clock import VirtualClock
from tests.support.engines import engine_on, pack
from tests.support.waiting import eventually, until

Submit: TypeAlias = Callable[[Engine, Key | None], Coroutine[Any, Any, int]]


def key(name: str, fingerprint: bytes = b"1") -> Key:
    return Key("local", name, fingerprint)


async def event(engine: Engine, key: Key | None, payload: str = "{}") -> int:
    """The id of a new event."""
    trigger = engine.definitions.triggers.by_ref[TRIGGERS[0]]
    new = NewEvent(trigger.id, trigger.ref, payload, "test", Cause(uuid7(), None, 0))
    return (await engine.ingest.accept(new, key)).id


async def execution(engine: Engine, key: Key | None) -> int:
    """The id of a new execution."""
    return await engine.requests.execute("core.noop", {}, None, key)


KINDS = [(event, "event"), (execution, "execution")]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def engine(shared_database: Database, tmp_path: Path, clock: VirtualClock) -> AsyncIterator[Engine]:
    """An engine of which only the writer runs."""
    packs = [pack(tmp_path, "shop", SHOP)]
    async with (
        engine_on(shared_database, tmp_path, packs=packs, clock=clock) as engine,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(engine.writer.run)
        yield engine
        engine.writer.stop()


@asynccontextmanager
async def held_up(engine: Engine) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """The writer writes nothing during the block, and afterwards all that waits, in one transaction. It is given what
    waits until so many wait."""
    turns = engine.bus.turns

    async def until_waiting(count: int) -> None:
        await eventually(lambda: len(engine.writer._waiting) == count)

    async with turns.first(), turns.first():
        yield until_waiting


async def together(engine: Engine, submit: Submit, keys: Sequence[Key | None]) -> list[Any]:
    """What becomes of submissions that wait at the same moment: an id, or an error."""
    found: list[Any] = [None] * len(keys)
    async with anyio.create_task_group() as tasks, held_up(engine) as until_waiting:
        for number in range(len(keys)):
            tasks.start_soon(_submit, engine, submit, keys, number, found)
            await until_waiting(number + 1)
    return found


async def _submit(engine: Engine, submit: Submit, keys: Sequence[Key | None], number: int, found: list[Any]) -> None:
    try:
        found[number] = await submit(engine, keys[number])
    except Exception as error:
        found[number] = error


async def ids(engine: Engine, table: str) -> list[int]:
    return [row["id"] for row in await rows(engine, f"SELECT id FROM attune.{table} ORDER BY id")]


async def subjects(engine: Engine) -> dict[str, int]:
    """What each key has made."""
    return {row["key"]: row["subject"] for row in await rows(engine, "SELECT * FROM attune.idempotency_key")}


async def transactions(engine: Engine, table: str) -> int:
    """How many transactions have made what there is."""
    (row,) = await rows(engine, f"SELECT count(DISTINCT xmin::text) AS number FROM attune.{table}")
    return int(row["number"])


@pytest.mark.parametrize(("submit", "table"), KINDS)
async def test_a_key_that_is_taken_leaves_its_neighbours_alone(engine: Engine, submit: Submit, table: str) -> None:
    (old,) = await together(engine, submit, [key("old")])

    found = await together(engine, submit, [None, key("new"), key("old", b"2"), key("newer"), None])

    assert isinstance(found.pop(2), Taken)
    assert await ids(engine, table) == sorted([old, *found])
    assert await subjects(engine) == {"old": old, "new": found[1], "newer": found[2]}
    assert await transactions(engine, table) == 2


@pytest.mark.parametrize(("submit", "table"), KINDS)
async def test_each_of_those_that_are_written_is_heard_of(engine: Engine, submit: Submit, table: str) -> None:
    await together(engine, submit, [key("old")])
    await together(engine, submit, [key("old"), key("new")])

    told = await rows(engine, f"SELECT (payload ->> '{table}_id')::bigint AS id FROM attune.delivery ORDER BY id")
    assert [row["id"] for row in told] == await ids(engine, table)


@pytest.mark.parametrize(("submit", "table"), KINDS)
async def test_what_a_caller_left_behind_that_did_not_wait_keeps_its_key(
    engine: Engine, submit: Submit, table: str
) -> None:
    """Its write is in the same transaction as that of the one who asks again, and of somebody else."""
    found: list[Any] = [None, None]
    async with anyio.create_task_group() as patient, held_up(engine) as until_waiting:
        async with anyio.create_task_group() as impatient:
            impatient.start_soon(submit, engine, key("k"))
            await until_waiting(1)
            impatient.cancel_scope.cancel()
        for number in range(2):
            patient.start_soon(_submit, engine, submit, [key("k", b"2"), None], number, found)
            await until_waiting(2 + number)

    assert isinstance(found[0], Taken)
    (made,) = {*await ids(engine, table)} - {found[1]}
    assert await transactions(engine, table) == 1
    kept = await engine.keys.kept(key("k"))
    assert kept is not None
    assert kept.subject == made


async def test_what_cannot_be_written_leaves_its_key_free_and_its_neighbours_alone(engine: Engine) -> None:
    bad = key("bad")
    payloads = {key("good"): "{}", bad: "no JSON", key("fine"): "{}"}

    async def submit(engine: Engine, key: Key | None) -> int:
        assert key is not None
        return await event(engine, key, payloads[key])

    found = await together(engine, submit, list(payloads))

    assert isinstance(found[1], Exception)
    assert await subjects(engine) == {"good": found[0], "fine": found[2]}
    payloads[bad] = "{}"
    (mended,) = await together(engine, submit, [bad])
    assert (await subjects(engine))["bad"] == mended


async def test_a_key_that_is_outdated_is_free_before_it_is_forgotten(engine: Engine, clock: VirtualClock) -> None:
    (old,) = await together(engine, event, [key("k")])
    await engine.keys.keep(key("k"), "the old answer")
    clock.advance(WINDOW.total_seconds() - 1)
    assert await engine.keys.kept(key("k")) == (b"1", old, "the old answer")
    clock.advance(1)
    assert await engine.keys.kept(key("k")) is None

    (new,) = await together(engine, event, [key("k", b"2")])

    assert new > old
    assert await engine.keys.kept(key("k", b"2")) == (b"2", new, None)
    with pytest.raises(BadInput):
        await engine.keys.kept(key("k"))


async def test_the_first_answer_stays(engine: Engine) -> None:
    await together(engine, event, [key("a"), key("b")])
    async with anyio.create_task_group() as tasks, held_up(engine) as until_waiting:
        tasks.start_soon(engine.keys.keep, key("a"), "first")
        tasks.start_soon(engine.keys.keep, key("b"), "other")
        await until_waiting(2)
    await engine.keys.keep(key("a"), "second")

    kept = [await engine.keys.kept(key(name)) for name in ("a", "b")]

    assert [one.answer for one in kept if one is not None] == ["first", "other"]


async def test_a_caller_who_goes_away_gives_the_key_back(engine: Engine) -> None:
    async def hold() -> None:
        with engine.keys.held(key("k")):
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(Conflict, match="still under way"), engine.keys.held(key("k", b"2")):
            pass
        with engine.keys.held(key("other")):
            tasks.cancel_scope.cancel()

    with engine.keys.held(key("k")):
        pass


async def test_keys_are_forgotten_in_batches_and_only_when_they_are_outdated(
    engine: Engine, clock: VirtualClock
) -> None:
    await rows(
        engine,
        """
        INSERT INTO attune.idempotency_key (scope, key, fingerprint, subject, created)
        SELECT 'local', number::text, '', 1, $1::timestamptz + number * interval '1 second'
          FROM generate_series(1, 2500) AS number
        """,
        clock.now() - WINDOW - timedelta(seconds=2400),
    )
    async with engine.database.acquire() as connection:
        assert await queries.forget_keys(connection, clock.now() - WINDOW, 100) == 100
    assert {"100", "101"} & set(await subjects(engine)) == {"101"}

    await engine.keys.forget()

    assert len(await subjects(engine)) == 100


async def test_keys_are_forgotten_again_and_again(engine: Engine, clock: VirtualClock) -> None:
    async def forgotten() -> bool | None:
        clock.advance(WINDOW.total_seconds())
        return None if await subjects(engine) else True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(engine.keys.run)
        for _ in range(2):
            await together(engine, event, [key("k")])
            await until(forgotten)
        tasks.cancel_scope.cancel()
