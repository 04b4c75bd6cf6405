"""Running one child process: its own session, its streams read at once, a deadline, and nothing left of its group."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import anyio
import anyio.to_thread

from attune.base.crash_points import reach
from attune.workers import escapes

_STDIN, _STDOUT, _STDERR = range(3)
_LINGER = 1.0
"""Seconds that a stream may stay open after the process ended: something that left the group may hold it."""
_LOOK_AGAIN = 0.02
_LOOK_FAR = 0.2
"""The same for processes that have left the group: all that there are have to be looked at."""
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Command:
    """`marks` are variables of the environment that no other process than this and its descendants has."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    directory: Path
    stdin: bytes
    marks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: with a code, or by a signal. `stopped` says that it was us who ended it."""

    code: int | None
    signal: str | None
    timed_out: bool
    stopped: bool


class Stop:
    """Asks something that runs to end: a process that waits for it, or the cancel scope of a coroutine."""

    __slots__ = ("_event", "_scope", "is_asked")

    def __init__(self) -> None:
        self.is_asked = False
        self._event: anyio.Event | None = None
        self._scope: anyio.CancelScope | None = None

    def ask(self) -> None:
        self.is_asked = True
        if self._event is not None:
            self._event.set()
        if self._scope is not None:
            self._scope.cancel()

    async def wait(self) -> None:
        """Return when it is asked."""
        if not self.is_asked:
            self._event = anyio.Event()
            await self._event.wait()

    def cancels(self, scope: anyio.CancelScope) -> None:
        """Cancel `scope` when it is asked."""
        self._scope = scope
        if self.is_asked:
            scope.cancel()


async def run(
    command: Command,
    *,
    stdout: Callable[[bytes], None],
    stderr: Callable[[bytes], None],
    timeout: float,
    grace: float,
    stop: Stop,
) -> Exit:
    """Run `command` to its end, passing on what it prints. Raises OSError when it cannot be started.

    After `timeout` seconds, or when `stop` is asked, the group and what has left it get SIGTERM, and SIGKILL `grace`
    seconds later. Whatever of the group is left when the process ended is killed."""
    child = _Child({_STDOUT: stdout, _STDERR: stderr})
    reach("spawn.before")
    transport = await _start(command, child)
    try:
        reach("spawn.after")
        _feed(transport, command.stdin)
        try:
            ended = await _wait(transport, child, command.marks, timeout, grace, stop)
        finally:
            # Only now, and once: the number may soon be that of another group.
            _signal_group(transport.get_pid(), signal.SIGKILL)
            with anyio.CancelScope(shield=True):
                await child.exited.wait()
        with anyio.move_on_after(_LINGER):
            await child.silent.wait()
        return ended
    finally:
        child.sinks.clear()
        _close(transport)


async def _start(command: Command, child: "_Child") -> asyncio.SubprocessTransport:
    try:
        transport, _ = await asyncio.get_running_loop().subprocess_exec(
            lambda: child,
            *command.arguments,
            env=command.environment,
            cwd=command.directory,
            start_new_session=True,
        )
    except BaseException:
        child.disown()
        raise
    return transport


class _Child(asyncio.SubprocessProtocol):
    """What the loop tells of a child: what it prints, when both streams ended, and when it did itself."""

    def __init__(self, sinks: dict[int, Callable[[bytes], None]]) -> None:
        self.sinks = sinks
        self.silent = anyio.Event()
        self.exited = anyio.Event()
        self._transport: asyncio.SubprocessTransport | None = None
        self._is_unwanted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)
        if self._is_unwanted:
            self._end()

    def disown(self) -> None:
        """End a process that began though it was not started: asyncio leaves it alone when it cannot watch it, for want
        of a thread or of a file."""
        self._is_unwanted = True
        if self._transport is not None:
            self._end()

    def _end(self) -> None:
        assert self._transport is not None
        if self._transport.get_returncode() is None:
            _signal_group(self._transport.get_pid(), signal.SIGKILL)
        self._transport.close()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd in self.sinks:
            self.sinks[fd](data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        self.sinks.pop(fd, None)
        if not self.sinks:
            self.silent.set()

    def process_exited(self) -> None:
        self.exited.set()


def _feed(transport: asyncio.SubprocessTransport, data: bytes) -> None:
    stdin = _stdin(transport)
    stdin.write(data)
    stdin.write_eof()


def _close(transport: asyncio.SubprocessTransport) -> None:
    """Close the pipes, whoever outlived the group and holds their other ends."""
    stdin = _stdin(transport)
    if stdin.get_write_buffer_size():
        stdin.abort()
    transport.close()


def _stdin(transport: asyncio.SubprocessTransport) -> asyncio.WriteTransport:
    return cast("asyncio.WriteTransport", transport.get_pipe_transport(_STDIN))


async def _wait(
    transport: asyncio.SubprocessTransport,
    child: _Child,
    marks: Mapping[str, str],
    timeout: float,
    grace: float,
    stop: Stop,
) -> Exit:
    timed_out = stopped = False
    with anyio.move_on_after(timeout) as deadline:
        await _first(child.exited.wait, stop.wait)
    if transport.get_returncode() is None:
        timed_out, stopped = deadline.cancelled_caught, True
        await _end(transport.get_pid(), child, marks, grace)
    await child.exited.wait()
    code = transport.get_returncode()
    assert code is not None
    if code < 0:
        return Exit(None, _name_of(-code), timed_out, stopped)
    return Exit(code, None, timed_out, stopped)


async def _end(process_group: int, child: _Child, marks: Mapping[str, str], grace: float) -> None:
    """Ask the group and what has left it to end, and make them. A shell dies at once: the grace is for what it has
    started, too."""
    _signal_group(process_group, signal.SIGTERM)
    with anyio.move_on_after(grace):
        far = await _send(signal.SIGTERM, marks, process_group)
        await child.exited.wait()
        while _has_members(process_group):  # noqa: ASYNC110 - nobody tells us when a grandchild ends
            await anyio.sleep(_LOOK_AGAIN)
        while far:
            await anyio.sleep(_LOOK_FAR)
            far = await _send(None, marks, process_group)
        return
    _signal_group(process_group, signal.SIGKILL)
    for _ in range(_ROUNDS):
        # One that is killed may just have started another.
        if not await _send(signal.SIGKILL, marks, process_group):
            return


async def _send(number: signal.Signals | None, marks: Mapping[str, str], process_group: int) -> int:
    """Send a signal, if one is given, to what has left the group; how many there are."""
    return await anyio.to_thread.run_sync(escapes.send, number, marks, process_group)


async def _first(*waits: Callable[[], Awaitable[object]]) -> None:
    """Return when the first of them does."""
    async with anyio.create_task_group() as race:

        async def finish(wait: Callable[[], Awaitable[object]]) -> None:
            await wait()
            race.cancel_scope.cancel()

        for wait in waits:
            race.start_soon(finish, wait)


def _signal_group(process_group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process_group, number)


def _has_members(process_group: int) -> bool:
    try:
        os.killpg(process_group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        # Most real-time signals have no name.
        return f"signal {number}"
