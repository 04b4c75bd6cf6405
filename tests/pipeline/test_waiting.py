"""`?wait`: an answer as soon as an execution has ended, however it ends."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from attune.database.embedded import Cluster
from tests.api.sites import Site, new_folder, site_on
from tests.support.databases import new_database
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
async def site(cluster: Cluster, base: Path) -> AsyncIterator[Site]:
    async with new_database(cluster) as dsn, site_on(dsn, new_folder(base)) as site:
        yield site


async def execute(site: Site, wait: int, action: str = "core.sleep", **parameters: object) -> dict[str, object]:
    body = {"action_ref": action, "parameters": parameters}
    data: dict[str, object] = await site.data("POST", f"/api/v1/executions/execute?wait={wait}", json=body)
    return data


async def test_the_answer_comes_when_it_has_ended(site: Site) -> None:
    done = await execute(site, 30, seconds=0.05)
    failed = await execute(site, 30, "core.noop", exit_code=3)

    assert (done["status"], failed["status"]) == ("completed", "failed")


async def test_without_waiting_the_answer_comes_at_once(site: Site) -> None:
    started = await execute(site, 0, seconds=600)

    assert started["status"] in {"requested", "scheduled", "running"}
    cancelled = await site.data("POST", f"/api/v1/executions/{started['id']}/cancel")
    assert cancelled["status"] in {"canceling", "cancelled"}


async def test_all_who_wait_for_an_execution_hear_of_its_end(site: Site) -> None:
    started = await execute(site, 0, seconds=600)
    answers = []
    engine = site.serving.engine

    async def wait() -> None:
        answers.append((await site.data("GET", f"/api/v1/executions/{started['id']}?wait=30"))["status"])

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(wait)
        subject = f"execution:{started['id']}"
        await eventually(lambda: len(engine.waiters._events.get(subject, ())) == 5)
        await site.data("POST", f"/api/v1/executions/{started['id']}/cancel")

    assert answers == ["cancelled"] * 5
    assert engine.waiters._events == {}


async def test_after_the_time_to_wait_the_answer_is_what_is_there(site: Site) -> None:
    started = await execute(site, 1, seconds=600)

    assert started["finished_at"] is None
    await site.data("POST", f"/api/v1/executions/{started['id']}/cancel")


@pytest.mark.parametrize("wait", ["-1", "31", "x", ""])
async def test_a_time_to_wait_that_is_none_is_refused(site: Site, wait: str) -> None:
    assert (await site.ask("GET", f"/api/v1/executions/1?wait={wait}")).status_code == 422


async def test_nobody_waits_for_what_does_not_exist(site: Site) -> None:
    assert (await site.ask("GET", "/api/v1/executions/1000000?wait=30")).status_code == 404
