"""Starting PostgreSQL's programs so that they do not outlive this process."""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

import anyio

from attune.base.errors import StartError
from attune.database.embedded.ownership import Account

_PR_SET_PDEATHSIG = 1


async def spawn(account: Account, *command: str | Path, stdin: int, output: IO[bytes]) -> asyncio.subprocess.Process:
    """Start `command` as `account`, in a session of its own; it gets SIGINT when this process ends, even by SIGKILL.

    On macOS, which has no such signal, it lives on, and the next start finds it.
    """
    if threading.current_thread() is not threading.main_thread():
        # The kernel sends the death signal when the thread ends that forked, not when the process does.
        raise RuntimeError("PostgreSQL has to be started from the main thread.")
    try:
        # A start that is half done when it is cancelled would leave a process that nobody knows.
        with anyio.CancelScope(shield=True):
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=_environment(),
                start_new_session=True,
                # These come before preexec_fn: a change of the user clears the death signal.
                user=account.uid if account.switch else None,
                group=account.gid if account.switch else None,
                extra_groups=account.groups if account.switch else None,
                preexec_fn=_die_with_us() if sys.platform == "linux" else None,
            )
    except (OSError, subprocess.SubprocessError) as error:
        raise StartError(f"{command[0]} cannot be started as {account.name}: {error}") from error
    return process


def _die_with_us() -> Callable[[], None]:
    # Everything is looked up before the fork: the child may only call what needs no lock.
    prctl, getppid, parent = ctypes.CDLL(None).prctl, os.getppid, os.getpid()
    number = int(signal.SIGINT)

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if getppid() != parent:
            os._exit(1)

    return bind


def _environment() -> dict[str, str]:
    # PGDATA, PGOPTIONS and their like would change what the programs do.
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}
