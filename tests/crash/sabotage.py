"""`attune`, with a defect: what a test of the test must find. Run as `python -m tests.crash.sabotage WHAT serve …`."""

import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from attune.bus.broker import MemoryBroker
from attune.bus.bus import Bus
from attune.bus.messages import Delivery
from attune.bus.transaction import Transaction
from attune.cli import main


def acknowledge_first() -> None:
    """A delivery is gone before its effects are there."""
    claiming = Bus.claiming

    @asynccontextmanager
    async def broken(
        bus: Bus, queue: str, ids: Sequence[UUID], attempt: int
    ) -> AsyncIterator[tuple[Transaction, frozenset[UUID]]]:
        async with claiming(bus, queue, ids, attempt) as (_, claimed):
            pass
        async with bus.transaction() as transaction:
            yield transaction, claimed

    Bus.claiming = broken  # type: ignore[method-assign, assignment]


def hand_over_twice() -> None:
    """Each delivery is handed over once more after it was settled. That is no defect: the bus promises no less."""
    settle = MemoryBroker.settle

    def again(broker: MemoryBroker, queue: str, deliveries: Iterable[Delivery[Any]]) -> None:
        settled = list(deliveries)
        settle(broker, queue, settled)
        repeated = broker.__dict__.setdefault("repeated", set())
        new = [one for one in settled if (queue, one.id) not in repeated]
        repeated.update((queue, one.id) for one in new)
        broker.hand_over(new)

    MemoryBroker.settle = again  # type: ignore[method-assign, assignment]


def claim_nothing() -> None:
    """All deliveries that were handed over are handled, and not those alone whose rows were there (rule 2)."""
    hand_over_twice()
    claiming = Bus.claiming

    @asynccontextmanager
    async def broken(
        bus: Bus, queue: str, ids: Sequence[UUID], attempt: int
    ) -> AsyncIterator[tuple[Transaction, frozenset[UUID]]]:
        async with claiming(bus, queue, ids, attempt) as (transaction, _):
            yield transaction, frozenset(ids)

    Bus.claiming = broken  # type: ignore[method-assign, assignment]


SABOTAGE = {one.__name__: one for one in (acknowledge_first, hand_over_twice, claim_nothing)}

if __name__ == "__main__":
    SABOTAGE[sys.argv.pop(1)]()
    main()
