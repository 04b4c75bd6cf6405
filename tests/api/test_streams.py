"""Live views over HTTP: what is committed is told to who may know it, and what cannot be told is said to be missing."""

import json
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from attune.api.routes.streams import READ
from attune.bus.messages import Entity, NotificationType
from attune.database.embedded import Cluster
from attune.live import views
from tests.api.sites import PASSWORD, Site, bearer, new_database, new_folder, site_on
from tests.api.streams import Stream, stream_of
from tests.api.wires import request, wire_to
from tests.support.clock import VirtualClock
from tests.support.waiting import eventually

SOLD = {"trigger_ref": "shop.sold", "payload": {"item": "tea"}}
RULE = {"pack_ref": "shop", "label": "Rule", "trigger_ref": "shop.sold", "action_ref": "core.noop"}


async def make_rule(site: Site, ref: str, **fields: Any) -> Any:
    return await site.data("POST", "/api/v1/rules", json={"ref": ref, **RULE, **fields})


async def run(site: Site, action: str = "core.noop") -> int:
    """An execution that was asked for."""
    made = await site.data("POST", "/api/v1/executions/execute", json={"action_ref": action})
    number: int = made["id"]
    return number


async def tell(site: Site, kind: NotificationType, number: int, **payload: Any) -> None:
    """Commit that something became of an entity."""
    async with site.serving.engine.bus.transaction() as transaction:
        transaction.notify(kind, number, payload)


async def refused(site: Site, *, local: bool = True, headers: dict[str, str] | None = None, **query: Any) -> Any:
    """The status and the text of the answer to somebody who gets no stream."""
    async with stream_of(site, local=local, headers=headers, **query) as stream:
        answer = json.loads(await stream.response.aread())
        problems = (one["detail"] for one in answer.get("errors", ()))
        return stream.response.status_code, answer["detail"] + "".join(problems)


async def test_everything_that_becomes_of_an_event_is_told_in_its_order(site: Site) -> None:
    await make_rule(site, "shop.told")
    async with stream_of(site, ref="shop.told,shop.sold") as stream:
        await stream.until("reset")
        event = await site.data("POST", "/api/v1/events", json=SOLD)
        end = await stream.until("execution_status_changed", status="completed")

    told = {one.name: one.data for one in reversed(stream.seen)}
    of_rule = [(one.name, one.data.get("status")) for one in stream.seen if one.data.get("rule_ref") == "shop.told"]
    assert of_rule == [
        ("enforcement_created", "created"),
        ("execution_created", "requested"),
        ("enforcement_status_changed", "processed"),
        ("execution_status_changed", "scheduled"),
        ("execution_status_changed", "running"),
        ("execution_status_changed", "completed"),
    ]
    assert told["event_created"] == {
        "entity_type": "event",
        "entity_id": event["id"],
        "id": event["id"],
        "trigger": told["event_created"]["trigger"],
        "trigger_ref": "shop.sold",
        "source_ref": "api",
        "rule": None,
        "rule_ref": None,
        "has_payload": True,
        "created": event["created"],
    }
    examined = told["event_examined"]
    assert (examined["id"], examined["looked_at"], examined["matched"], examined["failed"]) == (event["id"], 1, 1, 0)
    assert told["enforcement_created"]["event"] == event["id"]
    row = await site.data("GET", f"/api/v1/executions/{end.data['id']}")
    assert end.data == {
        "entity_type": "execution",
        "entity_id": row["id"],
        "id": row["id"],
        "action_id": row["action"],
        "action_ref": "core.noop",
        "status": "completed",
        "old_status": "running",
        "enforcement": row["enforcement"],
        "rule_ref": "shop.told",
        "trigger_ref": "shop.sold",
        "parent": None,
        "started_at": row["started_at"],
        "finished_at": row["finished_at"],
        "error": None,
        "created": row["created"],
        "updated": row["updated"],
    }
    await site.ask("DELETE", "/api/v1/rules/shop.told")


