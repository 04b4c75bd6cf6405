"""Idempotency-Key: whatever becomes of a request and its answer, it can be sent again, and is carried out once."""

from collections import Counter
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from starlette.requests import Request

from attune.access.model import Caller, How
from attune.api.endpoints import NoQuery
from attune.api.idempotency import key_of
from attune.api.routes.events import CreateEventBody
from attune.database.embedded import Cluster
from tests.api.routes import ENDPOINTS
from tests.api.sites import Site, bearer, new_database, new_folder, site_on
from tests.bus.proxy import Failure, proxy_to
from tests.support.clock import VirtualClock
from tests.support.waiting import eventually, until

EVENTS, EXECUTE = "/api/v1/events", "/api/v1/executions/execute"
EVENT = {"trigger_ref": "shop.sold", "payload": {"b": 1, "aa": 2.0}}
EXECUTION = {"action_ref": "core.echo", "parameters": {"message": "hi"}}
ROUTES = [(EVENTS, EVENT, "event"), (EXECUTE, EXECUTION, "execution")]
DAY = 24 * 60 * 60

_keys = count(1)


def new_key() -> str:
    """A key that no other test has."""
    return f"key {next(_keys)}"


async def post(site: Site, path: str, body: dict[str, Any], key: str, **arguments: Any) -> httpx2.Response:
    return await site.ask("POST", path, json=body, headers={"Idempotency-Key": key}, **arguments)


def first(answer: httpx2.Response) -> Any:
    """The data of the answer to a request that was carried out."""
    assert answer.status_code == 201, answer.text
    assert "Idempotency-Replayed" not in answer.headers
    return answer.json()["data"]


def again(answer: httpx2.Response) -> Any:
    """The data of the answer to a request that had been carried out before."""
    assert answer.status_code == 201, answer.text
    assert answer.headers["Idempotency-Replayed"] == "true"
    return answer.json()["data"]


def refusal(answer: httpx2.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["detail"])


async def number_of(site: Site, table: str) -> int:
    (row,) = await site.sql(f"SELECT count(*) AS number FROM attune.{table}")
    return int(row["number"])


@pytest.mark.parametrize(("path", "body", "table"), ROUTES)
async def test_the_same_request_again_has_the_first_answer_and_does_nothing(
    site: Site, path: str, body: dict[str, Any], table: str
) -> None:
    key, before = new_key(), await number_of(site, table)

    answers = [await post(site, path, body, key) for _ in range(3)]

    assert first(answers[0])["id"] == again(answers[1])["id"] == again(answers[2])["id"]
    assert answers[0].content == answers[1].content == answers[2].content
    assert answers[0].headers["Content-Type"] == answers[1].headers["Content-Type"]
    assert await number_of(site, table) == before + 1


async def test_an_answer_stays_as_it_was_when_the_execution_goes_on(site: Site) -> None:
    key = new_key()
    started = first(await post(site, EXECUTE, EXECUTION, key))
    ended = await site.data("GET", f"/api/v1/executions/{started['id']}?wait=30")

    assert ended["status"] == "completed"
    assert again(await post(site, EXECUTE, EXECUTION, key)) == started


# Bodies and queries that mean the same as these.
SAME: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    (EVENTS, EVENT, EVENTS, {"payload": {"aa": 2.0, "b": 1}, "trigger_ref": "shop.sold"}),
    (EVENTS, EVENT, EVENTS, {"payload": EVENT["payload"], "trigger_type": "shop.sold"}),
    (EVENTS, EVENT, EVENTS, {**EVENT, "config": None}),
    (EXECUTE, {"action_ref": "core.noop"}, f"{EXECUTE}?wait=0", {"action_ref": "core.noop", "parameters": {}}),
]


@pytest.mark.parametrize(("path", "body", "path_again", "body_again"), SAME, ids=str)
async def test_a_request_is_the_same_however_it_is_written(
    site: Site, path: str, body: dict[str, Any], path_again: str, body_again: dict[str, Any]
) -> None:
    key = new_key()
    made = first(await post(site, path, body, key))

    assert again(await post(site, path_again, body_again, key)) == made


