"""A campaign against the server: blow after blow, each with work under way, and what it came to."""

import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import cycle
from pathlib import Path
from random import Random

import anyio
import anyio.lowlevel

from attune.base.crash_points import POINTS
from tests.crash.load import Load, People
from tests.crash.oracle import UNFINISHED, Findings, describe, judge
from tests.crash.server import Server, kill_backends
from tests.crash.workload import POISON, torture_pack

MIN_ACCEPTED = 20
"""A blow counts when so many events were accepted since the last one that did, and a delivery was on its way."""
_REACHED_WITHIN = 20.0
_DRAINED_WITHIN = 120.0
LONG = 600.0
"""A campaign of so many seconds is to hit every point `HITS` times, and to have `ENOUGH` blows that count."""
HITS, ENOUGH = 3, 100


class Blow(Enum):
    """A way to hurt the server, beside its crash points."""

    SERVER = "the server, at any instant"
    BACKENDS = "connections of the database"
    POSTMASTER = "the database"
    BOTH = "the server and the database at once"


@dataclass
class Result:
    """What a campaign came to. `counted` are blows with work under way, by what was hit; `others` the rest."""

    seed: int
    counted: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    events: int = 0
    rescued: int = 0
    recoveries: list[float] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)

    @property
    def kills(self) -> int:
        return self.counted.total()

    def lines(self) -> Iterator[str]:
        """The table, and one plain line."""
        names = [*POINTS, *(blow.value for blow in Blow)]
        width = max(map(len, names))
        yield f"{'what was hit'.ljust(width)}  kills  not counted"
        for name in names:
            yield f"{name.ljust(width)}  {self.counted[name]:>5}  {self.others[name]:>11}"
        yield f"events accepted: {self.events:,}; deliveries found by the sweep alone: {self.rescued}"
        if self.recoveries:
            middle, most = statistics.median(self.recoveries), max(self.recoveries)
            yield f"recovery, from the start to ready: p50 {middle:.2f} s, max {most:.2f} s, of {len(self.recoveries)}"
        found = self.findings
        yield f"seed: {self.seed}"
        yield (
            f"torture: kills={self.kills} lost={len(found.lost)} doubled={len(found.doubled)} stuck={len(found.stuck)}"
        )


