"""How late the event loop is: what everything else waits for as well."""

import time
from collections import deque

import anyio

_EVERY = 0.01
_KEPT = 6_000


class LoopLag:
    """Measures, each hundredth of a second, by how much a sleep was late. Keeps the last minute, in seconds."""

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=_KEPT)

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            before = time.perf_counter()
            await anyio.sleep(_EVERY)
            self._samples.append(time.perf_counter() - before - _EVERY)

    def clear(self) -> None:
        """Forget what was measured."""
        self._samples.clear()

    def percentile(self, share: float) -> float:
        """The lag, in seconds, that `share` (0 to 1) of the samples did not exceed; 0 without samples."""
        ordered = sorted(self._samples)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0
