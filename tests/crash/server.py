"""The server of a campaign: started again and again on the same data, and killed in every way."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import anyio
import asyncpg
import httpx2

from attune.base.installation import Installation
from attune.database.connecting import embedded_url
from attune.database.embedded.orphans import recorded_pid
from tests.server.running import command, environment, processes_with

_PATIENCE = 60.0
_SETTINGS = {
    # Whatever a config file says: its own database, and no other, is killed.
    "ATTUNE_DATABASE__URL": "",
    "ATTUNE_SERVER__PORT": "0",
    # A delivery that fails once is dead: nothing but poison may fail.
    "ATTUNE_BUS__MAX_ATTEMPTS": "1",
    "ATTUNE_WORKER__CONCURRENCY": "16",
    "ATTUNE_LOG__LEVEL": "warning",
}


class Server:
    """One life after the other, on the data in `folder`."""

    def __init__(self, folder: Path, sabotage: str = "") -> None:
        """`sabotage` names what the server does wrong (`tests.crash.sabotage`)."""
        self.place = Installation(folder / "data")
        self._folder = folder
        self._sabotage = sabotage
        self._crash_file = folder / "crash"
        self._process: subprocess.Popen[bytes] | None = None
        self.boots: list[str] = []

    @property
    def lives(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start a life."""
        assert not self.lives
        arguments = ("serve", "--data-dir", str(self.place.data), "--packs", str(self._folder / "packs"))
        wrong = [sys.executable, "-m", "tests.crash.sabotage", self._sabotage, *arguments]
        with (self._folder / "talk").open("ab") as sink:
            self._process = subprocess.Popen(
                wrong if self._sabotage else command(*arguments),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=environment(ATTUNE_CRASH_FILE=str(self._crash_file), **_SETTINGS),
                cwd=self._folder,
                start_new_session=True,
            )

    async def ready(self) -> float:
        """Return when it can do its work: the seconds that took. Raises AssertionError when it ends instead."""
        began = time.monotonic()
        with anyio.fail_after(_PATIENCE):
            while not await self.is_ready():
                assert self.lives, f"the server ended while it started:\n{self.said()[-3000:]}"
                await anyio.sleep(0.02)
        boot = self.place.boot.read_text().strip()
        if boot not in self.boots:
            self.boots.append(boot)
        return time.monotonic() - began

    async def is_ready(self) -> bool:
        with suppress(OSError, httpx2.HTTPError):
            async with self.client() as client:
                return (await client.get("/health/ready")).status_code == 200
        return False

    def client(self) -> httpx2.AsyncClient:
        """A client that goes through the socket file, and may ask anything."""
        transport = httpx2.AsyncHTTPTransport(uds=str(self.place.socket), verify=False)
        return httpx2.AsyncClient(transport=transport, base_url="http://local", timeout=30)

    async def get(self, path: str) -> Any:
        """The data of an answer."""
        async with self.client() as client:
            return (await client.get(path)).raise_for_status().json()["data"]

    async def database(self) -> asyncpg.Connection:
        """A connection to its database that is not its own."""
        described: Mapping[str, Any] = json.loads(self.place.description.read_text())
        return await asyncpg.connect(embedded_url(described["psql"]["environment"]))

    def arm(self, point: str) -> None:
        """Let the server kill itself when it reaches a point the next time."""
        partial = self._crash_file.with_suffix(".new")
        partial.write_text(point)
        partial.rename(self._crash_file)

    def disarm(self) -> None:
        self._crash_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """As `kill -9`."""
        assert self._process is not None
        self._process.kill()

    def kill_postmaster(self) -> None:
        """As `kill -9` for the server of the database: its children notice, and end."""
        pid = recorded_pid(self.place.postgres / "cluster" / "postmaster.pid")
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def died(self, within: float) -> bool:
        """Whether it died in time."""
        assert self._process is not None
        with anyio.move_on_after(within):
            while self._process.poll() is None:  # noqa: ASYNC110 - a test looks from outside
                await anyio.sleep(0.005)
        return self._process.poll() is not None

    async def stop(self) -> int:
        """Stop it as a person would; its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        assert await self.died(_PATIENCE)
        return int(self._process.returncode)

    def said(self) -> str:
        return (self._folder / "talk").read_text(errors="replace")

    def left(self) -> list[int]:
        """Processes of lives that are over."""
        return [pid for boot in self.boots[:-1] for pid in processes_with(f"ATTUNE_BOOT_ID={boot}")]


async def kill_backends(connection: asyncpg.Connection, random: Random) -> None:
    """End connections of the server to its database: all of them politely, or one so rudely that the database begins
    anew."""
    rows: Sequence[Any] = await connection.fetch(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    pids = [row["pid"] for row in rows]
    if random.random() < 0.5:
        await connection.execute("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid", pids)
    elif pids:
        with suppress(ProcessLookupError):
            os.kill(random.choice(pids), signal.SIGKILL)
