"""One process works on a database: the second is refused by name, and who loses it pauses until it has it again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import asyncpg
import pytest

from attune.base.clock import SystemClock
from attune.base.errors import StartError
from attune.database.embedded import Cluster
from attune.database.ownership import Ownership, OwnershipLost
from attune.database.pool import Database, DatabaseUnavailable
from tests.pipeline.shop import SHOP, new_rule, new_trigger, settled
from tests.support.databases import new_database
from tests.support.engines import emit, engine_on, pack
from tests.support.waiting import eventually


def owner(dsn: str, name: str = "first") -> Ownership:
    return Ownership(dsn, name, SystemClock())


@asynccontextmanager
async def owning(dsn: str, name: str = "first") -> AsyncIterator[Ownership]:
    ownership = owner(dsn, name)
    await ownership.acquire()
    try:
        yield ownership
    finally:
        await ownership.release()


@asynccontextmanager
async def keeping(ownership: Ownership) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ownership.keep)
        yield
        tasks.cancel_scope.cancel()


async def end(ownership: Ownership) -> None:
    """Let the server end the connection that owns the database."""
    connection = await asyncpg.connect(ownership._dsn)
    await connection.execute("SELECT pg_terminate_backend($1)", ownership._server_pid)
    await connection.close()
    await eventually(lambda: not ownership.is_held)


async def test_t102_the_second_is_refused_and_told_who_has_it(dsn: str) -> None:
    async with owning(dsn, "4711@host http://127.0.0.1:8080") as first:
        second = owner(dsn, "4712@host")
        with pytest.raises(StartError, match=r"in use by attune 4711@host http://127\.0\.0\.1:8080 \(this machine\)"):
            await second.acquire()
        assert (first.is_held, second.is_held) == (True, False)
    async with owning(dsn, "4712@host"):
        pass


async def test_a_long_name_is_cut_and_not_refused(dsn: str) -> None:
    async with owning(dsn, "n" * 200):
        with pytest.raises(StartError, match="in use by attune nnnn"):
            await owner(dsn).acquire()


async def test_two_databases_of_a_server_have_an_owner_each(dsn: str, cluster: Cluster) -> None:
    async with new_database(cluster) as other, owning(dsn) as first, owning(other) as second:
        assert first.is_held
        assert second.is_held


async def test_a_database_that_does_not_answer_is_said_to_be_out_of_reach(dsn: str) -> None:
    with pytest.raises(StartError, match=r"cannot be reached: .* Check database\.url"):
        await owner(dsn.replace("port=", "port=1")).acquire()


async def test_what_is_lost_is_gained_again(dsn: str) -> None:
    async with owning(dsn) as ownership, keeping(ownership):
        for _ in range(3):
            before = ownership._server_pid
            connection = await asyncpg.connect(dsn)
            await connection.execute("SELECT pg_terminate_backend($1)", before)
            await connection.close()
            await eventually(lambda: ownership.is_held and ownership._server_pid != before)  # noqa: B023 - at once

        with pytest.raises(StartError):
            await owner(dsn).acquire()


async def test_who_finds_somebody_else_there_stops_and_names_them(dsn: str) -> None:
    async with owning(dsn) as ownership:
        await end(ownership)
        async with owning(dsn, "the next one"):
            with pytest.raises(OwnershipLost, match=r"now attune the next one .* works on it\. Attune stops"):
                await ownership.keep()
            assert not ownership.is_held


async def test_a_former_session_of_our_own_is_ended(dsn: str) -> None:
    """The network failed, and the server does not know yet: it would keep us out."""
    async with owning(dsn) as ownership:
        former = ownership._connection
        assert former is not None
        with pytest.raises(ConnectionError, match="former session"):
            await ownership._try()
        await eventually(former.is_closed)
        assert await ownership._try() is None


async def test_who_waits_for_it_goes_on_when_it_is_held(dsn: str) -> None:
    ownership = owner(dsn)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ownership.held)
        await anyio.wait_all_tasks_blocked()
        await ownership.acquire()
    await ownership.release()
    assert not ownership.is_held


async def test_t07_consumers_pause_while_it_is_lost_and_go_on_afterwards(database: Database, tmp_path: Path) -> None:
    trigger = new_trigger()
    ownership = owner(database.dsn)
    async with (
        engine_on(database, tmp_path, packs=[pack(tmp_path, "shop", SHOP)], ownership=ownership) as engine,
        engine.running(),
    ):
        await new_rule(engine, trigger)
        await settled(engine, await emit(engine, trigger))
        await end(ownership)

        # Nothing is written, by whatever way it comes.
        with pytest.raises(DatabaseUnavailable, match="owns it still"):
            await emit(engine, trigger)
        with pytest.raises(DatabaseUnavailable, match="owns it still"):
            await new_rule(engine, trigger)
        await _deliver(engine.database)
        for queue in engine.bus.broker.queues():
            engine.bus.broker.doubt(queue)
        # Nothing tells that a consumer does not come: one that came would have it done by now.
        await anyio.sleep(0.1)
        assert engine.bus.counters.of("attune.execution.completed.queue").done == 1

        async with keeping(ownership):
            await eventually(lambda: engine.bus.counters.of("attune.execution.completed.queue").done == 2)
            await settled(engine, await emit(engine, trigger))


async def _deliver(database: Database) -> None:
    """A delivery that somebody has left in the table."""
    async with database.acquire() as connection:
        await connection.execute(
            """
            INSERT INTO attune.delivery (queue, message_id, correlation_id, depth, message_type, version, source,
                                         payload, published_at, available_at, attempt)
            SELECT 'attune.execution.completed.queue', gen_random_uuid(), gen_random_uuid(), 0, 'ExecutionCompleted',
                   '1.0', 'test',
                   '{"execution_id": 1000, "action_ref": "core.noop", "status": "completed", "event_id": null}',
                   now(), now(), 1
            """
        )
