"""Dead letters over HTTP, on the real pipeline: a database trigger is the poison, and dropping it the remedy."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from attune.base.json import dumps
from attune.bus.messages import ExecutionCancelRequested, ExecutionCompleted, ExecutionDispatched, Message
from attune.database.embedded import Cluster
from tests.api.sites import Site, bearer, new_database, new_folder, site_on
from tests.api.streams import stream_of
from tests.support.waiting import eventually, until

PATH = "/api/v1/bus/dead-letters"

# What fails, so that the delivery of this type is given up: table, operation, condition.
POISON = {
    "EventCreated": ("enforcement", "INSERT", "true"),
    "EnforcementCreated": ("execution", "INSERT", "true"),
    "ExecutionRequested": ("execution", "UPDATE", "NEW.status = 'scheduled'"),
    "ExecutionDispatched": ("execution", "UPDATE", "NEW.status = 'running'"),
}

_rules = count()


@pytest.fixture(scope="module")
async def site(cluster: Cluster, base: Path) -> AsyncIterator[Site]:
    """A server that tries everything once."""
    async with new_database(cluster) as dsn, site_on(dsn, new_folder(base), {"bus": {"max_attempts": 1}}) as made:
        await made.sql(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'poison'; END$$"
        )
        yield made


@asynccontextmanager
async def poisoned(site: Site, kind: str) -> AsyncIterator[None]:
    """Let every delivery of a type fail during the block."""
    table, operation, condition = POISON[kind]
    await site.sql(
        f"CREATE TRIGGER poison BEFORE {operation} ON attune.{table} FOR EACH ROW WHEN ({condition}) "
        "EXECUTE FUNCTION fail()"
    )
    try:
        # To draw a traceback for the log takes longer than all the rest.
        with capture_logs():
            yield
    finally:
        await site.sql(f"DROP TRIGGER poison ON attune.{table}")


async def new_rule(site: Site) -> str:
    """The ref of the only rule on its trigger that is enabled."""
    for rule in await site.data("GET", "/api/v1/triggers/shop.sold/rules"):
        await site.data("POST", f"/api/v1/rules/{rule['ref']}/disable")
    ref = f"shop.rule{next(_rules)}"
    rule = {"ref": ref, "pack_ref": "shop", "label": ref, "trigger_ref": "shop.sold", "action_ref": "core.noop"}
    await site.data("POST", "/api/v1/rules", json=rule)
    return ref


async def given_up(site: Site, kind: str) -> tuple[int, dict[str, Any]]:
    """A new event, whose chain was given up at a message of this type, and that dead letter."""
    await new_rule(site)
    async with poisoned(site, kind):
        event = await site.data("POST", "/api/v1/events", json={"trigger_ref": "shop.sold"})

        async def dead() -> dict[str, Any] | None:
            letters = await site.data("GET", f"{PATH}?message_type={kind}")
            return next((one for one in letters if one["correlation_id"] == event["correlation_id"]), None)

        letter = await until(dead)
    return event["id"], letter


async def executions_of(site: Site, event: int) -> list[dict[str, Any]]:
    return list(await site.data("GET", f"/api/v1/executions?event={event}"))


async def ended(site: Site, event: int) -> dict[str, Any]:
    """The one execution of an event, when it has ended."""

    async def found() -> dict[str, Any] | None:
        return next((one for one in await executions_of(site, event) if one["finished_at"]), None)

    return await until(found)


async def insert(site: Site, *messages: Message, error: str = "broken", age: str = "0 s") -> list[int]:
    """Letters with messages of this release."""
    routes = [site.serving.engine.bus.route(message) for message in messages]
    rows = await site.sql(
        """
        INSERT INTO attune.dead_letter (queue, message_id, correlation_id, depth, message_type, version, source,
                                        payload, subject, attempts, error, published_at, created)
        SELECT queue, gen_random_uuid(), gen_random_uuid(), 2, kind, '1.0', 'test', payload::jsonb, subject, 1, $5,
               now() - $6::text::interval, now() - $6::text::interval
          FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS new (queue, kind, payload, subject)
        RETURNING id
        """,
        [queue for ((queue, _),) in routes],
        [type(message).__name__ for message in messages],
        [dumps(message.__dict__) for message in messages],
        [message.subject() for message in messages],
        error,
        age,
    )
    return [row["id"] for row in rows]


def dispatched(execution: int, *, worker: int = 1) -> ExecutionDispatched:
    return ExecutionDispatched(
        execution_id=execution, action_ref="core.noop", worker_id=worker, event_id=None, rule_ref=None, trigger_ref=None
    )


async def clear(site: Site) -> None:
    await site.sql("DELETE FROM attune.dead_letter")


# Replay


@pytest.mark.parametrize("kind", POISON)
async def test_what_was_given_up_is_shown_mended_replayed_and_done_once(site: Site, kind: str) -> None:
    event, letter = await given_up(site, kind)
    shown = await site.data("GET", f"{PATH}/{letter['id']}")

    assert shown.items() >= letter.items()
    assert "poison" in shown["error"]
    assert (shown["attempts"], shown["refusal"]) == (1, None)
    (row,) = [one for one in site.serving.engine.bus.topology.queues if one.message and one.message.__name__ == kind]
    assert (shown["exchange"], shown["consumer"]) == (row.exchange, row.consumer)
    assert shown["routing_key"].partition(".worker")[0] in row.keys[0]
    states = {"EventCreated": "waiting", "EnforcementCreated": "created", "ExecutionRequested": "requested"}
    assert shown["subject_state"] == states.get(kind, "scheduled")

    replayed = await site.data("POST", f"{PATH}/{letter['id']}/replay")
    assert replayed == {"id": letter["id"], "became": f"it waits in {letter['queue']} again"}

    assert (await ended(site, event))["status"] == "completed"
    assert len(await executions_of(site, event)) == 1
    assert (await site.ask("GET", f"{PATH}/{letter['id']}")).status_code == 404
    again = await site.ask("POST", f"{PATH}/{letter['id']}/replay")
    assert (again.status_code, again.json()["code"]) == (404, "NOT_FOUND")
    assert "may have been replayed or discarded" in again.json()["detail"]


async def test_an_execution_waits_for_somebody_to_look_until_its_letter_is_replayed(site: Site) -> None:
    event, letter = await given_up(site, "ExecutionRequested")
    (execution,) = await executions_of(site, event)
    assert execution["waiting_for"] == f"somebody to look at dead letter {letter['id']}"

    async with poisoned(site, "ExecutionDispatched"):
        await site.data("POST", f"{PATH}/{letter['id']}/replay")

        async def dead_again() -> dict[str, Any] | None:
            letters = await site.data("GET", f"{PATH}?subject=execution:{execution['id']}")
            return next((one for one in letters if one["message_type"] == "ExecutionDispatched"), None)

        again = await until(dead_again)
    (execution,) = await executions_of(site, event)
    assert execution["waiting_for"] == f"somebody to look at dead letter {again['id']}"
    await site.data("POST", f"{PATH}/{again['id']}/replay")
    assert (await ended(site, event))["waiting_for"] is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("message_type = 'Forgotten'", "Message type Forgotten is unknown to this release."),
        ("payload = '{}'", "The payload is none of ExecutionDispatched"),
        ("queue = 'worker.77.executions'", "There is no queue worker.77.executions any more."),
    ],
)
async def test_a_letter_that_cannot_be_replayed_says_so_before_and_after(site: Site, change: str, reason: str) -> None:
    worker = site.serving.engine.worker.worker_id
    (number,) = await insert(site, dispatched(1_000_000, worker=worker))
    await site.sql(f"UPDATE attune.dead_letter SET {change} WHERE id = $1", number)

    shown = await site.data("GET", f"{PATH}/{number}")
    refused = await site.ask("POST", f"{PATH}/{number}/replay")

    assert shown["refusal"].startswith(reason)
    assert (refused.status_code, refused.json()["code"]) == (409, "CONFLICT")
    assert reason in refused.json()["detail"]
    assert (await site.ask("GET", f"{PATH}/{number}")).status_code == 200
    await clear(site)


# Discard


@pytest.mark.parametrize("kind", ["ExecutionRequested", "ExecutionDispatched"])
async def test_t26_an_execution_whose_letter_is_discarded_has_failed_and_who_waits_hears_of_it(
    site: Site, kind: str
) -> None:
    event, letter = await given_up(site, kind)
    (execution,) = await executions_of(site, event)
    number, answers, engine = execution["id"], [], site.serving.engine

    async def wait() -> None:
        answers.append(await site.data("GET", f"/api/v1/executions/{number}?wait=30"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await eventually(lambda: f"execution:{number}" in engine.waiters._events)
        discarded = await site.data("POST", f"{PATH}/{letter['id']}/discard")

    assert discarded == {"id": letter["id"], "became": f"execution {number} is failed"}
    (answer,) = answers
    assert (answer["status"], answer["waiting_for"], answer["started_at"]) == ("failed", None, None)
    assert answer["result"] == {
        "succeeded": False,
        "error": f"Its dead letter {letter['id']} was discarded: {letter['error']}",
    }
    await until(lambda: _completed(site, number, letter))
    assert await site.sql("SELECT FROM attune.execution_open WHERE execution = $1", number) == []


async def _completed(site: Site, execution: int, letter: dict[str, Any]) -> bool | None:
    """Whether the message about the end was handled; it is one, and the letter's message is its cause."""
    hops = (await site.data("GET", f"/api/v1/bus/trace/{letter['correlation_id']}"))["hops"]
    ends = [hop for hop in hops if hop["message_type"] == "ExecutionCompleted"]
    if not ends or ends[0]["outcome"] == "waiting":
        return None
    assert [(hop["causation_id"], hop["source"], hop["outcome"]) for hop in ends] == [
        (letter["message_id"], "dead letters", "done")
    ]
    return True


