"""The database is taken away under load: callers are told, all is done once, and nothing counts as an attempt."""

import json
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import httpx2
import pytest

from attune.base.json import loads
from attune.database.connecting import embedded_url
from attune.database.embedded.orphans import recorded_pid
from tests.server.running import Running, serving
from tests.support.engines import pack
from tests.support.scrapes import Scrape
from tests.support.waiting import eventually, until

PACK = {
    "triggers/numbered.yaml": "ref: away.numbered\nlabel: Numbered\n",
    "rules/first.yaml": "ref: away.first\ntrigger_ref: away.numbered\naction_ref: core.noop\n",
    "rules/second.yaml": "ref: away.second\ntrigger_ref: away.numbered\naction_ref: core.echo\n"
    "action_params: {message: 'number {{ event.payload.n }}'}\n",
}
SENDERS = 8
BLOWS = 2
ENOUGH = 100
"""Events that must be accepted before a blow, and after it."""

_LEFT = """
    SELECT 1 FROM attune.delivery
     UNION ALL
    SELECT 1 FROM attune.execution_open
     UNION ALL
    SELECT 1 FROM attune.enforcement WHERE status = 'created'
"""
_DONE = """
    SELECT v.id, v.payload, array_agg(n.rule_ref || ' ' || e.status || ' ' || e.retry_count ORDER BY n.rule_ref) AS done
      FROM attune.event v
      LEFT JOIN attune.enforcement n ON n.event = v.id
      LEFT JOIN attune.execution e ON e.enforcement = n.id
     GROUP BY v.id, v.payload
"""

Blow = Callable[[Running], Awaitable[None]]


async def end_all_connections(server: Running) -> None:
    """Also the one that owns the database."""
    connection = await connected(server)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    await connection.close()


async def kill_postmaster(server: Running) -> None:
    """As the system does that has no memory left."""
    pid = recorded_pid(server.place.postgres / "cluster" / "postmaster.pid")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


async def connected(server: Running) -> asyncpg.Connection:
    """A connection to the server's database that is not the server's."""
    described = json.loads(server.place.description.read_text())
    return await asyncpg.connect(embedded_url(described["psql"]["environment"]))


@dataclass
class Load:
    """Sends numbered events, each once, and looks whether the server is ready."""

    server: Running
    accepted: dict[int, int] = field(default_factory=dict)
    refusals: list[httpx2.Response] = field(default_factory=list)
    ready: set[int] = field(default_factory=set)
    _number: int = 0

    def client(self) -> httpx2.AsyncClient:
        transport = httpx2.AsyncHTTPTransport(uds=str(self.server.place.socket))
        return httpx2.AsyncClient(transport=transport, base_url="http://local", timeout=60)

    async def send(self) -> None:
        async with self.client() as client:
            while True:
                self._number += 1
                number = self._number
                event = {"trigger_ref": "away.numbered", "payload": {"n": number}}
                answer = await client.post("/api/v1/events", json=event)
                if answer.status_code == 201:
                    self.accepted[number] = answer.json()["data"]["id"]
                else:
                    self.refusals.append(answer)
                    await anyio.sleep(0.02)

    async def look(self) -> None:
        async with self.client() as client:
            while True:
                self.ready.add((await client.get("/health/ready")).status_code)
                await anyio.sleep(0.01)

    async def until_accepted(self, count: int) -> None:
        """Return when so many more were accepted."""
        wanted = len(self.accepted) + count
        await eventually(lambda: len(self.accepted) >= wanted, within=90)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("blow", [end_all_connections, kill_postmaster])
async def test_what_was_accepted_is_done_once_though_the_database_was_taken_away_twice(
    folder: Path, blow: Blow
) -> None:
    pack(folder / "packs", "away", PACK)
    async with serving(folder, "--packs", str(folder / "packs")) as server:
        load = Load(server)
        async with anyio.create_task_group() as tasks:
            for _ in range(SENDERS):
                tasks.start_soon(load.send)
            tasks.start_soon(load.look)
            for _ in range(BLOWS):
                await load.until_accepted(ENOUGH)
                await blow(server)
            await load.until_accepted(ENOUGH)
            tasks.cancel_scope.cancel()
        await until(lambda: ready(server))
        done, hops = await until(lambda: results(server), within=120)
        scrape = Scrape((await server.ask("GET", "/metrics")).content)
        assert server.process.poll() is None

    for refusal in load.refusals:
        assert (refusal.status_code, refusal.json()["code"]) == (503, "DATABASE_UNAVAILABLE")
        assert int(refusal.headers["Retry-After"]) >= 1
    # Who ends connections is too quick for somebody who looks from outside.
    assert load.ready == {200, 503} or blow is end_all_connections
    assert {event: number for number, event in load.accepted.items()}.items() <= {
        event: number for event, (number, _) in done.items()
    }.items()
    # Also what was refused, if its commit went through and nobody heard of it.
    assert {tuple(made) for _, made in done.values()} == {("away.first completed 0", "away.second completed 0")}
    assert hops == [(1, "done")]
    assert not any(scrape["attune_bus_rescued_total"].values())


async def ready(server: Running) -> bool | None:
    return (await server.ask("GET", "/health/ready")).status_code == 200 or None


async def results(server: Running) -> tuple[dict[int, tuple[int, list[str]]], list[Any]] | None:
    """The number of each event with what its rules led to, and what became of deliveries at which attempts; when all
    has been done."""
    connection = await connected(server)
    try:
        if await connection.fetch(_LEFT):
            return None
        done = {row["id"]: (loads(row["payload"])["n"], row["done"]) for row in await connection.fetch(_DONE)}
        hops = await connection.fetch("SELECT DISTINCT attempt, outcome FROM attune.trace")
        return done, [tuple(hop) for hop in hops]
    finally:
        await connection.close()