async def test_rules_are_told_as_they_change(site: Site) -> None:
    async with stream_of(site, entity="rule", ref="shop.changing") as stream:
        await stream.until("reset")
        await make_rule(site, "shop.changing")
        await site.ask("POST", "/api/v1/rules/shop.changing/disable")
        await site.ask("DELETE", "/api/v1/rules/shop.changing")
        await stream.until("rule_deleted")

    # A transaction that began before anybody looked is another reason to read again.
    told = [one for one in stream.seen if one.name != "reset"]
    changes = [(one.name, one.data["ref"], one.data["enabled"]) for one in told]
    assert changes == [
        ("rule_created", "shop.changing", True),
        ("rule_disabled", "shop.changing", False),
        ("rule_deleted", "shop.changing", False),
    ]


async def test_nothing_is_told_before_its_commit_nor_of_what_was_rolled_back(site: Site) -> None:
    async with stream_of(site, entity="rule") as stream:
        await stream.until("reset")
        with anyio.CancelScope() as scope:
            async with site.serving.engine.bus.transaction() as transaction:
                transaction.notify(NotificationType.RULE_CREATED, 1, {})
                scope.cancel()
                await anyio.lowlevel.checkpoint()
        async with site.serving.engine.bus.transaction() as transaction:
            transaction.notify(NotificationType.RULE_CREATED, 2, {})
            await tell(site, NotificationType.RULE_CREATED, 3)
            await stream.until("rule_created")
        await stream.until("rule_created", id=2)

    assert [one.data.get("id") for one in stream.seen[1:]] == [3, 2]


async def test_what_began_before_somebody_looked_makes_them_read_again(cluster: Cluster, base: Path) -> None:
    """Who begins while nobody looks tells nothing: the first reader must not take that for silence."""
    async with (
        new_database(cluster) as dsn,
        site_on(dsn, new_folder(base)) as site,
        site.serving.engine.bus.transaction() as transaction,
        stream_of(site) as stream,
    ):
        await stream.until("reset")
        transaction.notify(NotificationType.RULE_CREATED, 1, {})
        before = stream.last_id
        await transaction.connection.execute("SELECT 1")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.until, "reset")
            # The block of the transaction would end only after this one.
            with anyio.CancelScope(shield=True):
                await transaction.flush(transaction.now)
                await transaction.commit()
                await transaction.connection.execute("BEGIN")
        assert stream.last_id != before


FILTERS = [
    ({}, [1, 2, 3, 4, 5]),
    ({"entity": "event"}, [1]),
    ({"entity": "execution,event"}, [1, 2, 3]),
    ({"id": "2,5"}, [2, 5]),
    ({"id": "2", "entity": "rule"}, []),
    ({"ref": "a.rule"}, [2, 4]),
    # An action, a trigger and a rule.
    ({"ref": "an.action,a.trigger,the.rule"}, [1, 3, 5]),
    ({"status": "failed,processed"}, [3, 4]),
    ({"status": "failed", "ref": "a.rule"}, []),
]


@pytest.mark.parametrize(("query", "expected"), FILTERS, ids=[str(row[0]) for row in FILTERS])
async def test_a_reader_gets_what_fits_all_of_its_filters(
    site: Site, query: dict[str, Any], expected: list[int]
) -> None:
    async with stream_of(site, **query) as stream, stream_of(site, entity="rule", id="9") as other:
        await stream.until("reset")
        await other.until("reset")
        await tell(site, NotificationType.EVENT_CREATED, 1, trigger_ref="a.trigger", rule_ref=None)
        await tell(site, NotificationType.EXECUTION_CREATED, 2, rule_ref="a.rule", status="requested")
        await tell(site, NotificationType.EXECUTION_STATUS_CHANGED, 3, action_ref="an.action", status="failed")
        await tell(site, NotificationType.ENFORCEMENT_STATUS_CHANGED, 4, rule_ref="a.rule", status="processed")
        await tell(site, NotificationType.RULE_UPDATED, 5, ref="the.rule")
        await tell(site, NotificationType.RULE_UPDATED, 9, ref="the.end")
        await other.until("rule_updated")
        # What this one gets was passed on before that.
        got = [one.data["id"] for one in await until_id(stream, expected)]

    assert got == expected


async def until_id(stream: Stream, expected: list[int]) -> list[Any]:
    """The events after the first, when there are as many as expected."""
    while len(stream.seen) <= len(expected):
        await stream.next()
    return stream.seen[1:]


