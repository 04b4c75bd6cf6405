"""Whether anything may come in from outside. What is inside goes on in any case."""

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

import structlog

from attune.base.clock import Clock
from attune.base.errors import Unavailable

log = structlog.get_logger()

_LOOK_EVERY = 2.0


class Reason(StrEnum):
    STORAGE = "storage"
    BACKLOG = "backlog"


class Limit(Protocol):
    def refusal(self) -> Unavailable | None:
        """Why nothing may come in now, or None."""
        ...


class Ingress:
    """Asked for everything that comes from outside: what comes from inside was accepted already."""

    def __init__(self, limits: Mapping[Reason, Limit], clock: Clock) -> None:
        self.refused: Counter[Reason] = Counter()
        self._limits = limits
        self._clock = clock
        self._was_closed: set[Reason] = set()

    def check(self) -> None:
        """Raises the refusal while nothing may come in, and counts it."""
        refusals = self.refusals()
        if refusals:
            reason = next(iter(refusals))
            self.refused[reason] += 1
            raise refusals[reason]

    def refusals(self) -> dict[Reason, Unavailable]:
        """Why nothing may come in now: nothing when it may."""
        found = {reason: limit.refusal() for reason, limit in self._limits.items()}
        refusals = {reason: refusal for reason, refusal in found.items() if refusal is not None}
        for reason in refusals.keys() - self._was_closed:
            log.warning("nothing is taken from outside", reason=reason, why=refusals[reason].message)
        for reason in self._was_closed - refusals.keys():
            log.warning("things are taken from outside again", reason=reason)
        self._was_closed = set(refusals)
        return refusals

    async def run(self) -> None:
        """Look now and then until cancelled, so that the log tells of it though nobody asks."""
        while True:
            self.refusals()
            await self._clock.sleep(_LOOK_EVERY)
