"""One data directory and the server that runs on it."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import anyio
import structlog

from attune.base.errors import StartError
from attune.database.embedded.binaries import Binaries, copy_for_everybody
from attune.database.embedded.initialise import (
    DATABASE,
    SUPERUSER,
    is_cluster,
    make_cluster,
    remove_unfinished,
)
from attune.database.embedded.options import PORT, server_options
from attune.database.embedded.orphans import stop_orphans
from attune.database.embedded.ownership import (
    Account,
    choose_account,
    first_refused,
    outer_directory,
    private_directory,
    socket_directory,
)
from attune.database.embedded.server import Server

log = structlog.get_logger()

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_LOOK_EVERY = 60.0


class Cluster:
    """PostgreSQL on `directory`, reached through a socket that only its user and root can open.

    In `directory` lie `cluster/` (the data), `log/`, `socket/` and, where the user of the server cannot run the
    programs, a copy of them. `run_as` counts for root only. Whoever starts it holds the lock on the data directory.
    """

    user = SUPERUSER
    port = PORT

    def __init__(
        self,
        directory: Path,
        binaries: Binaries,
        *,
        run_as: str | None,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.directory = directory.resolve()
        self.data_directory = self.directory / "cluster"
        self.log_directory = self.directory / "log"
        self.socket_directory = socket_directory(self.directory)
        self.binaries = binaries
        self._run_as = run_as
        self._settings = settings
        self._server: Server | None = None
        self._stopping = False
        self._lock = anyio.Lock()

    def environment(self) -> dict[str, str]:
        """What `psql` and its like need to find the server."""
        return {
            "PGHOST": str(self.socket_directory),
            "PGPORT": str(self.port),
            "PGUSER": self.user,
            "PGDATABASE": DATABASE,
        }

    async def start(self) -> None:
        """Return when the server accepts connections, its data directory made if there was none.

        Raises StartError when it cannot. There is no limit of time: replaying a long log is not a failure.
        """
        assert self._server is None, "it runs already"
        self._stopping = False
        try:
            self._server = await self._set_up()
            await self._launch()
        except OSError as error:
            await self.stop(10)
            raise StartError(f"PostgreSQL in {self.directory} cannot be started: {error}") from error
        except BaseException:
            await self.stop(10)
            raise

    async def stop(self, timeout: float) -> None:
        """End the server: connections are cut, the data directory is left clean.

        After `timeout` seconds it ends without tidying up; the next start then replays its log.
        """
        self._stopping = True
        with anyio.CancelScope(shield=True):
            async with self._lock:
                if self._server is not None:
                    await self._server.end(timeout)
                    self._server = None
                    self._remove_temporary_socket_directory()

    async def supervise(self) -> None:
        """Start the server again whenever it ends by itself; return after `stop`."""
        pause = _FIRST_PAUSE
        while (server := self._server) is not None and not self._stopping:
            reason = await server.ended(within=_LOOK_EVERY)
            if reason is None:
                pause = _FIRST_PAUSE
                server.trim_logs()
            while reason is not None and not self._stopping:
                log.error("postgres ended by itself", reason=reason, again_in=pause)
                await anyio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                reason = await self._relaunch()
                if reason is None:
                    log.info("postgres runs again")

    async def _relaunch(self) -> str | None:
        try:
            await self._launch()
        except (StartError, OSError) as error:
            return str(error)
        return None

    async def _launch(self) -> None:
        async with self._lock:
            server = self._server
            if server is None or self._stopping:
                return
            await stop_orphans(self.data_directory, self.socket_directory)
            await server.begin()
        await server.ready()

    async def _set_up(self) -> Server:
        account = choose_account(self._run_as, self.data_directory)
        outer_directory(self.directory, account)
        made = is_cluster(self.data_directory, self.binaries, account)
        remove_unfinished(self.directory)
        options = server_options(self.binaries.major, self.socket_directory, self.log_directory, self._settings)
        binaries = self._runnable_by(account)
        if not made:
            await make_cluster(self.data_directory, binaries, account)
        private_directory(self.log_directory, account)
        private_directory(self.socket_directory, account)
        return Server(account, binaries.program("postgres"), self.data_directory, self.log_directory, options)

    def _remove_temporary_socket_directory(self) -> None:
        if self.socket_directory.parent != self.directory:
            with suppress(OSError):
                self.socket_directory.rmdir()

    def _runnable_by(self, account: Account) -> Binaries:
        needed = [self.binaries.program(name) for name in ("postgres", "initdb")]
        if not account.switch or first_refused(account, needed) is None:
            return self.binaries
        return copy_for_everybody(self.binaries, self.directory)
