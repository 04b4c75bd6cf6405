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
    assert [instant["utc"][4:] for instant in rule["timer"].pop("next")] == ["-01-01T00:00:00Z"] * 3
    assert rule["timer"] == {
        "state": "waiting",
        "schedule": "at 00:00 on January 1",
        "timezone": "UTC",
        "problem": None,
        "last_fired_at": None,
        "execution_count": 0,
        "skipped": [],
    }
    off = await site.data("POST", f"/api/v1/rules/{rule['ref']}/disable")
    assert off["next_fire_at"] is None


async def test_the_next_instants_are_in_utc_and_on_the_clocks_of_the_zone(site: Site) -> None:
    # The first two Sundays at 02:30 of 2090 in Berlin: one is in the night in which clocks go forward.
    params = {"dtstart": "2090-03-19T02:30", "freq": "WEEKLY", "timezone": "Europe/Berlin", "count": 2}
    rule = await _made(site, trigger_ref="core.rruletimer", trigger_params=params)
    timer = await site.data("GET", f"/api/v1/timers/{rule['ref']}/next?count=9")

    assert timer["next"] == rule["timer"]["next"]
    assert timer["next"] == [
        {"utc": "2090-03-19T01:30:00Z", "local": "2090-03-19T02:30:00+01:00"},
        {"utc": "2090-03-26T01:00:00Z", "local": "2090-03-26T03:00:00+02:00"},
    ]


async def test_timers_say_what_they_are_doing(site: Site) -> None:
    waiting = await _made(site, trigger_ref="core.crontimer", trigger_params={"expression": "@daily"})
    disabled = await _made(site, trigger_ref="core.intervaltimer", trigger_params={"interval": 5}, enabled=False)
    ended = await _made(site, trigger_ref="core.datetimetimer", trigger_params={"fire_at": "2020-01-01T00:00Z"})
    broken = await _made(site, trigger_ref="core.crontimer", trigger_params={"expression": "@daily"})
    # As after an update of the machine, whose zones are others now.
    zone = '{"expression": "@daily", "timezone": "Mars/Olympus"}'
    await site.sql("UPDATE attune.rule SET trigger_params = $1::jsonb WHERE id = $2", zone, broken["id"])
    timers = {timer["rule"]: timer for timer in await site.data("GET", "/api/v1/timers?per_page=1000")}

    assert [timers[rule["id"]]["state"] for rule in (waiting, disabled, ended, broken)] == [
        "waiting",
        "disabled",
        "ended",
        "unreadable",
    ]
    assert timers[broken["id"]]["problem"].startswith("/timezone: 'Mars/Olympus' is not a time zone")
    assert timers[broken["id"]]["schedule"] is None
    assert all(timer["trigger_ref"].endswith("timer") for timer in timers.values())
    counts = [
        len((await site.data("GET", f"/api/v1/timers/{rule['ref']}/next?count=2"))["next"])
        for rule in (waiting, disabled, ended, broken)
    ]
    # The disabled one has those it would have, enabled now.
    assert counts == [2, 2, 0, 0]


async def test_a_rule_that_is_no_timer_has_no_next_instants(site: Site) -> None:
    rule = await _made(site)
    answer = await site.ask("GET", f"/api/v1/timers/{rule['ref']}/next")

    assert answer.status_code == 404
    assert "which is no timer; those are core.intervaltimer" in answer.json()["detail"]
    assert (await site.ask("GET", f"/api/v1/timers/{rule['ref']}/next?count=101")).status_code == 422


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
