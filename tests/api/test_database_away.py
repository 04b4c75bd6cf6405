"""The database goes away: callers are told to come back, readiness is red, and all is well when it is back."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import anyio
import asyncpg
import httpx2

from attune.database.embedded import Cluster
from tests.api.sites import Site, bearer, new_database, new_folder, site_on
from tests.support.waiting import until

EVENT = {"trigger_ref": "shop.sold", "payload": {"item": "tea"}}
ASKED = [
    # Reads and writes, with the pool, with `databases`, and with the group-commit writer.
    ("GET", "/api/v1/rules", None),
    ("GET", "/api/v1/events/1", None),
    ("GET", "/api/v1/executions", None),
    ("GET", "/api/v1/bus/queues", None),
    ("GET", "/api/v1/system/status", None),
    ("POST", "/api/v1/events", EVENT),
    ("POST", "/api/v1/executions/execute", {"action_ref": "core.noop"}),
    ("POST", "/api/v1/identities", {"login": "late"}),
    ("POST", "/auth/login", {"login": "admin", "password": "wrong"}),
]


async def test_without_its_database_the_server_says_so_and_goes_on_when_it_is_back(
    cluster: Cluster, base: Path
) -> None:
    async with new_database(cluster) as direct:
        with detour(direct) as (dsn, link):
            await _lose_and_find(base, dsn, link)


async def _lose_and_find(base: Path, dsn: str, link: Path) -> None:
    async with site_on(dsn, new_folder(base)) as site:
        await site.identity("admin")
        token = bearer((await site.tokens("admin"))["access_token"])
        before = await site.data("POST", "/api/v1/events", json=EVENT)

        async with away(dsn, anyio.Path(link)):
            refused = [await site.ask(method, path, json=body) for method, path, body in ASKED]
            signed = await site.remote.get("/api/v1/rules", headers=token)
            ready, detailed, live, health = [
                await site.remote.get(f"/health{path}") for path in ("/ready", "/detailed", "/live", "")
            ]

        for answer in (*refused, signed):
            _is_unavailable(answer)
        assert (ready.status_code, live.status_code, health.status_code) == (503, 200, 200)
        assert detailed.status_code == 503
        assert (detailed.json()["status"], detailed.json()["database"]) == ("error", "disconnected")
        assert detailed.json()["checks"]["database"] == detailed.json()["error"].partition(";")[0] != "ok"

        # Back again: what was accepted is there once, what was refused is not, and the pipeline works.
        await until(lambda: _ready(site))
        after = await site.data("POST", "/api/v1/events", json=EVENT)
        assert [event["id"] for event in await site.data("GET", "/api/v1/events")] == [after["id"], before["id"]]
        ran = await site.data("POST", "/api/v1/executions/execute?wait=30", json={"action_ref": "core.noop"})
        assert ran["status"] == "completed"


@contextmanager
def detour(dsn: str) -> Iterator[tuple[str, Path]]:
    """The URL of the same database through a link of ours to its socket, and that link."""
    parts = urlsplit(dsn)
    found = {name: values[0] for name, values in parse_qs(parts.query).items()}
    name = f".s.PGSQL.{found['port']}"
    # A socket's path is short.
    with tempfile.TemporaryDirectory(prefix="attune-") as folder:
        link = Path(folder) / name
        link.symlink_to(Path(found["host"]) / name)
        yield parts._replace(query=urlencode(found | {"host": folder})).geturl(), link


@asynccontextmanager
async def away(dsn: str, link: anyio.Path) -> AsyncIterator[None]:
    """Nobody gets through to the database for the block, and those that had are cut off."""
    target = await link.readlink()
    connection = await asyncpg.connect(dsn)
    try:
        await link.unlink()
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        yield
    finally:
        await link.symlink_to(target)
        await connection.close()


def _is_unavailable(answer: httpx2.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.json()["code"] == "DATABASE_UNAVAILABLE"


async def _ready(site: Site) -> bool | None:
    return (await site.remote.get("/health/ready")).status_code == 200 or None