REFUSED = [
    ({"entity": "events"}, "does not know events; it takes event, enforcement"),
    ({"status": "done"}, "does not know done; it takes created"),
    ({"status": "created", "entity": "execution"}, "does not know created; it takes requested"),
    ({"status": "created", "entity": "event"}, "does not know created; it takes nothing here"),
    ({"id": "x"}, "pattern"),
    ({"ref": "a,,b"}, "pattern"),
    ({"token": "secret"}, "is unknown"),
]


@pytest.mark.parametrize(("query", "text"), REFUSED, ids=[str(row[0]) for row in REFUSED])
async def test_a_filter_that_nothing_can_fit_is_refused(site: Site, query: dict[str, Any], text: str) -> None:
    status, said = await refused(site, **query)

    assert (status, text in said) == (422, True), said


async def test_who_comes_back_gets_what_it_missed_and_nothing_twice(site: Site) -> None:
    async with stream_of(site, entity="rule") as stream:
        await stream.until("reset")
        await tell(site, NotificationType.RULE_CREATED, 1)
        await stream.until("rule_created")
    await tell(site, NotificationType.RULE_UPDATED, 2)
    await tell(site, NotificationType.EVENT_CREATED, 3)
    async with stream_of(site, entity="rule", last=stream.last_id) as again:
        await tell(site, NotificationType.RULE_DELETED, 4)
        await again.until("rule_deleted")

    assert [(one.name, one.data["id"]) for one in again.seen] == [("rule_updated", 2), ("rule_deleted", 4)]


@pytest.mark.parametrize("last", ["", "x", "12", "0123456789ab-1", "{boot}-999999999", "{boot}-x", "{boot}-"])
async def test_who_comes_from_elsewhere_has_to_read_again(site: Site, last: str) -> None:
    """From another run of the server, or with what is no position at all."""
    boot = site.serving.engine.live.position.rpartition("-")[0]
    async with stream_of(site, last=last.format(boot=boot)) as stream:
        first = await stream.until("reset")

    assert first.id == site.serving.engine.live.position


class Follower:
    """Holds the states of executions. Where it stands is what it has worked off, not what it has heard."""

    def __init__(self, site: Site) -> None:
        self.states: dict[int, str] = {}
        self.resets = 0
        self.last: str | None = None
        self._site = site

    async def follow(self, stream: Stream) -> None:
        """Work off one event."""
        event = await stream.next()
        assert event is not None
        if event.name == "reset":
            self.states = await self.read()
            self.resets += 1
        else:
            self.states[event.data["id"]] = event.data["status"]
        self.last = event.id

    async def read(self) -> dict[int, str]:
        """The states as they are."""
        rows = await self._site.data("GET", "/api/v1/executions", params={"page_size": 1000})
        return {row["id"]: row["status"] for row in rows}


async def test_a_client_that_is_cut_off_a_hundred_times_misses_nothing_that_it_does_not_read_again(site: Site) -> None:
    chance, follower, done = Random(7), Follower(site), anyio.Event()

    async def work() -> None:
        for _ in range(60):
            await run(site)
        done.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        for number in range(100):
            # One in twenty comes from an earlier run of the server, as far as it knows.
            last = None if number % 20 == 0 else follower.last
            async with stream_of(site, entity="execution", last=last) as stream:
                with anyio.move_on_after(chance.random() / 20):
                    for _ in range(chance.randrange(1, 12)):
                        await follower.follow(stream)
    await done.wait()
    async with stream_of(site, entity="execution", last=follower.last) as stream:
        with anyio.move_on_after(20):
            while follower.states != await follower.read() or set(follower.states.values()) != {"completed"}:
                await follower.follow(stream)

    assert follower.states == await follower.read()
    assert 1 <= follower.resets <= 10


async def test_the_stream_of_executions_is_that_of_the_contract(site: Site) -> None:
    """Without names of events, and of one execution if it is asked for."""
    path = "/api/v1/executions/stream"
    async with stream_of(site, path) as all_of_them, stream_of(site, path, execution_id=999_999) as other:
        await all_of_them.until("reset")
        await other.until("reset")
        number = await run(site)
        await all_of_them.until("message", status="completed", id=number)
        async with stream_of(site, path, execution_id=number, last=all_of_them.seen[0].id) as one:
            await one.until("message", status="completed")
        assert other.seen == other.seen[:1]

    assert [(event.data["entity_type"], event.data["entity_id"]) for event in one.seen] == [("execution", number)] * 4
    assert [event.data.get("old_status") for event in one.seen] == [None, "requested", "scheduled", "running"]


