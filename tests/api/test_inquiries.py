"""Inquiries over HTTP: who may answer, what is refused, and what lists show."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from attune.base.traces import HEADER, traceparent
from attune.bus.messages import InquiryResponded
from attune.database.embedded import Cluster
from tests.api.sites import Site, bearer, new_database, new_folder, site_on
from tests.api.test_dead_letters import insert
from tests.support.waiting import until

PATH = "/api/v1/inquiries"
SCHEMA = {"approved": {"type": "boolean", "required": True}}


@pytest.fixture(scope="module")
async def site(cluster: Cluster, base: Path) -> AsyncIterator[Site]:
    async with new_database(cluster) as dsn, site_on(dsn, new_folder(base)) as made:
        for login in ("admin", "mary"):
            await made.identity(login, administrator=True)
        yield made


async def ask(site: Site, **fields: Any) -> Any:
    return await site.data("POST", PATH, json={"prompt": "Shall we?", **fields})


async def respond(site: Site, inquiry: Any, response: Any, status: int = 200) -> Any:
    answer = await site.ask("POST", f"{PATH}/{inquiry['id']}/respond", json={"response": response})
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_who_waits_says_for_which_answer_and_goes_on_with_it(site: Site) -> None:
    inquiry = await ask(site, response_schema=SCHEMA)
    path = f"/api/v1/executions/{inquiry['execution']}"
    waiting = await site.data("GET", path)
    assert (waiting["status"], waiting["waiting_for"]) == ("running", f"an answer to inquiry {inquiry['id']}")
    assert waiting["waiting_since"] == inquiry["created"]

    answered = await respond(site, inquiry, {"approved": True})

    assert answered["message"] == "Response submitted successfully"
    assert answered["data"].items() >= {"status": "responded", "has_response": True, "responded_by": "local"}.items()
    ended = await site.data("GET", f"{path}?wait=30")
    assert (ended["status"], ended["waiting_for"]) == ("completed", None)
    assert ended["result"]["response"] == {"approved": True}


async def test_until_when_it_can_be_answered_is_said_as_a_span_or_a_moment(site: Site) -> None:
    at = "2040-01-02T03:04:05Z"
    assert (await ask(site, timeout_at=at))["timeout_at"] == at
    assert (await ask(site, timeout=60.5))["timeout_at"] is not None
    for wrong in ({"timeout_at": "2040-01-02T03:04:05"}, {"timeout": 0}, {"timeout": 1, "timeout_at": at}):
        refused = await site.ask("POST", PATH, json={"prompt": "Shall we?", **wrong})
        (error,) = refused.json()["errors"]
        assert error["pointer"] in {"/timeout", "/timeout_at"}


async def test_an_answer_that_does_not_fit_is_refused_field_by_field(site: Site) -> None:
    inquiry = await ask(site, response_schema=SCHEMA)
    refused = await respond(site, inquiry, {"approved": "maybe"}, 422)
    assert [error["pointer"] for error in refused["errors"]] == ["/response/approved"]
    assert (await site.data("GET", f"{PATH}/{inquiry['id']}"))["status"] == "pending"


async def test_only_the_one_who_is_asked_may_answer(site: Site) -> None:
    inquiry = await ask(site, assigned_to="mary")
    for login, status in (("admin", 403), ("mary", 200)):
        token = (await site.tokens(login))["access_token"]
        answer = await site.remote.post(f"{PATH}/{inquiry['id']}/respond", json={"response": 1}, headers=bearer(token))
        assert answer.status_code == status, answer.text

    assert (await site.data("GET", f"{PATH}/{inquiry['id']}"))["responded_by"] == "mary"


async def run(site: Site, asker: Any = None) -> Any:
    """An execution, which another has asked for."""
    return await site.data(
        "POST", "/api/v1/executions/execute?wait=30", json={"action_ref": "core.noop"}, headers=said_by(asker)
    )


def said_by(execution: Any) -> dict[str, str]:
    """How a script of an execution says who it is."""
    if execution is None:
        return {}
    return {HEADER: traceparent(UUID(execution["correlation_id"]), execution["id"])}


async def test_who_asks_cannot_answer_nor_whoever_follows_from_it(site: Site) -> None:
    asker = await run(site)
    child = await run(site, asker)
    grandchild, stranger = await run(site, child), await run(site)
    inquiry = await ask(site, execution=asker["id"])
    path = f"{PATH}/{inquiry['id']}/respond"

    for execution in (asker, child, grandchild):
        refused = await site.ask("POST", path, json={"response": True}, headers=said_by(execution))
        assert refused.status_code == 403
        assert "privilege loop" in refused.json()["detail"]

    answered = await site.ask("POST", path, json={"response": True}, headers=said_by(stranger))
    assert answered.status_code == 200


async def test_a_rule_on_the_question_does_not_answer_it(site: Site) -> None:
    rule = {"ref": "shop.yes", "pack_ref": "shop", "label": "Yes", "trigger_ref": "core.inquiry_created"}
    await site.data("POST", "/api/v1/rules", json=rule | {"action_ref": "core.noop"})
    inquiry = await ask(site)

    async def told() -> Any:
        # Those before it may be told of as well, while the rule is there.
        for one in await site.data("GET", "/api/v1/executions?rule_ref=shop.yes"):
            event = await site.data("GET", f"/api/v1/events/{one['event']}")
            if event["payload"]["inquiry_id"] == inquiry["id"]:
                return one
        return None

    execution = await until(told)
    refused = await site.ask(
        "POST", f"{PATH}/{inquiry['id']}/respond", json={"response": 1}, headers=said_by(execution)
    )
    assert refused.status_code == 403
    assert (await site.ask("DELETE", "/api/v1/rules/shop.yes")).is_success


@pytest.mark.parametrize("trigger", ["core.inquiry_created", "core.inquiry_responded"])
async def test_nobody_but_attune_says_that_somebody_was_asked_or_has_answered(site: Site, trigger: str) -> None:
    payload = {"rule_ref": "deploys.ask", "response": {"approved": True}}
    assert (
        await site.ask("POST", "/api/v1/events", json={"trigger_ref": trigger, "payload": payload})
    ).status_code == 403


async def test_a_question_can_be_handed_on_and_to_everybody(site: Site) -> None:
    inquiry = await ask(site, assigned_to="mary")
    await respond(site, inquiry, 1, 403)

    handed = await site.data("PUT", f"{PATH}/{inquiry['id']}", json={"assigned_to": None})

    assert handed["assigned_to"] is None
    unknown = await site.ask("PUT", f"{PATH}/{inquiry['id']}", json={"assigned_to": "nobody"})
    assert unknown.json()["errors"] == [{"pointer": "/assigned_to", "detail": "there is no identity nobody"}]
    await respond(site, inquiry, 1)


async def test_what_is_not_open_can_be_neither_answered_nor_changed(site: Site) -> None:
    inquiry = await ask(site)
    await site.data("PUT", f"{PATH}/{inquiry['id']}", json={"status": "cancelled"})

    await respond(site, inquiry, 1, 409)
    for change in ({"status": "cancelled"}, {"assigned_to": "mary"}):
        assert (await site.ask("PUT", f"{PATH}/{inquiry['id']}", json=change)).status_code == 409
    empty = await site.ask("PUT", f"{PATH}/{inquiry['id']}", json={})
    assert (empty.status_code, empty.json()["errors"][0]["detail"]) == (422, "send status, assigned_to, or both")
    execution = await site.data("GET", f"/api/v1/executions/{inquiry['execution']}?wait=30")
    assert execution["status"] == "cancelled"


async def test_what_nobody_waits_for_any_more_can_be_forgotten(site: Site) -> None:
    inquiry = await ask(site)
    assert (await site.ask("DELETE", f"{PATH}/{inquiry['id']}")).status_code == 409
    await site.data("PUT", f"{PATH}/{inquiry['id']}", json={"status": "cancelled"})

    assert (await site.ask("DELETE", f"{PATH}/{inquiry['id']}")).json()["success"] is True

    assert (await site.ask("GET", f"{PATH}/{inquiry['id']}")).status_code == 404


async def test_lists_show_what_was_asked_for(site: Site) -> None:
    withdrawn, mine, other = await ask(site), await ask(site, assigned_to="mary"), await ask(site)
    await site.data("PUT", f"{PATH}/{withdrawn['id']}", json={"status": "cancelled"})

    async def ids(path: str) -> list[int]:
        return [one["id"] for one in await site.data("GET", path)]

    assert [one for one in await ids(PATH) if one >= withdrawn["id"]] == [other["id"], mine["id"], withdrawn["id"]]
    assert withdrawn["id"] in await ids(f"{PATH}/status/canceled")
    assert await ids(f"{PATH}/status/cancelled") == await ids(f"{PATH}?status=cancelled")
    assert mine["id"] in await ids(f"{PATH}/status/pending")
    assert await ids(f"{PATH}?assigned_to={mine['assigned_to']}&status=pending") == [mine["id"]]
    assert await ids(f"/api/v1/executions/{other['execution']}/inquiries") == [other["id"]]
    assert (await site.ask("GET", f"{PATH}/status/open")).status_code == 404


async def test_who_waits_for_an_answer_that_cannot_arrive_waits_for_people_and_fails_with_its_discard(
    site: Site,
) -> None:
    inquiry = await ask(site)
    # As if the handler had given it up: answered, and its message is dead.
    await site.sql("UPDATE attune.inquiry SET status = 'responded', responded_by = 'x' WHERE id = $1", inquiry["id"])
    message = InquiryResponded(inquiry_id=inquiry["id"], execution_id=inquiry["execution"])
    (letter,) = await insert(site, message)
    path = f"/api/v1/executions/{inquiry['execution']}"
    assert (await site.data("GET", path))["waiting_for"] == f"somebody to look at dead letter {letter}"

    discarded = await site.data("POST", f"/api/v1/bus/dead-letters/{letter}/discard")

    assert discarded["became"] == f"nobody hears of the answer to inquiry {inquiry['id']}"
    ended = await site.data("GET", path)
    assert ended["status"] == "failed"
    assert f"dead letter {letter} was discarded" in ended["result"]["error"]
