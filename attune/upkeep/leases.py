"""No row says `running` for ever: what its worker does not hold any more, though its lease is over, is ended."""

from collections.abc import Callable

import structlog

from attune.base.json import dumps
from attune.bus.bus import Bus
from attune.bus.messages import Cause
from attune.bus.transaction import Transaction
from attune.database.pool import DatabaseUnavailable
from attune.executions import endings, queries
from attune.executions.model import Execution, Finished
from attune.executions.states import Step

log = structlog.get_logger()

SOURCE = "leases"
_EVERY = 30.0


class Leases:
    """Looks for executions whose lease is over. There are none, unless a worker has forgotten one."""

    def __init__(self, bus: Bus, holds: Callable[[int], bool]) -> None:
        """`holds` says whether an execution is in the hands of a worker of this process: that one decides, however long
        the machine slept."""
        self._bus = bus
        self._holds = holds

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self._bus.clock.sleep(_EVERY)
            try:
                await self.once()
            except DatabaseUnavailable as error:
                log.debug("leases wait for the database", error=str(error))

    async def once(self) -> int:
        """End what nobody holds; how many that were."""
        async with self._bus.transaction() as transaction:
            expired = await queries.expired(transaction.connection, transaction.now)
            lost = [execution for execution in expired if not self._holds(execution.id)]
            return await self._end(transaction, lost) if lost else 0

    async def _end(self, transaction: Transaction, lost: list[Execution]) -> int:
        log.error("executions were forgotten by their worker", executions=[execution.id for execution in lost])
        ended = await endings.end(transaction, [_abandoned(execution) for execution in lost], SOURCE)
        return sum(ended)


def _abandoned(execution: Execution) -> Finished:
    what = f"Its worker forgot it; its lease ended at {execution.lease_until:%Y-%m-%d %H:%M:%S} UTC."
    return Finished(
        execution=execution.id,
        action_ref=execution.action_ref,
        event=execution.event,
        step=Step.ABANDON,
        result=dumps({"succeeded": False, "error": what}),
        cause=Cause(execution.correlation_id, execution.causation_id, execution.depth + 1),
    )
