"""Migrations: once each, in order, wholly or not at all, and never on data of somebody else."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import anyio
import asyncpg
import pytest

from attune.base.errors import StartError
from attune.database import migrate
from attune.database.embedded import Cluster
from attune.database.migrate import Migration
from tests.support.databases import new_database
from tests.support.waiting import until

FIRST = Migration(1, "0001_first.sql", "CREATE TABLE attune.first (id int)")
SECOND = Migration(2, "0002_second.sql", "CREATE TABLE attune.second (id int); INSERT INTO attune.first VALUES (2)")
BROKEN = replace(SECOND, sql="INSERT INTO attune.first VALUES (1); SELECT 1 / 0; CREATE TABLE attune.third (id int)")
SLOW = replace(SECOND, sql="INSERT INTO attune.first VALUES (1); SELECT pg_sleep(60)")


@pytest.fixture
async def empty(cluster: Cluster) -> AsyncIterator[str]:
    """The URL of a database with nothing in it."""
    async with new_database(cluster, "template1") as dsn:
        yield dsn


@pytest.fixture
async def connection(empty: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(empty)
    yield connection
    await connection.close()


async def tables(connection: asyncpg.Connection) -> set[str]:
    rows = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'attune'::regnamespace AND relkind = 'r'"
    )
    return {row["relname"] for row in rows} - {"migration"}


async def test_each_migration_is_applied_once_and_in_order(connection: asyncpg.Connection) -> None:
    assert await migrate.migrate(connection, (FIRST,)) == 1
    assert await migrate.migrate(connection, (FIRST, SECOND)) == 1
    assert await migrate.migrate(connection, (FIRST, SECOND)) == 0

    assert await tables(connection) == {"first", "second"}
    rows = await connection.fetch("SELECT number, name, checksum FROM attune.migration ORDER BY number")
    assert [tuple(row) for row in rows] == [(one.number, one.name, one.checksum) for one in (FIRST, SECOND)]


async def test_a_migration_that_changed_since_is_refused_by_name(connection: asyncpg.Connection) -> None:
    await migrate.migrate(connection, (FIRST, SECOND))

    with pytest.raises(StartError, match=r"Migration 0001_first\.sql was applied with another content"):
        await migrate.migrate(connection, (replace(FIRST, sql=FIRST.sql + " "), SECOND))


async def test_a_database_of_a_newer_release_is_refused_by_name(connection: asyncpg.Connection) -> None:
    await migrate.migrate(connection, (FIRST, SECOND))

    with pytest.raises(StartError, match=r"written by a newer Attune \(migration 0002_second\.sql is unknown here\)"):
        await migrate.migrate(connection, (FIRST,))


async def test_a_migration_that_fails_leaves_nothing_of_itself_and_can_be_mended(
    connection: asyncpg.Connection,
) -> None:
    with pytest.raises(StartError, match=r"Migration 0002_second\.sql failed: division by zero"):
        await migrate.migrate(connection, (FIRST, BROKEN))
    assert await tables(connection) == {"first"}
    assert await connection.fetch("SELECT id FROM attune.first") == []

    assert await migrate.migrate(connection, (FIRST, SECOND)) == 1


async def test_a_migration_that_is_cancelled_leaves_nothing_and_lets_others_migrate(
    connection: asyncpg.Connection, empty: str
) -> None:
    await migrate.migrate(connection, (FIRST,))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(migrate.migrate, connection, (FIRST, SLOW))
        await _until_sleeping(empty)
        tasks.cancel_scope.cancel()

    other = await asyncpg.connect(empty)
    assert await migrate.migrate(other, (FIRST, SECOND)) == 1
    assert [row["id"] for row in await other.fetch("SELECT id FROM attune.first")] == [2]
    await other.close()


async def test_a_migration_whose_connection_ends_leaves_nothing(connection: asyncpg.Connection, empty: str) -> None:
    await migrate.migrate(connection, (FIRST,))

    async def fail() -> None:
        with pytest.raises(StartError, match=r"0002_second\.sql failed"):
            await migrate.migrate(connection, (FIRST, SLOW))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fail)
        await _until_sleeping(empty, terminate=True)

    other = await asyncpg.connect(empty)
    assert await other.fetch("SELECT id FROM attune.first") == []
    await other.close()


async def _until_sleeping(dsn: str, *, terminate: bool = False) -> None:
    """Return when somebody sleeps in this database; after ending that connection, if asked."""
    look = await asyncpg.connect(dsn)

    async def sleeping() -> bool | None:
        query = (
            "SELECT count(CASE WHEN $1 THEN pg_terminate_backend(pid) ELSE true END) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event = 'PgSleep'"
        )
        return True if await look.fetchval(query, terminate) else None

    await until(sleeping)
    await look.close()


async def test_of_those_who_migrate_at_once_one_does_it_and_the_others_wait(empty: str) -> None:
    applied: list[int] = []

    async def run() -> None:
        connection = await asyncpg.connect(empty)
        applied.append(await migrate.migrate(connection, (FIRST, SECOND)))
        await connection.close()

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(run)

    assert sorted(applied) == [0, 0, 0, 0, 2]


async def test_the_migrations_of_this_release_make_an_empty_database_ready(connection: asyncpg.Connection) -> None:
    migrations = migrate.read(migrate.directory())

    assert await migrate.migrate(connection, migrations) == len(migrations) > 0
    assert {"event", "enforcement", "execution", "delivery", "rule"} <= await tables(connection)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["0001_a.sql", "0003_c.sql"], r"expected migration 0002, found 0003_c\.sql"),
        (["0001_a.sql", "0001_b.sql"], r"expected migration 0002, found 0001_b\.sql"),
        (["0002_b.sql"], r"expected migration 0001, found 0002_b\.sql"),
        (["1_a.sql"], r"1_a\.sql: a migration is named like 0007_what_it_does\.sql"),
        (["0001_A.sql"], r"0001_A\.sql: a migration is named like"),
        (["0001_a.sql.sql"], r"a migration is named like"),
    ],
)
def test_files_that_are_no_row_of_migrations_are_refused_by_name(tmp_path: Path, names: list[str], told: str) -> None:
    for name in names:
        (tmp_path / name).write_text("SELECT 1")

    with pytest.raises(StartError, match=told):
        migrate.read(tmp_path)


def test_what_is_no_sql_file_is_no_migration(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("about migrations")
    (tmp_path / "0001_a.sql").write_text("SELECT 1")

    assert [migration.name for migration in migrate.read(tmp_path)] == ["0001_a.sql"]