async def test_an_enforcement_whose_letter_is_discarded_has_failed_with_the_reason(site: Site) -> None:
    event, letter = await given_up(site, "EnforcementCreated")

    discarded = await site.data("POST", f"{PATH}/{letter['id']}/discard")

    (enforcement,) = await site.data("GET", f"/api/v1/enforcements?event={event}")
    assert discarded["became"] == f"enforcement {enforcement['id']} is failed"
    assert (enforcement["status"], enforcement["reason"]) == (
        "failed",
        f"Its dead letter {letter['id']} was discarded: {letter['error']}",
    )
    assert enforcement["resolved_at"] is not None


async def test_an_event_whose_letter_is_discarded_has_matched_no_rule_and_says_why(site: Site) -> None:
    event, letter = await given_up(site, "EventCreated")
    (rule,) = [one["ref"] for one in await site.data("GET", "/api/v1/triggers/shop.sold/rules") if one["enabled"]]

    discarded = await site.data("POST", f"{PATH}/{letter['id']}/discard")

    assert discarded["became"] == f"event {event} has matched no rule"
    explained = await site.data("GET", f"/api/v1/events/{event}/explain")
    assert (explained["state"], explained["dead_letter"]) == ("discarded", None)
    reason = f"Its dead letter {letter['id']} was discarded, so no rule was asked: {letter['error']}"
    assert explained["note"] == reason
    assert explained["matched_at"] is not None
    # Nor is it said elsewhere that its rule has matched, or has not.
    history = await site.data("GET", f"/api/v1/rules/{rule}/explain")
    assert (history["events"], history["fired"], history["waiting"], history["not_matched"]) == (1, 0, 0, [])
    assert [(one["text"], one["event"]) for one in history["errors"]] == [("its dead letter was discarded", event)]
    verdicts = await site.data("GET", f"/api/v1/verdicts?event={event}")
    assert verdicts == {"verdicts": [{"event": event, "rules": []}]}


