"""Commands as processes, without the time that importing Python's modules takes: they are forked from one that has."""

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.server.running import command, environment

_FORKER = """
import contextlib, io, json, os, sys, tempfile, time
import yaml
from attune.cli import common, main, root

# What commands import when they are first used.
for words in (["version"], ["rule", "show"], ["status", "--data-dir", "/nowhere"]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        with contextlib.suppress(BaseException):
            root.app(words)
        common.print_table(["warm"], [["up"]])

for line in sys.stdin:
    asked = json.loads(line)
    files = [tempfile.TemporaryFile() for _ in range(3)]
    files[0].write(asked["stdin"].encode())
    files[0].seek(0)
    if not (child := os.fork()):
        for number, file in enumerate(files):
            os.dup2(file.fileno(), number)
        sys.stdin = open(0)
        os.environ.update(asked["env"])
        time.tzset()
        sys.argv = ["attune", *asked["words"]]
        main()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = []
    for file in files[1:]:
        file.seek(0)
        said.append(file.read().decode())
    print(json.dumps([code, *said]), flush=True)
"""


class Commands:
    """Runs what a person would type on the machine of the server with this data directory."""

    def __init__(self, process: Process, data: Path) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._sent = process.stdin
        self._answers = BufferedByteReceiveStream(process.stdout)
        self._data = data
        self._lock = anyio.Lock()

    async def __call__(self, *words: str, stdin: str = "", **env: str) -> "subprocess.CompletedProcess[str]":
        """What the command did, answered (stdout) and said (stderr)."""
        asked = {"words": words, "stdin": stdin, "env": {"ATTUNE_DATA_DIR": str(self._data), **env}}
        async with self._lock:
            await self._sent.send(json.dumps(asked).encode() + b"\n")
            code, answered, said = json.loads(await self._answers.receive_until(b"\n", 1 << 24))
        return subprocess.CompletedProcess(words, code, answered, said)


@asynccontextmanager
async def commands_of(data: Path) -> AsyncIterator[Commands]:
    """Commands for the block."""
    forker = [sys.executable, "-c", _FORKER]
    async with await anyio.open_process(forker, env=environment(), cwd="/", stderr=None) as process:
        yield Commands(process, data)
        assert process.stdin is not None
        await process.stdin.aclose()
        await process.wait()


class Lasting:
    """A command that goes on until somebody ends it."""

    def __init__(self, process: Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.process = process
        self._printed = BufferedByteReceiveStream(process.stdout)
        self._said = BufferedByteReceiveStream(process.stderr)

    async def prints(self) -> str:
        """The next line of stdout."""
        return await self._line(self._printed)

    async def says(self) -> str:
        """The next line of stderr."""
        return await self._line(self._said)

    async def _line(self, stream: BufferedByteReceiveStream) -> str:
        with anyio.fail_after(40):
            return (await stream.receive_until(b"\n", 1 << 20)).decode()

    async def interrupt(self) -> int:
        """The exit code after Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        return await self.end()

    async def end(self) -> int:
        """The exit code."""
        with anyio.fail_after(40):
            return await self.process.wait()


@asynccontextmanager
async def lasting(data: Path, *words: str) -> AsyncIterator[Lasting]:
    """What a person typed on the machine of the server with this data directory; ended with the block."""
    env = environment(ATTUNE_DATA_DIR=str(data))
    async with await anyio.open_process(command(*words), env=env, cwd="/") as process:
        try:
            yield Lasting(process)
        finally:
            if process.returncode is None:
                process.kill()
