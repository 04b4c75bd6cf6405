"""GET /metrics: who may read it, as what it comes, and that it comes without the database as well."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from prometheus_client import CONTENT_TYPE_LATEST

from attune import __version__
from attune.database.embedded import Cluster
from tests.api.sites import Site, bearer, new_database, new_folder, site_on
from tests.api.test_database_away import away, detour
from tests.support.scrapes import Scrape

PUBLIC = {"metrics": {"public": True}}


@pytest.fixture(scope="module")
async def public(cluster: Cluster, base: Path) -> AsyncIterator[Site]:
    """A server whose metrics everybody may read."""
    async with new_database(cluster) as dsn, site_on(dsn, new_folder(base), PUBLIC) as made:
        yield made


async def test_an_administrator_reads_the_metrics_and_others_do_not(site: Site) -> None:
    await site.identity("admin")
    await site.identity("reader")
    headers = [bearer((await site.tokens(login))["access_token"]) for login in ("admin", "reader")]

    answers = [await site.remote.get("/metrics", headers=one) for one in (*headers, {})]

    assert [answer.status_code for answer in answers] == [200, 403, 401]


async def test_everybody_reads_metrics_that_are_public(public: Site) -> None:
    answer = await public.remote.get("/metrics")

    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == CONTENT_TYPE_LATEST
    found = Scrape(answer.content)
    assert found["attune_build_info"] == {(__version__,): 1}
    started_at = public.serving.about.started_at.timestamp()
    assert found["attune_start_time_seconds"][()] == pytest.approx(started_at, abs=60)
    # And nothing else.
    assert (await public.remote.get("/api/v1/bus/queues")).status_code == 401


async def test_an_answer_to_a_scrape_names_no_event_and_no_parameter(public: Site) -> None:
    event = {"trigger_ref": "shop.sold", "payload": {"item": "a-secret-of-mine"}}
    await public.data("POST", "/api/v1/events", json=event)
    await public.data("POST", "/api/v1/executions/execute?wait=30", json={"action_ref": "core.noop"})

    text = (await public.remote.get("/metrics")).text

    assert "core.noop" in text
    assert "a-secret-of-mine" not in text


async def test_without_the_database_what_needs_none_is_told(cluster: Cluster, base: Path) -> None:
    async with new_database(cluster) as direct:
        with detour(direct) as (dsn, link):
            async with site_on(dsn, new_folder(base), PUBLIC) as site:
                before = Scrape((await site.remote.get("/metrics")).content)
                async with away(dsn, anyio.Path(link)):
                    answer = await site.remote.get("/metrics")
                after = Scrape((await site.remote.get("/metrics")).content)

    assert answer.status_code == 200
    lost = Scrape(answer.content)
    assert [found["attune_database_up"][()] for found in (before, lost, after)] == [1, 0, 1]
    assert before.families.keys() - lost.families.keys() == {
        "attune_bus_waiting",
        "attune_bus_oldest_seconds",
        "attune_bus_dead_letters",
    }
