"""The pipeline, wired: every part is given what it needs, and started and stopped in order."""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import structlog

from attune.base.clock import Clock
from attune.bus.backlog import BacklogLimit
from attune.bus.bus import Bus
from attune.bus.consumers import Consumer, ConsumerLoop
from attune.bus.dead_letters import DeadLetters, Discard
from attune.bus.listeners import Listener, ListenerLoop
from attune.bus.messages import (
    EnforcementCreated,
    EventCreated,
    ExecutionCancelRequested,
    ExecutionCompleted,
    ExecutionDispatched,
    ExecutionRequested,
    InquiryCreated,
    InquiryResponded,
    Message,
    NotificationCreated,
    RuleChanged,
)
from attune.bus.topology import Topology, check
from attune.bus.transaction import Transaction
from attune.bus.upkeep import Recount, Sweep, TraceDays
from attune.catalog.definitions import Definitions
from attune.catalog.folders import PackFolders
from attune.catalog.install import Installer
from attune.catalog.rules import Rules
from attune.database.group_commit import GroupCommit
from attune.database.ownership import Ownership
from attune.database.pool import Database
from attune.database.storage import Storage
from attune.events.idempotency import Keys
from attune.events.ingest import Ingest
from attune.events.ingress import Ingress, Reason
from attune.executions.completion import Completion, Waiters
from attune.executions.discards import fail_enforcement, fail_execution, leave_execution, let_others_go_on
from attune.executions.processor import EnforcementProcessor
from attune.executions.queries import Tenure
from attune.executions.requests import Requests
from attune.executions.scheduler import Scheduler
from attune.executions.turns.turns import TurnRules
from attune.live.views import LiveViews
from attune.people.answers import Answers, fail_asker, leave_inquiry
from attune.people.deadlines import Deadlines
from attune.people.inquiries import Inquiries
from attune.people.model import ASK
from attune.rules.matcher import ConditionRules, Matcher, RuleCache, match_no_rule
from attune.settings import Settings
from attune.sources.timers.rules import TimerRules
from attune.sources.timers.service import Timers
from attune.telemetry.lag import LoopLag
from attune.telemetry.metrics import Instruments
from attune.telemetry.stages import Stages
from attune.upkeep.alarms import disk_low, retention_behind
from attune.upkeep.alerts import Alerts
from attune.upkeep.leases import Leases
from attune.upkeep.metrics import BusMetrics, Metrics, ingress, pool, release, removals, room, slots
from attune.upkeep.recovery import Predecessor, recover, report
from attune.upkeep.retention import Retention
from attune.workers.environment import Surroundings
from attune.workers.logs import Logs
from attune.workers.scripts import Scripts
from attune.workers.worker import Worker

log = structlog.get_logger()

_LEASE_MARGIN = 30.0
"""Seconds, beside the grace: what it takes to end a process and to record that."""
_LAG_EVERY = 0.25