async def test_a_letter_about_what_has_ended_meanwhile_changes_nothing(site: Site) -> None:
    event, letter = await given_up(site, "ExecutionRequested")
    (execution,) = await executions_of(site, event)
    await site.data("POST", f"/api/v1/executions/{execution['id']}/cancel")

    discarded = await site.data("POST", f"{PATH}/{letter['id']}/discard")

    assert discarded["became"] == f"execution {execution['id']} is cancelled"
    assert (await ended(site, event))["status"] == "cancelled"
    hops = (await site.data("GET", f"/api/v1/bus/trace/{letter['correlation_id']}"))["hops"]
    assert [hop["message_type"] for hop in hops].count("ExecutionCompleted") == 1


async def test_a_replay_about_what_has_ended_meanwhile_runs_nothing(site: Site) -> None:
    event, letter = await given_up(site, "ExecutionRequested")
    (execution,) = await executions_of(site, event)
    await site.data("POST", f"/api/v1/executions/{execution['id']}/cancel")
    await site.data("POST", f"{PATH}/{letter['id']}/replay")

    await until(lambda: is_quiet(site))
    (execution,) = await executions_of(site, event)
    assert (execution["status"], execution["started_at"]) == ("cancelled", None)


async def is_quiet(site: Site) -> bool | None:
    """True when no message is on its way."""
    return None if await site.sql("SELECT FROM attune.delivery") else True


