"""Giving room back while no server runs, and to nobody else."""

import json
from pathlib import Path

import asyncpg
import pytest

from attune.base.clock import SystemClock
from attune.base.installation import Installation
from attune.database.connecting import embedded_url
from attune.database.ownership import Ownership
from tests.server.running import attune, serving

REFUSED, USAGE = 3, 2


async def swell(dsn: str) -> None:
    """Leave room in a table, by deleting all but the last of many rows."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "INSERT INTO attune.event (trigger, trigger_ref, source_ref, correlation_id, depth, created) "
            "SELECT 1, 'shop.sold', 'test', gen_random_uuid(), 0, now() FROM generate_series(1, 20000)"
        )
        await connection.execute("DELETE FROM attune.event WHERE id < (SELECT max(id) FROM attune.event)")
    finally:
        await connection.close()


async def events(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        count = await connection.fetchval("SELECT count(*) FROM attune.event")
        assert isinstance(count, int)
        return count
    finally:
        await connection.close()


def size(folder: Path) -> int:
    """What the files below a folder take."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


async def test_compacting_gives_room_back_and_is_refused_while_a_server_runs(folder: Path) -> None:
    async with serving(folder) as server:
        environment = json.loads(server.place.description.read_text())["psql"]["environment"]
        await swell(embedded_url(environment))
        refused = await attune("space", "--compact", data=server.place.data)
        found = await server.get("/api/v1/system/space")
    assert refused.returncode == REFUSED
    assert f"in use by process {server.process.pid}" in refused.stderr
    assert server.url in refused.stderr
    before = {table["name"]: table["data_bytes"] + table["index_bytes"] for table in found["tables"]}
    cluster = server.place.postgres / "cluster" / "base"
    full = size(cluster)

    done = await attune("space", "--compact", "--json", data=server.place.data)

    told = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert told["event"]["before"] == before["event"] > 2_000_000
    assert told["event"]["after"] < 100_000
    assert size(cluster) < full - 2_000_000
    async with serving(folder) as server:
        assert [event["trigger_ref"] for event in await server.get("/api/v1/events")] == ["shop.sold"]


async def test_a_database_elsewhere_is_compacted_unless_somebody_owns_it(folder: Path, dsn: str) -> None:
    data = folder / "data"
    Installation(data).postgres.parent.mkdir()
    owner = Ownership(dsn, "4711@elsewhere http://elsewhere:8080", SystemClock())
    await swell(dsn)
    await owner.acquire()

    refused = await attune("space", "--compact", data=data, ATTUNE_DATABASE__URL=dsn)
    assert refused.returncode == REFUSED
    assert "in use by attune 4711@elsewhere http://elsewhere:8080" in refused.stderr

    await owner.release()
    done = await attune("space", "--compact", data=data, ATTUNE_DATABASE__URL=dsn)
    assert done.returncode == 0, done.stderr
    assert await events(dsn) == 1
    lines = {line.split()[0]: line.split() for line in done.stdout.splitlines()}
    assert lines["table"] == ["table", "before", "after"]
    assert lines["event"][2] == "MB"
    assert lines["event"][4] == "kB"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--server", "http://127.0.0.1:1"), USAGE, "--compact works on the data of this machine"),
        ((), REFUSED, "No server has run in"),
    ],
)
async def test_what_is_not_here_is_not_compacted(folder: Path, words: tuple[str, ...], code: int, said: str) -> None:
    data = folder / "data"

    done = await attune("space", "--compact", *words, data=data)

    assert done.returncode == code
    assert said in done.stderr
    assert not data.exists()
