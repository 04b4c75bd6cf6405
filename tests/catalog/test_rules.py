"""Rules that people make: checked as a whole, and changed in one transaction with all that follows."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from attune.base.errors import AttuneError, BadInput, Conflict, NotFound
from attune.base.json import Json, loads
from attune.bus.broadcasts import Heard
from attune.bus.messages import Change, RuleChanged
from attune.bus.transaction import Transaction
from attune.catalog import queries
from attune.catalog.model import Rule
from attune.catalog.rules import Rules
from attune.database.pool import Database
from attune.engine import Engine
from tests.support.engines import engine_on, make_rule, pack, rule

MATCHER = "attune.rules.matcher.queue"
SHOP = {
    "triggers/sold.yaml": "ref: shop.sold\nlabel: Sold\nparameters: {shelf: {type: string, enum: [a, b]}}\n",
    "actions/pay.yaml": """
        ref: shop.pay
        label: Pay
        entry_point: pay.sh
        parameters:
          amount: {type: integer, required: true}
          card: {type: string, secret: true, pattern: "^[0-9]+$"}
        """,
    "actions/pay.sh": "",
    "rules/thank.yaml": "ref: shop.thank\nlabel: Thank\ntrigger_ref: shop.sold\naction_ref: core.echo\n",
}
GOOD = rule("hello.mine", "shop.sold", "shop.pay", action_params={"amount": 3})


@pytest.fixture
async def engine(database: Database, tmp_path: Path) -> AsyncIterator[Engine]:
    """An engine with the pack `shop`, which does not run: what is published stays where it is."""
    async with engine_on(database, tmp_path, packs=[pack(tmp_path, "shop", SHOP)]) as engine:
        yield engine


async def version(engine: Engine) -> int:
    async with engine.database.acquire() as connection:
        return await queries.current_version(connection)


async def heard(engine: Engine) -> list[tuple[str, Change]]:
    """What listeners are told of rules since the last time."""
    if not engine.bus.broadcasts.depth(MATCHER):
        return []
    found: Heard = await engine.bus.broadcasts.take(MATCHER)
    return [(one.rule_ref, one.change) for one in found.messages if isinstance(one, RuleChanged)]


async def revisions(engine: Engine, ref: str) -> list[Any]:
    """The label of a rule at each version, None when it is deleted."""
    rows = await engine.database.fetch_all(
        "SELECT version, definition FROM attune.revision WHERE kind = 'rule' AND ref = :ref ORDER BY version", ref=ref
    )
    found = [(row["version"], loads(row["definition"])) for row in rows]
    return [(at, None if definition is None else definition["label"]) for at, definition in found]


async def test_t71_every_change_of_a_rule_raises_the_version_once_and_is_told(engine: Engine) -> None:
    before = await version(engine)
    await heard(engine)
    await make_rule(engine, GOOD)
    assert await heard(engine) == [("hello.mine", Change.CREATED)]
    for changes, change in (
        ({"label": "Another"}, Change.UPDATED),
        ({"enabled": False}, Change.DISABLED),
        ({"enabled": True}, Change.ENABLED),
        ({"enabled": False, "label": "Third"}, Change.DISABLED),
    ):
        await engine.rules.update("hello.mine", changes)
        assert await heard(engine) == [("hello.mine", change)]
    await engine.rules.delete("hello.mine")
    assert await heard(engine) == [("hello.mine", Change.DELETED)]
    assert await revisions(engine, "hello.mine") == [
        (before + 1, "hello.mine"),
        (before + 2, "Another"),
        (before + 3, "Another"),
        (before + 4, "Another"),
        (before + 5, "Third"),
        (before + 6, None),
    ]
    assert await version(engine) == before + 6


async def test_caches_follow_every_change(engine: Engine) -> None:
    known = engine.definitions
    async with engine.database.acquire() as connection:
        await make_rule(engine, GOOD)
        await known.follow(connection, await version(engine))
        assert known.rules.by_ref["hello.mine"].action_params == {"amount": 3}
        await engine.rules.update(
            "hello.mine", {"trigger_ref": "core.crontimer", "trigger_params": {"expression": "@daily"}}
        )
        await known.follow(connection, await version(engine))
        assert [one.ref for one in known.rules_of("core.crontimer").values()] == ["hello.mine"]
        assert [one.ref for one in known.rules_of("shop.sold").values()] == ["shop.thank"]
        await engine.rules.delete("hello.mine")
        await known.follow(connection, await version(engine))
        assert "hello.mine" not in known.rules.by_ref
        assert known.version == await version(engine)


@pytest.mark.parametrize(
    ("fields", "problems"),
    [
        ({"action_params": {}}, ["/action_params/amount: is required"]),
        ({"action_params": {"amount": "x"}}, ['/action_params/amount: it is not of type "integer"']),
        ({"action_params": {"amount": 1, "amuont": 1}}, ["/action_params/amuont: is unknown; did you mean 'amount'?"]),
        # What a template will give is known when an event comes; what it says is checked now.
        ({"action_params": {"amount": "{{ event.payload.n }}"}}, []),
        ({"action_params": {"amount": "{{ event.payload. }}"}}, ["/action_params/amount: "]),
        ({"action_params": {"amount": 1, "card": "{{ nobody.knows }}"}}, ["/action_params/card: "]),
        ({"trigger_params": {"shelf": "c"}}, ['/trigger_params/shelf: it is not one of "a" or "b"']),
        ({"trigger_params": {"shelf": "a"}}, []),
        ({"conditions": [{"field": "n", "operator": "like", "value": 1}]}, ["/conditions/0/operator: "]),
        ({"conditions": {"expression": "event.payload.n >"}}, ["/conditions/expression: "]),
        # Refs.
        ({"ref": "mine"}, ["/ref: 'mine' is no ref: 'pack.name'"]),
        ({"ref": "hello.Mine"}, ["/ref: 'hello.Mine' is no ref: 'pack.name'"]),
        ({"ref": "hello.a.b"}, ["/ref: 'hello.a.b' is no ref: 'pack.name'"]),
        ({"ref": "hello." + "x" * 250}, ["/ref: "]),
        ({"ref": "shop.mine"}, ["/ref: 'shop.mine' must begin with the pack: hello."]),
        # Timers: what a schema cannot say.
        (
            {"trigger_ref": "core.crontimer", "trigger_params": {"expression": "0 0 0 1 1 * 2030"}},
            ["/trigger_params/expression: '0 0 0 1 1 * 2030' has 7 fields, but needs six"],
        ),
        (
            {"trigger_ref": "core.crontimer", "trigger_params": {"expression": "@daily", "timezone": "Berlin"}},
            ["/trigger_params/timezone: 'Berlin' is not a time zone of the IANA, such as 'Europe/Berlin'; did you "],
        ),
        (
            {"trigger_ref": "core.crontimer", "trigger_params": {"expression": "0 0 30 2 *"}},
            ["/trigger_params/expression: '0 0 30 2 *' never fires"],
        ),
        ({"trigger_ref": "core.crontimer"}, ["/trigger_params/expression: is required"]),
        (
            {"trigger_ref": "core.intervaltimer", "trigger_params": {"interval": 0}},
            ["/trigger_params/interval: it is less than the minimum of 1"],
        ),
        (
            {"trigger_ref": "core.intervaltimer", "trigger_params": {"misfire_policy": "all", "misfire_grace": -1}},
            ["/trigger_params/misfire_grace: ", "/trigger_params/misfire_policy: it is not one of "],
        ),
        (
            {"trigger_ref": "core.datetimetimer", "trigger_params": {"fire_at": "2030-01-01T00:00:00"}},
            ["/trigger_params/fire_at: '2030-01-01T00:00:00' has no offset"],
        ),
    ],
)
async def test_a_rule_that_breaks_a_schema_is_refused_with_the_place(
    engine: Engine, fields: dict[str, Any], problems: Sequence[str]
) -> None:
    before = await version(engine)
    found: Sequence[str] = []
    try:
        await make_rule(engine, replace(GOOD, **fields))
    except BadInput as error:
        found = sorted(map(str, error.problems))
    assert len(found) == len(problems), found
    assert all(one.startswith(expected) for one, expected in zip(found, problems, strict=True)), found
    assert await version(engine) == before + (not problems)


async def test_t92_what_is_said_about_a_secret_does_not_quote_it(engine: Engine) -> None:
    with pytest.raises(BadInput) as caught:
        await make_rule(engine, replace(GOOD, action_params={"amount": 1, "card": "hunter2"}))
    assert [str(problem) for problem in caught.value.problems] == ['/action_params/card: it does not match "^[0-9]+$"']


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"ref": "shop.thank", "pack_ref": "shop"}, Conflict, "There is a rule shop.thank already."),
        ({"pack_ref": "none"}, NotFound, "There is no pack none."),
        ({"trigger_ref": "shop.sole"}, NotFound, "There is no trigger shop.sole."),
        ({"action_ref": "shop.play"}, NotFound, "There is no action shop.play."),
    ],
)
async def test_a_rule_that_names_what_is_not_there_or_is_there_is_refused(
    engine: Engine, fields: dict[str, Json], kind: type[AttuneError], message: str
) -> None:
    before = await version(engine)
    with pytest.raises(kind) as caught:
        await make_rule(engine, replace(GOOD, **fields))  # type: ignore[arg-type]
    assert caught.value.message == message
    assert await version(engine) == before


async def test_a_change_that_is_refused_changes_nothing_and_tells_nobody(engine: Engine) -> None:
    await make_rule(engine, GOOD)
    await heard(engine)
    before = await version(engine)
    with pytest.raises(BadInput):
        await engine.rules.update("hello.mine", {"action_params": {"amount": "x"}, "label": "Another"})
    with pytest.raises(NotFound):
        await engine.rules.update("hello.none", {"label": "Another"})
    with pytest.raises(NotFound):
        await engine.rules.delete("hello.none")
    assert await version(engine) == before
    assert await heard(engine) == []
    assert await revisions(engine, "hello.mine") == [(before, "hello.mine")]


async def test_t24_what_follows_from_a_change_commits_with_it_or_not_at_all(engine: Engine) -> None:
    class Fails:
        """Has a say in rules, and fails after the change was written."""

        def problems(self, rule: object) -> Sequence[Any]:
            return ()

        async def changed(self, transaction: Transaction, before: Rule | None, after: Rule | None) -> Sequence[str]:
            raise RuntimeError("no")

    before = await version(engine)
    await heard(engine)
    with pytest.raises(RuntimeError):
        await Rules(engine.bus, [Fails()]).create(GOOD, None)
    assert await version(engine) == before
    assert await heard(engine) == []
    assert await engine.database.fetch_one("SELECT 1 FROM attune.rule WHERE ref = 'hello.mine'") is None


async def test_a_rule_of_a_pack_can_be_switched_and_no_more(engine: Engine) -> None:
    for refused in (
        engine.rules.update("shop.thank", {"label": "Mine"}),
        engine.rules.update("shop.thank", {"enabled": False, "label": "Mine"}),
        engine.rules.delete("shop.thank"),
    ):
        with pytest.raises(Conflict, match=r"comes from /.*/shop/rules/thank\.yaml: change it there"):
            await refused
    assert (await engine.rules.update("shop.thank", {"enabled": False})).rule.enabled is False


async def test_a_rule_that_broke_meanwhile_can_be_switched_off_but_not_on(engine: Engine, tmp_path: Path) -> None:
    await make_rule(engine, GOOD)
    action = tmp_path / "shop/actions/pay.yaml"
    action.write_text(action.read_text().replace("amount: {type: integer", "amount: {type: string"))
    await engine.installer.install(tmp_path / "shop")
    assert (await engine.rules.update("hello.mine", {"enabled": False})).rule.enabled is False
    with pytest.raises(BadInput):
        await engine.rules.update("hello.mine", {"enabled": True})


async def test_changes_at_the_same_time_have_versions_of_their_own(engine: Engine) -> None:
    before = await version(engine)
    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(make_rule, engine, replace(GOOD, ref=f"hello.mine{number}"))
    found = [await revisions(engine, f"hello.mine{number}") for number in range(10)]
    assert sorted(at for ((at, _),) in found) == [before + 1 + number for number in range(10)]


async def test_one_ref_is_given_once(engine: Engine) -> None:
    outcomes: list[str] = []

    async def make() -> None:
        try:
            await make_rule(engine, GOOD)
            outcomes.append("made")
        except Conflict:
            outcomes.append("refused")

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(make)
    assert sorted(outcomes) == ["made", *["refused"] * 4]
