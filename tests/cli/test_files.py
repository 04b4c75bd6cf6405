"""Rules and packs as files: given back as they were, applied as they are, and changed nowhere else."""

import json
import shutil
import tarfile
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from attune.catalog.files import read_pack
from tests.api.sites import SHOP, Site
from tests.cli.typed import Commands
from tests.support.waiting import until

USAGE, REFUSED = 2, 3
SENT = {"json": {"label": "Mine"}}

OFTEN = """\
# Kept as it is.
ref: bad.often
trigger: core.intervaltimer
trigger_params: {interval: 60}
action: core.echo
action_params: {message: hi}
enabled: false
"""


@pytest.fixture
def shop(site: Site) -> Path:
    """The folder of the pack `shop`."""
    return site.serving.engine.installer.folders["shop"]


@pytest.fixture
async def rules(site: Site, tmp_path: Path) -> AsyncIterator[Path]:
    """A folder with a rule file; what is made of it goes afterwards."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/often.yaml").write_text(OFTEN)
    yield tmp_path / "rules"
    for rule in (await site.ask("GET", "/api/v1/rules")).json()["data"]:
        if rule["is_adhoc"]:
            await site.ask("DELETE", f"/api/v1/rules/{rule['ref']}")


async def test_a_pack_is_given_back_byte_for_byte(attune: Commands, shop: Path, tmp_path: Path) -> None:
    target = tmp_path / "a/copy"
    done = await attune("pack", "export", "shop", str(target))
    assert done.returncode == 0, done.stderr
    assert f"files of shop are in {target}" in done.stderr
    assert _contents(target) == _contents(shop)
    assert len(_contents(target)) == len(SHOP) + 1
    assert read_pack(target).pack == read_pack(shop).pack
    again = await attune("pack", "export", "shop", str(target))
    assert again.returncode == USAGE
    assert "not empty" in again.stderr


async def test_a_pack_is_given_back_as_it_was_read_while_its_folder_is_broken(
    site: Site, attune: Commands, tmp_path: Path
) -> None:
    parent = site.serving.engine.installer.folders["shop"].parent
    mine = parent / "mine"
    (mine / "rules").mkdir(parents=True)
    (mine / "run.sh").write_text("#!/bin/sh\n")
    (mine / "run.sh").chmod(0o755)
    (mine / "pack.yaml").write_text("# Mine\r\nref: mine\r\n")
    await until(lambda: _found(site, "/api/v1/packs/mine"))
    before = _contents(mine)
    (mine / "rules/a.yaml").write_text("triger: core.crontimer\n")
    broken = await until(lambda: _broken(site, "mine"))
    assert broken["problems"][-1] == {
        "file": str(mine / "rules/a.yaml"),
        "line": 1,
        "key": "triger",
        "detail": "is unknown; did you mean 'trigger'?",
    }
    assert "did you mean 'trigger'" in (await attune("status")).stdout
    assert (await attune("pack", "export", "mine", str(tmp_path / "out"))).returncode == 0
    assert _contents(tmp_path / "out") == before
    # Its folder goes, and so does it.
    refused = await attune("pack", "delete", "mine", "--yes")
    assert refused.returncode == REFUSED
    assert f"The pack mine comes from {mine}/pack.yaml: change it there." in refused.stderr
    shutil.rmtree(mine)
    await until(lambda: _found(site, "/api/v1/packs/mine", there=False))
    assert (await site.data("GET", "/api/v1/system/status"))["broken_packs"] == []


async def test_the_archive_of_a_pack_holds_its_folder(site: Site) -> None:
    answer = await site.ask("GET", "/api/v1/packs/shop/archive")
    assert answer.headers["content-type"] == "application/gzip"
    with tarfile.open(fileobj=BytesIO(answer.content)) as tar:
        assert "shop/actions/charge.sh" in tar.getnames()
    files = (await site.data("GET", "/api/v1/packs/shop/files"))["files"]
    assert {file["path"] for file in files} == {*SHOP, "pack.yaml"}
    for path in ("files", "archive"):
        assert (await site.ask("GET", f"/api/v1/packs/none/{path}")).status_code == 404


async def test_a_rule_of_a_file_is_given_back_as_it_is(attune: Commands) -> None:
    done = await attune("rule", "export", "shop.thank")
    assert (done.returncode, done.stdout, done.stderr) == (0, SHOP["rules/thank.yaml"], "")
    assert (await attune("rule", "export", "shop.none")).returncode == REFUSED


@pytest.mark.parametrize(
    ("kind", "ref", "file"),
    [
        ("rule", "shop.thank", "rules/thank.yaml"),
        ("action", "shop.charge", "actions/charge.yaml"),
        ("trigger", "shop.sold", "triggers/sold.yaml"),
        ("pack", "shop", "pack.yaml"),
    ],
)
async def test_what_comes_from_a_file_is_changed_there_and_the_answer_names_it(
    site: Site, shop: Path, kind: str, ref: str, file: str
) -> None:
    path = f"/api/v1/{kind}s/{ref}"
    before = await site.data("GET", path)
    for method, arguments in (
        ("PUT", {"json": {"label": "Mine"}}),
        ("PATCH", {"json": {"label": "M"}}),
        ("DELETE", {}),
    ):
        answer = await site.ask(method, path, **arguments)
        assert (answer.status_code, answer.json()["code"]) == (409, "CONFLICT")
        assert answer.json()["detail"].startswith(f"The {kind} {ref} comes from {shop / file}: change it there.")
    assert await site.data("GET", path) == before
    for method, arguments in (("PUT", SENT), ("DELETE", {})):
        missing = await site.ask(method, f"/api/v1/{kind}s/no{ref}", **arguments)
        assert missing.status_code == 404


async def test_a_pack_that_no_folder_has_any_more_can_be_deleted(site: Site, attune: Commands) -> None:
    await site.sql(
        "INSERT INTO attune.pack (ref, label, version, storage_path, checksum, created, updated) "
        "VALUES ('left', 'Left', '1', '/nowhere/left', 'x', now(), now())"
    )
    done = await attune("pack", "delete", "left", "--yes")
    assert (done.returncode, done.stderr) == (0, "The pack left is deleted.\n")
    assert (await site.ask("GET", "/api/v1/packs/left")).status_code == 404


async def test_apply_creates_changes_and_leaves_alone(site: Site, attune: Commands, rules: Path) -> None:
    shown = await attune("apply", str(rules), "--diff")
    assert (shown.returncode, shown.stdout) == (0, "bad.often  would be created\n")
    assert (await site.ask("GET", "/api/v1/rules/bad.often")).status_code == 404

    assert (await attune("apply", str(rules))).stdout == "bad.often  created\n"
    made = await site.data("GET", "/api/v1/rules/bad.often")
    assert (made["label"], made["enabled"], made["action_ref"], made["is_adhoc"]) == ("Often", False, "core.echo", True)
    version = await site.sql("SELECT version FROM attune.definition_version")
    assert (await attune("apply", str(rules / "often.yaml"))).stdout == "bad.often  unchanged\n"
    assert await site.sql("SELECT version FROM attune.definition_version") == version

    (rules / "often.yaml").write_text(OFTEN.replace("hi", "ho"))
    expected = '    action_params: {"message": "hi"} -> {"message": "ho"}\n'
    assert (await attune("apply", str(rules), "--diff")).stdout == f"bad.often  would be updated\n{expected}"
    done = await attune("apply", str(rules), "--json")
    assert json.loads(done.stdout) == [
        {
            "ref": "bad.often",
            "action": "updated",
            "changes": {"action_params": {"before": {"message": "hi"}, "after": {"message": "ho"}}},
        }
    ]
    # What a file does not say of `enabled` is up to whoever switches it.
    (rules / "often.yaml").write_text(OFTEN.replace("enabled: false\n", ""))
    await site.data("POST", "/api/v1/rules/bad.often/enable")
    assert "enabled" not in (await attune("apply", str(rules))).stdout
    exported = await attune("rule", "export", "bad.often")
    (rules / "often.yaml").write_text(exported.stdout)
    assert (await attune("apply", str(rules))).stdout == "bad.often  unchanged\n"


async def test_apply_sees_changes_of_secrets_and_shows_none_of_the_answers_masks(
    site: Site, attune: Commands, rules: Path
) -> None:
    (rules / "often.yaml").write_text("ref: shop.pays\ntrigger: sold\naction: charge\naction_params: {card: '4711'}\n")
    assert (await attune("apply", str(rules))).stdout == "shop.pays  created\n"
    assert (await attune("apply", str(rules))).stdout == "shop.pays  unchanged\n"


async def test_apply_tells_what_is_wrong_with_file_and_line(attune: Commands, rules: Path) -> None:
    (rules / "wrong.yaml").write_text("ref: bad.wrong\ntrigger: core.crontimer\naction: core.echo\n")
    refused = await attune("apply", str(rules), "--diff")
    assert refused.returncode == 0, refused.stderr
    refused = await attune("apply", str(rules / "wrong.yaml"))
    assert refused.returncode == REFUSED
    assert f"  {rules}/wrong.yaml:1: trigger_params.expression: is required\n" in refused.stderr
    # A file that cannot be read keeps all of them from being applied.
    (rules / "worse.yaml").write_text("ref: bad.worse\ntriger: core.crontimer\naction: core.echo\n")
    refused = await attune("apply", str(rules))
    assert (refused.returncode, refused.stdout) == (REFUSED, "")
    assert f"  {rules}/worse.yaml:2: triger: is unknown; did you mean 'trigger'?\n" in refused.stderr


async def test_prune_deletes_what_people_made_in_the_pack_and_no_file_names(
    site: Site, attune: Commands, rules: Path
) -> None:
    for ref in ("bad.old", "hello.other"):
        rule = {"ref": ref, "pack_ref": ref.partition(".")[0], "label": "Old", "trigger_ref": "shop.sold"}
        await site.data("POST", "/api/v1/rules", json={**rule, "action_ref": "core.noop"})
    assert (await attune("apply", str(rules / "often.yaml"), "--prune", "--yes")).returncode == USAGE
    shown = await attune("apply", str(rules), "--prune", "--diff")
    assert shown.stdout == "bad.often  would be created\nbad.old  would be deleted\n"
    done = await attune("apply", str(rules), "--prune", "--yes")
    assert (done.returncode, done.stdout) == (0, "bad.often  created\nbad.old  deleted\n")
    assert (await site.ask("GET", "/api/v1/rules/bad.old")).status_code == 404
    assert (await site.ask("GET", "/api/v1/rules/hello.other")).status_code == 200


async def test_apply_reads_the_rules_of_a_pack_folder(attune: Commands, shop: Path) -> None:
    for path in (shop, shop / "rules", shop / "rules/thank.yaml"):
        done = await attune("apply", str(path))
        assert (done.returncode, done.stdout) == (0, "shop.thank  unchanged\n"), done.stderr


def _contents(folder: Path) -> dict[str, tuple[bytes, bool]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), bool(path.stat().st_mode & 0o100))
        for path in folder.rglob("*")
        if path.is_file()
    }


async def _found(site: Site, path: str, *, there: bool = True) -> bool | None:
    return True if ((await site.ask("GET", path)).status_code == 200) is there else None


async def _broken(site: Site, name: str) -> Any:
    broken = (await site.data("GET", "/api/v1/system/status"))["broken_packs"]
    return next((one for one in broken if Path(one["folder"]).name == name), None)