async def test_a_release_that_knows_more_fields_takes_a_request_for_the_same() -> None:
    class NewerBody(CreateEventBody):
        priority: int = 1

    (endpoint,) = (one for one in ENDPOINTS if one.replay and one.path == EVENTS)
    request = Request({"type": "http", "method": "POST", "path": EVENTS, "headers": [(b"idempotency-key", b"k")]})
    caller = Caller(How.LOCAL, None)

    older, newer = [
        key_of(request, endpoint, caller, NoQuery(), model.model_validate(EVENT))
        for model in (CreateEventBody, NewerBody)
    ]

    assert older is not None
    assert older == newer


# What makes it another request.
OTHER: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    (EVENTS, EVENT, EVENTS, {**EVENT, "payload": {"b": 1, "aa": 3.0}}),
    (EVENTS, EVENT, EVENTS, {**EVENT, "payload": {"b": True, "aa": 2.0}}),
    (EVENTS, EVENT, EVENTS, {**EVENT, "config": {}}),
    (EXECUTE, EXECUTION, EXECUTE, {**EXECUTION, "parameters": {}}),
    (EXECUTE, EXECUTION, f"{EXECUTE}?wait=1", EXECUTION),
]


@pytest.mark.parametrize(("path", "body", "path_after", "body_after"), OTHER, ids=str)
async def test_another_request_with_the_same_key_is_refused_and_does_nothing(
    site: Site, path: str, body: dict[str, Any], path_after: str, body_after: dict[str, Any]
) -> None:
    key = new_key()
    made = first(await post(site, path, body, key))
    before = [await number_of(site, table) for table in ("event", "execution")]

    assert "give each request a key of its own" in refusal(await post(site, path_after, body_after, key), 422)

    assert [await number_of(site, table) for table in ("event", "execution")] == before
    assert again(await post(site, path, body, key)) == made


async def test_a_key_belongs_to_who_sent_it_and_to_the_route(site: Site) -> None:
    key, made = new_key(), []
    for login in ("ann", "ben"):
        await site.identity(login, administrator=True)
        headers = {**bearer((await site.tokens(login))["access_token"]), "Idempotency-Key": key}
        made.append(first(await site.remote.post(EVENTS, json=EVENT, headers=headers))["id"])
        assert again(await site.remote.post(EVENTS, json=EVENT, headers=headers))["id"] == made[-1]
    made.append(first(await post(site, EVENTS, EVENT, key))["id"])
    first(await post(site, EXECUTE, EXECUTION, key))

    assert len(set(made)) == 3


@pytest.mark.parametrize(("path", "body", "table"), ROUTES)
async def test_of_ten_requests_with_one_key_at_the_same_time_one_is_carried_out(
    site: Site, path: str, body: dict[str, Any], table: str
) -> None:
    key, before, answers = new_key(), await number_of(site, table), list[httpx2.Response]()

    async def ask() -> None:
        answers.append(await post(site, path, body, key))

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(ask)

    statuses = Counter(answer.status_code for answer in answers)
    assert statuses.keys() <= {201, 409}
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers if answer.is_success) == 1
    assert len({answer.content for answer in answers if answer.is_success}) == 1
    assert await number_of(site, table) == before + 1


RUNNING = "SELECT id FROM attune.execution WHERE status = 'running' AND action_ref = 'core.sleep'"


async def test_while_the_first_request_is_under_way_others_are_told_to_wait(site: Site) -> None:
    key, body = new_key(), {"action_ref": "core.sleep", "parameters": {"seconds": 600}}
    answers: list[httpx2.Response] = []

    async def ask() -> None:
        answers.append(await post(site, f"{EXECUTE}?wait=30", body, key))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        (row,) = await until(lambda: _rows(site, RUNNING))
        assert "still under way" in refusal(await post(site, f"{EXECUTE}?wait=30", body, key), 409)
        await site.data("POST", f"/api/v1/executions/{row['id']}/cancel")

    assert first(answers[0])["status"] == "cancelled"
    assert again(await post(site, f"{EXECUTE}?wait=30", body, key)) == answers[0].json()["data"]