class Engine:
    """Everything between an event that comes in and an execution that has ended."""

    def __init__(
        self,
        *,
        database: Database,
        settings: Settings,
        clock: Clock,
        topology: Topology,
        stages: Stages,
        instruments: Instruments,
        worker_id: int,
        surroundings: Surroundings,
        logs: Logs,
        ownership: Ownership,
        storage: Storage,
    ) -> None:
        """Raises TopologyError when a message could get lost, or what waits for it wait for ever."""
        self.database = database
        self.storage = storage
        database.tell_when_full(storage.denied)
        self.bus = Bus(database, topology, clock, lambda: ownership.is_held)
        self.writer: GroupCommit[Transaction] = GroupCommit(self.bus.transaction, self.bus.turns.first)
        self.definitions = Definitions()
        self.rules = Rules(self.bus, [ConditionRules(), TimerRules(), TurnRules()])
        self.installer = Installer(self.bus, self.rules)
        self.keys = Keys(database, self.writer, clock)
        backlog = BacklogLimit(self.bus.backlog, settings.bus.max_backlog, clock)
        self.ingress = Ingress({Reason.STORAGE: storage, Reason.BACKLOG: backlog}, clock)
        self.ingest = Ingest(self.writer, self.ingress, stages)
        self._deadlines = Deadlines(self.bus)
        self.inquiries = Inquiries(self.bus, self.ingress, self._deadlines.expect)
        self.requests = Requests(self.bus, self.writer, self.ingress, self.inquiries.withdraw_of)
        self.waiters = Waiters()
        self.live = LiveViews(self.bus, surroundings.boot[-12:])
        self.timers = Timers(self.bus, self.ingest, self.writer, clock, instruments, storage.has_room)
        self.worker = Worker(
            tenure=Tenure(worker_id, UUID(surroundings.boot), settings.worker.kill_grace + _LEASE_MARGIN),
            concurrency=settings.worker.concurrency,
            default_timeout=settings.worker.default_timeout,
            definitions=self.definitions,
            scripts=Scripts(surroundings, logs, clock, settings.worker.max_log_bytes, settings.worker.kill_grace),
            writer=self.writer,
            stages=stages,
            instruments=instruments,
            clock=clock,
        )
        self.retention = Retention(self.bus, self.definitions, logs, settings.retention)
        self.alerts = Alerts(self.bus, self.ingest, self.definitions, settings.alerts)
        self.alerts.register(disk_low(self.storage, clock.now))
        self.alerts.register(retention_behind(self.retention.account, clock.now))
        self.metrics = self._metrics(instruments)
        self._settings = settings
        self._clock = clock
        self._ownership = ownership
        self._lag = LoopLag(instruments.lagged, _LAG_EVERY)
        self._trace_days = TraceDays(self.bus, settings.bus.trace_days)
        self._sweep = Sweep(self.bus)
        self._recount = Recount(self.bus)
        self._leases = Leases(self.bus, self.worker.holds)
        consumers = self._consumers(stages, instruments)
        listeners = self._listeners()
        discards = _discards()
        taken = {**{one.row: one.message for one in consumers}, **{one.row: one.message for one in listeners}}
        check(topology, taken, discards.keys())
        self.dead_letters = DeadLetters(self.bus, discards)
        self._loops: list[ConsumerLoop | ListenerLoop] = [
            *(
                ConsumerLoop(
                    self.bus, consumer, instruments, max_attempts=settings.bus.max_attempts, ready=ownership.held
                )
                for consumer in consumers
            ),
            *(ListenerLoop(self.bus, listener) for listener in listeners),
        ]

    def _consumers(self, stages: Stages, instruments: Instruments) -> list[Consumer[Any]]:
        worker = self.worker
        answers = Answers(self.definitions, self.ingest)
        return [
            Consumer(
                "attune.events.queue",
                EventCreated,
                "rule matcher",
                Matcher(self.definitions, stages, self._settings.rules.max_loops).handle,
                stage="match",
            ),
            Consumer(
                "attune.executions.queue",
                EnforcementCreated,
                "enforcement processor",
                EnforcementProcessor(self.definitions, stages).handle,
                stage="enforce",
            ),
            Consumer(
                "attune.execution.requests.queue",
                ExecutionRequested,
                "scheduler",
                Scheduler(self.definitions, stages, worker.worker_id, {ASK: self.inquiries.begin}).handle,
                stage="schedule",
            ),
            Consumer(
                "worker.{worker_id}.executions",
                ExecutionDispatched,
                "worker",
                worker.handle,
                queue=f"worker.{worker.worker_id}.executions",
                capacity=worker.capacity,
                stage="dispatch",
            ),
            Consumer(
                "worker.{worker_id}.cancel",
                ExecutionCancelRequested,
                "worker cancel",
                worker.handle_cancel,
                queue=f"worker.{worker.worker_id}.cancel",
            ),
            Consumer(
                "attune.execution.completed.queue",
                ExecutionCompleted,
                "completion",
                Completion(self.definitions, self.waiters, stages, instruments, random.random).handle,
                stage="complete",
            ),
            Consumer("attune.inquiry.created.queue", InquiryCreated, "notifier", answers.announce),
            Consumer(
                "attune.inquiry.responses.queue", InquiryResponded, "inquiry handler", answers.pass_on, stage="answer"
            ),
        ]

    def _listeners(self) -> list[Listener[Any]]:
        cache = RuleCache(self.bus, self.definitions)
        return [
            Listener("attune.rules.timers.queue", RuleChanged, "timers", self.timers.hear),
            Listener("attune.rules.matcher.queue", RuleChanged, "rule cache", cache.hear),
            Listener("attune.notifications.queue", NotificationCreated, "live views", self.live.hear),
        ]

    def _metrics(self, instruments: Instruments) -> Metrics:
        metrics = Metrics(self.database)
        on_bus = BusMetrics(self.bus)
        metrics.register(release(self.bus.clock.now()))
        metrics.register(on_bus.collect)
        metrics.register(instruments.collect)
        metrics.register(slots(self.worker))
        metrics.register(pool(self.database))
        metrics.register(removals(self.retention.account))
        metrics.register(self.live.collect)
        metrics.register(ingress(self.ingress))
        metrics.register(room(self.storage))
        metrics.register_read(on_bus.read)
        return metrics

    async def prepare(
        self, packs: Sequence[Path], watched: Sequence[Path] = (), predecessor: Predecessor | None = None
    ) -> None:
        """Bring the database to where the pipeline can begin: partitions, packs, and the remains of an earlier run.
        `packs` are folders of packs, `watched` such that hold some and are read again when they change."""
        await self._trace_days.once()
        self.folders = PackFolders(self.database, self.installer, self.definitions, self._clock, packs, watched)
        await self.folders.read()
        self.recovery = await recover(self.bus, self.definitions, predecessor)
        await self._recount.once()
        await self.storage.look()
        for line in report(self.recovery):
            log.warning(line)
        await self.bus.wake_for_retries()

    async def switch_rule(self, ref: str, *, enabled: bool) -> None:
        """Switch a rule on or off, if it is there and is not so already."""
        rule = self.definitions.rules.by_ref.get(ref)
        if rule is not None and rule.enabled != enabled:
            await self.rules.update(ref, {"enabled": enabled})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the pipeline for the block; afterwards let what runs end, within the time that the settings give."""
        async with anyio.create_task_group() as recording:
            recording.start_soon(self.writer.run)
            async with anyio.create_task_group() as working:
                await working.start(self.worker.run)
                async with anyio.create_task_group() as taking:
                    for loop in self._loops:
                        taking.start_soon(loop.run)
                    taking.start_soon(self._fire_timers)
                    taking.start_soon(self._watch_packs)
                    taking.start_soon(self._sweep.run)
                    taking.start_soon(self._recount.run)
                    taking.start_soon(self.storage.run)
                    taking.start_soon(self.ingress.run)
                    taking.start_soon(self._leases.run)
                    taking.start_soon(self.alerts.run)
                    taking.start_soon(self._trace_days.run)
                    taking.start_soon(self._end_inquiries)
                    taking.start_soon(self._retain)
                    taking.start_soon(self.keys.run)
                    taking.start_soon(self.live.run)
                    taking.start_soon(self._lag.run)
                    try:
                        yield
                    finally:
                        taking.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    await self._drain()
                working.cancel_scope.cancel()
            self.writer.stop()

    async def _fire_timers(self) -> None:
        await self._ownership.held()
        await self.timers.run()

    async def _watch_packs(self) -> None:
        await self._ownership.held()
        await self.folders.watch()

    async def _end_inquiries(self) -> None:
        await self._ownership.held()
        await self._deadlines.run()

    async def _retain(self) -> None:
        await self._ownership.held()
        await self.retention.run()

    async def _drain(self) -> None:
        """Wait for what runs, then end it."""
        seconds = self._settings.server.shutdown_timeout
        if self.worker.running:
            log.info("waiting for running executions", running=self.worker.running, at_most_seconds=seconds)
        with anyio.move_on_after(seconds):
            await self.worker.idle()
            return
        log.warning("ending executions that still run", running=self.worker.running)
        self.worker.abandon()
        with anyio.move_on_after(self._settings.worker.kill_grace + 5):
            await self.worker.idle()


def _discards() -> dict[type[Message], Discard[Any]]:
    """What ends when the dead letter of a message is discarded."""
    return {
        EventCreated: match_no_rule,
        EnforcementCreated: fail_enforcement,
        ExecutionRequested: fail_execution,
        ExecutionDispatched: fail_execution,
        ExecutionCancelRequested: leave_execution,
        ExecutionCompleted: let_others_go_on,
        InquiryCreated: leave_inquiry,
        InquiryResponded: fail_asker,
    }
