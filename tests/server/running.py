"""Real servers: `attune serve` as a process, started and stopped as a person would."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx2

from attune.base.installation import Installation

ROOT = Path(__file__).resolve().parents[2]

_PATIENCE = 40.0


@dataclass(frozen=True)
class Running:
    """A server that is ready."""

    process: "subprocess.Popen[bytes]"
    place: Installation
    url: str
    talk: Path

    async def get(self, path: str, **query: Any) -> Any:
        """The `data` of an answer through the socket file, which may ask anything."""
        return (await self.ask("GET", path, params=query)).raise_for_status().json()["data"]

    async def ask(self, method: str, path: str, **arguments: Any) -> httpx2.Response:
        """The answer to a request through the socket file."""
        transport = httpx2.AsyncHTTPTransport(uds=str(self.place.socket))
        async with httpx2.AsyncClient(transport=transport, base_url="http://local", timeout=40) as client:
            return await client.request(method, path, **arguments)

    def said(self) -> str:
        """All that it has written to stderr so far."""
        return self.talk.read_text()

    def lines(self) -> list[dict[str, Any]]:
        """The lines of its log."""
        return [json.loads(line) for line in self.said().splitlines() if line.startswith("{")]


def command(*arguments: str) -> list[str]:
    """The command line that runs `attune` with this interpreter."""
    return [sys.executable, "-m", "attune", *arguments]


def environment(**changes: str) -> dict[str, str]:
    """The environment of a person who has set nothing for Attune."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ATTUNE_", "XDG_"))}
    return {**kept, "PYTHONPATH": str(ROOT), **changes}


@asynccontextmanager
async def serving(
    folder: Path,
    *arguments: str,
    dsn: str = "",
    data: Path | None = None,
    env: Mapping[str, str] | None = None,
    under: Sequence[str] = (),
) -> AsyncIterator[Running]:
    """A server on a free port, its data in `folder`, its database `dsn` or else one of its own, which takes seconds to
    make; stopped with SIGTERM unless the test has ended it."""
    place = Installation(data or folder / "data")
    talk = folder / "talk"
    with talk.open("ab") as sink:
        # Not asyncio's: it must outlive the cancellation of the test, to be stopped.
        process = subprocess.Popen(  # noqa: ASYNC220
            [*under, *command("serve", "--data-dir", str(place.data), "--port", "0", *arguments)],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env=environment(ATTUNE_DATABASE__URL=dsn, **(env or {})),
            cwd=folder,
            start_new_session=True,
        )
    try:
        yield await _ready(process, place, talk)
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await ended(process)
        finally:
            process.kill()


async def _ready(process: "subprocess.Popen[bytes]", place: Installation, talk: Path) -> Running:
    with anyio.fail_after(_PATIENCE):
        while True:
            if process.poll() is not None:
                raise AssertionError(f"the server ended with {process.returncode}:\n{talk.read_text()}")  # noqa: ASYNC240
            with suppress(OSError, ValueError, httpx2.HTTPError):
                server = Running(process, place, json.loads(place.description.read_text())["url"], talk)
                if (await server.ask("GET", "/health/ready")).status_code == 200:
                    return server
            await anyio.sleep(0.02)


async def ended(process: "subprocess.Popen[bytes]", within: float = _PATIENCE) -> int:
    """The exit code of a process that ends by itself."""
    with anyio.fail_after(within):
        while process.poll() is None:  # noqa: ASYNC110 - a test looks from outside
            await anyio.sleep(0.01)
    code = process.returncode
    assert isinstance(code, int)
    return code


async def attune(
    *arguments: str, data: Path, stdin: bytes = b"", under: Sequence[str] = (), **env: str
) -> "subprocess.CompletedProcess[str]":
    """What a command did, said (stderr) and answered (stdout). `under` is a command line that starts it."""
    done = await anyio.run_process(
        [*under, *command(*arguments)],
        input=stdin,
        check=False,
        env=environment(ATTUNE_DATA_DIR=str(data), **env),
        cwd="/",
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def processes_with(mark: str) -> list[int]:
    """The processes whose command line or environment holds a text."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            for name in ("cmdline", "environ"):
                with suppress(OSError):
                    if mark.encode() in (entry / name).read_bytes():
                        found.append(int(entry.name))
    return sorted(set(found))


def lines_of(text: str, *words: str) -> Sequence[str]:
    """The lines that hold all of some words."""
    return [line for line in text.splitlines() if all(word in line for word in words)]
