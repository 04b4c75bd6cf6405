"""The server process."""

import asyncio
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import anyio
import structlog

from attune.base.errors import StartError
from attune.database.embedded import logs
from attune.database.embedded.ownership import Account
from attune.database.embedded.processes import spawn

log = structlog.get_logger()

_POLL, _SLOW_POLL = 0.002, 0.05
_PATIENT_FOR = 2.0
_REPORT_EVERY = 30.0
_LINE_OF_STATUS = 7


class Server:
    """One `postgres` at a time on one data directory, as a child of this process."""

    def __init__(self, account: Account, binary: Path, data: Path, log_directory: Path, options: Sequence[str]) -> None:
        self._account = account
        self._command: tuple[str | Path, ...] = (binary, "-D", data, *options)
        self._lock_file = data / "postmaster.pid"
        self._log_directory = log_directory
        self._process: asyncio.subprocess.Process | None = None
        self._output: IO[bytes] | None = None
        self._log_sizes: dict[str, int] = {}

    async def begin(self) -> None:
        """Start the process."""
        self.trim_logs()
        self._close_output()
        # What is written before the log collector runs lands in a file that nobody else sees.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._log_sizes = logs.sizes(self._log_directory)
        self._process = await spawn(self._account, *self._command, stdin=subprocess.DEVNULL, output=self._output)

    async def ready(self) -> None:
        """Return when it accepts connections. Raises StartError when it ends before."""
        process = self._running()
        began = reported = time.monotonic()
        while process.returncode is None:
            # As pg_ctl does. Trying to connect would write a line to the log each time while a crash is repaired.
            if self._status(process.pid) == "ready":
                log.debug("postgres accepts connections", pid=process.pid, seconds=round(time.monotonic() - began, 3))
                return
            now = time.monotonic()
            if now - reported > _REPORT_EVERY:
                log.info("postgres is still starting, most likely repairing after a crash", seconds=round(now - began))
                reported = now
            await anyio.sleep(_POLL if now - began < _PATIENT_FOR else _SLOW_POLL)
        raise StartError(f"PostgreSQL did not start: {await self._reason(process)}")

    async def ended(self, within: float) -> str | None:
        """Why it ended; None when it still runs after `within` seconds."""
        process = self._running()
        with anyio.move_on_after(within):
            await process.wait()
            return await self._reason(process)
        return None

    async def end(self, timeout: float) -> None:
        """Shut it down; nothing happens when it has ended."""
        process = self._process
        if process is not None:
            for number, seconds in ((signal.SIGINT, timeout), (signal.SIGQUIT, 10), (signal.SIGKILL, 10)):
                if await _ends(process, number, seconds):
                    break
                log.warning("postgres does not end", pid=process.pid, signal=number.name, seconds=seconds)
        self._close_output()
        self._process = None

    def trim_logs(self) -> None:
        """Keep the log files within their bound."""
        logs.trim(self._log_directory, self._account.uid)

    def _close_output(self) -> None:
        if self._output is not None:
            self._output.close()
            self._output = None

    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None, "begin() comes first"
        return self._process

    def _status(self, pid: int) -> str:
        try:
            lines = self._lock_file.read_text().splitlines()
        except FileNotFoundError:
            return ""
        return lines[_LINE_OF_STATUS].strip() if len(lines) > _LINE_OF_STATUS and lines[0] == str(pid) else ""

    async def _reason(self, process: asyncio.subprocess.Process) -> str:
        """The exit code and the last words of a process that has ended."""
        code = process.returncode
        assert code is not None, "it has ended"
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"{how}\n{await self._last_words()}".strip()

    async def _last_words(self) -> str:
        if self._output is None:  # end() was faster than whoever waits for the reason
            return ""
        early = os.pread(self._output.fileno(), 65536, 0).decode(errors="replace").splitlines()
        # The collector announces itself; what comes after that is in its file, a moment after the process has ended.
        if not any("log collector" in line or "logging collector" in line for line in early):
            return "\n".join(early[-10:])
        with anyio.move_on_after(0.3):
            while True:
                if written := logs.tail(self._log_directory, self._log_sizes, self._account.uid):
                    return written
                await anyio.sleep(0.01)
        return ""


async def _ends(process: asyncio.subprocess.Process, number: signal.Signals, seconds: float) -> bool:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.send_signal(number)
        with anyio.move_on_after(seconds):
            await process.wait()
    return process.returncode is not None
