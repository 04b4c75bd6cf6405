"""One PostgreSQL for all tests, a database of its own for each that needs one."""

import signal
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import hypothesis
import pytest

from attune.database import migrate
from attune.database.connecting import embedded_url
from attune.database.embedded import Cluster, find_binaries
from attune.database.pool import Database
from tests.support.folders import folder_for_servers

# A shell that starts the tests in the background lets them ignore SIGINT, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says something about the machine, and nothing about the code.
hypothesis.settings.register_profile("attune", deadline=None)
hypothesis.settings.load_profile("attune")

_numbers = count(1)

# All that tests make. The bundled packs stay: to install them takes longer than most tests.
_CLEAR = """
    DELETE FROM attune.delivery; DELETE FROM attune.trace; DELETE FROM attune.dead_letter;
    DELETE FROM attune.rule WHERE is_adhoc; DELETE FROM attune.pack WHERE ref NOT IN ('core', 'hello');
    DELETE FROM attune.revision; DELETE FROM attune.timer_skip; DELETE FROM attune.event;
    DELETE FROM attune.event_match; DELETE FROM attune.enforcement; DELETE FROM attune.execution;
    DELETE FROM attune.execution_open; DELETE FROM attune.idempotency_key; DELETE FROM attune.inquiry;
    DELETE FROM attune.alert; DELETE FROM attune.streak; DELETE FROM attune.loop;
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("torture", "the campaign against the server in tests/crash")
    group.addoption("--torture-minutes", type=float, default=0, help="how long it lasts; without, a few blows")
    group.addoption("--torture-seed", type=int, help="what chance begins with; without, something new")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what the campaign came to, whether it passed or not."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            for name, text in report.user_properties:
                if name == "torture":
                    terminalreporter.write_line(text)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def base() -> Iterator[Path]:
    """A folder for servers: for the one that all tests share, and for those that tests start."""
    with folder_for_servers() as folder:
        yield folder


@pytest.fixture(scope="session")
async def cluster(base: Path) -> AsyncIterator[Cluster]:
    """A PostgreSQL server from the wheel, with a migrated database `template`."""
    # Durability costs time and no test here depends on it: those that kill start their own.
    # Several servers may use it at once, each with a pool of its own.
    settings = {"fsync": "off", "max_connections": "100"}
    cluster = Cluster(base / "postgres", find_binaries(), run_as=None, settings=settings)
    await cluster.start()
    connection = await asyncpg.connect(embedded_url(cluster.environment()))
    await connection.execute("CREATE DATABASE template")
    await connection.close()
    connection = await asyncpg.connect(_url(cluster, "template"))
    await migrate.migrate(connection, migrate.read(migrate.directory()))
    await connection.close()
    yield cluster
    # Without tidying up: nobody will ever start it again.
    await cluster.stop(0)


@pytest.fixture
async def dsn(cluster: Cluster) -> AsyncIterator[str]:
    """The URL of a migrated database that only this test uses."""
    name = f"test_{next(_numbers)}"
    connection = await asyncpg.connect(embedded_url(cluster.environment()))
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE template")
    yield _url(cluster, name)
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    """A pool on a migrated database that only this test uses."""
    database = Database(dsn, max_connections=8, is_remote=False)
    await database.connect()
    yield database
    await database.disconnect()


@pytest.fixture(scope="session")
async def shared_url(cluster: Cluster) -> AsyncIterator[str]:
    """The URL of a migrated database that tests use one after the other: making one for each takes longer than they."""
    connection = await asyncpg.connect(embedded_url(cluster.environment()))
    await connection.execute("CREATE DATABASE shared TEMPLATE template")
    yield _url(cluster, "shared")
    await connection.execute("DROP DATABASE shared WITH (FORCE)")
    await connection.close()


@pytest.fixture
async def shared_database(shared_url: str) -> AsyncIterator[Database]:
    """A pool on the shared database, with the bundled packs at most, and no events."""
    database = Database(shared_url, max_connections=8, is_remote=False)
    await database.connect()
    async with database.acquire() as connection:
        await connection.execute(_CLEAR)
    yield database
    await database.disconnect()


def _url(cluster: Cluster, database: str) -> str:
    return embedded_url({**cluster.environment(), "PGDATABASE": database})
