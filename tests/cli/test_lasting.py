"""Commands that go on until something ends, or somebody ends them."""

import json
from contextlib import AsyncExitStack
from pathlib import Path

from attune.database.embedded import Cluster
from tests.api.sites import Site, new_database, new_folder, site_on
from tests.cli.typed import lasting

SOLD = {"trigger_ref": "shop.sold", "payload": {"item": "tea"}}


async def test_watch_prints_a_line_for_each_thing_until_ctrl_c(site: Site) -> None:
    async with lasting(site.place.data, "watch", "--trigger", "shop.sold") as watching:
        assert await watching.says() == "Watching; Ctrl-C ends it."
        event = await site.data("POST", "/api/v1/events", json=SOLD)
        line = await watching.prints()
        code = await watching.interrupt()

    assert line[8:] == f"  event {event['id']}  shop.sold"
    assert code == 0


async def test_watch_goes_on_where_it_was_when_the_server_comes_back(base: Path, cluster: Cluster) -> None:
    folder = new_folder(base)
    async with AsyncExitStack() as stack:
        dsn = await stack.enter_async_context(new_database(cluster))
        async with site_on(dsn, folder) as site:
            words = ("watch", "--trigger", "shop.sold", "--json")
            watching = await stack.enter_async_context(lasting(site.place.data, *words))
            assert await watching.says() == "Watching; Ctrl-C ends it."
        assert "No server answers" in await watching.says()
        async with site_on(dsn, folder) as site:
            event = await site.data("POST", "/api/v1/events", json=SOLD)
            shown = json.loads(await watching.prints())
            code = await watching.interrupt()

    assert (shown["kind"], shown["id"], code) == ("event", event["id"], 0)
