"""The worker: starts what it is given, as far as it has slots, and records how it ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import anyio
import structlog
from anyio.abc import TaskGroup

from attune.base.clock import Clock
from attune.base.crash_points import reach
from attune.base.json import JsonObject, dumps, loads
from attune.base.states import ExecutionStatus
from attune.base.traces import traceparent
from attune.bus.messages import Cause, Delivery, Entity, ExecutionCancelRequested, ExecutionDispatched
from attune.bus.outcomes import DONE, Outcome
from attune.bus.transaction import Transaction
from attune.catalog.definitions import Definitions
from attune.catalog.model import Action, Pack, Runtime
from attune.database.group_commit import GroupCommit
from attune.database.pool import DatabaseUnavailable
from attune.executions import endings, notices, queries
from attune.executions.model import Finished
from attune.executions.queries import Tenure
from attune.executions.states import Step
from attune.telemetry.metrics import Instruments
from attune.telemetry.stages import Stages
from attune.workers import results
from attune.workers.builtin import BUILTINS, Trace
from attune.workers.processes import Stop
from attune.workers.results import Ended
from attune.workers.scripts import Scripts

log = structlog.get_logger()

SOURCE = "worker"
_MAX_UNRECORDED = 2_000
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0


@dataclass(slots=True, eq=False)
class _Run:
    """An execution that runs here."""

    dispatched: ExecutionDispatched
    parameters: JsonObject
    cause: Cause
    action: Action | None
    pack: Pack | None
    timeout: float
    stop: Stop
    abandoned: bool = False
    """Whether it is asked to stop because Attune stops, and by nobody else."""

    @property
    def trace(self) -> str:
        """What it tells whomever it asks for more."""
        return traceparent(self.cause.correlation_id, self.dispatched.execution_id)


class Worker:
    """Runs up to `concurrency` executions at once."""

    def __init__(
        self,
        *,
        tenure: Tenure,
        concurrency: int,
        default_timeout: float,
        definitions: Definitions,
        scripts: Scripts,
        writer: GroupCommit[Transaction],
        stages: Stages,
        instruments: Instruments,
        clock: Clock,
    ) -> None:
        self.worker_id = tenure.worker
        self.concurrency = concurrency
        self._tenure = tenure
        self._default_timeout = default_timeout
        self._definitions = definitions
        self._scripts = scripts
        self._writer = writer
        self._stages = stages
        self._instruments = instruments
        self._clock = clock
        self._running: dict[int, _Run] = {}
        # Those whose start is being committed. One that stays here longer is in doubt: it may be committed or not.
        self._starting: dict[int, _Run] = {}
        self._unrecorded: set[int] = set()
        self._changed = anyio.Event()
        self._tasks: TaskGroup | None = None

    @property
    def running(self) -> int:
        """How many executions run now."""
        return len(self._running)

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep the executions running; when cancelled, end them."""
        async with anyio.create_task_group() as self._tasks:
            task_status.started()
            await anyio.sleep_forever()

    async def capacity(self) -> int:
        """How many executions can be started, as soon as one can."""
        if self._starting:
            await self._resolve_doubt()
        while True:
            free = min(self.concurrency - len(self._running), _MAX_UNRECORDED - len(self._unrecorded))
            if free > 0:
                return free
            await self._change()

    async def idle(self) -> None:
        """Return when nothing runs and everything that ended is recorded."""
        while self._running or self._unrecorded:
            await self._change()

    def abandon(self) -> None:
        """End everything that runs: Attune stops, and will not know what it would have come to."""
        for run in self._running.values():
            run.abandoned = run.abandoned or not run.stop.is_asked
            run.stop.ask()

    async def handle(
        self, transaction: Transaction, batch: Sequence[Delivery[ExecutionDispatched]]
    ) -> Sequence[Outcome]:
        """Start executions. Those that are not scheduled for this worker any more are left alone."""
        ids = [delivery.message.execution_id for delivery in batch]
        timeouts = [self._timeout(delivery.message.action_ref) for delivery in batch]
        started, version = await queries.start(
            transaction.connection,
            ids,
            timeouts,
            self._tenure,
            transaction.now,
            watched=transaction.shows(Entity.EXECUTION),
        )
        notices.executions_changed(transaction, started.values(), ExecutionStatus.RUNNING)
        await self._definitions.follow(transaction.connection, version)
        events: list[datetime] = []
        for delivery, timeout in zip(batch, timeouts, strict=True):
            row = started.get(delivery.message.execution_id)
            if row is not None:
                run = self._prepare(delivery, loads(row["config"]), timeout)
                self._starting[delivery.message.execution_id] = run
                transaction.after_commit(partial(self._launch, run))
                if delivery.message.event_created is not None:
                    events.append(delivery.message.event_created)
        transaction.after_commit(partial(self._instruments.started, events, transaction.now))
        return [DONE] * len(batch)

    async def handle_cancel(
        self, _: Transaction, batch: Sequence[Delivery[ExecutionCancelRequested]]
    ) -> Sequence[Outcome]:
        """Stop executions that run here. One that does not has ended, and its end is on the way."""
        for delivery in batch:
            # At once, and not as a hint that a failing commit would lose: to ask twice does no harm.
            self._stop(delivery.message.execution_id)
        return [DONE] * len(batch)

    def holds(self, execution_id: int) -> bool:
        """Whether an execution runs here, is about to, or has ended without being recorded yet."""
        return execution_id in self._running or execution_id in self._starting or execution_id in self._unrecorded

    def _timeout(self, action_ref: str) -> float:
        """Seconds that an execution of an action may run."""
        action = self._definitions.actions.by_ref.get(action_ref)
        return float((action and action.timeout_seconds) or self._default_timeout)

    def _prepare(self, delivery: Delivery[ExecutionDispatched], parameters: JsonObject, timeout: float) -> _Run:
        action = self._definitions.actions.by_ref.get(delivery.message.action_ref)
        pack = self._definitions.packs.by_ref.get(action.pack_ref) if action else None
        return _Run(
            delivery.message,
            parameters,
            delivery.envelope.effect(),
            action,
            pack,
            timeout,
            Stop(),
        )

    def _launch(self, run: _Run) -> None:
        assert self._tasks is not None, "the worker runs before its consumer does"
        self._starting.pop(run.dispatched.execution_id, None)
        self._running[run.dispatched.execution_id] = run
        self._stages.log(
            "execution started",
            event=run.dispatched.event_id,
            execution=run.dispatched.execution_id,
            action=run.dispatched.action_ref,
        )
        self._tasks.start_soon(self._run, run)
        reach("start.launched")

    def _stop(self, execution_id: int) -> None:
        run = self._running.get(execution_id) or self._starting.get(execution_id)
        if run is not None:
            run.stop.ask()

    async def _resolve_doubt(self) -> None:
        """Launch what was started by a commit of which nobody heard the outcome: the connection broke."""
        statuses = await self._writer.submit(self._statuses, tuple(self._starting))
        doubtful, self._starting = self._starting, {}
        for execution_id, run in doubtful.items():
            status = statuses.get(execution_id)
            if status is ExecutionStatus.CANCELING:
                run.stop.ask()
            if status in {ExecutionStatus.RUNNING, ExecutionStatus.CANCELING}:
                self._launch(run)

    async def _statuses(
        self, transaction: Transaction, batches: Sequence[tuple[int, ...]]
    ) -> Sequence[dict[int, ExecutionStatus]]:
        return [await queries.statuses(transaction.connection, ids) for ids in batches]

    async def _change(self) -> None:
        """Return when something ended, or was recorded."""
        if self._changed.is_set():
            self._changed = anyio.Event()
        await self._changed.wait()

    async def _run(self, run: _Run) -> None:
        try:
            ended = await self._execute(run)
        except Exception as error:
            log.exception(
                "an action could not be run", execution=run.dispatched.execution_id, action=run.dispatched.action_ref
            )
            ended = results.failure(f"Attune could not run it: {type(error).__name__}: {error}")
        if run.abandoned and ended.step is Step.CANCEL:
            ended = results.abandoned(ended)
        reach("finish.ended")
        del self._running[run.dispatched.execution_id]
        self._unrecorded.add(run.dispatched.execution_id)
        self._changed.set()
        await self._record(run, ended)
        self._unrecorded.discard(run.dispatched.execution_id)
        self._changed.set()

    async def _execute(self, run: _Run) -> Ended:
        action = run.action
        if action is None or run.pack is None:
            return results.failure(f"There is no action {run.dispatched.action_ref} any more.")
        if run.stop.is_asked:
            return results.stopped(cancelled=True, duration_ms=0, timeout=run.timeout)
        if action.runtime_ref == Runtime.BUILTIN:
            return await self._execute_coroutine(run, action.entrypoint)
        return await self._scripts.execute(
            run.dispatched, run.trace, run.parameters, action, run.pack, timeout=run.timeout, stop=run.stop
        )

    async def _execute_coroutine(self, run: _Run, name: str) -> Ended:
        builtin = BUILTINS.get(name)
        if builtin is None:
            return results.failure(f"Attune has no built-in action {name!r}.")
        started = self._clock.monotonic()
        output: JsonObject | None = None
        with anyio.move_on_after(run.timeout) as scope:
            run.stop.cancels(scope)
            output = await builtin(run.parameters, Trace(self._scripts.surroundings.api_url, run.trace))
        duration_ms = round((self._clock.monotonic() - started) * 1000)
        if output is not None:
            return results.of_coroutine(output, duration_ms)
        return results.stopped(cancelled=run.stop.is_asked, duration_ms=duration_ms, timeout=run.timeout)

    async def _record(self, run: _Run, ended: Ended) -> None:
        """Store how an execution ended, however long the database is away, and whatever the result is."""
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._writer.submit(self._end, _finished(run, ended))
                return
            except DatabaseUnavailable as error:
                log.warning(
                    "the end of an execution waits for the database",
                    execution=run.dispatched.execution_id,
                    error=str(error),
                )
            except Exception as error:
                log.exception("the result of an execution cannot be stored", execution=run.dispatched.execution_id)
                ended = results.unstorable_result(ended, error)
            await self._clock.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _end(self, transaction: Transaction, ends: Sequence[Finished]) -> Sequence[Any]:
        transaction.does("finish")
        return await endings.end(transaction, ends, SOURCE)


def _finished(run: _Run, ended: Ended) -> Finished:
    return Finished(
        run.dispatched.execution_id,
        run.dispatched.action_ref,
        run.dispatched.event_id,
        ended.step,
        dumps(ended.result),
        run.cause,
    )
