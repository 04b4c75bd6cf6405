"""Making a cluster."""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import anyio
import structlog

from attune.base.errors import StartError
from attune.database.embedded.binaries import Binaries
from attune.database.embedded.ownership import Account
from attune.database.embedded.processes import spawn

log = structlog.get_logger()

SUPERUSER = "postgres"
DATABASE = "attune"

_INITDB = ("--encoding=UTF8", "--locale=C", "-k", f"--username={SUPERUSER}", "--auth=trust", "--no-instructions")


def is_cluster(path: Path, binaries: Binaries, account: Account) -> bool:
    """Whether `path` holds a cluster that can be served; False when there is nothing yet.

    Raises StartError when it holds anything else.
    """
    if not path.exists() or not any(path.iterdir()):
        return False
    try:
        major = (path / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        raise StartError(f"{path} is not empty and holds no PostgreSQL data. Move it away.") from None
    if major != str(binaries.major):
        raise StartError(
            f"{path} was written by PostgreSQL {major}, but the programs in {binaries.directory} are PostgreSQL "
            f"{binaries.version}. Name the bin folder of PostgreSQL {major} in database.binaries, or dump the database "
            "with that version and load it into an empty data directory."
        )
    if path.stat().st_uid != account.uid:
        raise StartError(
            f"{path} does not belong to {account.name}, as whom PostgreSQL is to run. Use the user who made it, "
            f"or run: chown -R {account.name} {path} {path.parent / 'log'} {path.parent / 'socket'}"
        )
    return True


async def make_cluster(path: Path, binaries: Binaries, account: Account) -> None:
    """A new cluster with the database `attune`, under its name only when it is complete and on disk."""
    began = time.monotonic()
    # With its own name every time: an initdb that outlived its Attune by a moment must not write into ours.
    temporary = Path(tempfile.mkdtemp(prefix=f"{path.name}.new-", dir=path.parent))
    try:
        if account.switch:
            os.chown(temporary, account.uid, account.gid)
        await _run(account, binaries.program("initdb"), *_INITDB, "-D", temporary)
        await _run(
            account,
            *(binaries.program("postgres"), "--single", "-D", temporary),
            *("-c", "exit_on_error=on", "-c", "log_checkpoints=off", "postgres"),
            statement=f"CREATE DATABASE {DATABASE}\n",
        )
        _publish(temporary, path)
    finally:
        # Once more: an initdb that was dying at the first time may have written while its folder was removed.
        remove_unfinished(path.parent)
    log.info("postgres cluster made", directory=str(path), seconds=round(time.monotonic() - began, 2))


def remove_unfinished(directory: Path) -> None:
    """Clear what was being made in `directory` when an earlier run was killed."""
    for pattern in ("cluster.new-*", "[0-9]*.new-*"):
        for path in directory.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


async def _run(account: Account, *command: str | Path, statement: str = "") -> None:
    with tempfile.TemporaryFile() as output:
        process = await spawn(account, *command, stdin=subprocess.PIPE, output=output)
        try:
            await process.communicate(statement.encode())
        finally:
            await _kill(process)
        if process.returncode != 0:
            words = os.pread(output.fileno(), 65536, 0).decode(errors="replace")
            last = "\n".join(words.splitlines()[-10:])
            raise StartError(f"Making the database failed ({command[0]} ended with {process.returncode}):\n{last}")


async def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with anyio.CancelScope(shield=True):
            await process.wait()


def _publish(temporary: Path, path: Path) -> None:
    temporary.rename(path)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
