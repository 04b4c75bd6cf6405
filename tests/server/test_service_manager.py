"""A server under systemd, which it tells how it does, and as the first process of a container."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.from_thread import start_blocking_portal

from attune.telemetry.systemd import Notifier
from tests.server.running import Running, attune, ended, serving
from tests.support.engines import pack
from tests.support.waiting import eventually, until


@pytest.fixture
def systemd(folder: Path) -> Iterator[socket.socket]:
    """The socket on which systemd would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(folder / "notify"))
        listening.setblocking(False)
        yield listening


async def test_systemd_is_told_of_each_stage_and_that_the_loop_turns(
    folder: Path, dsn: str, systemd: socket.socket
) -> None:
    asked = {"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "100000"}
    async with serving(folder, dsn=dsn, env=asked) as server:
        heard = await _heard(systemd, "WATCHDOG=1", times=3)
        assert heard[:2] == ["STATUS=Starting", f"READY=1\nSTATUS=Listening on {server.url}"]

        server.process.send_signal(signal.SIGTERM)
        assert await ended(server.process) == 0
    last = [message for message in await _heard(systemd, "STOPPING=1\nSTATUS=Stopping") if message != "WATCHDOG=1"]
    assert last == ["STOPPING=1\nSTATUS=Stopping"]


async def test_a_loop_that_hangs_is_not_called_alive(folder: Path, systemd: socket.socket) -> None:
    often = {"WATCHDOG_USEC": "2000"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as another, start_blocking_portal() as elsewhere:
        another.bind(str(folder / "another"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Notifier({"NOTIFY_SOCKET": systemd.getsockname(), **often}).keep_alive)
            await _heard(systemd, "WATCHDOG=1")
            alive = elsewhere.start_task_soon(Notifier({"NOTIFY_SOCKET": another.getsockname(), **often}).keep_alive)

            # This loop hangs for as long as it takes one that does not to be heard twenty times.
            heard = [another.recv(100) for _ in range(20)]

            assert set(heard) == {b"WATCHDOG=1"}
            assert _drain(systemd) == []
            alive.cancel()
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("variables", "asked"),
    [
        ({"WATCHDOG_USEC": "1000"}, True),
        ({"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "ours"}, True),
        # Meant for the process that started us.
        ({"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}, False),
        ({"WATCHDOG_USEC": "0"}, False),
        ({"WATCHDOG_USEC": "soon"}, False),
        ({}, False),
    ],
    ids=str,
)
async def test_the_watchdog_is_fed_only_when_it_watches_this_process(
    systemd: socket.socket, variables: dict[str, str], asked: bool
) -> None:
    if variables.get("WATCHDOG_PID") == "ours":
        variables = {**variables, "WATCHDOG_PID": str(os.getpid())}
    notifier = Notifier({"NOTIFY_SOCKET": systemd.getsockname(), **variables})

    with anyio.move_on_after(60) as waiting:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(notifier.keep_alive)
            if asked:
                await _heard(systemd, "WATCHDOG=1", times=2)
                tasks.cancel_scope.cancel()

    assert not waiting.cancelled_caught


def test_an_abstract_socket_is_told_as_well() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0attune-test-{os.getpid()}")
        Notifier({"NOTIFY_SOCKET": f"@attune-test-{os.getpid()}"}).send(READY="1")
        assert listening.recv(100) == b"READY=1"


def test_without_systemd_and_with_one_that_is_gone_nothing_happens(folder: Path) -> None:
    Notifier({}).send(READY="1")
    Notifier({"NOTIFY_SOCKET": str(folder / "gone")}).send(READY="1")


async def _heard(systemd: socket.socket, wanted: str, times: int = 1) -> list[str]:
    """All messages up to the last of the wanted ones."""
    heard: list[str] = []

    def enough() -> bool:
        heard.extend(_drain(systemd))
        return heard.count(wanted) >= times

    await eventually(enough)
    return heard


def _drain(systemd: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(systemd.recv(4096).decode())
        except BlockingIOError:
            return found


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# In a container

_UNSHARE = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
_UNSHARE += ["--pid", "--fork", "--mount-proc", "--kill-child"]


def _can_unshare() -> bool:
    tried = [*_UNSHARE, "true"]
    return bool(shutil.which("unshare")) and subprocess.run(tried, check=False, capture_output=True).returncode == 0


_ORPHANS = {
    "actions/orphan.yaml": "ref: slow.orphan\nlabel: Orphan\nentry_point: orphan.sh\n",
    # The second sleep belongs to nobody, and is still in the group.
    "actions/orphan.sh": "(sleep 1000 & exec sleep 1000) &\necho started\nwait\n",
}


if _can_unshare():  # kernels may keep ordinary users from it

    async def test_as_pid_1_it_reaps_so_that_no_stop_waits_for_zombies_and_passes_signals_on(
        folder: Path, dsn: str
    ) -> None:
        # Far more than the patience of this test: a group with a zombie in it would take all of it.
        endless = {"ATTUNE_WORKER__KILL_GRACE": "500"}
        async with _contained(folder, dsn, endless) as (server, first):
            await attune("run", "slow.orphan", "--detach", data=server.place.data)
            execution = await until(lambda: _running(server))

            await server.ask("POST", f"/api/v1/executions/{execution}/cancel")

            shown = await server.get(f"/api/v1/executions/{execution}", wait=30)
            assert shown["status"] == "cancelled"
            await eventually(lambda: not _zombies(first))
            os.kill(first, signal.SIGTERM)
            assert await ended(server.process) == 0
            assert "Stopping" in server.said()

    async def test_as_pid_1_it_passes_on_the_exit_code(folder: Path) -> None:
        refused = await attune("serve", data=folder / "data", under=_UNSHARE, ATTUNE_SERVER__PORT="none")

        assert refused.returncode == 3
        assert "server.port" in refused.stderr


@asynccontextmanager
async def _contained(folder: Path, dsn: str, env: dict[str, str]) -> AsyncIterator[tuple[Running, int]]:
    """A server in a PID namespace of its own, and its PID 1 as seen from here."""
    pack(folder / "packs", "slow", _ORPHANS)
    async with serving(folder, "--packs", str(folder / "packs"), dsn=dsn, env=env, under=_UNSHARE) as server:
        (first,) = _children(server.process.pid)
        try:
            yield server, first
        finally:
            # unshare takes no notice of SIGTERM; its end is that of all in the namespace.
            server.process.kill()


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _zombies(pid: int) -> list[int]:
    return [child for child in _children(pid) if _state(child) == "Z"]


async def _running(server: Running) -> int | None:
    found = await server.get("/api/v1/executions", status="running")
    return found[0]["id"] if found else None