class Campaign:
    """Strikes a server on its own data in `folder`."""

    def __init__(self, folder: Path, seed: int, sabotage: str = "", patience: float = _DRAINED_WITHIN) -> None:
        """`patience`: seconds for everything that was begun to come to its end, afterwards."""
        self._patience = patience
        self._random = Random(seed)
        self._file = folder / "ran"
        torture_pack(folder, self._file)
        self._server = Server(folder, sabotage)
        self._load = Load(self._server, self._random)
        self._people = People(self._server)
        self._accepted_before = 0
        self.result = Result(seed)

    def everything(self, seconds: float) -> Iterator[str | Blow]:
        """Blows for about so long: every point in turn, again and again, with the others in between. A long campaign
        takes up to a quarter more, until every point was hit often enough."""
        begun = time.monotonic()
        points, others = list(POINTS), cycle(Blow)
        while True:
            self._random.shuffle(points)
            for index, point in enumerate(points):
                spent = time.monotonic() - begun
                if spent > seconds and (seconds < LONG or spent > 1.25 * seconds or self._has_hit_all()):
                    return
                if self.result.counted[point] < HITS or self._has_hit_all():
                    yield point
                if index % 6 == 0:
                    yield next(others)

    def _has_hit_all(self) -> bool:
        return all(self.result.counted[point] >= HITS for point in POINTS)

    def some(self, points: int) -> Iterator[str | Blow]:
        """A few points, and one blow of each other kind."""
        blows: list[str | Blow] = [*self._random.sample(POINTS, points), *Blow]
        self._random.shuffle(blows)
        yield from blows

    async def run(self, blows: Iterator[str | Blow]) -> Result:
        """Strike, let the server come to rest, and judge what is there."""
        try:
            self._server.start()
            await self._server.ready()
            await self._poison()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._load.run)
                tasks.start_soon(self._people.run)
                await self._load.until_accepted(MIN_ACCEPTED)
                for blow in blows:
                    await self._strike(blow)
                await self._come_to_rest()
                tasks.cancel_scope.cancel()
            self.result.events = len(self._load.accepted)
            return self.result
        finally:
            if self._server.lives:
                self._server.kill()

    async def _poison(self) -> None:
        connection = await self._server.database()
        try:
            await connection.execute(POISON)
        finally:
            await connection.close()

    async def _strike(self, blow: str | Blow) -> None:
        await self._load.until_accepted(self._random.randrange(MIN_ACCEPTED, 3 * MIN_ACCEPTED))
        await self._note_rescued()
        match blow:
            case Blow.BACKENDS | Blow.POSTMASTER:
                await self._hurt_database(blow)
            case Blow():
                await anyio.sleep(self._random.random() / 10)
                if blow is Blow.BOTH:
                    self._server.kill_postmaster()
                self._server.kill()
                await self._server.died(5)
                await self._begin_again(blow.value)
            case point if point.startswith("recover."):
                self._server.kill()
                await self._server.died(5)
                self._server.arm(point)
                self._server.start()
                await self._reach(point)
            case point:
                self._server.arm(point)
                self._load.flood() if point.startswith(("spill", "refill")) else None
                self._load.poison() if point.startswith("dead_letter") else None
                await self._reach(point)

    async def _reach(self, point: str) -> None:
        reached = await self._server.died(_REACHED_WITHIN)
        self._server.disarm()
        if reached:
            await self._begin_again(point)
        else:
            self.result.others[f"{point} (not reached)"] += 1

    async def _begin_again(self, what: str) -> None:
        self._server.start()
        self.result.recoveries.append(await self._server.ready())
        recovery = await self._server.get("/api/v1/system/recovery")
        self._count(what, on_the_way=bool(recovery["deliveries"]))
        left = self._server.left()
        if left:
            self.result.findings.stuck.append(f"processes of an earlier life are alive: {left}")

    async def _hurt_database(self, blow: Blow) -> None:
        on_the_way = await self._something_on_the_way()
        began = time.monotonic()
        if blow is Blow.POSTMASTER:
            self._server.kill_postmaster()
        else:
            connection = await self._server.database()
            await kill_backends(connection, self._random)
            connection.terminate()
        # It may take a moment to notice.
        await anyio.sleep(0.05)
        await self._server.ready()
        self.result.recoveries.append(time.monotonic() - began)
        self._count(blow.value, on_the_way=on_the_way)

    async def _something_on_the_way(self) -> bool:
        """Return as soon as a delivery is; whether there was one in time."""
        connection = await self._server.database()
        try:
            with anyio.move_on_after(5):
                while not await connection.fetchval("SELECT EXISTS (SELECT FROM attune.delivery)"):
                    await anyio.lowlevel.checkpoint()
                return True
            return False
        finally:
            await connection.close()

    def _count(self, what: str, *, on_the_way: bool) -> None:
        accepted = len(self._load.accepted)
        if on_the_way and accepted - self._accepted_before >= MIN_ACCEPTED:
            self.result.counted[what] += 1
            self._accepted_before = accepted
        else:
            self.result.others[what] += 1

    async def _note_rescued(self) -> None:
        queues = (await self._server.get("/api/v1/bus/queues"))["queues"]
        self.result.rescued += sum(queue.get("rescued", 0) for queue in queues)

    async def _come_to_rest(self) -> None:
        """Let everything that was begun come to its end, and see whether it is the right one."""
        self._load.stop()
        connection = await self._server.database()
        try:
            left: list[str] = []
            with anyio.move_on_after(self._patience):
                while left := describe(await connection.fetch(UNFINISHED)):  # noqa: ASYNC110 - a test looks from outside
                    await anyio.sleep(0.2)
            await self._note_rescued()
            self._merge(await judge(connection, self._load, self._people, self._file))
            self.result.findings.stuck += left
        finally:
            connection.terminate()
        assert await self._server.stop() == 0, self._server.said()[-3000:]

    def _merge(self, found: Findings) -> None:
        mine = self.result.findings
        mine.lost += found.lost
        mine.doubled += found.doubled
        mine.stuck += found.stuck
