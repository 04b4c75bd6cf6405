"""What open questions cost: each is a row, and no task waits for its answer."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import anyio

from attune.app import Serving
from attune.base.json import JsonObject
from attune.bench.surroundings import bench_server, resident, temporary_folder
from attune.people import queries
from attune.people.model import ASK
from attune.settings import Settings
from attune.telemetry.stages import Stages

Say = Callable[[str], None]

_WARM_UP = 500
_AT_ONCE = 100
_LOOK_EVERY = 0.1
_QUESTION: JsonObject = {"prompt": "Shall we?", "response_schema": {"approved": {"type": "boolean", "required": True}}}
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Report:
    """`memory_growth_mb`: of the server's process, with so many open questions less without, in MB (10^6 bytes)."""

    open: int
    asked_per_second: float
    memory_growth_mb: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


async def measure(settings: Settings, count: int, say: Say) -> Report:
    """Ask so many questions that nobody answers."""
    with temporary_folder() as folder:
        say("starting a server of its own …")
        async with bench_server(settings, folder, Stages(visible=False, debug=False)) as server:
            await _ask(server, _WARM_UP)
            before = resident()
            begun = time.perf_counter()
            say(f"asking {count:,} questions …")
            await _ask(server, count)
            return Report(
                open=count,
                asked_per_second=round(count / (time.perf_counter() - begun), 1),
                memory_growth_mb=round((resident() - before) / 1e6, 1),
            )


async def _ask(server: Serving, count: int) -> None:
    """Let executions ask, and return when all of them wait."""
    engine = server.engine
    left = iter(range(count))

    async def one_after_another() -> None:
        for number in left:
            # Every other one has a time, as its deadline is kept elsewhere.
            await engine.requests.execute(ASK, {**_QUESTION, **({"timeout": _DAY} if number % 2 else {})}, None)

    async with engine.database.acquire() as connection:
        wanted = await queries.count_pending(connection) + count
        async with anyio.create_task_group() as tasks:
            for _ in range(_AT_ONCE):
                tasks.start_soon(one_after_another)
        while await queries.count_pending(connection) < wanted:  # noqa: ASYNC110 - nobody tells
            await anyio.sleep(_LOOK_EVERY)
