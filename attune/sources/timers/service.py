"""The timers: one heap, one task, and a row that remembers for each."""

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import anyio
import structlog

from attune.base.clock import Clock
from attune.base.crash_points import reach
from attune.bus.broadcasts import Heard
from attune.bus.bus import Bus
from attune.bus.messages import RuleChanged
from attune.bus.transaction import Transaction
from attune.database.group_commit import GroupCommit
from attune.database.pool import DatabaseUnavailable
from attune.events.ingest import Ingest
from attune.sources.timers import queries
from attune.sources.timers.firing import Fire, Plans, Timer, events_of, timer_of
from attune.sources.timers.misfires import reanchored
from attune.sources.timers.queries import Skip
from attune.telemetry.metrics import Instruments

log = structlog.get_logger()

_CHUNK = 250
"""Events that are made in one transaction, about: a timer that fires belatedly makes up to a hundred and some."""
_BREATH = 0.005
"""Seconds of arithmetic after which the others in the loop get their turn."""
_LOOK_AGAIN = 1.0
_PAUSE = 0.5
_JUMP = timedelta(seconds=1)
_SPARE = 100
"""Entries of the heap that may be out of date, besides as many as there are timers."""


class Timers:
    """Fires the timers. State is in their rows; what is here can be read again at any time, and is when it turns out
    to be old."""

    def __init__(
        self,
        bus: Bus,
        ingest: Ingest,
        writer: GroupCommit[Transaction],
        clock: Clock,
        instruments: Instruments,
        may_fire: Callable[[], bool],
    ) -> None:
        """While not `may_fire` instants pass, and are missed ones afterwards."""
        self._bus = bus
        self._ingest = ingest
        self._writer = writer
        self._clock = clock
        self._instruments = instruments
        self._may_fire = may_fire
        self._timers: dict[int, Timer] = {}
        self._heap: list[tuple[datetime, int, int]] = []
        self._changed = anyio.Event()
        self._last_seen = clock.now()
        # Who reads first also writes here first: else what was read long ago replaces what is new.
        self._reading = anyio.Lock()

    @property
    def waiting(self) -> int:
        """How many timers wait for an instant."""
        return len(self._timers)

    async def run(self) -> None:
        """Fire until cancelled."""
        await self._reload_until_done(None)
        while True:
            self._changed = anyio.Event()
            now = self._clock.now()
            if now < self._last_seen - _JUMP:
                log.warning("the clock went back", by_seconds=(self._last_seen - now).total_seconds())
                await self._reload_until_done(None)
            self._last_seen = now
            if not self._may_fire():
                await self._clock.wait(self._changed, _LOOK_AGAIN)
                continue
            due = self._take_due(now)
            if len(due) > _CHUNK:
                with self._bus.turns.burst():
                    await self._fire_all(due, now)
            elif due:
                await self._fire_all(due, now)
            else:
                await self._clock.wait(self._changed, self._pause(now))

    async def hear(self, heard: Heard) -> None:
        """Read again what changed."""
        changed = {message.rule_id for message in heard.messages if isinstance(message, RuleChanged)}
        await self._reload_until_done(None if heard.missed else sorted(changed))

    async def _reload_until_done(self, rules: Sequence[int] | None) -> None:
        while True:
            try:
                async with self._reading:
                    await self._reload(rules)
                return
            except DatabaseUnavailable as error:
                log.debug("the timers wait for the database", error=str(error))
                await self._clock.sleep(_PAUSE)

    async def _reload(self, rules: Sequence[int] | None) -> None:
        async with self._bus.database.acquire() as connection:
            rows = await queries.timers(connection, rules)
        # Not earlier: a rule that was made meanwhile would look as if the clock had gone back.
        now = self._clock.now()
        timers = []
        moved = []
        turn = _Turn(self._clock)
        for row in rows:
            await turn.share()
            timer = timer_of(row)
            if timer is None:
                continue
            instant = reanchored(timer.schedule, timer.next_fire_at, now)
            if instant is not None:
                timer = timer_of(replace(row, anchor=now, next_fire_at=instant))
                assert timer is not None, "the same row was good with another anchor"
                moved.append(timer.row)
            timers.append(timer)
        if moved:
            async with self._bus.transaction() as transaction:
                await queries.move_timers(transaction.connection, moved)
        self._replace(rules, timers)

    def _replace(self, rules: Sequence[int] | None, timers: Sequence[Timer]) -> None:
        """Let these be the timers of some rules, or (None) of all."""
        if rules is None:
            self._timers.clear()
            self._heap.clear()
        for rule in rules or ():
            self._timers.pop(rule, None)
        for timer in timers:
            self._wait_for(timer)
        self._changed.set()

    def _wait_for(self, timer: Timer) -> None:
        self._timers[timer.row.rule] = timer
        heapq.heappush(self._heap, (timer.next_fire_at, timer.row.rule, timer.row.generation))
        if len(self._heap) > 2 * len(self._timers) + _SPARE:
            self._heap = [(one.next_fire_at, rule, one.row.generation) for rule, one in self._timers.items()]
            heapq.heapify(self._heap)

    def _pause(self, now: datetime) -> float:
        """Seconds until the next instant, but not more than one: the wall clock may be set, the machine may sleep."""
        if not self._heap:
            return _LOOK_AGAIN
        return min(max((self._heap[0][0] - now).total_seconds(), 0.001), _LOOK_AGAIN)

    def _take_due(self, now: datetime) -> list[Timer]:
        # A timer that was read again stands in the heap twice.
        due: dict[int, Timer] = {}
        while self._heap and self._heap[0][0] <= now:
            instant, rule, generation = heapq.heappop(self._heap)
            timer = self._timers.get(rule)
            if timer is not None and (timer.next_fire_at, timer.row.generation) == (instant, generation):
                due[rule] = timer
        return list(due.values())

    async def _fire_all(self, due: Sequence[Timer], now: datetime) -> None:
        plans = Plans(now)
        turn = _Turn(self._clock)
        waiting = deque(due)
        while waiting:
            fires: list[Fire] = []
            events = 0
            while waiting and events < _CHUNK:
                await turn.share()
                fire = self._planned(waiting.popleft(), plans)
                if fire is not None:
                    fires.append(fire)
                    events += max(len(fire.plan.fires), 1)
            if not await self._fire(fires):
                for timer in (*(fire.timer for fire in fires), *waiting):
                    if self._is_current(timer):
                        self._wait_for(timer)
                await self._clock.sleep(_PAUSE)
                return

    def _planned(self, timer: Timer, plans: Plans) -> Fire | None:
        try:
            return Fire(timer, plans.of(timer))
        except Exception:
            self._give_up(timer)
            return None

    async def _fire(self, fires: Sequence[Fire]) -> bool:
        """Whether the database did it."""
        reach("fire.planned")
        try:
            live = await self._writer.submit(self._write, fires)
        except DatabaseUnavailable as error:
            log.debug("timers wait for the database", error=str(error))
            return False
        except Exception:
            # One of them is to blame.
            return all([await self._fire_alone(fire) for fire in fires])
        await self._go_on(fires, live)
        return True

    async def _fire_alone(self, fire: Fire) -> bool:
        try:
            live = await self._writer.submit(self._write_rest, fire)
        except DatabaseUnavailable as error:
            log.debug("a timer waits for the database", error=str(error))
            return False
        except Exception:
            self._give_up(fire.timer)
        else:
            await self._go_on([fire], live)
        return True

    def _give_up(self, timer: Timer) -> None:
        log.exception("a timer cannot fire and waits for a change of its rule", rule=timer.row.rule_ref)
        if self._is_current(timer):
            del self._timers[timer.row.rule]

    def _is_current(self, timer: Timer) -> bool:
        """Whether nobody has put another timer in its place, or taken it away."""
        return self._timers.get(timer.row.rule) is timer

    async def _go_on(self, fires: Sequence[Fire], live: frozenset[int]) -> None:
        for fire in fires:
            if fire.rule not in live or not self._is_current(fire.timer):
                continue
            if fire.plan.next_fire_at is None:
                del self._timers[fire.rule]
            else:
                self._wait_for(replace(fire.timer, next_fire_at=fire.plan.next_fire_at))
        outdated = [fire.rule for fire in fires if fire.rule not in live]
        if outdated:
            await self._reload_until_done(outdated)

    async def _write(self, transaction: Transaction, batches: Sequence[Sequence[Fire]]) -> Sequence[frozenset[int]]:
        """Let timers go on and record their events, in one transaction; the rules whose timers did. One that was
        changed meanwhile does nothing."""
        transaction.does("fire")
        fires = [fire for batch in batches for fire in batch]
        counts = await queries.advance(transaction.connection, [fire.advance for fire in fires], transaction.now)
        live = [fire for fire in fires if fire.rule in counts]
        events = [event for fire in live for event in events_of(fire, counts[fire.rule], transaction.now)]
        if events:
            await self._ingest.record(transaction, events)
            instants = [event.scheduled_at for event in events if event.scheduled_at is not None]
            transaction.after_commit(lambda: self._instruments.fired(instants, self._clock.now()))
        skips = [Skip(fire.rule, fire.timer.row.rule_ref, skipped) for fire in live for skipped in fire.plan.skipped]
        if skips:
            await queries.insert_skips(transaction.connection, skips, transaction.now)
        return [frozenset(counts)] * len(batches)

    async def _write_rest(self, transaction: Transaction, fires: Sequence[Fire]) -> Sequence[frozenset[int]]:
        """The same for timers one of which did not get through: without what has its event already, which happens when
        the clock went back and a rule was planned anew since."""
        rest = []
        for fire in fires:
            recorded = await queries.recorded(transaction.connection, fire.rule, fire.plan.fires)
            rest.append([replace(fire, recorded=recorded)])
        return await self._write(transaction, rest)


class _Turn:
    """Shares the loop with others while there is much to compute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.monotonic()

    async def share(self) -> None:
        """Let the others go on, if it is time."""
        if self._clock.monotonic() - self._began > _BREATH:
            await anyio.lowlevel.checkpoint()
            self._began = self._clock.monotonic()
