"""Scripts that run as the worker runs them, without a database."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

from attune.base.clock import SystemClock
from attune.base.json import JsonObject
from attune.base.traces import traceparent
from attune.bus.messages import ExecutionDispatched
from attune.catalog.model import Action, OutputFormat, Pack, Runtime
from attune.workers.environment import Surroundings
from attune.workers.guard import end_leftovers
from attune.workers.logs import Logs
from attune.workers.processes import Stop
from attune.workers.results import Ended
from attune.workers.scripts import Scripts
from tests.server.running import processes_with
from tests.support.waiting import eventually

_NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
_COMMON: Mapping[str, Any] = {"id": 1, "description": None, "created": _NOW, "updated": _NOW}

PACK = "tools"
TRACE = traceparent(uuid4(), 7)


@dataclass
class Workshop:
    """A pack in a folder, and what runs its scripts. `boot` marks the processes of this one."""

    folder: Path
    log_limit: int = 10_000_000
    grace: float = 5.0
    surroundings: Mapping[str, Any] = field(default_factory=dict)
    boot: str = field(default_factory=lambda: str(uuid4()))

    def __post_init__(self) -> None:
        self._ids = count(1)
        self.logs = Logs(self.folder / "logs")
        self.root = self.folder / PACK
        self.pack = Pack(
            **_COMMON, ref=PACK, label=PACK, version="1.0.0", conf_schema={}, config={}, meta={}, tags=[],
            runtime_deps=[], dependencies=[], is_standard=False, storage_path=str(self.root),
        )  # fmt: skip
        (self.root / "actions").mkdir(parents=True)

    def action(self, script: str | bytes | None, runtime: Runtime, output: OutputFormat) -> Action:
        """An action of the pack; None leaves its script as it is, or missing."""
        if script is not None:
            content = script if isinstance(script, bytes) else script.encode()
            (self.root / "actions" / "script").write_bytes(content)
        return Action(
            **_COMMON, ref=f"{PACK}.script", label="Script", pack=1, pack_ref=PACK, entrypoint="script",
            runtime_ref=runtime, param_schema={}, out_schema={}, output_format=output, timeout_seconds=None,
            max_retries=0, retry_delay=0, retry_backoff="constant", retry_jitter=0, retry_on=[],
        )  # fmt: skip

    async def run(
        self,
        script: str | bytes | None,
        *,
        runtime: Runtime = Runtime.SHELL,
        parameters: JsonObject | None = None,
        output: OutputFormat = OutputFormat.TEXT,
        timeout: float = 40,
        stop: Stop | None = None,
        **origin: str,
    ) -> Ended:
        """What became of a script."""
        action = self.action(script, runtime, output)
        dispatched = ExecutionDispatched(
            execution_id=next(self._ids), action_ref=action.ref, worker_id=1, event_id=None,
            rule_ref=origin.get("rule"), trigger_ref=origin.get("trigger"),
        )  # fmt: skip
        surroundings = Surroundings(
            self.boot, "http://127.0.0.1:1", self.folder / "artifacts", self.folder / "envs", ()
        )
        scripts = Scripts(
            replace(surroundings, **self.surroundings), self.logs, SystemClock(), self.log_limit, self.grace
        )
        return await scripts.execute(
            dispatched, TRACE, parameters or {}, action, self.pack, timeout=timeout, stop=stop or Stop()
        )

    def processes(self) -> list[int]:
        """The processes that run because of this one."""
        return processes_with(self.boot)

    async def end_all(self) -> None:
        """End them."""
        await end_leftovers(self.boot)


@asynccontextmanager
async def workshop_in(folder: Path) -> AsyncIterator[Workshop]:
    """A workshop of which nothing may be left afterwards."""
    workshop = Workshop(folder)
    try:
        async with no_open_files_left():
            yield workshop
        await eventually(lambda: workshop.processes() == [])
    except BaseException:
        await end_leftovers(workshop.boot)
        raise


def open_files() -> list[int]:
    """The file descriptors of this process, the highest last."""
    return sorted(int(path.name) for path in Path("/dev/fd").iterdir())


@asynccontextmanager
async def no_open_files_left() -> AsyncIterator[None]:
    before = len(open_files())
    yield
    # The loop closes what it is told to a moment later.
    await eventually(lambda: len(open_files()) <= before)
