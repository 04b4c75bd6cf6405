"""The pool: no connection is lost, whatever happens to who uses it, and what the infrastructure does has one name."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import anyio
import asyncpg
import pytest

from attune.database.connecting import embedded_url
from attune.database.embedded import Cluster, find_binaries
from attune.database.pool import Connection, Database, DatabaseUnavailable
from tests.support.databases import pool_on
from tests.support.waiting import eventually


@pytest.fixture
async def small(dsn: str) -> AsyncIterator[Database]:
    """A pool of three connections."""
    async with pool_on(dsn, max_connections=3) as database:
        yield database


async def everything_works(database: Database, connections: int = 3) -> None:
    """All connections can be had at once, and none of them is in a transaction."""
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for _ in range(connections):
                tasks.start_soon(_in_no_transaction, database)
    assert database.idle_connections == database.open_connections


async def _in_no_transaction(database: Database) -> None:
    async with database.acquire() as connection:
        assert await connection.fetchval("SELECT pg_sleep(0.01) IS NOT NULL")
        assert isinstance(connection, asyncpg.pool.PoolConnectionProxy)
        assert not connection.is_in_transaction()


async def transact(database: Database) -> None:
    async with database.acquire() as connection:
        await connection.execute("BEGIN")
        try:
            await connection.execute("SELECT pg_sleep(0.001)")
            await connection.execute("COMMIT")
        except BaseException:
            with anyio.CancelScope(shield=True):
                await connection.execute("ROLLBACK")
            raise


async def forget_the_end(database: Database) -> None:
    """What must never be written: a transaction without an end."""
    async with database.acquire() as connection:
        await connection.execute("BEGIN")
        await connection.execute("SELECT pg_sleep(0.001)")


async def read(database: Database) -> None:
    await database.fetch_all("SELECT pg_sleep(0.001) IS NULL AS x, :n AS n", n="1")


@pytest.mark.parametrize("work", [transact, forget_the_end, read])
async def test_cancelling_at_any_moment_leaks_no_connection(
    small: Database, work: Callable[[Database], Awaitable[None]]
) -> None:
    """Also while waiting for a connection: there are more tasks than connections."""
    random = Random(7)

    async def cancelled() -> None:
        for _ in range(10):
            with anyio.move_on_after(random.uniform(0, 0.01)):
                await work(small)
        # And the task that was cancelled so often can go on.
        await read(small)

    async with anyio.create_task_group() as tasks:
        for _ in range(12):
            tasks.start_soon(cancelled)

    await everything_works(small)


async def test_who_comes_when_all_connections_are_in_use_waits_for_one(small: Database) -> None:
    got = anyio.Event()

    async def wait() -> None:
        async with small.acquire():
            got.set()

    async with anyio.create_task_group() as tasks, small.acquire(), small.acquire():
        async with small.acquire():
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            assert not got.is_set()
        with anyio.fail_after(20):
            await got.wait()
    await everything_works(small)


async def test_who_waits_too_long_for_a_connection_is_told(dsn: str) -> None:
    async with pool_on(dsn, max_connections=1, acquire_timeout=0.05) as database, database.acquire():
        with pytest.raises(DatabaseUnavailable, match="no answer in time"):
            async with database.acquire():
                pytest.fail("there was none")
        with pytest.raises(DatabaseUnavailable, match="no answer in time"):
            await database.fetch_one("SELECT 1")


async def test_nobody_answers_at_the_address(dsn: str) -> None:
    database = Database(dsn.replace("port=", "port=1"), max_connections=1, is_remote=False)

    with pytest.raises(DatabaseUnavailable, match="does not answer"):
        await database.connect()
    await database.disconnect()


# Errors

# An error of PostgreSQL, and whether trying again makes sense.
STATES = [
    ("40001", True),  # serialization failure
    ("40P01", True),  # deadlock
    ("53100", True),  # the disk is full
    ("53200", True),  # out of memory
    ("53300", True),  # too many connections
    ("57014", True),  # it took too long
    ("57P01", True),  # the server shuts down
    ("57P03", True),  # it starts
    ("25006", True),  # it is a standby by now
    ("23505", False),  # a unique key
    ("23514", False),  # a check
    ("22012", False),  # division by zero
    ("42P01", False),  # no such table
    ("P0001", False),  # raised by a function
]


@pytest.mark.parametrize(("state", "is_infrastructure"), STATES)
async def test_t04_errors_of_the_infrastructure_are_told_from_errors_of_the_statement(
    small: Database, state: str, is_infrastructure: bool
) -> None:
    async def fail() -> None:
        async with small.acquire() as connection:
            await connection.execute(f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END $$")

    if is_infrastructure:
        with pytest.raises(DatabaseUnavailable, match="The database failed: no"):
            await fail()
    else:
        with pytest.raises(asyncpg.PostgresError) as error:
            await fail()
        assert error.value.sqlstate == state
    await everything_works(small)


async def test_errors_that_have_nothing_to_do_with_the_database_pass_unchanged(small: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with small.acquire():
            raise ZeroDivisionError
    await everything_works(small)


async def test_t07_a_connection_that_the_server_ends_is_unavailable_and_replaced(small: Database) -> None:
    async def end_it_all(connection: Connection) -> None:
        await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    for _ in range(3):
        with pytest.raises(DatabaseUnavailable):
            async with small.acquire() as connection:
                await end_it_all(connection)
        await everything_works(small)


async def test_t07_connections_that_end_while_nobody_uses_them_are_replaced(small: Database) -> None:
    await everything_works(small)
    async with small.acquire() as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    await eventually(lambda: small.open_connections == 1)

    await everything_works(small)


async def test_t07_a_connection_that_ended_before_it_is_asked_again_is_unavailable(small: Database) -> None:
    """Its statement is not to blame: asyncpg took the connection back, and says so with an error of its own."""

    async def work() -> None:
        async with small.acquire() as connection:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            async with small.acquire() as other:
                await other.execute("SELECT pg_terminate_backend($1)", pid)
                await eventually(lambda: small.open_connections == 1)
            await connection.execute("SELECT 1")

    with pytest.raises(DatabaseUnavailable):
        await work()
    await everything_works(small)


async def test_t07_the_pool_works_again_after_the_server_did(base: Path) -> None:
    cluster = Cluster(base / "restarted", find_binaries(), run_as=None, settings={"fsync": "off"})
    await cluster.start()
    try:
        async with pool_on(embedded_url(cluster.environment()), max_connections=3) as database:
            await everything_works(database)
            await cluster.stop(10)
            for use in (_in_no_transaction, read):
                with pytest.raises(DatabaseUnavailable):
                    await use(database)
            await cluster.start()
            await everything_works(database)
            await read(database)
    finally:
        await cluster.stop(10)


# Sessions


async def test_every_connection_is_bounded_and_speaks_utc(small: Database) -> None:
    async with small.acquire() as connection:
        found = {
            name: await connection.fetchval(f"SHOW {name}")
            for name in ("statement_timeout", "idle_in_transaction_session_timeout", "timezone", "synchronous_commit")
        }

    assert found == {
        "statement_timeout": "30s",
        "idle_in_transaction_session_timeout": "30s",
        "timezone": "UTC",
        "synchronous_commit": "on",
    }


@pytest.mark.parametrize(
    ("query", "values", "expected"),
    [
        ("SELECT 1 AS n", {}, [{"n": 1}]),
        ("SELECT CAST(:n AS bigint) AS n", {"n": 5}, [{"n": 5}]),
        ("SELECT :t AS t", {"t": "a:b"}, [{"t": "a:b"}]),
        ("SELECT 1 AS n WHERE false", {}, []),
    ],
)
async def test_cold_reads_give_rows(
    small: Database, query: str, values: dict[str, Any], expected: list[dict[str, Any]]
) -> None:
    assert [dict(row) for row in await small.fetch_all(query, **values)] == expected
    first = await small.fetch_one(query, **values)
    assert (None if first is None else dict(first)) == (expected[0] if expected else None)


async def test_closing_the_pool_waits_for_nobody_for_ever(dsn: str) -> None:
    database = Database(dsn, max_connections=2, is_remote=False)
    await database.connect()
    await database.disconnect()
    await database.disconnect()
    with pytest.raises(DatabaseUnavailable, match="closed"):
        async with database.acquire():
            pass


async def test_a_database_that_takes_no_connections_is_unavailable_to_cold_reads_as_well(
    cluster: Cluster, dsn: str
) -> None:
    async with pool_on(dsn, max_connections=2) as database:
        (row,) = await database.fetch_all("SELECT current_database() AS name")
        outside = await asyncpg.connect(embedded_url(cluster.environment()))
        try:
            # PostgreSQL refuses with 55000, which is no failure of a connection by its class.
            await outside.execute(f"ALTER DATABASE {row['name']} ALLOW_CONNECTIONS false")
            await outside.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", row["name"]
            )
            await eventually(lambda: database.open_connections == 0)

            with pytest.raises(DatabaseUnavailable, match="not currently accepting connections"):
                await database.fetch_one("SELECT 1")
            with pytest.raises(DatabaseUnavailable, match="not currently accepting connections"):
                async with database.acquire():
                    pass
        finally:
            await outside.execute(f"ALTER DATABASE {row['name']} ALLOW_CONNECTIONS true")
            await outside.close()
        assert await database.fetch_one("SELECT 1") is not None