async def test_letters_that_nothing_waits_for_are_only_removed(site: Site) -> None:
    execution = await site.data("POST", "/api/v1/executions/execute?wait=30", json={"action_ref": "core.noop"})
    worker = site.serving.engine.worker.worker_id
    completed = ExecutionCompleted(
        execution_id=execution["id"], action_ref="core.noop", status=execution["status"], event_id=None
    )
    cancel = ExecutionCancelRequested(execution_id=execution["id"], worker_id=worker)
    letters = await insert(site, completed, cancel, dispatched(1_000_000, worker=worker))

    told = await site.data("POST", f"{PATH}/discard", json={"ids": letters})

    assert [letter["became"] for letter in told["letters"]] == [
        f"execution {execution['id']} is completed",
        f"execution {execution['id']} is completed",
        "there is no execution 1000000",
    ]
    assert await site.data("GET", f"/api/v1/executions/{execution['id']}") == execution


async def test_a_letter_of_an_unknown_type_is_only_removed_and_the_answer_says_so(site: Site) -> None:
    (number,) = await insert(site, dispatched(1, worker=site.serving.engine.worker.worker_id))
    await site.sql("UPDATE attune.dead_letter SET message_type = 'Forgotten' WHERE id = $1", number)

    told = await site.data("POST", f"{PATH}/{number}/discard")

    assert told["became"] == "only the letter was removed: Message type Forgotten is unknown to this release."
    assert (await site.ask("POST", f"{PATH}/{number}/discard")).status_code == 404


# Many


@pytest.fixture
async def letters(site: Site) -> list[int]:
    """Twelve letters about executions 1,000,001 to 1,000,012; the first four are old, the last three timed out."""
    await clear(site)
    worker = site.serving.engine.worker.worker_id
    about = [dispatched(1_000_000 + number, worker=worker) for number in range(1, 13)]
    return [
        *await insert(site, *about[:4], age="2 days"),
        *await insert(site, *about[4:9]),
        *await insert(site, *about[9:], error="TimeoutError: No answer in 100% of the time"),
    ]


# A filter, and which of the letters fit it.
FILTERS: list[tuple[dict[str, str], slice]] = [
    ({"message_type": "ExecutionDispatched"}, slice(12)),
    ({"message_type": "EventCreated"}, slice(0)),
    ({"queue": "attune.events.queue"}, slice(0)),
    ({"subject": "execution:1000003"}, slice(2, 3)),
    ({"error": "timeout"}, slice(9, 12)),
    ({"error": "100%"}, slice(9, 12)),
    ({"error": "%"}, slice(9, 12)),
    ({"since": "1d"}, slice(4, 12)),
    ({"before": "24h"}, slice(4)),
    ({"since": "3d", "before": "1d"}, slice(4)),
    ({"since": "60m", "error": "broken"}, slice(4, 9)),
]


@pytest.mark.parametrize(("query", "kept"), FILTERS, ids=str)
async def test_a_filter_lists_and_discards_the_same_letters(
    site: Site, letters: list[int], query: dict[str, str], kept: slice
) -> None:
    listed = await site.data("GET", PATH, params=query)
    told = await site.data("POST", f"{PATH}/discard", json={"filter": query})

    assert sorted(letter["id"] for letter in listed) == letters[kept]
    assert [letter["id"] for letter in told["letters"]] == letters[kept]
    assert (told["affected"], told["remaining"], told["failures"]) == (len(letters[kept]), 0, [])
    left = await site.data("GET", PATH)
    assert sorted(letter["id"] for letter in left) == [one for one in letters if one not in letters[kept]]


