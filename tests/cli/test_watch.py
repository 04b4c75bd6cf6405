"""`attune watch` tells everything once, and only what was asked for."""

import json
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream
from hypothesis import given
from hypothesis import strategies as st

from attune.cli.stream import EventReader, Told
from tests.api.sites import Site
from tests.cli.typed import Commands, Lasting, lasting

SOLD = {"trigger_ref": "shop.sold", "payload": {"item": "tea"}}


class Watcher:
    """What somebody sees who watches."""

    def __init__(self, process: Lasting) -> None:
        self.items: list[Any] = []
        self._process = process

    async def until(self, kind: str, **fields: Any) -> Any:
        """The next of these."""
        while True:
            self.items.append(json.loads(await self._process.prints()))
            if self.items[-1]["kind"] == kind and fields.items() <= self.items[-1].items():
                return self.items[-1]

    def all(self, kind: str) -> list[Any]:
        return [item for item in self.items if item["kind"] == kind]


async def watching(stack: AsyncExitStack, site: Site, **filters: str) -> Watcher:
    """Somebody who watches already."""
    words = [word for name, value in filters.items() for word in (f"--{name}", value)]
    process = await stack.enter_async_context(lasting(site.place.data, "watch", "--json", *words))
    assert await process.says() == "Watching; Ctrl-C ends it."
    return Watcher(process)


async def rule(site: Site, ref: str, **fields: Any) -> None:
    body = {"ref": ref, "pack_ref": "shop", "label": ref, "trigger_ref": "shop.sold", "action_ref": "core.noop"}
    await site.data("POST", "/api/v1/rules", json=body | fields)


async def forget(site: Site, *refs: str) -> None:
    for ref in refs:
        await site.ask("DELETE", f"/api/v1/rules/{ref}")


async def test_an_event_its_verdicts_and_what_follows_are_told_once_each(site: Site) -> None:
    await rule(site, "shop.yes")
    await rule(site, "shop.no", conditions={"expression": "event.payload.item == 'coffee'"})
    await rule(site, "shop.broken", conditions={"expression": "event.payload.item > 1"})
    await rule(site, "shop.off", enabled=False)
    async with AsyncExitStack() as stack:
        watcher = await watching(stack, site, trigger="shop.sold")
        event = await site.data("POST", "/api/v1/events", json=SOLD)
        await watcher.until("execution", status="completed")
        # It is told of last: whatever was to be told before has been.
        last = await site.data("POST", "/api/v1/events", json=SOLD)
        await watcher.until("event", id=last["id"])

    assert [item["id"] for item in watcher.all("event")] == [event["id"], last["id"]]
    verdicts = {item["rule_ref"]: item for item in watcher.all("verdict")}
    assert verdicts.keys() == {"shop.yes", "shop.no", "shop.broken"}
    assert len(watcher.all("verdict")) == 3
    assert verdicts["shop.yes"]["decision"] == "matched"
    no = verdicts["shop.no"]
    assert (no["decision"], no["clause"], no["actual"]) == ("not_matched", 'event.payload.item == "coffee"', "tea")
    assert (verdicts["shop.broken"]["decision"], "no order" in verdicts["shop.broken"]["error"]) == ("error", True)
    states = [item["status"] for item in watcher.all("execution")]
    assert len(states) == len(set(states))
    await forget(site, "shop.yes", "shop.no", "shop.broken", "shop.off")


async def test_of_many_at_once_none_is_missed_and_none_doubled(site: Site) -> None:
    await rule(site, "shop.many", trigger_ref="shop.typed")
    ids: set[int] = set()

    async def emit() -> None:
        for _ in range(20):
            sold = {"trigger_ref": "shop.typed", "payload": {"item": "tea"}}
            ids.add((await site.data("POST", "/api/v1/events", json=sold))["id"])

    async with AsyncExitStack() as stack:
        watcher = await watching(stack, site, trigger="shop.typed")
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(emit)
        for _ in ids:
            await watcher.until("execution", status="completed")

    assert sorted(item["id"] for item in watcher.all("event")) == sorted(ids)
    # Verdict by verdict, or as counts where there were too many.
    told = [item["event"] for kind in ("verdict", "verdicts") for item in watcher.all(kind)]
    assert sorted(told) == sorted(ids)
    await forget(site, "shop.many")


# What is asked for, and the kinds and subjects of what is told when shop.sold has the rules shop.one and shop.two.
FILTERS: list[tuple[dict[str, str], set[tuple[str, str | None]]]] = [
    ({"rule": "shop.one"}, {("verdict", "shop.one"), ("execution", "shop.one")}),
    ({"action": "core.echo"}, {("verdict", "shop.two"), ("execution", "shop.two")}),
    ({"status": "completed", "rule": "shop.two"}, {("execution", "shop.two")}),
    (
        {"trigger": "shop.sold"},
        {(kind, rule) for kind in ("verdict", "execution") for rule in ("shop.one", "shop.two")} | {("event", None)},
    ),
    ({"trigger": "shop.sold", "action": "core.echo"}, {("verdict", "shop.two"), ("execution", "shop.two")}),
]


