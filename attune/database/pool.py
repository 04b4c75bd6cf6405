"""The connection pool: the one place that knows `databases` and asyncpg.

`databases` connects, owns the pool and serves cold reads; everything that writes or is hot takes a connection of that
same pool. `databases` leaks its connection when a task is cancelled inside one of its transactions, so nobody gets to
use them.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Protocol, TypeAlias

import anyio
import asyncpg
import databases
import structlog

from attune.base.errors import Unavailable

log = structlog.get_logger()

Row: TypeAlias = Mapping[str, Any]


class Connection(Protocol):
    """What queries use of an asyncpg connection; `$1` in a query stands for the first argument."""

    async def fetch(self, query: str, *args: Any) -> Sequence[Row]: ...

    async def fetchrow(self, query: str, *args: Any) -> Row | None: ...

    async def fetchval(self, query: str, *args: Any) -> Any: ...

    async def execute(self, query: str, *args: Any) -> str: ...


STATEMENT_TIMEOUT = 30
"""Seconds; no query of the engine holds a snapshot longer, or dead rows pile up behind it."""

_CONNECT_TIMEOUT = 10
_ACQUIRE_TIMEOUT = 10
FULL_FOR = 10
"""Seconds for which nothing new is tried after the database had no room on its disk."""
_INFRASTRUCTURE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.InsufficientResourcesError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.QueryCanceledError,
    asyncpg.ReadOnlySQLTransactionError,
)
# Whatever PostgreSQL has against a connection, no statement is to blame.
_CONNECTING = (*_INFRASTRUCTURE, asyncpg.InterfaceError, asyncpg.PostgresError)


class DatabaseUnavailable(Unavailable):
    """The database did not do it, and the statement is not to blame: trying again makes sense."""

    code = "DATABASE_UNAVAILABLE"


class StorageFull(DatabaseUnavailable):
    """There is too little room on the disk for anything new."""

    code = "STORAGE_FULL"


class _PooledConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg ships no types
    """Saves a round trip a use: nothing here changes session state that would have to be reset."""

    def get_reset_query(self) -> str:
        return ""


class Database:
    """A pool of connections to the database `dsn`; give it to those who need one."""

    def __init__(
        self, dsn: str, *, max_connections: int, is_remote: bool, acquire_timeout: float = _ACQUIRE_TIMEOUT
    ) -> None:
        """`is_remote`: there is a network between us and it. `acquire_timeout`: seconds to wait for a connection."""
        self.dsn = dsn
        self.max_connections = max_connections
        self._acquire_timeout = acquire_timeout
        self._denied: Callable[[], None] | None = None
        self._databases = databases.Database(
            "postgresql://",
            dsn=dsn,
            host=None,
            port=None,
            user=None,
            password=None,
            database=None,
            min_size=1,
            max_size=max_connections,
            max_queries=1_000_000,
            connection_class=_PooledConnection,
            timeout=_CONNECT_TIMEOUT,
            # The server ends what takes too long. Only a network can lose an answer.
            command_timeout=STATEMENT_TIMEOUT + 5 if is_remote else None,
            server_settings={
                "application_name": "attune",
                "statement_timeout": f"{STATEMENT_TIMEOUT}s",
                "idle_in_transaction_session_timeout": f"{STATEMENT_TIMEOUT}s",
                "timezone": "UTC",
                "jit": "off",
            },
        )

    async def connect(self) -> None:
        """Open the pool. Raises DatabaseUnavailable when nobody answers."""
        try:
            await self._databases.connect()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise DatabaseUnavailable(f"The database does not answer: {error}") from error

    async def disconnect(self) -> None:
        """Close the pool, at most waiting a few seconds for connections in use."""
        if not self._databases.is_connected:
            return
        with anyio.move_on_after(5, shield=True) as scope:
            await self._databases.disconnect()
        if scope.cancelled_caught:
            self._pool.terminate()

    @property
    def _pool(self) -> asyncpg.Pool:
        pool = self._databases._backend._pool  # noqa: SLF001 - `databases` shows it in no other way
        if pool is None:
            raise DatabaseUnavailable("Attune has closed its connections to the database.")
        return pool

    @property
    def idle_connections(self) -> int:
        """How many connections of the pool nobody uses."""
        return int(self._pool.get_idle_size())

    @property
    def open_connections(self) -> int:
        """How many connections the pool holds."""
        return int(self._pool.get_size())

    def tell_when_full(self, denied: Callable[[], None]) -> None:
        """Call `denied` whenever the database has no room on its disk for what somebody does over `acquire`."""
        self._denied = denied

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """A connection for the block, outside any transaction.

        A failure of the infrastructure inside the block leaves it as DatabaseUnavailable, or as StorageFull which is
        one; other errors pass unchanged.
        """
        # A timeout costs as much as the rest; with an idle connection there is nothing to wait for.
        timeout = None if self._pool.get_idle_size() else self._acquire_timeout
        with _translated(*_CONNECTING):
            connection = await self._pool.acquire(timeout=timeout)
        try:
            yield connection
        except asyncpg.DiskFullError as error:
            if self._denied is not None:
                self._denied()
            raise StorageFull(f"The database failed: {_told(error)}", FULL_FOR) from error
        except Exception as error:
            if isinstance(error, _INFRASTRUCTURE) or _is_gone(connection):
                raise DatabaseUnavailable(f"The database failed: {_told(error)}") from error
            raise
        finally:
            # A connection that cannot be handed back is closed. What was committed on it is committed all the same.
            with anyio.CancelScope(shield=True), suppress(*_INFRASTRUCTURE, asyncpg.InterfaceError):
                await self._pool.release(connection)

    async def fetch_all(self, query: str, **values: Any) -> list[Row]:
        """The rows of a cold read; `:name` in `query` stands for a value."""
        connection = self._databases.connection()
        with _translated(*_CONNECTING), anyio.fail_after(self._acquire_timeout):
            await connection.__aenter__()
        with _translated(*_INFRASTRUCTURE, asyncpg.InterfaceError), anyio.CancelScope(shield=True):
            try:
                records = await connection.fetch_all(query, values)
            finally:
                await connection.__aexit__()
        return [record._mapping for record in records]  # noqa: SLF001

    async def fetch_one(self, query: str, **values: Any) -> Row | None:
        """The first row of a cold read, or None."""
        rows = await self.fetch_all(query, **values)
        return rows[0] if rows else None


def affected(status: str) -> int:
    """How many rows a statement changed, of which PostgreSQL says `status`."""
    return int(status.rpartition(" ")[2])


def _is_gone(connection: asyncpg.Connection) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:
        # The pool took it back when it ended.
        return True


@contextmanager
def _translated(*kinds: type[Exception]) -> Iterator[None]:
    """Let errors of some kinds leave the block as DatabaseUnavailable."""
    try:
        yield
    except kinds as error:
        raise DatabaseUnavailable(f"The database does not answer: {_told(error)}") from error


def _told(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
