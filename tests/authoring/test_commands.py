"""`attune pack new`, `attune check` and `attune pack test`, as a person types them; and that a new pack runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from attune.authoring.check import check
from attune.authoring.scaffold import make_pack
from attune.authoring.trials import run_tests
from attune.base.errors import BadInput, Conflict
from attune.base.json import loads
from attune.database.pool import Database
from tests.authoring.parts import RULE, shop
from tests.authoring.test_check import NOW
from tests.server.running import environment
from tests.support.engines import emit, engine_on
from tests.support.waiting import until


@pytest.fixture
def database(shared_database: Database) -> Database:
    return shared_database


def attune(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """What a command did."""
    return subprocess.run(
        [sys.executable, "-m", "attune", *arguments],
        check=False, cwd=cwd, env=environment(), text=True, capture_output=True,
    )  # fmt: skip


def test_a_new_pack_is_right_and_its_test_passes(tmp_path: Path) -> None:
    files = make_pack("my-shop", tmp_path, "Europe/Berlin")
    assert all(file.is_file() for file in files)
    (report,) = check([tmp_path / "my-shop"], NOW)
    assert report.problems == ()
    (trial,) = run_tests(tmp_path / "my-shop")
    assert trial.differences == ()


async def test_a_new_pack_runs(database: Database, tmp_path: Path) -> None:
    make_pack("mine", tmp_path, "UTC")
    async with engine_on(database, tmp_path, packs=[tmp_path / "mine"]) as engine, engine.running():
        rule = engine.definitions.rules.by_ref["mine.greet_often"]
        await emit(engine, "core.crontimer", {"scheduled_at": "now"}, rule=rule.id)

        async def finished() -> str | None:
            row = await database.fetch_one(
                "SELECT result::text AS result FROM attune.execution WHERE result IS NOT NULL"
            )
            return None if row is None else str(row["result"])

        result = loads(await until(finished))
        assert result["data"]["greetings"][0].startswith("Hello, world, it is ")


def test_a_pack_is_not_made_over_another_or_under_a_name_that_is_none(tmp_path: Path) -> None:
    make_pack("mine", tmp_path, "UTC")
    with pytest.raises(Conflict):
        make_pack("mine", tmp_path, "UTC")
    with pytest.raises(BadInput, match="'My Shop' cannot be the name of a pack: it must be lower-case letters"):
        make_pack("My Shop", tmp_path, "UTC")
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot be made: "):
        make_pack("mine", tmp_path / "file", "UTC")


def test_the_first_steps_are_commands(tmp_path: Path) -> None:
    made = attune("pack", "new", "mine", cwd=tmp_path)
    assert (made.returncode, "attune check mine" in made.stderr) == (0, True)
    tried = attune("pack", "test", "mine", cwd=tmp_path)
    assert (tried.returncode, tried.stdout.split()[0]) == (0, "ok")


def test_check_tells_the_place_and_refuses(tmp_path: Path) -> None:
    shop(tmp_path, rules__thank=RULE.replace("shop.sold", "shop.sole"))
    what = "trigger_ref: there is no trigger shop.sole; did you mean 'shop.sold'?"
    found = attune("check", "shop", cwd=tmp_path)
    assert (found.returncode, found.stdout, found.stderr) == (
        3,
        f"shop/rules/thank.yaml:4: {what}\n",
        "shop: 1 problem\n",
    )
    data = attune("check", "-o", "json", cwd=tmp_path)
    place = {"file": f"{tmp_path}/shop/rules/thank.yaml", "line": 4, "problem": what}
    assert (data.returncode, json.loads(data.stdout)) == (3, [{"pack": f"{tmp_path}/shop", "problems": [place]}])
    assert attune("check", "nowhere", cwd=tmp_path).returncode == 2


def test_a_case_that_fails_shows_expected_against_actual_clause_by_clause(tmp_path: Path) -> None:
    conditions = "- {field: item, operator: equals, value: tea}\n- {field: amount, operator: exists}\n"
    cases = "rule: thank\ncases:\n- name: tea is paid\n  payload: {item: coffee}\n"
    shop(tmp_path, rules__thank=f"{RULE}conditions:\n{conditions}", tests__thank=cases)
    failed = attune("pack", "test", "shop", cwd=tmp_path)
    assert failed.returncode == 1
    assert [line.split() for line in failed.stdout.splitlines()] == [
        ["FAILED", "shop/tests/thank.yaml:3", "tea", "is", "paid"],
        ["matches"],
        ["expected", "yes"],
        ["actual", "no"],
        ["conditions", "of", "shop.thank"],
        ["no", "all"],
        ["no", "item", "equals", '"tea"', "(it", "is", '"coffee")'],
        ["not", "looked", "at", "amount", "exists", "true"],
    ]
