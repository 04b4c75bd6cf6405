"""`attune bus dead`: looking at dead letters, and deciding about one, some, or all of them."""

import json
from collections.abc import Sequence

import pytest

from attune.bus.messages import EventCreated
from tests.api.sites import Site
from tests.api.test_dead_letters import clear, dispatched, insert, is_quiet
from tests.cli.typed import Commands
from tests.support.waiting import until

USAGE, REFUSED = 2, 3


@pytest.fixture
async def letters(site: Site) -> list[int]:
    """Two old letters about executions 1,000,001 and 1,000,002, and a new one about an event."""
    await clear(site)
    worker = site.serving.engine.worker.worker_id
    old = await insert(site, *(dispatched(1_000_000 + one, worker=worker) for one in (1, 2)), age="3 days")
    return [*old, *await insert(site, EventCreated(event_id=5_000, trigger_ref="shop.sold"), error="No answer: 100%")]


async def left(site: Site) -> Sequence[int]:
    return [row["id"] for row in await site.sql("SELECT id FROM attune.dead_letter ORDER BY id")]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ([], slice(3)),
        (["--queue", "attune.events.queue"], slice(2, 3)),
        (["--type", "ExecutionDispatched"], slice(2)),
        (["--subject", "execution:1000002"], slice(1, 2)),
        (["--error", "no ANSWER"], slice(2, 3)),
        (["--since", "1d"], slice(2, 3)),
        (["--before", "24h", "--type", "ExecutionDispatched"], slice(2)),
        (["--limit", "1"], slice(2, 3)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
async def test_letters_are_listed_by_what_they_are_like(
    site: Site, attune: Commands, letters: list[int], options: list[str], kept: slice
) -> None:
    listed = await attune("bus", "dead", "list", *options, "--json")

    assert sorted(letter["id"] for letter in json.loads(listed.stdout)) == letters[kept]


async def test_a_letter_is_shown_with_its_way_its_state_and_what_to_do(
    site: Site, attune: Commands, letters: list[int]
) -> None:
    execution = await site.data("POST", "/api/v1/executions/execute?wait=30", json={"action_ref": "core.noop"})
    (number,) = await insert(site, dispatched(execution["id"], worker=site.serving.engine.worker.worker_id))

    shown = await attune("bus", "dead", "show", str(number))

    facts = dict(line.split(maxsplit=1) for line in shown.stdout.partition("\n\n")[0].splitlines() if line[0] != " ")
    assert facts.items() >= {
        ("error", "broken"),
        ("subject", f"execution:{execution['id']}"),
        ("subject_state", "completed"),
        ("exchange", "attune.executions"),
        ("routing_key", facts["queue"].replace("worker.", "execution.dispatch.worker.").removesuffix(".executions")),
        ("consumer", "worker"),
        ("version", "1.0"),
        ("depth", "2"),
        ("refusal", "-"),
    }
    assert shown.stdout.endswith(
        f"\n\nmore about it: attune why execution {execution['id']}\n"
        f"when what was wrong is mended: attune bus dead replay {number}\n"
        f"to give it up: attune bus dead discard {number}\n"
    )


async def test_a_letter_that_cannot_be_replayed_is_shown_without_that_advice(
    site: Site, attune: Commands, letters: list[int]
) -> None:
    await site.sql("UPDATE attune.dead_letter SET message_type = 'Forgotten', subject = NULL")

    shown = await attune("bus", "dead", "show", str(letters[0]))

    assert "Message type Forgotten is unknown to this release." in shown.stdout
    assert shown.stdout.endswith(f"\n\nto give it up: attune bus dead discard {letters[0]}\n")


async def test_named_letters_are_discarded_and_what_became_of_each_is_told(
    site: Site, attune: Commands, letters: list[int]
) -> None:
    done = await attune("bus", "dead", "discard", str(letters[1]), str(letters[0]), "--yes")

    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == (
        f"dead letter {letters[0]}: there is no execution 1000001\n"
        f"dead letter {letters[1]}: there is no execution 1000002\n"
        "discarded 2 dead letters\n"
    )
    assert await left(site) == letters[2:]


async def test_letters_that_fit_are_replayed_and_the_others_are_not(
    site: Site, attune: Commands, letters: list[int]
) -> None:
    done = await attune("bus", "dead", "replay", "--before", "1d", "--yes", "--json")

    became = {letter["id"]: letter["became"] for letter in json.loads(done.stdout)["letters"]}
    queue = f"worker.{site.serving.engine.worker.worker_id}.executions"
    assert became == dict.fromkeys(letters[:2], f"it waits in {queue} again")
    assert await left(site) == letters[2:]


async def test_all_letters_of_many_requests_are_handled_and_none_that_came_meanwhile(
    site: Site, attune: Commands, letters: list[int]
) -> None:
    """An event that is not there is rejected at once: each replay makes a new letter."""
    await insert(site, *(EventCreated(event_id=9_000_000_000, trigger_ref="shop.sold") for _ in range(600)))
    before = await left(site)

    done = await attune("bus", "dead", "replay", "--type", "EventCreated", "--yes", "--json")

    assert (done.returncode, len(json.loads(done.stdout)["letters"])) == (0, 601)
    await until(lambda: is_quiet(site))
    assert len(await left(site)) == len(before)
    assert not set(before[2:]) & set(await left(site))


async def test_those_that_stay_are_told_with_the_reason_and_by_the_exit_code(
    site: Site, attune: Commands, letters: list[int]
) -> None:
    await site.sql("UPDATE attune.dead_letter SET queue = 'old.queue' WHERE id = $1", letters[0])

    done = await attune("bus", "dead", "replay", *map(str, letters[:2]), "9000000000", "--yes")

    assert done.returncode == REFUSED
    assert f"attune: Dead letter {letters[0]} cannot be replayed: There is no queue old.queue any more." in done.stderr
    assert "There is no dead letter 9000000000." in done.stderr
    assert "replayed 1 dead letter\n" in done.stderr
    assert letters[0] in await left(site)


async def test_nothing_is_done_before_somebody_has_said_yes_to_how_many(
    site: Site, attune: Commands, letters: list[int]
) -> None:
    for verb in ("replay", "discard"):
        for words, count in ((["--all"], "3 dead letters"), ([str(letters[0])], "1 dead letter")):
            asked = await attune("bus", "dead", verb, *words)

            assert asked.returncode == USAGE
            assert f"attune: {verb.capitalize()} {count}? Say so with --yes." in asked.stderr
    assert await left(site) == letters


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["show", "9000000000"], REFUSED, "There is no dead letter 9000000000."),
        (["list", "--since", "yesterday"], USAGE, "'yesterday' is no span of time"),
        (["replay", "--yes"], USAGE, "Name dead letters by numbers"),
        (["discard", "1", "--all", "--yes"], USAGE, "Name dead letters by numbers"),
        (["discard", "1", "--queue", "x", "--yes"], USAGE, "Name dead letters by numbers"),
        (["discard", "--all", "--queue", "x", "--yes"], USAGE, "Name dead letters by numbers"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
async def test_what_is_typed_wrong_is_told(
    site: Site, attune: Commands, letters: list[int], words: list[str], code: int, said: str
) -> None:
    done = await attune("bus", "dead", *words)

    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert await left(site) == letters


async def test_when_nothing_fits_nobody_is_asked_and_nothing_is_done(
    site: Site, attune: Commands, letters: list[int]
) -> None:
    done = await attune("bus", "dead", "discard", "--queue", "nobody's")

    assert (done.returncode, done.stderr) == (0, "discarded 0 dead letters\n")
    assert await left(site) == letters


async def test_status_and_doctor_lead_to_the_letters(site: Site, attune: Commands, letters: list[int]) -> None:
    status = await attune("status")
    doctor = await attune("doctor")

    assert "\ndead letters: 3\n  attune bus dead list\n" in status.stdout
    assert "3 given up" in doctor.stdout
    assert "attune bus dead list" in doctor.stdout


async def test_why_event_says_that_its_letter_was_discarded(site: Site, attune: Commands) -> None:
    await clear(site)
    (event,) = await site.sql(
        """
        INSERT INTO attune.event (trigger, trigger_ref, source_ref, correlation_id, depth, created)
        VALUES (1, 'shop.sold', 'test', gen_random_uuid(), 0, now())
        RETURNING id
        """
    )
    (number,) = await insert(site, EventCreated(event_id=event["id"], trigger_ref="shop.sold"))

    before = await attune("why", "event", str(event["id"]))
    await attune("bus", "dead", "discard", str(number), "--yes")
    after = await attune("why", "event", str(event["id"]))

    assert f"the rule matcher gave it up: attune bus dead show {number}\n" in before.stdout
    assert f"  Its dead letter {number} was discarded, so no rule was asked: broken\n" in after.stdout
    assert "gave it up" not in after.stdout
