"""Waiting for something to become true."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")


async def until(find: Callable[[], Awaitable[T | None]], within: float = 20.0) -> T:
    """The first thing that `find` finds; fails when it finds nothing in time."""
    with anyio.move_on_after(within):
        while True:
            found = await find()
            if found is not None:
                return found
            await anyio.sleep(0.005)
    raise AssertionError(f"it was not found within {within} s")


async def eventually(condition: Callable[[], bool], within: float = 20.0) -> None:
    """Return when `condition` is true; fails when it does not become true in time."""
    with anyio.move_on_after(within):
        while not condition():  # noqa: ASYNC110 - a test looks from outside
            await anyio.sleep(0.005)
        return
    raise AssertionError(f"it did not become true within {within} s")