async def test_a_head_of_a_stream_has_an_end(site: Site) -> None:
    answer = await site.local.head("/api/v1/stream")

    assert answer.headers["Content-Type"].startswith("text/event-stream")


def test_a_right_is_asked_for_everything_that_is_told() -> None:
    assert READ.keys() == set(Entity)


async def test_nobody_is_told_of_what_they_may_not_read(cluster: Cluster, base: Path) -> None:
    """Anonymous readers: of no dead letter. Who is known and has no right: of nothing. A page of another site: neither,
    whoever looks at it. A token in the address is none."""
    settings = {"auth": {"anonymous": "read"}}
    async with new_database(cluster) as dsn, site_on(dsn, new_folder(base), settings) as site:
        await site.identity("guest")
        guest = bearer((await site.tokens("guest"))["access_token"])
        async with stream_of(site, local=False) as stream:
            await stream.until("reset")
            await tell(site, NotificationType.DEAD_LETTER_CREATED, 1)
            await tell(site, NotificationType.RULE_CREATED, 2)
            await stream.until("rule_created")
        assert len(stream.seen) == 2
        assert (await refused(site, local=False, entity="dead_letter"))[0] == 401
        assert (await refused(site, local=False, headers=guest))[0] == 403
        assert (await refused(site, headers={"Origin": "https://evil.example"}))[0] == 403
        assert (await refused(site, headers={"Sec-Fetch-Site": "cross-site"}))[0] == 403


async def test_a_reader_without_a_token_is_refused(site: Site) -> None:
    assert (await refused(site, local=False))[0] == 401


async def test_a_stream_ends_with_the_right_to_read_it(cluster: Cluster, base: Path) -> None:
    """When the token is revoked, and when it expires."""
    clock = VirtualClock()
    async with new_database(cluster) as dsn, site_on(dsn, new_folder(base), clock=clock) as site:
        for end, text in (("revoked", "was revoked"), ("expired", "has expired")):
            await site.identity("admin")
            token = bearer((await site.tokens("admin"))["access_token"])
            async with stream_of(site, local=False, headers=token) as stream, stream_of(site) as other:
                await stream.until("reset")
                await other.until("reset")
                await beat(clock)
                if end == "revoked":
                    await site.data("PUT", "/api/v1/identities/admin/password", json={"password": PASSWORD})
                else:
                    clock.advance(3600)
                await beat(clock)
                ended = await stream.until("error")
                assert text in ended.data["error"]
                assert await stream.next() is None
                await tell(site, NotificationType.RULE_CREATED, 1)
                await other.until("rule_created")


async def beat(clock: VirtualClock) -> None:
    """Let as much time pass as it takes until every reader has heard of the server."""
    for _ in range(views.PULSE + 1):
        clock.advance(1)
        await anyio.sleep(0.02)


async def test_a_stream_that_has_nothing_to_tell_shows_that_it_is_there(cluster: Cluster, base: Path) -> None:
    """And where it is: what a reader did not want it has not missed."""
    clock = VirtualClock()
    async with (
        new_database(cluster) as dsn,
        site_on(dsn, new_folder(base), clock=clock) as site,
        stream_of(site, entity="rule") as stream,
    ):
        first = await stream.until("reset")
        await tell(site, NotificationType.EVENT_CREATED, 1)
        await beat(clock)
        await tell(site, NotificationType.RULE_CREATED, 2)
        await beat(clock)
        second = await stream.until("rule_created")

    assert stream.comments
    assert first.id != second.id


async def test_a_stop_ends_every_stream_and_says_so(cluster: Cluster, base: Path) -> None:
    async with new_database(cluster) as dsn, AsyncExitStack() as streams:
        async with site_on(dsn, new_folder(base)) as site:
            stream = await streams.enter_async_context(stream_of(site))
            await stream.until("reset")
        ended = await stream.until("error")

        assert ended.data == {"error": "Attune is stopping."}
        assert await stream.next() is None


