"""What happens is told as it happens: everything once, and nothing is asked of the database while nothing happens."""

from typing import Any, cast

import anyio
import pytest

from attune.api.routes.watch import Cursor, WatchRoutes
from attune.base.clock import SystemClock
from attune.bus.bus import Bus
from attune.bus.topology import TOPOLOGY
from attune.bus.transaction import Traffic
from attune.cli.watch import News
from attune.database.pool import Database
from tests.api.sites import Site
from tests.support.waiting import until

SOLD = {"trigger_ref": "shop.sold", "payload": {"item": "tea"}}


class Watcher:
    """Asks as `attune watch` does, and keeps the news."""

    def __init__(self, site: Site, **filters: str) -> None:
        self.items: list[Any] = []
        self._site = site
        self._filters = filters
        self._news = News(events_alone="rule" not in filters and "action" not in filters, status=filters.get("status"))
        self._answer: Any = None

    async def look(self, wait: int = 0) -> None:
        """Ask once."""
        asked: dict[str, Any] = {}
        if self._answer is not None:
            asked = {
                "cursor": self._answer["cursor"],
                "wait": wait,
                "events": ",".join(map(str, self._news.pending_events)),
                "executions": ",".join(map(str, self._news.pending_executions)),
            }
        self._answer = await self._site.data("GET", "/api/v1/watch", params={**self._filters, **asked})
        self.items += self._news.of(self._answer)

    async def until(self, *kinds: str) -> list[Any]:
        """The news, when there are some of all these kinds."""

        async def found() -> bool | None:
            await self.look()
            return True if {item["kind"] for item in self.items} >= set(kinds) else None

        await until(found)
        return self.items


async def rule(site: Site, ref: str, **fields: Any) -> None:
    body = {"ref": ref, "pack_ref": "shop", "label": ref, "trigger_ref": "shop.sold", "action_ref": "core.noop"}
    await site.data("POST", "/api/v1/rules", json=body | fields)


async def test_an_event_its_verdicts_and_what_follows_are_told_once_each(site: Site) -> None:
    await rule(site, "shop.yes")
    await rule(site, "shop.no", conditions={"expression": "event.payload.item == 'coffee'"})
    await rule(site, "shop.broken", conditions={"expression": "event.payload.item > 1"})
    await rule(site, "shop.off", enabled=False)
    watcher = Watcher(site)
    await watcher.look()

    event = await site.data("POST", "/api/v1/events", json=SOLD)
    items = await watcher.until("event", "verdict", "execution")
    await watcher.look()
    await watcher.look(wait=1)

    assert [item["id"] for item in items if item["kind"] == "event"] == [event["id"]]
    verdicts = {item["rule_ref"]: item for item in items if item["kind"] == "verdict"}
    assert verdicts.keys() == {"shop.yes", "shop.no", "shop.broken"}
    assert sum(item["kind"] == "verdict" for item in items) == 3
    assert verdicts["shop.yes"]["decision"] == "matched"
    no = verdicts["shop.no"]
    assert (no["decision"], no["clause"], no["actual"]) == ("not_matched", 'event.payload.item == "coffee"', "tea")
    assert (verdicts["shop.broken"]["decision"], "no order" in verdicts["shop.broken"]["error"]) == ("error", True)
    states = [item["status"] for item in items if item["kind"] == "execution"]
    assert states[-1] == "completed"
    assert len(states) == len(set(states))
    for ref in ("shop.yes", "shop.no", "shop.broken"):
        await site.ask("DELETE", f"/api/v1/rules/{ref}")


async def test_of_many_at_once_none_is_missed_and_none_doubled(site: Site) -> None:
    await rule(site, "shop.many", trigger_ref="shop.typed")
    watcher, ids = Watcher(site, trigger="shop.typed"), set()
    await watcher.look()

    async def emit() -> None:
        for _ in range(20):
            sold = {"trigger_ref": "shop.typed", "payload": {"item": "tea"}}
            ids.add((await site.data("POST", "/api/v1/events", json=sold))["id"])

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(emit)
        for _ in range(3):
            await watcher.look()

    async def complete() -> bool | None:
        await watcher.look()
        ended = [item for item in watcher.items if item["kind"] == "execution" and item["status"] == "completed"]
        return True if len(ended) >= len(ids) else None

    await until(complete)
    assert sorted(item["id"] for item in watcher.items if item["kind"] == "event") == sorted(ids)
    # Verdict by verdict, or as counts where there were too many.
    told = [item["event"] for item in watcher.items if item["kind"] in {"verdict", "verdicts"}]
    assert sorted(told) == sorted(ids)


