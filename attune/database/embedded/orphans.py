"""Servers of an Attune that is gone.

Whoever calls here holds Attune's lock on the data directory, so a server that still runs on it has no owner any more.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import structlog

from attune.base.errors import StartError

log = structlog.get_logger()

_POLL = 0.01


async def stop_orphans(cluster: Path, sockets: Path, *, patience: float = 30) -> None:
    """End what still runs on `cluster`, and remove the lock files that it left there and among its `sockets`; at once
    when there is none.

    Raises StartError when something cannot be ended.
    """
    lock_file = cluster / "postmaster.pid"
    pid = recorded_pid(lock_file)
    if pid is not None and serves(pid, cluster):
        log.warning("postgres runs without its owner: stopping it", pid=pid, directory=str(cluster))
        await _end(lambda: [pid] if serves(pid, cluster) else [], (signal.SIGINT, patience), (signal.SIGQUIT, 10))
    if lock_file.exists():
        # The first second is for the log collector, which ends by itself, after everybody else.
        await _end(lambda: leftovers(cluster), (None, 1), (signal.SIGQUIT, 5), (signal.SIGKILL, 5))
        _unlock(lock_file, sockets)


def _unlock(lock_file: Path, sockets: Path) -> None:
    # PostgreSQL would take a process that got the same number since for its predecessor, or one that nobody has reaped
    # yet, and refuse to start.
    for left in (*sockets.glob(".s.PGSQL.*"), lock_file):
        left.unlink(missing_ok=True)


def recorded_pid(lock_file: Path) -> int | None:
    """The process that wrote the lock file of a cluster."""
    try:
        return int(lock_file.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def serves(pid: int, cluster: Path) -> bool:
    """Whether the process `pid` is a PostgreSQL server on `cluster`."""
    if sys.platform != "linux":
        asked = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, check=False)
        return b"postgres" in asked.stdout and os.fsencode(cluster) in asked.stdout
    process = Path("/proc", str(pid))
    try:
        arguments = (process / "cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    # Root without CAP_SYS_PTRACE, as in a container, may read the command line of others, but not their folder.
    return Path(os.fsdecode(arguments[0])).name == "postgres" and (
        os.fsencode(cluster) in arguments or _works_in(process, cluster)
    )


def leftovers(cluster: Path) -> list[int]:
    """The PostgreSQL processes that work in `cluster`, with or without a server above them; on Linux only."""
    numbers = [path for path in Path("/proc").glob("[0-9]*") if _works_in(path, cluster)]
    return [int(path.name) for path in numbers if _program(path) == "postgres"]


def _works_in(process: Path, cluster: Path) -> bool:
    try:
        return (process / "cwd").samefile(cluster)
    except OSError:
        return False


def _program(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return ""


async def _end(alive: Callable[[], list[int]], *steps: tuple[signal.Signals | None, float]) -> None:
    for number, seconds in steps:
        for pid in alive() if number else ():
            try:
                os.kill(pid, number or 0)
            except ProcessLookupError:
                continue
        with anyio.move_on_after(seconds):
            while True:
                if not alive():
                    return
                await anyio.sleep(_POLL)
    raise StartError(
        f"PostgreSQL processes of an earlier run do not end: {', '.join(map(str, alive()))}. "
        "Find out what holds them (a disk that does not answer?), and start again when they are gone."
    )