async def test_a_request_takes_so_many_the_oldest_first_and_says_how_to_go_on(site: Site, letters: list[int]) -> None:
    """Also past those that stay, because they cannot be replayed."""
    await site.sql("UPDATE attune.dead_letter SET message_type = 'Forgotten' WHERE id = ANY($1)", letters[:6])
    asked: dict[str, Any] = {"all": True, "limit": 5}
    answers: list[dict[str, Any]] = []
    while not answers or answers[-1]["next_after"]:
        after = answers[-1]["next_after"] if answers else None
        answers.append(await site.data("POST", f"{PATH}/replay", json={**asked, "after": after}))

    assert [(one["affected"], len(one["failures"]), one["remaining"]) for one in answers] == [
        (0, 5, 7),
        (4, 1, 2),
        (2, 0, 0),
    ]
    failures = [failure for one in answers for failure in one["failures"]]
    assert [failure["id"] for failure in failures] == letters[:6]
    assert all("is unknown to this release" in failure["error"] for failure in failures)
    await until(lambda: is_quiet(site))


async def test_what_names_letters_twice_or_that_are_not_there_is_told_by_number(site: Site, letters: list[int]) -> None:
    named = [letters[1], letters[0], letters[1], 9_000_000_000]
    told = await site.data("POST", f"{PATH}/discard", json={"ids": named})

    assert [letter["id"] for letter in told["letters"]] == letters[:2]
    assert [failure["id"] for failure in told["failures"]] == [9_000_000_000]
    assert "There is no dead letter 9000000000" in told["failures"][0]["error"]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, ""),
        ({"filter": {}}, ""),
        ({"filter": {"queue": None}}, ""),
        ({"ids": [1], "all": True}, ""),
        ({"ids": [1], "filter": {"queue": "x"}}, ""),
        ({"ids": [1], "limit": 1}, ""),
        ({"ids": [1], "after": 1}, ""),
        ({"ids": []}, "/ids"),
        ({"ids": list(range(1, 502))}, "/ids"),
        ({"ids": [0]}, "/ids/0"),
        ({"ids": ["1"]}, "/ids/0"),
        ({"all": False}, "/all"),
        ({"all": True, "limit": 501}, "/limit"),
        ({"all": True, "limit": 0}, "/limit"),
        ({"filter": {"error": ""}}, "/filter/error"),
        ({"filter": {"since": "yesterday"}}, "/filter/since"),
        ({"filter": {"type": "EventCreated"}}, "/filter/type"),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("verb", ["replay", "discard"])
async def test_a_body_that_does_not_say_clearly_which_letters_is_refused_and_nothing_is_done(
    site: Site, letters: list[int], verb: str, body: dict[str, Any], where: str
) -> None:
    refused = await site.ask("POST", f"{PATH}/{verb}", json=body)

    assert refused.status_code == 422, refused.text
    assert [problem["pointer"] for problem in refused.json()["errors"]] == [where]
    (left,) = await site.sql("SELECT count(*) AS letters FROM attune.dead_letter")
    assert left["letters"] == len(letters)


async def test_the_log_names_who_did_it(site: Site, letters: list[int]) -> None:
    await site.identity("ann", administrator=True)
    ann = bearer((await site.tokens("ann"))["access_token"])
    with capture_logs() as logged:
        await site.data("POST", f"{PATH}/{letters[0]}/discard")
        await site.remote.post(f"{PATH}/discard", json={"ids": letters[1:3]}, headers=ann)

    told = [(line["dead_letter"], line["by"]) for line in logged if line["event"] == "a dead letter was discarded"]
    assert told == [(letters[0], "local"), (letters[1], "ann"), (letters[2], "ann")]


async def test_live_views_tell_of_letters_and_of_what_becomes_of_them(site: Site) -> None:
    async with stream_of(site, entity="dead_letter") as stream:
        await stream.until("reset")
        for what, name in (("replay", "dead_letter_replayed"), ("discard", "dead_letter_discarded")):
            event, letter = await given_up(site, "ExecutionRequested")
            created = await stream.until("dead_letter_created", id=letter["id"])
            await site.ask("POST", f"{PATH}/{letter['id']}/{what}")
            handled = await stream.until(name, id=letter["id"])
            await ended(site, event)
            assert {"attempts": 1, "error": letter["error"]}.items() <= created.data.items()
            for told in (created, handled):
                assert {name: told.data[name] for name in ("queue", "message_type", "subject")} == {
                    name: letter[name] for name in ("queue", "message_type", "subject")
                }
