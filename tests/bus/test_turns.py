"""Turns: so many transactions at once, the writer's first, and none of the consumers' during a burst."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import pytest
from anyio.lowlevel import checkpoint

from attune.bus.turns import Turns


class Scene:
    """Tasks that want a turn; `order` tells who had one, and each keeps it until it is let go."""

    def __init__(self, tasks: anyio.abc.TaskGroup, turns: Turns) -> None:
        self.order: list[str] = []
        self.turns = turns
        self._tasks = tasks
        self._let_go: dict[str, anyio.Event] = {}
        self._scopes: dict[str, anyio.CancelScope] = {}

    async def consumer(self, name: str) -> None:
        await self._enter(name, self.turns.turn())

    async def writer(self, name: str) -> None:
        await self._enter(name, self.turns.first())

    async def finish(self, name: str) -> None:
        self._let_go[name].set()
        await _settle()

    async def cancel(self, name: str) -> None:
        self._scopes[name].cancel()
        await _settle()

    async def _enter(self, name: str, turn: AbstractAsyncContextManager[None]) -> None:
        self._let_go[name], self._scopes[name] = anyio.Event(), anyio.CancelScope()
        self._tasks.start_soon(self._have, name, turn)
        await _settle()

    async def _have(self, name: str, turn: AbstractAsyncContextManager[None]) -> None:
        with self._scopes[name]:
            async with turn:
                self.order.append(name)
                await self._let_go[name].wait()


async def _settle() -> None:
    for _ in range(5):
        await checkpoint()


@asynccontextmanager
async def scene(turns: int) -> AsyncIterator[Scene]:
    async with anyio.create_task_group() as tasks:
        yield Scene(tasks, Turns(turns))
        tasks.cancel_scope.cancel()


async def test_no_more_than_so_many_at_once_and_consumers_in_their_order() -> None:
    async with scene(2) as it:
        for name in ("a", "b", "c", "d"):
            await it.consumer(name)
        assert it.order == ["a", "b"]
        await it.finish("b")
        await it.finish("a")
        assert it.order == ["a", "b", "c", "d"]


async def test_the_writer_goes_before_consumers_that_wait() -> None:
    async with scene(1) as it:
        await it.consumer("a")
        await it.consumer("b")
        await it.writer("w")
        await it.finish("a")
        assert it.order == ["a", "w"]
        await it.finish("w")
        assert it.order == ["a", "w", "b"]


async def test_during_a_burst_only_the_writer_has_turns() -> None:
    async with scene(2) as it:
        await it.consumer("before")
        with it.turns.burst():
            await it.consumer("new")
            await it.finish("before")
            await it.writer("w")
            assert it.order == ["before", "w"]
            with it.turns.burst():
                pass
            await _settle()
            assert it.order == ["before", "w"]
        await _settle()
        assert it.order == ["before", "w", "new"]


async def test_who_is_cancelled_while_it_waits_is_passed_over() -> None:
    async with scene(1) as it:
        await it.consumer("a")
        await it.consumer("cancelled")
        await it.consumer("b")
        await it.cancel("cancelled")
        await it.finish("a")
        assert it.order == ["a", "b"]


async def test_who_is_to_stop_has_no_turn_though_there_is_one() -> None:
    async with scene(1) as it:
        with anyio.CancelScope() as scope:
            scope.cancel()
            async with it.turns.turn():
                it.order.append("cancelled")
        await it.consumer("a")
        assert it.order == ["a"]


async def test_who_is_called_and_cancelled_at_once_gives_its_turn_back() -> None:
    turns = Turns(1)

    async def have() -> None:
        async with turns.turn():
            pass

    async with turns.turn():
        # Not anyio's cancellation, which lets a task go on that was called already.
        waiting = asyncio.create_task(have())
        await _settle()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with anyio.fail_after(10):
        await have()
