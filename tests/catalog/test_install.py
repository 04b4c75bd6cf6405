"""What becomes of a pack that is installed, changed and installed again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from attune.base.errors import BadInput
from attune.base.json import loads
from attune.catalog import queries
from attune.catalog.yamls import YamlError
from attune.database.pool import Database
from attune.engine import Engine
from tests.support.engines import BUNDLED, emit, engine_on, make_rule, pack, rule
from tests.support.waiting import until

TRIGGER = "ref: shop.sold\nlabel: Sold\n"
ACTION = "ref: shop.pay\nlabel: Pay\nentry_point: pay.sh\nparameters: {amount: {type: integer}}\n"
RULE = """
ref: shop.thank
label: Thank
trigger_ref: shop.sold
action_ref: shop.pay
action_params: {amount: 3}
"""
SHOP = {
    "triggers/sold.yaml": TRIGGER,
    "actions/pay.yaml": ACTION,
    "actions/pay.sh": "",
    "rules/thank.yaml": RULE,
}


def change(directory: Path, files: Mapping[str, str | None]) -> None:
    """Write files of a pack, or (None) remove them."""
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        if content is None:
            path.unlink()
        else:
            path.write_text(content)


async def refs(database: Database) -> dict[str, list[str]]:
    """What the pack `shop` has, by kind."""
    return {
        kind: [
            row["ref"]
            for row in await database.fetch_all(f"SELECT ref FROM attune.{kind} WHERE ref LIKE 'shop%' ORDER BY ref")
        ]
        for kind in ("pack", "trigger", "action", "rule")
    }


async def state(database: Database) -> list[Any]:
    """Every definition and every revision."""
    tables = ("pack", "trigger", "action", "rule", "revision", "definition_version")
    return [
        [dict(row) for row in await database.fetch_all(f"SELECT * FROM attune.{table} ORDER BY 1, 2")]
        for table in tables
    ]


async def version(database: Database) -> int:
    async with database.acquire() as connection:
        return await queries.current_version(connection)


async def rule_row(database: Database, ref: str = "shop.thank") -> Mapping[str, Any]:
    row = await database.fetch_one("SELECT * FROM attune.rule WHERE ref = :ref", ref=ref)
    assert row is not None
    return row


async def refused(engine: Engine, directory: Path) -> list[str]:
    """What is said about a pack that is not installed; nothing of the database changes."""
    before = await state(engine.database)
    with pytest.raises(YamlError) as caught:
        await engine.installer.install(directory)
    assert await state(engine.database) == before
    return [str(problem).replace(f"{directory}/", "") for problem in caught.value.problems]


async def test_a_pack_brings_its_triggers_actions_and_rules(database: Database, tmp_path: Path) -> None:
    async with engine_on(database, tmp_path, packs=[pack(tmp_path, "shop", SHOP)]):
        assert await refs(database) == {
            "pack": ["shop"],
            "trigger": ["shop.sold"],
            "action": ["shop.pay"],
            "rule": ["shop.thank"],
        }
        found = await rule_row(database)
        assert (found["enabled"], found["is_adhoc"], found["owner_identity"]) == (True, False, None)
        assert loads(found["action_params"]) == {"amount": 3}
        assert found["trigger"] is not None
        assert found["action"] is not None


async def test_what_is_installed_already_changes_nothing(database: Database, tmp_path: Path) -> None:
    shop = pack(tmp_path, "shop", SHOP)
    async with engine_on(database, tmp_path, packs=[shop]) as engine:
        before = await state(database)
        for directory in (shop, BUNDLED / "core", BUNDLED / "hello"):
            await engine.installer.install(directory)
        assert await state(database) == before
    # Nor does the next start.
    async with engine_on(database, tmp_path, packs=[shop]):
        assert await state(database) == before


async def test_a_change_raises_the_version_once_and_keeps_the_ids(database: Database, tmp_path: Path) -> None:
    shop = pack(tmp_path, "shop", SHOP)
    async with engine_on(database, tmp_path, packs=[shop]) as engine:
        before, known = await version(database), await rule_row(database)
        change(shop, {"rules/thank.yaml": RULE.replace("Thank", "Thanks")})
        await engine.installer.install(shop)
        assert await version(database) == before + 1
        after = await rule_row(database)
        assert after["label"] == "Thanks"
        assert [after[name] for name in ("id", "trigger", "action", "created")] == [
            known[name] for name in ("id", "trigger", "action", "created")
        ]


async def test_files_that_are_gone_take_what_they_described_along(database: Database, tmp_path: Path) -> None:
    shop = pack(tmp_path, "shop", {**SHOP, "triggers/gone.yaml": "ref: shop.gone\nlabel: Gone\n"})
    async with engine_on(database, tmp_path, packs=[shop]) as engine:
        await make_rule(engine, rule("hello.mine", "shop.gone", "shop.pay"))
        change(shop, {"triggers/gone.yaml": None, "actions/pay.yaml": None, "rules/thank.yaml": None})
        await engine.installer.install(shop)
        assert await refs(database) == {"pack": ["shop"], "trigger": ["shop.sold"], "action": [], "rule": []}
        # A rule that a person made stays, with the refs, and fires nothing.
        mine = await rule_row(database, "hello.mine")
        assert (mine["trigger"], mine["trigger_ref"]) == (None, "shop.gone")
        assert (mine["action"], mine["action_ref"]) == (None, "shop.pay")
        change(shop, {"triggers/gone.yaml": "ref: shop.gone\nlabel: Gone\n", "actions/pay.yaml": ACTION})
        await engine.installer.install(shop)
        again = await rule_row(database, "hello.mine")
        assert None not in {again["trigger"], again["action"]}
        async with database.acquire() as connection:
            await engine.definitions.follow(connection, await version(database))
        assert engine.definitions.rules.by_ref["hello.mine"].trigger == again["trigger"]
        assert "shop.thank" not in engine.definitions.rules.by_ref


async def test_a_rule_that_is_gone_matches_nothing_any_more(database: Database, tmp_path: Path) -> None:
    shop = pack(tmp_path, "shop", SHOP)
    async with engine_on(database, tmp_path, packs=[shop]) as engine, engine.running():
        other = await make_rule(engine, rule("hello.other", "shop.sold"))
        change(shop, {"rules/thank.yaml": None})
        await engine.installer.install(shop)
        event = await emit(engine, "shop.sold")

        async def enforced() -> list[int] | None:
            rows = await database.fetch_all("SELECT rule FROM attune.enforcement WHERE event = :event", event=event)
            return [row["rule"] for row in rows] or None

        assert await until(enforced) == [other.rule.id]


@pytest.mark.parametrize("enabled", [True, False])
async def test_who_switched_a_rule_on_or_off_has_the_last_word(
    database: Database, tmp_path: Path, enabled: bool
) -> None:
    in_file = str(not enabled).lower()
    shop = pack(tmp_path, "shop", {**SHOP, "rules/thank.yaml": f"{RULE}enabled: {in_file}\n"})
    async with engine_on(database, tmp_path, packs=[shop]) as engine:
        assert (await rule_row(database))["enabled"] is not enabled
        await engine.rules.update("shop.thank", {"enabled": enabled})
        change(shop, {"rules/thank.yaml": f"{RULE}enabled: {in_file}\ndescription: New\n"})
        await engine.installer.install(shop)
        found = await rule_row(database)
        assert (found["enabled"], found["description"]) == (enabled, "New")


async def test_t95_a_pack_that_is_broken_leaves_the_installed_one_as_it_was(database: Database, tmp_path: Path) -> None:
    shop = pack(tmp_path, "shop", SHOP)
    async with engine_on(database, tmp_path, packs=[shop]) as engine:
        change(shop, {"triggers/new.yaml": "ref: shop.new\nlabel: New\n", "rules/thank.yaml": "ref: shop.thank\n"})
        assert len(await refused(engine, shop)) == 2
        # It is mended, and installed as if nothing had been.
        change(shop, {"rules/thank.yaml": RULE})
        await engine.installer.install(shop)
        assert (await refs(database))["trigger"] == ["shop.new", "shop.sold"]


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ("action_params: {amount: three}", 'rules/thank.yaml:6: action_params.amount: it is not of type "integer"'),
        ("action_params: {amoumt: 3}", "rules/thank.yaml:6: action_params.amoumt: is unknown; did you mean 'amount'?"),
        ("action_params: {amount: '{{ event.'}", "rules/thank.yaml:6: action_params.amount: "),
        ("trigger_ref: shop.sole", "rules/thank.yaml:6: trigger_ref: there is no trigger shop.sole"),
        (
            "trigger: crontimer",
            "rules/thank.yaml:6: trigger: there is no trigger shop.crontimer; did you mean 'core.cr",
        ),
        ("action: core.ecko", "rules/thank.yaml:6: action: there is no action core.ecko; did you mean 'core.echo'?"),
        ("action_ref: shop.play", "rules/thank.yaml:6: action_ref: there is no action shop.play"),
        (
            "conditions:\n- {field: a, operator: equal, value: 1}",
            "rules/thank.yaml:7: conditions.0.operator: ",
        ),
        (
            "trigger_ref: core.crontimer\ntrigger_params:\n  expression: 0 0 0 * * * 2030",
            "rules/thank.yaml:8: trigger_params.expression: '0 0 0 * * * 2030' has 7 fields, but needs six",
        ),
        (
            "trigger_ref: core.crontimer\ntrigger_params: {expression: '@daily', timezone: Europe/Berlim}",
            "rules/thank.yaml:7: trigger_params.timezone: 'Europe/Berlim' is not a time zone of the IANA, such as",
        ),
        (
            "trigger_ref: core.intervaltimer\ntrigger_params: {intervall: 3}",
            "rules/thank.yaml:7: trigger_params.interv",
        ),
    ],
)
async def test_t78_a_rule_that_breaks_a_schema_is_told_with_its_line(
    database: Database, tmp_path: Path, changed: str, problem: str
) -> None:
    keys = {line.partition(":")[0] for line in changed.splitlines()}
    keys |= {f"{key}_ref" for key in keys}
    kept = [line for line in RULE.strip().splitlines() if line.partition(":")[0] not in keys]
    padding = ["#"] * (5 - len(kept))
    text = "\n".join([*kept, *padding, changed])
    async with engine_on(database, tmp_path) as engine:
        (found,) = await refused(engine, pack(tmp_path, "shop", {**SHOP, "rules/thank.yaml": text}))
        assert found.startswith(problem), found


async def test_a_rule_of_a_person_is_not_taken_over(database: Database, tmp_path: Path) -> None:
    shop = pack(tmp_path, "shop", {**SHOP, "rules/thank.yaml": RULE.replace("shop.thank", "shop.first")})
    async with engine_on(database, tmp_path, packs=[shop]) as engine:
        await make_rule(engine, rule("shop.thank", "shop.sold"))
        change(shop, {"rules/thank.yaml": RULE})
        (problem,) = await refused(engine, shop)
        assert problem == (
            "rules/thank.yaml:2: ref: There is a rule shop.thank already. "
            "A person made it; to let this file take its place: attune rule delete shop.thank"
        )


async def test_two_folders_cannot_be_one_pack(database: Database, tmp_path: Path) -> None:
    first = pack(tmp_path / "a", "shop", SHOP)
    second = pack(tmp_path / "b", "shop", {})
    async with engine_on(database, tmp_path, packs=[first]) as engine:
        assert await refused(engine, second) == [f"pack.yaml:1: ref: the pack 'shop' is that of {first} already"]
    # At the next start, too, when the first of them has nothing new.
    async with engine_on(database, tmp_path, packs=[first, second]):
        assert (await refs(database))["trigger"] == ["shop.sold"]


async def test_a_folder_that_moved_is_the_same_pack(database: Database, tmp_path: Path) -> None:
    async with engine_on(database, tmp_path, packs=[pack(tmp_path / "a", "shop", SHOP)]):
        before = await rule_row(database)
    moved = pack(tmp_path / "b", "shop", SHOP)
    async with engine_on(database, tmp_path, packs=[moved]):
        assert (await rule_row(database))["id"] == before["id"]
        (found,) = await database.fetch_all("SELECT storage_path FROM attune.pack WHERE ref = 'shop'")
        assert found["storage_path"] == str(moved)


async def test_a_broken_pack_does_not_keep_the_others_out(database: Database, tmp_path: Path) -> None:
    broken = pack(tmp_path, "broken", {"triggers/a.yaml": "["})
    async with engine_on(database, tmp_path, packs=[broken, tmp_path / "none", pack(tmp_path, "shop", SHOP)]):
        found = await database.fetch_all("SELECT ref FROM attune.pack ORDER BY ref")
        assert [row["ref"] for row in found] == ["core", "hello", "shop"]


async def test_a_pack_may_use_what_another_brings(database: Database, tmp_path: Path) -> None:
    user = pack(tmp_path, "user", {"rules/a.yaml": RULE.replace("shop.thank", "user.thank")})
    shop = pack(tmp_path, "shop", SHOP)
    async with engine_on(database, tmp_path) as engine:
        with pytest.raises(BadInput):
            await engine.installer.install(user)
        await engine.installer.install(shop)
        await engine.installer.install(user)
        assert (await rule_row(database, "user.thank"))["action_ref"] == "shop.pay"


async def test_every_version_of_a_definition_is_kept(database: Database, tmp_path: Path) -> None:
    shop = pack(tmp_path, "shop", SHOP)
    async with engine_on(database, tmp_path, packs=[shop]) as engine:
        first = await version(database)
        change(shop, {"rules/thank.yaml": RULE.replace("amount: 3", "amount: 4"), "actions/pay.yaml": f"{ACTION}#\n"})
        await engine.installer.install(shop)
        second = await version(database)
        change(shop, {"rules/thank.yaml": None})
        await engine.installer.install(shop)
        async with database.acquire() as connection:
            amounts = [
                [one.action_params["amount"] for one in await queries.rules_at(connection, at, "shop.sold")]
                for at in (first - 1, first, second, second + 1)
            ]
        assert amounts == [[], [3], [4], []]


async def test_t96_to_read_a_pack_runs_nothing_of_it(database: Database, tmp_path: Path) -> None:
    run = f"touch {tmp_path}/ran\n"
    python = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    files = {
        **SHOP,
        "actions/pay.sh": f"#!/bin/sh\n{run}",
        "actions/look.yaml": "entry_point: look.py\n",
        "actions/look.py": python,
        **dict.fromkeys(("setup.py", "conftest.py", "actions/__init__.py", "tests/test_shop.py"), python),
        **dict.fromkeys(("setup.sh", "install.sh", "Makefile", ".git/hooks/post-checkout"), run),
        "requirements.txt": "-e .\n",
    }
    directory = pack(tmp_path, "shop", files)
    for path in directory.rglob("*"):
        path.chmod(0o755)
    async with engine_on(database, tmp_path, packs=[directory]) as engine:
        assert (await refs(database))["action"] == ["shop.look", "shop.pay"]

        change(directory, {"pack.yaml": f'ref: shop\nlabel: !!python/object/apply:os.system ["{run.strip()}"]\n'})
        with pytest.raises(YamlError):
            await engine.installer.install(directory)

    assert not (tmp_path / "ran").exists()