async def test_only_what_was_asked_for_is_told(site: Site) -> None:
    await rule(site, "shop.one")
    await rule(site, "shop.two", action_ref="core.echo", action_params={"message": "hi"})
    async with AsyncExitStack() as stack:
        watchers = [await watching(stack, site, **filters) for filters, _ in FILTERS]
        await site.data("POST", "/api/v1/events", json=SOLD)
        for watcher, (_, expected) in zip(watchers, FILTERS, strict=True):
            for rule_ref in {rule_ref for kind, rule_ref in expected if kind == "execution"}:
                if not any(
                    one["rule_ref"] == rule_ref and one["status"] == "completed" for one in watcher.all("execution")
                ):
                    await watcher.until("execution", rule_ref=rule_ref, status="completed")

    for watcher, (filters, expected) in zip(watchers, FILTERS, strict=True):
        assert {(item["kind"], item.get("rule_ref")) for item in watcher.items} == expected, filters
    await forget(site, "shop.one", "shop.two")


async def test_what_runs_already_is_told_when_it_ends(site: Site) -> None:
    sleep = {"action_ref": "core.sleep", "parameters": {"seconds": 1000}}
    execution = await site.data("POST", "/api/v1/executions/execute?wait=1", json=sleep)
    async with AsyncExitStack() as stack:
        watcher = await watching(stack, site, action="core.sleep")
        await site.data("POST", f"/api/v1/executions/{execution['id']}/cancel")
        ended = await watcher.until("execution", status="cancelled")

    assert ended["finished_at"] is not None
    assert {item["id"] for item in watcher.items} == {execution["id"]}


async def test_a_state_that_lasts_is_told(site: Site) -> None:
    async with AsyncExitStack() as stack:
        watcher = await watching(stack, site, action="core.sleep")
        sleep = {"action_ref": "core.sleep", "parameters": {"seconds": 1000}}
        execution = await site.data("POST", "/api/v1/executions/execute", json=sleep)
        running = await watcher.until("execution", status="running")
        await site.data("POST", f"/api/v1/executions/{execution['id']}/cancel")
        await watcher.until("execution", status="cancelled")

    assert running["id"] == execution["id"]


async def test_why_an_execution_failed_stands_in_its_line(site: Site) -> None:
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(lasting(site.place.data, "watch", "--status", "failed"))
        assert await process.says() == "Watching; Ctrl-C ends it."
        ran = await site.data("POST", "/api/v1/executions/execute?wait=30", json={"action_ref": "bad.fail"})
        line = await process.prints()

    assert line[8:].startswith(f"  execution {ran['id']}  bad.fail failed after ")
    assert line.endswith(": exit code 3: line 8")


# A slip would be waited for in vain.
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rule", "shop.nothing"), "no rule shop.nothing"),
        (("--trigger", "shop.nothing"), "no trigger shop.nothing"),
        (("--action", "shop.nothing"), "no action shop.nothing"),
        (("--status", "asleep"), "/status: does not know asleep; it takes requested"),
        (("--status", "created"), "/status: does not know created"),
    ],
)
async def test_what_will_never_be_is_refused(attune: Commands, words: tuple[str, ...], said: str) -> None:
    answer = await attune("watch", *words)

    assert (answer.returncode, said in answer.stderr) == (3, True), answer.stderr


async def test_who_answers_and_is_no_attune_is_not_listened_to(attune: Commands) -> None:
    async def answer(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>\n\n")

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, answer)
        port = listener.extra(SocketAttribute.local_port)
        answered = await attune("watch", "--server", f"http://127.0.0.1:{port}")
        tasks.cancel_scope.cancel()

    assert (answered.returncode, "is no Attune" in answered.stderr) == (4, True), answered.stderr


TELLING = (
    b"retry: 2000\n\n"
    b'id: b-1\nevent: reset\ndata: {"reason":"\xe2\x80\xa8 caf\xc3\xa9"}\n\n'
    b": I am here.\nid: b-2\n\n"
    b'data: {"id":3}\nid: b-3\n\n'
    b"id: b-4\nevent: cut"
)
TOLD = [Told("reset", {"reason": "\u2028 café"}), Told("message", {"id": 3})]


@given(st.sets(st.integers(1, len(TELLING) - 1)))
def test_events_are_the_same_in_whatever_pieces_they_come(cuts: set[int]) -> None:
    ends = [0, *sorted(cuts), len(TELLING)]
    reader = EventReader()

    told = [one for start, end in pairwise(ends) for one in reader.read(TELLING[start:end])]

    assert told == TOLD
    assert reader.position == "b-3"