async def _rows(site: Site, statement: str) -> Any:
    return await site.sql(statement) or None


async def test_a_request_that_was_refused_leaves_its_key_free(site: Site) -> None:
    key = new_key()
    refusal(await post(site, EVENTS, {"trigger_ref": "shop.none"}, key), 404)
    refusal(await post(site, EVENTS, {"trigger_ref": "shop.closed"}, key), 409)
    refusal(await post(site, EVENTS, {"trigger_ref": "shop.typed"}, key), 422)

    first(await post(site, EVENTS, EVENT, key))


KEYS_THAT_ARE_NONE: list[list[bytes]] = [[b""], [b"x" * 256], [b"caf\xc3\xa9"], [b"a\tb"], [b"one", b"two"]]


@pytest.mark.parametrize("keys", KEYS_THAT_ARE_NONE, ids=lambda keys: repr(keys)[:30])
async def test_a_key_that_is_none_is_refused_and_nothing_is_done(site: Site, keys: list[bytes]) -> None:
    before = await number_of(site, "event")

    answer = await site.ask("POST", EVENTS, json=EVENT, headers=[(b"Idempotency-Key", key) for key in keys])

    assert "Idempotency-Key" in refusal(answer, 422)
    assert await number_of(site, "event") == before


async def test_a_key_may_have_255_characters_of_any_printable_kind(site: Site) -> None:
    key = "".join(map(chr, range(0x21, 0x7F))).ljust(255, "x")

    assert first(await post(site, EVENTS, EVENT, key)) == again(await post(site, EVENTS, EVENT, key))


async def test_a_body_as_deep_as_a_body_may_be_has_a_key_too(site: Site) -> None:
    payload: Any = 1
    for _ in range(198):
        payload = [payload]
    body, key = {"trigger_ref": "shop.sold", "payload": payload}, new_key()

    assert first(await post(site, EVENTS, body, key)) == again(await post(site, EVENTS, body, key))


# As a process leaves it that is killed between the commit and the answer.
FORGET_THE_ANSWER = "UPDATE attune.idempotency_key SET answer = NULL WHERE key = $1"


async def test_without_a_first_answer_the_next_one_shows_what_was_made_as_it_is_now(site: Site) -> None:
    key = new_key()
    started = first(await post(site, EXECUTE, EXECUTION, key))
    ended = await site.data("GET", f"/api/v1/executions/{started['id']}?wait=30")
    await site.sql(FORGET_THE_ANSWER, key)

    assert again(await post(site, EXECUTE, EXECUTION, key)) == ended
    # From now on this is the first answer.
    await site.sql("UPDATE attune.execution SET status = 'failed' WHERE id = $1", started["id"])
    assert again(await post(site, EXECUTE, EXECUTION, key)) == ended


async def test_without_a_first_answer_an_event_is_shown_though_its_trigger_is_off_by_now(site: Site) -> None:
    key = new_key()
    made = first(await post(site, EVENTS, EVENT, key))
    await site.sql(FORGET_THE_ANSWER, key)
    trigger = site.serving.engine.definitions.triggers.by_ref
    on = trigger["shop.sold"]
    trigger["shop.sold"] = replace(on, enabled=False)
    try:
        refusal(await post(site, EVENTS, EVENT, new_key()), 409)
        assert again(await post(site, EVENTS, EVENT, key)) == made
    finally:
        trigger["shop.sold"] = on


