"""Commands that go on until something ends, or somebody ends them."""

import json
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from attune.database.embedded import Cluster
from tests.api.sites import Site, new_database, new_folder, site_on
from tests.cli.typed import lasting
from tests.support.waiting import until

SOLD = {"trigger_ref": "shop.sold", "payload": {"item": "tea"}}


@pytest.fixture
def gate(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that does not exist yet; `bad.slow` goes on when it does."""
    return tmp_path_factory.mktemp("gate") / "open"


async def test_watch_prints_a_line_for_each_thing_until_ctrl_c(site: Site) -> None:
    async with lasting(site.place.data, "watch", "--trigger", "shop.sold") as watching:
        assert await watching.says() == "Watching; Ctrl-C ends it."
        event = await site.data("POST", "/api/v1/events", json=SOLD)
        line = await watching.prints()
        code = await watching.interrupt()

    assert line[8:] == f"  event {event['id']}  shop.sold"
    assert code == 0


async def test_watch_goes_on_when_the_server_comes_back(base: Path, cluster: Cluster) -> None:
    folder = new_folder(base)
    async with AsyncExitStack() as stack:
        dsn = await stack.enter_async_context(new_database(cluster))
        async with site_on(dsn, folder) as site:
            words = ("watch", "--trigger", "shop.sold", "--json")
            watching = await stack.enter_async_context(lasting(site.place.data, *words))
            assert await watching.says() == "Watching; Ctrl-C ends it."
        assert "No server answers" in await watching.says()
        async with site_on(dsn, folder) as site:
            told = json.loads(await watching.prints())
            event = await site.data("POST", "/api/v1/events", json=SOLD)
            shown = json.loads(await watching.prints())
            code = await watching.interrupt()

    # What a server that is gone told last is not known to the next one.
    assert (told["kind"], "is not kept" in told["reason"]) == ("reset", True)
    assert (shown["kind"], shown["id"], code) == ("event", event["id"], 0)


async def test_logs_are_followed_to_the_end_whatever_the_bytes(site: Site, gate: Path) -> None:
    ran = {"action_ref": "bad.slow", "parameters": {"gate": str(gate)}}
    execution = await site.data("POST", "/api/v1/executions/execute", json=ran)
    async with lasting(site.place.data, "execution", "logs", str(execution["id"]), "--follow") as following:
        first = await following.prints()
        # It is still running: what comes next is read in another part, a character of two bytes across both.
        await anyio.Path(gate).touch()
        second = await following.prints()
        said = await following.says()
        code = await following.end()

    assert (first, second) == ("before", "half é done")
    assert said.endswith(f"execution {execution['id']} is completed")
    assert code == 0


async def test_following_and_waiting_end_at_ctrl_c_and_say_what_goes_on(site: Site) -> None:
    sleep = ("core.sleep", "-p", "seconds=1000")
    async with lasting(site.place.data, "run", *sleep) as running:
        execution = await until(lambda: _sleeping(site))
        code = await running.interrupt()
        said = [await running.says() for _ in range(3)]

    assert code == 130
    assert said[1:] == [
        f"execution {execution} goes on; to see it: attune execution logs {execution} --follow",
        f"to end it: attune execution cancel {execution}",
    ]
    async with lasting(site.place.data, "execution", "logs", str(execution), "--follow", "--stderr") as following:
        await site.ask("POST", f"/api/v1/executions/{execution}/cancel")
        assert await following.says() == f"execution {execution} is cancelled"
        assert await following.end() == 0


async def _sleeping(site: Site) -> int | None:
    found = await site.data("GET", "/api/v1/executions", params={"action_ref": "core.sleep", "status": "running"})
    return found[0]["id"] if found else None


# A part of a log: the bytes to leave out, and what is answered.
PARTS: list[tuple[int, bytes]] = [(0, b"before\n"), (3, b"ore\n"), (7, b""), (10_000, b"")]


async def test_a_part_of_a_log_is_answered_as_it_is(site: Site) -> None:
    ran = await site.data("POST", "/api/v1/executions/execute?wait=30", json={"action_ref": "bad.fail"})
    path = f"/api/v1/executions/{ran['id']}/logs/stdout"

    for offset, part in PARTS:
        assert (await site.ask("GET", path, params={"offset": offset})).content == part
    assert (await site.ask("GET", path, params={"offset": 1, "tail": 1})).status_code == 422
    assert (await site.ask("GET", path, params={"offset": -1})).status_code == 422
