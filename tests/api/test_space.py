"""Who takes how much room, as the server tells it."""

from datetime import UTC, datetime, timedelta

from tests.api.sites import Site
from tests.support.waiting import until


async def test_tables_and_folders_are_told_with_what_is_in_them(site: Site) -> None:
    before = await site.data("GET", "/api/v1/system/space")
    made = await site.data("POST", "/api/v1/executions/execute", json={"action_ref": "shop.charge"})

    async def ended() -> bool | None:
        execution = await site.data("GET", f"/api/v1/executions/{made['id']}")
        return True if execution["finished_at"] else None

    await until(ended)
    found = await site.data("GET", "/api/v1/system/space")

    tables = {table["name"]: table for table in found["tables"]}
    assert {"event", "execution", "trace", "pack_file"} <= tables.keys()
    assert not any(name.startswith("trace_") for name in tables)
    assert tables["execution"]["rows"] == 1
    assert tables["execution"]["oldest"] == made["created"]
    assert 100 < tables["execution"]["rows_bytes"] < tables["execution"]["data_bytes"]
    folders = {folder["name"]: folder for folder in found["folders"]}
    assert (folders["logs"]["files"], folders["logs"]["complete"]) == (2, True)
    assert folders["logs"]["bytes"] > 0
    # The lock, the key and what else a server has of its own.
    assert 0 < folders["other"]["files"] < 20
    assert found["history_bytes"] >= tables["execution"]["rows_bytes"] + folders["logs"]["bytes"]
    assert found["history_bytes"] > before["history_bytes"]
    assert found["database_bytes"] > 1_000_000
    assert found["wal_bytes"] > 1_000_000
    assert found["free_bytes"] > 0
    assert found["retention"] == {
        "days": 30,
        "max_bytes": 10_000_000_000,
        "dead_letter_days": 90,
        "ended_at": None,
        "seconds": 0.0,
        "removed": {},
        "overdue_seconds": 0,
    }


async def test_who_asks_for_what_is_not_kept_any_more_is_told(site: Site) -> None:
    path = "/api/v1/rules/shop.thank/explain"
    new = await site.data("GET", path, params={"since": "40d"})
    await site.sql("UPDATE attune.rule SET created = now() - interval '50 days' WHERE ref = 'shop.thank'")

    old = await site.data("GET", path, params={"since": "40d"})
    shorter = await site.data("GET", path, params={"since": "29d"})

    (note,) = set(old["notes"]) - set(new["notes"])
    told = datetime.strptime(note, "Events from before %Y-%m-%d %H:%M UTC are not kept any more.").replace(tzinfo=UTC)
    assert timedelta() <= datetime.now(UTC) - timedelta(days=30) - told < timedelta(minutes=5)
    assert shorter["notes"] == new["notes"]
