"""Rules over HTTP: what is absent stays, null clears, and each change takes effect and is kept."""

from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from attune.database.embedded import Cluster
from tests.api.sites import Site, new_database, new_folder, site_on
from tests.support.engines import pack

WHOLE = {
    "pack_ref": "shop",
    "label": "Whole",
    "description": "With everything",
    "trigger_ref": "shop.sold",
    "action_ref": "shop.charge",
    "conditions": {"expression": "event.payload.item == 'tea'"},
    "action_params": {"amount": 2, "currency": "USD"},
    "trigger_params": {},
    "enabled": True,
}
UPDATES = [
    # (what is sent, what has changed then: nothing else may)
    ({}, {}),
    ({"label": "Other"}, {"label": "Other"}),
    ({"description": None}, {"description": None}),
    ({"conditions": None}, {"conditions": []}),
    ({"conditions": []}, {"conditions": []}),
    ({"action_params": None}, {"action_params": {}}),
    # Parameters are replaced whole.
    ({"action_params": {"amount": 3}}, {"action_params": {"amount": 3}}),
    ({"trigger_params": None}, {"trigger_params": {}}),
    ({"enabled": False}, {"enabled": False}),
    ({"action_ref": "core.noop", "action_params": {}}, {"action_ref": "core.noop", "action_params": {}}),
    (
        {"trigger_ref": "core.crontimer", "trigger_params": {"expression": "@yearly"}},
        {"trigger_ref": "core.crontimer", "trigger_params": {"expression": "@yearly"}},
    ),
    (
        {"label": "Other", "description": None, "enabled": False},
        {"label": "Other", "description": None, "enabled": False},
    ),
]
KEPT = ("ref", "pack_ref", *(name for name in WHOLE if name != "pack_ref"))

_numbers = count(1)


@pytest.mark.parametrize(("sent", "changed"), UPDATES, ids=[str(row[0]) for row in UPDATES])
async def test_an_update_changes_what_it_names_and_put_and_patch_are_the_same(
    site: Site, sent: dict[str, Any], changed: dict[str, Any]
) -> None:
    for method in ("PUT", "PATCH"):
        before = await _made(site)
        answered = await site.data(method, f"/api/v1/rules/{before['ref']}", json=sent)
        shown = await site.data("GET", f"/api/v1/rules/{before['ref']}")

        assert {name: answered[name] for name in KEPT} == {name: before[name] for name in KEPT} | changed
        assert {**shown, "warnings": None} == {**answered, "warnings": None}
        assert shown["id"] == before["id"]
        assert shown["updated"] >= before["updated"]


async def test_enabling_and_disabling_can_be_said_again(site: Site) -> None:
    rule = await _made(site)
    for verb, enabled in (("disable", False), ("disable", False), ("enable", True), ("enable", True)):
        assert (await site.data("POST", f"/api/v1/rules/{rule['ref']}/{verb}"))["enabled"] is enabled


async def test_a_rule_of_a_pack_can_be_switched_and_nothing_else(site: Site) -> None:
    assert (await site.data("POST", "/api/v1/rules/shop.thank/disable"))["enabled"] is False
    assert (await site.data("PATCH", "/api/v1/rules/shop.thank", json={"enabled": True}))["enabled"] is True


async def test_a_moment_that_has_passed_is_made_with_a_warning(site: Site) -> None:
    past = {"trigger_ref": "core.datetimetimer", "trigger_params": {"fire_at": "2020-01-01T00:00:00Z"}}
    rule = await _made(site, **past)

    assert rule["next_fire_at"] is None
    assert len(rule["warnings"]) == 1


async def test_a_timer_tells_when_it_fires(site: Site) -> None:
    rule = await _made(site, trigger_ref="core.crontimer", trigger_params={"expression": "0 0 1 1 *"})

    assert rule["next_fire_at"].endswith("-01-01T00:00:00Z")
    assert rule["timer"] == {"last_fired_at": None, "execution_count": 0, "skipped": []}
    off = await site.data("POST", f"/api/v1/rules/{rule['ref']}/disable")
    assert off["next_fire_at"] is None


@pytest.fixture(scope="module")
async def locked(cluster: Cluster, base: Path) -> AsyncIterator[Site]:
    """A server with a trigger that takes a secret."""
    folder = new_folder(base)
    knock = "ref: door.knock\nlabel: Knock\nparameters:\n  code: {type: string, secret: true}\n  door: {type: string}\n"
    pack(folder / "packs", "door", {"triggers/knock.yaml": knock})
    async with new_database(cluster) as dsn, site_on(dsn, folder) as made:
        yield made


async def test_a_secret_of_a_trigger_is_masked_and_a_mask_is_no_secret(locked: Site) -> None:
    params = {"code": "open sesame", "door": "front"}
    rule = await _made(locked, trigger_ref="door.knock", trigger_params=params, conditions=[])
    copied = await locked.ask("PUT", f"/api/v1/rules/{rule['ref']}", json={"trigger_params": rule["trigger_params"]})
    listed = await locked.ask("GET", "/api/v1/rules")

    assert rule["trigger_params"] == {"code": "********", "door": "front"}
    assert "sesame" not in listed.text
    assert copied.status_code == 422
    assert [one["pointer"] for one in copied.json()["errors"]] == ["/trigger_params/code"]


async def _made(site: Site, **fields: Any) -> Any:
    return await site.data("POST", "/api/v1/rules", json={**WHOLE, "ref": f"shop.r{next(_numbers)}", **fields})
