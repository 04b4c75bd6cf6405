"""The time that people have to answer. Nobody else ends a question because it is over."""

from datetime import UTC, datetime, timedelta

import structlog

from attune.base.json import dumps
from attune.bus.bus import Bus
from attune.database.pool import DatabaseUnavailable
from attune.executions import endings
from attune.executions import queries as executions
from attune.executions.model import Finished
from attune.executions.states import Step
from attune.people import notices, queries
from attune.people.model import ASK, Inquiry, InquiryStatus

log = structlog.get_logger()

SOURCE = "inquiry deadlines"
AT_ONCE = 500
_EVERY = 1.0
_LOOK_AGAIN = timedelta(minutes=1)
_BEGINNING = datetime.min.replace(tzinfo=UTC)
_NEVER = datetime.max.replace(tzinfo=UTC)


class Deadlines:
    """Ends what nobody has answered in time. It remembers when the next time is over, and asks the database only then,
    and once a minute."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._next = _BEGINNING

    def expect(self, at: datetime) -> None:
        """Look at this moment, if not before."""
        self._next = min(self._next, at)

    async def run(self) -> None:
        """Look every second until cancelled: the clock may jump."""
        while True:
            try:
                while self._next <= self._bus.clock.now():
                    await self.once()
            except DatabaseUnavailable as error:
                log.debug("the deadlines of inquiries wait for the database", error=str(error))
            await self._bus.clock.sleep(_EVERY)

    async def once(self) -> int:
        """End the inquiries whose time is over, so many at most, with the executions that wait for them; how many."""
        # Whoever asks from here on may lower it again.
        self._next = _NEVER
        try:
            async with self._bus.database.acquire() as connection:
                following = await queries.next_due(connection)
            if following is not None and following <= self._bus.clock.now():
                # There may be more: look again at once.
                self._next = following
                return await self._end_some()
        except BaseException:
            self._next = _BEGINNING
            raise
        self.expect(min(following or _NEVER, self._bus.clock.now() + _LOOK_AGAIN))
        return 0

    async def _end_some(self) -> int:
        async with self._bus.transaction() as transaction:
            transaction.does("expire")
            due = await queries.lock_due(transaction.connection, transaction.now, AT_ONCE)
            ids = [inquiry.id for inquiry in due]
            await queries.close(transaction.connection, ids, InquiryStatus.TIMEOUT, transaction.now)
            for inquiry in due:
                notices.ended(transaction, inquiry, InquiryStatus.TIMEOUT)
            waiting = [inquiry for inquiry in due if inquiry.waits]
            found = await executions.provenance(transaction.connection, [one.execution for one in waiting])
            ends = [_end(one, found[one.execution].event) for one in waiting if one.execution in found]
            await endings.end(transaction, ends, SOURCE)
        return len(due)


def _end(inquiry: Inquiry, event: int | None) -> Finished:
    at = inquiry.question.timeout_at
    error = f"Nobody answered inquiry {inquiry.id} until {at:%Y-%m-%d %H:%M:%S} UTC."
    return Finished(
        execution=inquiry.execution,
        action_ref=ASK,
        event=event,
        step=Step.TIME_OUT,
        result=dumps({"succeeded": False, "error": error, "inquiry": inquiry.id}),
        cause=inquiry.cause._replace(depth=inquiry.cause.depth + 1),
    )
