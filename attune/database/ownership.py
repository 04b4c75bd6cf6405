"""One process owns a database: who holds the advisory lock on it, on a connection of its own."""

from contextlib import suppress

import anyio
import asyncpg
import structlog

from attune.base.clock import Clock
from attune.base.errors import StartError
from attune.database.pool import STATEMENT_TIMEOUT

log = structlog.get_logger()

_KEY = 0x61747475_6E650002
"""`attune` in ASCII, and a number."""
_FAILURES = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError)
_LOOK_EVERY = 5.0
_TRY_EVERY = 0.5
_LONGEST_NAME = 63

_HOLDER = """
    SELECT a.pid, coalesce(nullif(a.application_name, ''), 'another program') AS name,
           coalesce(host(a.client_addr), 'this machine') AS host
      FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND (l.classid::bigint << 32 | l.objid::bigint) = $1
"""


class OwnershipLost(StartError):
    """Another process works on the database now."""


class Ownership:
    """The right to work on a database. While it is lost, `held` waits."""

    def __init__(self, dsn: str, name: str, clock: Clock) -> None:
        """`name` is what others are told who find the database owned."""
        self._dsn = dsn
        self._name = f"attune {name}"[:_LONGEST_NAME]
        self._clock = clock
        self._connection: asyncpg.Connection | None = None
        self._server_pid = 0
        self._gained = anyio.Event()
        self._lost = anyio.Event()

    @property
    def is_held(self) -> bool:
        return self._gained.is_set()

    async def held(self) -> None:
        """Return while, or as soon as, this process owns the database."""
        await self._gained.wait()

    async def acquire(self) -> None:
        """Own the database. Raises StartError that names the one who does, or says why nobody answers."""
        try:
            holder = await self._try()
        except _FAILURES as error:
            raise StartError(
                f"The database cannot be reached: {error or type(error).__name__}. Check database.url."
            ) from error
        if holder is not None:
            raise StartError(f"This database is in use by {holder}. Stop that one, or use another database.")

    async def keep(self) -> None:
        """Watch over the ownership until cancelled: gain it again when it is lost.

        Raises OwnershipLost when somebody else has it by then.
        """
        while True:
            await self._clock.wait(self._lost, _LOOK_EVERY)
            if not await self._is_alive():
                log.warning("the connection that owns the database is gone; the pipeline pauses")
                await self._regain()

    async def release(self) -> None:
        """Give the database up."""
        connection, self._connection = self._connection, None
        self._lose()
        if connection is not None:
            with anyio.move_on_after(2, shield=True), suppress(*_FAILURES):
                await connection.close()
            # If it did not even hear that: whatever is left of it here ends now.
            connection.terminate()

    async def _is_alive(self) -> bool:
        if self._connection is None or self._connection.is_closed():
            return False
        try:
            await self._connection.fetchval("SELECT 1", timeout=_LOOK_EVERY)
        except _FAILURES:
            return False
        return True

    async def _regain(self) -> None:
        await self.release()
        while True:
            try:
                holder = await self._try()
            except _FAILURES as error:
                log.debug("the database cannot be owned yet", error=str(error))
            else:
                if holder is None:
                    log.info("the database is owned again; the pipeline goes on")
                    return
                raise OwnershipLost(f"The database was away, and now {holder} works on it. Attune stops.")
            await self._clock.sleep(_TRY_EVERY)

    async def _try(self) -> str | None:
        """Own the database, or say who does."""
        connection = await asyncpg.connect(
            self._dsn,
            timeout=10,
            command_timeout=STATEMENT_TIMEOUT,
            server_settings={"application_name": self._name},
        )
        try:
            if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _KEY):
                holder = await self._holder(connection)
                await connection.close()
                return holder
        except BaseException:
            connection.terminate()
            raise
        self._lost = anyio.Event()
        connection.add_termination_listener(self._note_loss)
        self._connection = connection
        self._server_pid = connection.get_server_pid()
        self._gained.set()
        return None

    async def _holder(self, connection: asyncpg.Connection) -> str:
        row = await connection.fetchrow(_HOLDER, _KEY)
        if row is None:
            return "another Attune"
        if (row["pid"], row["name"]) == (self._server_pid, self._name):
            # Our former session: the network failed, and the server has not noticed yet.
            await connection.execute("SELECT pg_terminate_backend($1)", self._server_pid)
            raise ConnectionError("the server ends our former session")
        return f"{row['name']} ({row['host']})"

    def _note_loss(self, connection: asyncpg.Connection) -> None:
        # One that was given up before says nothing about the one that came after it.
        if connection is self._connection:
            self._lose()
            self._lost.set()

    def _lose(self) -> None:
        # Only then a new event: somebody may wait for the old one already.
        if self._gained.is_set():
            self._gained = anyio.Event()
