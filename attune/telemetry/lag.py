"""How late the event loop is: what everything else waits for as well."""

import time
from collections.abc import Callable

import anyio


class LoopLag:
    """Measures, each `every` seconds, by how many seconds a sleep was late."""

    def __init__(self, note: Callable[[float], None], every: float) -> None:
        self._note = note
        self._every = every

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            before = time.perf_counter()
            await anyio.sleep(self._every)
            self._note(time.perf_counter() - before - self._every)