# What is asked for, and the kinds and subjects of what is told when shop.sold has the rules shop.one and shop.two.
FILTERS: list[tuple[dict[str, str], set[tuple[str, str | None]]]] = [
    ({"rule": "shop.one"}, {("verdict", "shop.one"), ("execution", "shop.one")}),
    ({"action": "core.echo"}, {("verdict", "shop.two"), ("execution", "shop.two")}),
    ({"status": "completed", "rule": "shop.two"}, {("execution", "shop.two")}),
    (
        {"trigger": "shop.sold"},
        {(kind, rule) for kind in ("verdict", "execution") for rule in ("shop.one", "shop.two")} | {("event", None)},
    ),
    ({"trigger": "shop.closed"}, set()),
]


async def test_only_what_was_asked_for_is_told(site: Site) -> None:
    await rule(site, "shop.one")
    await rule(site, "shop.two", action_ref="core.echo", action_params={"message": "hi"})
    watchers = [Watcher(site, **filters) for filters, _ in FILTERS]
    everything = Watcher(site)
    for watcher in (*watchers, everything):
        await watcher.look()

    await site.data("POST", "/api/v1/events", json=SOLD)

    async def ended() -> bool | None:
        await everything.look()
        done = [one for one in everything.items if one["kind"] == "execution" and one["status"] == "completed"]
        return True if len(done) == 2 else None

    await until(ended)
    for watcher, (filters, expected) in zip(watchers, FILTERS, strict=True):
        for _ in range(2):
            await watcher.look()
        assert {(item["kind"], item.get("rule_ref")) for item in watcher.items} == expected, filters
    for ref in ("shop.one", "shop.two"):
        await site.ask("DELETE", f"/api/v1/rules/{ref}")


async def test_what_runs_already_is_told_when_it_ends(site: Site) -> None:
    sleep = {"action_ref": "core.sleep", "parameters": {"seconds": 1000}}
    execution = await site.data("POST", "/api/v1/executions/execute?wait=1", json=sleep)
    watcher = Watcher(site, action="core.sleep")
    await watcher.look()
    assert watcher.items == []

    await site.data("POST", f"/api/v1/executions/{execution['id']}/cancel")

    async def cancelled() -> bool | None:
        await watcher.look()
        return True if [item for item in watcher.items if item.get("status") == "cancelled"] else None

    await until(cancelled)
    assert {item["id"] for item in watcher.items} == {execution["id"]}


WRONG: list[tuple[dict[str, str], int]] = [
    ({"cursor": "nonsense"}, 422),
    ({"cursor": "bm9uc2Vuc2U="}, 422),
    ({"cursor": "e30="}, 422),
    ({"cursor": "\N{SNOWMAN}"}, 422),
    ({"events": "1,x"}, 422),
    ({"events": ",".join(["1"] * 501)}, 422),
    ({"status": "asleep"}, 422),
    ({"wait": "31"}, 422),
    # A slip would be waited for in vain.
    ({"rule": "shop.nothing"}, 404),
    ({"trigger": "shop.nothing"}, 404),
    ({"action": "shop.nothing"}, 404),
]


@pytest.mark.parametrize(("query", "status"), WRONG, ids=[next(iter(row[0])) for row in WRONG])
async def test_what_makes_no_sense_is_refused(site: Site, query: dict[str, str], status: int) -> None:
    answer = await site.ask("GET", "/api/v1/watch", params=query)

    assert answer.status_code == status, answer.text


async def test_while_nothing_is_committed_the_database_is_not_asked() -> None:
    class Nobody:
        def acquire(self) -> None:
            pytest.fail("nobody is to be asked")

    bus = Bus(cast("Database", Nobody()), TOPOLOGY, SystemClock(), lambda: True)
    routes = WatchRoutes(bus, cast("Any", None), "boot")
    cursor = Cursor(boot="boot", commits=0, settled=[7, 7], drawn=[7, 7], pending=[])

    async with anyio.create_task_group() as tasks:
        done = anyio.Event()

        async def wait() -> None:
            await routes._news(cursor, 30, lambda: False)
            done.set()

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert not done.is_set()
        # A commit ends the wait; so does a server that stops, and a cursor of another boot.
        bus.committed(Traffic())
        with anyio.fail_after(20):
            await done.wait()
    with anyio.fail_after(20):
        await routes._news(cursor.model_copy(update={"commits": 1}), 30, lambda: True)
        await routes._news(cursor.model_copy(update={"boot": "other", "commits": 1}), 30, lambda: False)
