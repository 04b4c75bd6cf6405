"""Folders of packs that are read again when something in them changes."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from attune.catalog.folders import packs_in
from attune.database.pool import Database
from attune.engine import Engine
from tests.support.clock import VirtualClock
from tests.support.engines import BUNDLED, engine_on, make_rule, pack, rule
from tests.support.waiting import eventually, until

SHOP = {
    "triggers/sold.yaml": "label: Sold\n",
    "actions/pay.yaml": "entry_point: pay.sh\nparameters: {amount: integer}\n",
    "actions/pay.sh": "#!/bin/sh\n",
    "rules/thank.yaml": "trigger: sold\naction: pay\n",
    "rules/often.yaml": "trigger: core.intervaltimer\ntrigger_params: {interval: 7}\naction: pay\n",
}


@asynccontextmanager
async def watching(database: Database, folder: Path, *parents: Path, clock: Any = None) -> AsyncIterator[Engine]:
    """An engine that watches `folder/packs` or these folders."""
    watched = parents or (folder / "packs",)
    async with engine_on(database, folder, watched=watched, clock=clock) as engine, anyio.create_task_group() as tasks:
        tasks.start_soon(engine.folders.watch)
        yield engine
        tasks.cancel_scope.cancel()


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    (tmp_path / "packs").mkdir()
    return tmp_path / "packs"


def ref_is(database: Database, kind: str, ref: str, *, there: bool = True) -> Callable[[], Awaitable[bool | None]]:
    """Whether a definition is there, or is not, for those who wait for it."""

    async def look() -> bool | None:
        row = await database.fetch_one(f"SELECT 1 FROM attune.{kind} WHERE ref = :ref", ref=ref)
        return True if (row is not None) is there else None

    return look


async def refs(database: Database, kind: str, pack_ref: str = "shop") -> list[str]:
    where = "ref = :pack" if kind == "pack" else "pack_ref = :pack"
    rows = await database.fetch_all(f"SELECT ref FROM attune.{kind} WHERE {where} ORDER BY ref", pack=pack_ref)
    return [row["ref"] for row in rows]


def told(engine: Engine) -> list[str]:
    return [str(problem) for broken in engine.folders.broken for problem in broken.problems]


async def broken(engine: Engine, count: int) -> list[str]:
    """What is told of the packs as soon as so many problems are known."""

    async def look() -> list[str] | None:
        return told(engine) if len(told(engine)) == count else None

    return await until(look)


async def test_a_pack_that_appears_changes_and_disappears_is_followed(
    database: Database, tmp_path: Path, packs: Path
) -> None:
    async with watching(database, tmp_path) as engine:
        shop = pack(packs, "shop", SHOP)
        await until(ref_is(database, "rule", "shop.often"))
        # What the API looks up is as new: what masks secrets, for example.
        await eventually(lambda: "shop.pay" in engine.definitions.actions.by_ref)
        (shop / "rules/more.yaml").write_text("trigger: sold\naction: pay\n")
        await until(ref_is(database, "rule", "shop.more"))
        (shop / "rules/thank.yaml").unlink()
        await until(ref_is(database, "rule", "shop.thank", there=False))
        shutil.rmtree(shop)
        await until(ref_is(database, "pack", "shop", there=False))
        assert [await refs(database, kind) for kind in ("trigger", "action", "rule")] == [[], [], []]
        assert told(engine) == []


async def test_a_broken_pack_is_told_until_it_is_right_and_the_old_one_goes_on(
    database: Database, tmp_path: Path, packs: Path
) -> None:
    shop = pack(packs, "shop", SHOP)
    async with watching(database, tmp_path) as engine:
        (shop / "rules/more.yaml").write_text("trigger: sold\naction: pay\n")
        (shop / "rules/thank.yaml").write_text("triger: sold\naction: pay\n")
        problems = await broken(engine, 2)
        assert [problem.partition("thank.yaml:")[2] for problem in problems] == [
            "1: trigger: is required",
            "1: triger: is unknown; did you mean 'trigger'?",
        ]
        assert await refs(database, "rule") == ["shop.often", "shop.thank"]
        (shop / "rules/thank.yaml").write_text("trigger: sold\naction: pay\n")
        assert await broken(engine, 0) == []
        assert await refs(database, "rule") == ["shop.more", "shop.often", "shop.thank"]


async def test_t75_what_did_not_change_is_not_written_and_timers_keep_their_phase(
    database: Database, tmp_path: Path, packs: Path
) -> None:
    shop = pack(packs, "shop", SHOP)
    clock = VirtualClock()
    async with engine_on(database, tmp_path, watched=[packs], clock=clock) as engine:
        kinds = ("pack", "trigger", "action", "rule", "timer")
        before = {kind: await _rows(database, kind) for kind in kinds}
        revisions = len(await _rows(database, "revision"))
        clock.advance(3)
        (shop / "rules/thank.yaml").write_text("trigger: sold\naction: pay\nlabel: Thanks\n")
        (shop / "README.md").write_text("Read me.\n")
        await engine.folders.read()
        after = {kind: await _rows(database, kind) for kind in kinds}
        changed = [key for kind in kinds for key in after[kind] if after[kind][key] != before[kind].get(key)]
        assert sorted(map(str, changed)) == ["shop", "shop.thank"]
        assert {name for name, value in after["pack"]["shop"].items() if value != before["pack"]["shop"][name]} == {
            "checksum"
        }
        assert len(await _rows(database, "revision")) == revisions + 1


async def test_a_change_that_means_nothing_leaves_caches_up_to_date(
    database: Database, tmp_path: Path, packs: Path
) -> None:
    shop = pack(packs, "shop", SHOP)
    async with engine_on(database, tmp_path, watched=[packs]) as engine:
        before = await _rows(database, "revision")
        (shop / "rules/thank.yaml").write_text("# Thanks.\ntrigger: sold\naction: pay\n")
        await engine.folders.read()
        assert await _rows(database, "revision") == before
        row = await database.fetch_one("SELECT version FROM attune.definition_version")
        assert row is not None
        assert engine.definitions.version == row["version"]


@pytest.mark.parametrize(
    ("first", "switched", "second", "expected"),
    [
        # Whoever switched it has the last word while the file says the same.
        (True, False, True, False),
        (False, True, False, True),
        # The file says something new.
        (True, False, False, False),
        (False, True, True, True),
        (True, True, False, False),
        (False, False, True, True),
    ],
)
async def test_a_switch_holds_until_the_file_changes_that_very_key(
    database: Database, tmp_path: Path, packs: Path, first: bool, switched: bool, second: bool, expected: bool
) -> None:
    text = "trigger: sold\naction: pay\nenabled: {}\n"
    shop = pack(packs, "shop", {**SHOP, "rules/thank.yaml": text.format(str(first).lower())})
    async with engine_on(database, tmp_path, watched=[packs]) as engine:
        await engine.rules.update("shop.thank", {"enabled": switched})
        (shop / "rules/thank.yaml").write_text(text.format(str(second).lower()) + "label: New\n")
        await engine.folders.read()
        assert engine.definitions.rules.by_ref["shop.thank"].enabled is expected


async def test_a_switch_after_the_file_changed_it_holds_as_well(
    database: Database, tmp_path: Path, packs: Path
) -> None:
    text = "trigger: sold\naction: pay\n"
    shop = pack(packs, "shop", {**SHOP, "rules/thank.yaml": text})
    async with engine_on(database, tmp_path, watched=[packs]) as engine:
        (shop / "rules/thank.yaml").write_text(f"{text}enabled: false\n")
        await engine.folders.read()
        await engine.rules.update("shop.thank", {"enabled": True})
        (shop / "rules/thank.yaml").write_text(f"{text}enabled: false\nlabel: New\n")
        await engine.folders.read()
        assert engine.definitions.rules.by_ref["shop.thank"].enabled is True


async def test_packs_may_use_each_other_in_any_order(database: Database, tmp_path: Path, packs: Path) -> None:
    pack(packs, "a", {"rules/one.yaml": "trigger: b.sold\naction: core.noop\n"})
    pack(packs, "b", {"rules/one.yaml": "trigger: c.sold\naction: core.noop\n", "triggers/sold.yaml": "label: Sold\n"})
    async with engine_on(database, tmp_path, watched=[packs]) as engine:
        assert [problem.partition(": ")[2] for problem in told(engine)] == [
            "trigger: there is no trigger b.sold",
            "trigger: there is no trigger c.sold; did you mean 'b.sold'?",
        ]
        pack(packs, "c", {"triggers/sold.yaml": "label: Sold\n"})
        await engine.folders.read()
        assert told(engine) == []


async def test_what_people_made_in_a_pack_survives_its_folder(database: Database, tmp_path: Path, packs: Path) -> None:
    shop = pack(packs, "shop", SHOP)
    async with engine_on(database, tmp_path, watched=[packs]) as engine:
        await make_rule(engine, rule("shop.mine", "shop.sold", "shop.pay"))
        shutil.rmtree(shop)
        await engine.folders.read()
        await engine.folders.read()
        assert [await refs(database, kind) for kind in ("pack", "action", "rule")] == [["shop"], [], ["shop.mine"]]
        pack(packs, "shop", SHOP)
        await engine.folders.read()
        mine = engine.definitions.rules.by_ref["shop.mine"]
        assert None not in {mine.trigger, mine.action}


async def test_a_folder_that_is_renamed_is_the_same_pack(database: Database, tmp_path: Path, packs: Path) -> None:
    shop = pack(packs, "shop", SHOP)
    async with engine_on(database, tmp_path, watched=[packs]) as engine:
        before = engine.definitions.rules.by_ref["shop.often"]
        shop.rename(packs / "store")
        await engine.folders.read()
        assert engine.definitions.rules.by_ref["shop.often"] == before
        assert engine.definitions.packs.by_ref["shop"].storage_path == str(packs / "store")


async def test_a_pack_that_gets_another_ref_takes_the_old_one_along(
    database: Database, tmp_path: Path, packs: Path
) -> None:
    shop = pack(packs, "shop", SHOP)
    async with engine_on(database, tmp_path, watched=[packs]) as engine:
        (shop / "pack.yaml").write_text("ref: store\n")
        await engine.folders.read()
        assert await refs(database, "rule", "store") == ["store.often", "store.thank"]
        assert await refs(database, "pack") == []


async def test_while_the_folder_of_packs_is_away_they_stay(database: Database, tmp_path: Path, packs: Path) -> None:
    pack(packs, "shop", SHOP)
    async with engine_on(database, tmp_path, watched=[packs]) as engine:
        shutil.move(packs, tmp_path / "away")
        await engine.folders.read()
        assert [problem.partition(": ")[2] for problem in told(engine)] == [
            "there is no such folder; the packs that were read from it stay as they are"
        ]
        assert await refs(database, "rule") == ["shop.often", "shop.thank"]
        shutil.move(tmp_path / "away", packs)
        await engine.folders.read()
        assert told(engine) == []


async def test_a_folder_of_packs_that_is_made_anew_is_watched(database: Database, tmp_path: Path, packs: Path) -> None:
    async with watching(database, tmp_path) as engine:
        pack(packs, "shop", SHOP)
        await until(ref_is(database, "pack", "shop"))
        shutil.move(packs, tmp_path / "away")
        pack(packs, "other", {})
        await until(ref_is(database, "pack", "shop", there=False))
        await until(ref_is(database, "pack", "other"))
        pack(packs, "third", {})
        await until(ref_is(database, "pack", "third"))
        assert told(engine) == []


async def test_a_pack_of_a_folder_that_is_not_looked_at_stays_and_that_is_told_once(
    database: Database, tmp_path: Path, packs: Path
) -> None:
    pack(packs, "shop", SHOP)
    async with engine_on(database, tmp_path, watched=[packs]):
        pass
    (tmp_path / "others").mkdir()
    with capture_logs() as lines:
        async with engine_on(database, tmp_path, watched=[tmp_path / "others"]) as engine:
            await engine.folders.read()
            assert await refs(database, "rule") == ["shop.often", "shop.thank"]
    (told_of,) = [line for line in lines if line["log_level"] == "warning"]
    assert told_of["pack"] == "shop"
    assert "attune pack delete shop" in told_of["remedy"]
    async with engine_on(database, tmp_path, watched=[tmp_path / "others"]) as engine:
        await engine.installer.remove("shop")
        assert await refs(database, "pack") == []


async def test_two_folders_of_one_pack_are_told_and_the_second_takes_over_when_the_first_goes(
    database: Database, tmp_path: Path, packs: Path
) -> None:
    first = pack(packs, "shop", SHOP)
    async with engine_on(database, tmp_path, watched=[packs]) as engine:
        shutil.copytree(first, packs / "copy")
        await engine.folders.read()
        (problem,) = told(engine)
        assert problem == f"{packs}/copy/pack.yaml:1: ref: the pack 'shop' is that of {first} already"
        shutil.rmtree(first)
        await engine.folders.read()
        assert told(engine) == []
        assert engine.definitions.packs.by_ref["shop"].storage_path == str(packs / "copy")


async def test_what_is_in_a_linked_folder_is_followed(database: Database, tmp_path: Path, packs: Path) -> None:
    shop = pack(tmp_path / "elsewhere", "shop", SHOP)
    (packs / "shop").symlink_to(shop)
    async with watching(database, tmp_path) as engine:
        assert told(engine) == []
        (shop / "rules/more.yaml").write_text("trigger: sold\naction: pay\n")
        await until(ref_is(database, "rule", "shop.more"))


def test_packs_are_sub_folders_that_look_like_packs_or_the_folder_itself(tmp_path: Path) -> None:
    shop = pack(tmp_path, "shop", {})
    meant = tmp_path / "meant"
    (meant / "rules").mkdir(parents=True)
    (meant / "rules/a.yaml").write_text("")
    pack(tmp_path, ".hidden", {})
    (tmp_path / "data").mkdir()
    assert packs_in(tmp_path) == [meant, shop]
    assert packs_in(shop) == [shop]
    assert packs_in(tmp_path / "none") == []


async def test_bundled_packs_are_read_only_once_and_never_removed(
    database: Database, tmp_path: Path, packs: Path
) -> None:
    kept = pack(tmp_path, "kept", {"actions/old.yaml": "entry_point: old.sh\n", "actions/old.sh": "#!/bin/sh\n"})
    async with engine_on(database, tmp_path, packs=[kept], watched=[packs]) as engine:
        (kept / "actions/old.yaml").rename(kept / "actions/new.yaml")
        await engine.folders.read()
        assert await refs(database, "action", "kept") == ["kept.old"]
        assert engine.definitions.packs.by_ref["hello"].storage_path == str(BUNDLED / "hello")


async def _rows(database: Database, table: str) -> dict[Any, dict[str, Any]]:
    """The rows of a table, by what is unique in it."""
    rows = [dict(row) for row in await database.fetch_all(f"SELECT * FROM attune.{table}")]
    return {str(row if table == "revision" else row.get("ref", row.get("rule"))): row for row in rows}
