"""Too much waits, or the disk is nearly full: what comes from outside is refused and can be sent again later, and what
is inside goes on."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
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
from tests.support.waiting import until

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

    async with waiting(site, LIMIT + 50):
        answers = [
            await site.ask("POST", EVENTS, json=EVENT),
            await site.ask("POST", EXECUTE, json=EXECUTION),
            await site.ask("POST", f"/api/v1/executions/{done['id']}/rerun", json={}),
        ]

    for answer in answers:
        # And perhaps what the tests before this one have asked for.
        assert re.match(r"1,0\d\d deliveries wait", refused(answer))
    assert await numbers(site) == before
    assert (await site.ask("POST", EVENTS, json=EVENT)).status_code == 201


@pytest.mark.parametrize(("path", "body"), [(EVENTS, EVENT), (EXECUTE, EXECUTION)])
async def test_a_request_that_was_refused_leaves_its_key_free(site: Site, path: str, body: dict[str, Any]) -> None:
    headers = {"Idempotency-Key": f"key {next(_keys)}"}

    async with waiting(site, LIMIT + 50):
        refused(await site.ask("POST", path, json=body, headers=headers))
    answer = await site.ask("POST", path, json=body, headers=headers)

    assert answer.status_code == 201
    assert "Idempotency-Replayed" not in answer.headers


@pytest.mark.parametrize(("path", "body"), [(EVENTS, EVENT), (EXECUTE, EXECUTION)])
async def test_who_was_accepted_before_is_told_so_again(site: Site, path: str, body: dict[str, Any]) -> None:
    headers = {"Idempotency-Key": f"key {next(_keys)}"}
    accepted = await site.data("POST", path, json=body, headers=headers)

    async with waiting(site, LIMIT + 50):
        again = await site.data("POST", path, json=body, headers=headers)

    assert again == accepted


async def test_it_opens_when_a_tenth_less_waits_and_not_before(site: Site) -> None:
    async with waiting(site, 950):
        async with waiting(site, 100):
            refused(await site.ask("POST", EVENTS, json=EVENT))
        refused(await site.ask("POST", EVENTS, json=EVENT))

    assert (await site.ask("POST", EVENTS, json=EVENT)).status_code == 201


async def test_it_can_be_seen_and_the_server_is_ready_all_the_same(site: Site) -> None:
    before = Scrape((await site.remote.get("/metrics")).content)
    async with waiting(site, LIMIT + 50), commands_of(site.place.data) as attune:
        refused(await site.ask("POST", EVENTS, json=EVENT))
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
    assert re.search(r"\nnothing is taken from outside:\n  1,0\d\d deliveries wait", told)
    assert (emitted.returncode, "deliveries wait already" in emitted.stderr) == (3, True)
    assert ready.status_code == 200


MB = 1_000_000


@dataclass
class Disk:
    """A disk that is as full as a test wants it."""

    free: int = 900 * MB

    def __call__(self, _: Path) -> int:
        return self.free


async def test_with_too_little_room_nothing_is_taken_and_the_server_is_not_ready(cluster: Cluster, base: Path) -> None:
    disk, settings = Disk(), {"metrics": {"public": True}}
    async with new_database(cluster) as dsn, site_on(dsn, new_folder(base), settings, free=disk) as site:
        done = await site.data("POST", f"{EXECUTE}?wait=30", json=EXECUTION)
        disk.free = 499 * MB
        await site.serving.engine.storage.look()
        answers = [
            await site.ask("POST", EVENTS, json=EVENT),
            await site.ask("POST", EXECUTE, json=EXECUTION),
            await site.ask("POST", f"/api/v1/executions/{done['id']}/rerun", json={}),
        ]
        ready, detailed = [await site.remote.get(f"/health/{one}") for one in ("ready", "detailed")]
        full = Scrape((await site.remote.get("/metrics")).content)
        status = await site.data("GET", "/api/v1/system/status")
        findings = (await site.data("GET", "/api/v1/system/doctor"))["findings"]
        async with commands_of(site.place.data) as attune:
            told = (await attune("status")).stdout
        disk.free = 551 * MB
        await site.serving.engine.storage.look()
        after = await site.ask("POST", EVENTS, json=EVENT)
        ready_after = await site.remote.get("/health/ready")

    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (503, "STORAGE_FULL")
        assert int(answer.headers["Retry-After"]) > 1
        assert f"Only 499 MB are free for {site.place.data}, and storage.min_free is 500 MB." in answer.json()["detail"]
    assert (ready.status_code, detailed.status_code) == (503, 503)
    # Everybody may ask: where the data lies is nothing for them.
    assert "disk" in detailed.json()["checks"]["storage"]
    assert str(site.place.data) not in detailed.text
    assert full["attune_ingress_closed"] == {("storage",): 1, ("backlog",): 0}
    assert full["attune_ingress_refused_total"] == {("storage",): 3, ("backlog",): 0}
    assert full["attune_storage_free_bytes"] == {(): 499 * MB}
    assert status["storage"] == {"free": 499 * MB, "min_free": 500 * MB}
    assert "499 MB are free" in told
    assert "nothing is taken from outside:" in told
    assert [one["level"] for one in findings if one["check"] == "ingress"] == ["problem"]
    assert (after.status_code, ready_after.status_code) == (201, 200)


async def test_a_database_elsewhere_that_has_no_room_closes_the_way_in_for_a_while(
    cluster: Cluster, base: Path
) -> None:
    async with new_database(cluster) as dsn, site_on(dsn, new_folder(base)) as site:
        await site.sql(
            """
            CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = '53100'; END $$
            """
        )
        await site.sql("CREATE TRIGGER fill BEFORE INSERT ON attune.event FOR EACH ROW EXECUTE FUNCTION fill()")
        first = await site.ask("POST", EVENTS, json=EVENT)
        await site.sql("DROP TRIGGER fill ON attune.event")
        second = await site.ask("POST", EVENTS, json=EVENT)

    for answer in (first, second):
        assert (answer.status_code, answer.json()["code"]) == (503, "STORAGE_FULL")
        assert answer.headers["Retry-After"] == "10"


async def test_a_database_without_room_is_no_failed_attempt_of_what_is_inside(cluster: Cluster, base: Path) -> None:
    async with new_database(cluster) as dsn, site_on(dsn, new_folder(base)) as site:
        # Twice the matcher has no room.
        await site.sql("CREATE SEQUENCE filled")
        await site.sql(
            """
            CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF nextval('filled') < 3 THEN
                    RAISE EXCEPTION 'No space left on device' USING ERRCODE = '53100';
                END IF;
                RETURN NEW;
            END $$
            """
        )
        await site.sql("CREATE TRIGGER fill BEFORE INSERT ON attune.event_match FOR EACH ROW EXECUTE FUNCTION fill()")

        event = await site.data("POST", EVENTS, json=EVENT)
        trace = await until(lambda: _trace(site, event["id"]))
        answer = await site.ask("POST", EVENTS, json=EVENT)

    assert trace == [(1, "done")]
    assert (answer.status_code, answer.json()["code"]) == (503, "STORAGE_FULL")


async def _trace(site: Site, event: int) -> list[tuple[int, str]] | None:
    """What became of the attempts at an event, when it was matched."""
    if not await site.sql("SELECT FROM attune.event_match WHERE event = $1", event):
        return None
    return [(row["attempt"], row["outcome"]) for row in await site.sql("SELECT attempt, outcome FROM attune.trace")]