@pytest.mark.parametrize(("path", "body", "table"), ROUTES)
async def test_without_an_answer_and_without_what_was_made_nothing_is_made_anew(
    site: Site, path: str, body: dict[str, Any], table: str
) -> None:
    key = new_key()
    made = first(await post(site, path, body, key))
    if table == "execution":
        await site.data("GET", f"/api/v1/executions/{made['id']}?wait=30")
    await site.sql(FORGET_THE_ANSWER, key)
    await site.sql(f"DELETE FROM attune.{table} WHERE id = $1", made["id"])

    assert refusal(await post(site, path, body, key), 404) == f"There is no {table} {made['id']}."
    assert await site.sql(f"SELECT FROM attune.{table} WHERE id > $1", made["id"]) == []


async def test_a_key_outlives_the_server(cluster: Cluster, base: Path) -> None:
    key, folder = new_key(), new_folder(base)
    async with new_database(cluster) as dsn:
        async with site_on(dsn, folder) as site:
            made = first(await post(site, EVENTS, EVENT, key))
        async with site_on(dsn, folder) as site:
            assert again(await post(site, EVENTS, EVENT, key)) == made
            assert await number_of(site, "event") == 1


async def test_a_key_is_forgotten_a_day_after_the_first_request(cluster: Cluster, base: Path) -> None:
    clock, key = VirtualClock(), new_key()
    async with new_database(cluster) as dsn, site_on(dsn, new_folder(base), clock=clock) as site:
        made = first(await post(site, EVENTS, EVENT, key))
        clock.advance(DAY - 1)
        assert again(await post(site, EVENTS, EVENT, key)) == made
        clock.advance(1)
        anew = first(await post(site, EVENTS, EVENT, key))
        assert anew["id"] > made["id"]
        clock.advance(1)
        assert again(await post(site, EVENTS, EVENT, key)) == anew

        clock.advance(DAY)

        async def forgotten() -> bool | None:
            return await number_of(site, "idempotency_key") == 0 or None

        await until(forgotten)


@pytest.mark.parametrize("failure", [Failure.LOST, Failure.UNANSWERED])
@pytest.mark.parametrize(("path", "body", "table"), ROUTES)
async def test_t10_who_does_not_know_whether_it_was_committed_asks_again_and_has_it_once(
    cluster: Cluster, base: Path, failure: Failure, path: str, body: dict[str, Any], table: str
) -> None:
    key = new_key()
    async with new_database(cluster) as dsn, proxy_to(dsn) as proxy, site_on(proxy.url, new_folder(base)) as site:
        proxy.next_commit = failure
        refusal(await post(site, path, body, key), 503)
        assert proxy.failed.is_set()

        answer = await post(site, path, body, key)

        (first if failure is Failure.LOST else again)(answer)
        assert await number_of(site, table) == 1


async def test_t10_a_commit_that_comes_late_is_found_by_the_request_that_was_sent_again(
    cluster: Cluster, base: Path
) -> None:
    """It is not there yet when the second looks for it, and there when the second would write."""
    key, answers = new_key(), list[httpx2.Response]()
    async with new_database(cluster) as dsn, proxy_to(dsn) as proxy, site_on(proxy.url, new_folder(base)) as site:
        proxy.next_commit = Failure.LATE
        refusal(await post(site, EVENTS, EVENT, key), 503)

        async def ask() -> None:
            answers.append(await post(site, EVENTS, EVENT, key))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await until(lambda: _rows(site, "SELECT FROM pg_locks WHERE NOT granted"))
            proxy.released.set()

        assert again(answers[0])["payload"] == EVENT["payload"]
        assert await number_of(site, "event") == 1


async def test_without_a_key_nothing_is_remembered(site: Site) -> None:
    before = await number_of(site, "idempotency_key")
    one, other = [await site.data("POST", EVENTS, json=EVENT) for _ in range(2)]

    assert one["id"] != other["id"]
    assert await number_of(site, "idempotency_key") == before


async def test_no_key_is_held_when_all_requests_have_their_answers(site: Site) -> None:
    await post(site, EVENTS, EVENT, new_key())
    await post(site, EVENTS, {"trigger_ref": "shop.none"}, new_key())

    await eventually(lambda: not site.serving.engine.keys._held)
