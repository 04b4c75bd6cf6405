"""The pipeline on a test database, without HTTP."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from attune.app import WORKER_NAME
from attune.base.clock import Clock, SystemClock
from attune.base.json import JsonObject, dumps
from attune.bus.messages import Cause
from attune.bus.topology import TOPOLOGY, Topology
from attune.catalog.queries import RuleSpec
from attune.catalog.rules import Saved
from attune.database.ids import uuid7
from attune.database.ownership import Ownership
from attune.database.pool import Database
from attune.database.storage import Storage
from attune.engine import Engine
from attune.events.model import NewEvent
from attune.executions import queries as executions
from attune.settings import load
from attune.telemetry.metrics import Instruments
from attune.telemetry.stages import Stages
from attune.workers.environment import Surroundings
from attune.workers.logs import Logs

BUNDLED = Path(__file__).resolve().parents[2] / "attune" / "bundled"


@asynccontextmanager
async def engine_on(
    database: Database,
    folder: Path,
    *,
    packs: Sequence[Path] = (),
    watched: Sequence[Path] = (),
    clock: Clock | None = None,
    topology: Topology = TOPOLOGY,
    settings: Mapping[str, Any] | None = None,
    stages: Stages | None = None,
    ownership: Ownership | None = None,
    storage: Storage | None = None,
) -> AsyncIterator[Engine]:
    """An engine that is prepared but does not run: `async with engine.running()` runs it."""
    clock = clock or SystemClock()
    ownership = ownership or Ownership(database.dsn, "test", clock)
    await ownership.acquire()
    async with database.acquire() as connection:
        worker = await executions.register_worker(connection, WORKER_NAME, "here", uuid4(), clock.now())
    engine = Engine(
        database=database,
        settings=load(None, settings),
        clock=clock,
        topology=topology,
        stages=stages or Stages(visible=False, debug=False),
        instruments=Instruments(),
        worker_id=worker,
        surroundings=Surroundings(str(uuid4()), "http://127.0.0.1:1", folder, folder, ()),
        logs=Logs(folder / "logs"),
        ownership=ownership,
        storage=storage or Storage([folder], 0, clock),
    )
    try:
        await engine.prepare([BUNDLED / "core", BUNDLED / "hello", *packs], watched)
        yield engine
    finally:
        await ownership.release()


def pack(folder: Path, ref: str, files: Mapping[str, str]) -> Path:
    """A pack with these files beside its pack.yaml."""
    directory = folder / ref
    for name, content in {"pack.yaml": f"ref: {ref}\nlabel: {ref}\nversion: 1.0.0\n", **files}.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return directory


def rule(ref: str, trigger: str, action: str = "core.noop", **fields: Any) -> RuleSpec:
    """A rule of the pack that its ref names, enabled and without conditions unless `fields` say otherwise."""
    values: dict[str, Any] = {
        "ref": ref,
        "pack_ref": ref.partition(".")[0],
        "label": ref,
        "description": None,
        "action_ref": action,
        "trigger_ref": trigger,
        "conditions": [],
        "action_params": {},
        "trigger_params": {},
        "enabled": True,
        "overlap": "allow",
    }
    return RuleSpec(**{**values, **fields})


async def make_rule(engine: Engine, spec: RuleSpec) -> Saved:
    """Make a rule as a person would."""
    return await engine.rules.create(spec, None)


async def emit(engine: Engine, trigger: str, payload: JsonObject | None = None, *, rule: int | None = None) -> int:
    """The id of a new event."""
    definition = engine.definitions.triggers.by_ref[trigger]
    accepted = await engine.ingest.accept(
        NewEvent(
            trigger=definition.id,
            trigger_ref=trigger,
            payload=None if payload is None else dumps(payload),
            source_ref="test",
            cause=Cause(uuid7(), None, 0),
            rule=rule,
            rule_ref=None,
        )
    )
    return accepted.id