async def test_who_does_not_read_is_cut_and_told_why_and_the_others_notice_nothing(site: Site) -> None:
    cut = metric(site, "attune_stream_cut_total")
    token = await administrator(site)
    async with wire_to(site.serving.about.url) as wire, stream_of(site, id="1") as other:
        await other.until("reset")
        await wire.send(request("GET /api/v1/stream", f"Authorization: {token}"))
        await eventually(lambda: metric(site, "attune_stream_readers") == 2)
        while metric(site, "attune_stream_cut_total") == cut:
            async with site.serving.engine.bus.transaction() as transaction:
                for _ in range(2_000):
                    transaction.notify(NotificationType.EVENT_CREATED, 2, {"text": "x" * 1000})
            await anyio.sleep(0.01)
        await tell(site, NotificationType.RULE_CREATED, 1)
        await other.until("rule_created")
        heard = await wire.hears_the_end()

    assert b"event: error\n" in heard[-1000:]
    assert views.End.SLOW.encode() in heard[-1000:]
    await eventually(lambda: metric(site, "attune_stream_readers") == 0)


async def test_who_is_behind_for_a_while_gets_everything_in_its_order(site: Site) -> None:
    """Its connection is full now and then; nothing is lost for that."""
    count = 1_500
    async with stream_of(site, entity="event") as stream:
        await stream.until("reset")
        for number in range(1, count + 1):
            await tell(site, NotificationType.EVENT_CREATED, number, text="x" * 1000)
            if number % 500 == 0:
                await stream.until("event_created")
        while len(stream.seen) <= count:
            await stream.until("event_created")

    assert [event.data["id"] for event in stream.seen[1:]] == [*range(1, count + 1)]


async def administrator(site: Site) -> str:
    """What the administrator sends as Authorization over TCP."""
    await site.identity("admin")
    return bearer((await site.tokens("admin"))["access_token"])["Authorization"]


async def test_whose_connection_takes_nothing_is_hung_up_on(cluster: Cluster, base: Path) -> None:
    """Nobody waits for a client that is gone without a word."""
    clock = VirtualClock()
    async with new_database(cluster) as dsn, site_on(dsn, new_folder(base), clock=clock) as site:
        token = await administrator(site)
        async with wire_to(site.serving.about.url) as wire:
            await wire.send(request("GET /api/v1/stream", f"Authorization: {token}"))
            await eventually(lambda: metric(site, "attune_stream_readers") == 1)
            for _ in range(9):
                async with site.serving.engine.bus.transaction() as transaction:
                    for number in range(1_000):
                        transaction.notify(NotificationType.EVENT_CREATED, number, {"text": "x" * 1000})
                clock.advance(1)
                await anyio.sleep(0.02)
            for _ in range(3):
                await beat(clock)
            await eventually(lambda: metric(site, "attune_stream_readers") == 0)
            assert metric(site, "attune_stream_cut_total") == 1
            assert b"event: error" not in await wire.hears_the_end()


async def test_too_many_readers_are_told_to_come_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MOST_READERS", 1)
    async with stream_of(site) as stream:
        await stream.until("reset")
        status, said = await refused(site)

    assert (status, said[:15]) == (503, "1 read already.")


async def test_nothing_is_told_or_kept_while_nobody_looks(cluster: Cluster, base: Path) -> None:
    """And who comes back later than that has to read again."""
    clock = VirtualClock()
    async with new_database(cluster) as dsn, site_on(dsn, new_folder(base), clock=clock) as site:
        engine = site.serving.engine

        def published() -> int:
            return engine.bus.counters.messages["NotificationCreated"]

        await make_rule(site, "shop.unseen")
        assert published() == 0
        async with stream_of(site) as stream:
            await stream.until("reset")
            await make_rule(site, "shop.seen")
            await stream.until("rule_created")
        assert published() == 1
        while engine.bus.watched:
            await beat(clock)
        await make_rule(site, "shop.unseen_again")
        assert published() == 1
        async with stream_of(site, last=stream.last_id) as again:
            assert "is not kept" in (await again.until("reset")).data["reason"]


def metric(site: Site, name: str) -> float:
    """A metric of live views, summed up."""
    return sum(
        sample.value for one in site.serving.engine.live.collect() for sample in one.samples if sample.name == name
    )
