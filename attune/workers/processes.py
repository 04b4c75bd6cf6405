"""Running one child process: its own session, its streams read at once, a deadline, and nothing left of its group."""

import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream, Process

_CHUNK = 65_536
_LINGER = 1.0
"""Seconds that a stream may stay open after the process ended: something that left the group may hold it."""
_LOOK_AGAIN = 0.02


@dataclass(frozen=True, slots=True)
class Command:
    arguments: Sequence[str]
    environment: Mapping[str, str]
    directory: Path
    stdin: bytes


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

    After `timeout` seconds, or when `stop` is asked, the group gets SIGTERM and `grace` seconds later SIGKILL. Whatever
    of the group is left when the process ended is killed.
    """
    process = await anyio.open_process(
        list(command.arguments),
        env=dict(command.environment),
        cwd=command.directory,
        start_new_session=True,
    )
    try:
        async with anyio.create_task_group() as streams:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            streams.start_soon(_feed, process.stdin, command.stdin)
            streams.start_soon(_read, process.stdout, stdout)
            streams.start_soon(_read, process.stderr, stderr)
            ended = await _wait(process, timeout, grace, stop)
            _signal_group(process.pid, signal.SIGKILL)
            streams.cancel_scope.deadline = anyio.current_time() + _LINGER
    finally:
        _signal_group(process.pid, signal.SIGKILL)
        with anyio.CancelScope(shield=True):
            await process.aclose()
    return ended


async def _wait(process: Process, timeout: float, grace: float, stop: Stop) -> Exit:
    timed_out = stopped = False
    with anyio.move_on_after(timeout) as deadline:
        await _first(process.wait, stop.wait)
    if process.returncode is None:
        timed_out, stopped = deadline.cancelled_caught, True
        await _end(process, grace)
    code = process.returncode
    assert code is not None
    if code < 0:
        return Exit(None, _name_of(-code), timed_out, stopped)
    return Exit(code, None, timed_out, stopped)


async def _end(process: Process, grace: float) -> None:
    """Ask the group to end, and make it. A shell dies at once: the grace is for what it has started, too."""
    _signal_group(process.pid, signal.SIGTERM)
    with anyio.move_on_after(grace):
        await process.wait()
        while _has_members(process.pid):  # noqa: ASYNC110 - nobody tells us when a grandchild ends
            await anyio.sleep(_LOOK_AGAIN)
    _signal_group(process.pid, signal.SIGKILL)
    await process.wait()


async def _first(*waits: Callable[[], Awaitable[object]]) -> None:
    """Return when the first of them does."""
    async with anyio.create_task_group() as race:

        async def finish(wait: Callable[[], Awaitable[object]]) -> None:
            await wait()
            race.cancel_scope.cancel()

        for wait in waits:
            race.start_soon(finish, wait)


async def _feed(stream: ByteSendStream, data: bytes) -> None:
    # A process may close its input, or end without reading it.
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        await stream.send(data)
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        await stream.aclose()


async def _read(stream: ByteReceiveStream, take: Callable[[bytes], None]) -> None:
    with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        while True:
            take(await stream.receive(_CHUNK))


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
