"""Too much waits: what comes from outside is refused and can be sent again later, and what is inside goes on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest

from attune.bus.upkeep import Recount
from attune.database.embedded import Cluster
from tests.api.sites import Site, new_database, new_folder, site_on
from tests.cli.typed import commands_of
from tests.support.scrapes import Scrape

LIMIT = 1_000

EVENTS, EXECUTE = "/api/v1/events", "/api/v1/executions/execute"
EVENT = {"trigger_ref": "shop.sold", "payload": {"item": "tea"}}
EXECUTION = {"action_ref": "core.noop"}

_keys = count(1)


@pytest.fixture(scope="module")
async def site(cluster: Cluster, base: Path) -> AsyncIterator[Site]:
    """A server in which a thousand deliveries may wait."""
    settings: dict[str, dict[str, Any]] = {"bus": {"max_backlog": LIMIT}, "metrics": {"public": True}}
    async with new_database(cluster) as dsn, site_on(dsn, new_folder(base), settings) as made:
        yield made


@asynccontextmanager
async def waiting(site: Site, number: int) -> AsyncIterator[None]:
    """So many deliveries, which nobody takes, wait for the block."""
    await site.sql(
        """
        INSERT INTO attune.delivery (queue, message_id, correlation_id, depth, message_type, version, source, payload,
                                     published_at, available_at, attempt)
        SELECT 'nobody ' || $1::int, gen_random_uuid(), gen_random_uuid(), 0, 'Nothing', '1.0', 'test', '{}', now(),
               now(), 1
          FROM generate_series(1, $1::int)
        """,
        number,
    )
    recount = Recount(site.serving.engine.bus)
    await recount.once()
    try:
        yield
    finally:
        await site.sql("DELETE FROM attune.delivery WHERE queue = 'nobody ' || $1::int", number)
        await recount.once()


def refused(answer: httpx2.Response) -> str:
    """What somebody is told whose request was refused."""
    assert answer.status_code == 429, answer.text
    assert answer.json()["code"] == "BACKLOG_FULL"
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    return str(answer.json()["detail"])


async def numbers(site: Site) -> list[Any]:
    return [(await site.sql(f"SELECT count(*) FROM attune.{table}"))[0]["count"] for table in ("event", "execution")]


async def test_events_and_executions_from_outside_are_refused_and_leave_no_trace(site: Site) -> None:
    done = await site.data("POST", f"{EXECUTE}?wait=30", json=EXECUTION)
    before = await numbers(site)

    async with waiting(site, LIMIT + 1):
        answers = [
            await site.ask("POST", EVENTS, json=EVENT),
            await site.ask("POST", EXECUTE, json=EXECUTION),
            await site.ask("POST", f"/api/v1/executions/{done['id']}/rerun", json={}),
        ]

    for answer in answers:
        assert "1,001 deliveries wait" in refused(answer)
    assert await numbers(site) == before
    assert (await site.ask("POST", EVENTS, json=EVENT)).status_code == 201


@pytest.mark.parametrize(("path", "body"), [(EVENTS, EVENT), (EXECUTE, EXECUTION)])
async def test_a_request_that_was_refused_leaves_its_key_free(site: Site, path: str, body: dict[str, Any]) -> None:
    headers = {"Idempotency-Key": f"key {next(_keys)}"}

    async with waiting(site, LIMIT + 1):
        refused(await site.ask("POST", path, json=body, headers=headers))
    answer = await site.ask("POST", path, json=body, headers=headers)

    assert answer.status_code == 201
    assert "Idempotency-Replayed" not in answer.headers


@pytest.mark.parametrize(("path", "body"), [(EVENTS, EVENT), (EXECUTE, EXECUTION)])
async def test_who_was_accepted_before_is_told_so_again(site: Site, path: str, body: dict[str, Any]) -> None:
    headers = {"Idempotency-Key": f"key {next(_keys)}"}
    accepted = await site.data("POST", path, json=body, headers=headers)

    async with waiting(site, LIMIT + 1):
        again = await site.data("POST", path, json=body, headers=headers)

    assert again == accepted


async def test_it_opens_when_a_tenth_less_waits_and_not_before(site: Site) -> None:
    async with waiting(site, 900):
        async with waiting(site, 101):
            refused(await site.ask("POST", EVENTS, json=EVENT))
        refused(await site.ask("POST", EVENTS, json=EVENT))

    assert (await site.ask("POST", EVENTS, json=EVENT)).status_code == 201


async def test_it_can_be_seen_and_the_server_is_ready_all_the_same(site: Site) -> None:
    before = Scrape((await site.remote.get("/metrics")).content)
    async with waiting(site, LIMIT + 1), commands_of(site.place.data) as attune:
        detail = refused(await site.ask("POST", EVENTS, json=EVENT))
        during = Scrape((await site.remote.get("/metrics")).content)
        status = await site.data("GET", "/api/v1/system/status")
        told = (await attune("status")).stdout
        emitted = await attune("event", "emit", "shop.sold")
        ready = await site.remote.get("/health/ready")
    after = Scrape((await site.remote.get("/metrics")).content)

    scrapes = (before, during, after)
    assert [one["attune_ingress_closed"]["backlog",] for one in scrapes] == [0, 1, 0]
    first, second, third = [one["attune_ingress_refused_total"]["backlog",] for one in scrapes]
    assert (second - first, third - second) == (1, 1)
    assert [one["reason"] for one in status["ingress_closed"]] == ["backlog"]
    assert f"nothing is taken from outside:\n  {detail}" in told
    assert (emitted.returncode, detail in emitted.stderr) == (3, True)
    assert ready.status_code == 200
