"""Lists: their envelope, their pages, their totals, and what they can be filtered by."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from attune.database.embedded import Cluster
from tests.api.sites import Site, new_database, new_folder, site_on

MANY = 120
FLOOD = 10_500

# Enough of everything: 120 rows in each list, and events that are too many to be counted.
FILL = (
    """
    INSERT INTO attune.pack (ref, label, version, storage_path, checksum, created, updated)
    SELECT format('pack%s', lpad(i::text, 3, '0')), 'A pack', '1.0.0', '/nowhere', '', now(), now()
      FROM generate_series(1, {many}) AS i
    """,
    """
    INSERT INTO attune.trigger (ref, pack, pack_ref, label, enabled, created, updated)
    SELECT format('pack001.t%s', lpad(i::text, 3, '0')), p.id, p.ref, 'A trigger', true, now(), now()
      FROM generate_series(1, {many}) AS i, attune.pack p WHERE p.ref = 'pack001'
    """,
    """
    INSERT INTO attune.action (ref, pack, pack_ref, label, entrypoint, runtime_ref, created, updated)
    SELECT format('pack001.a%s', lpad(i::text, 3, '0')), p.id, p.ref, 'An action', 'noop', 'core.builtin', now(), now()
      FROM generate_series(1, {many}) AS i, attune.pack p WHERE p.ref = 'pack001'
    """,
    """
    INSERT INTO attune.rule (ref, pack, pack_ref, label, action, action_ref, trigger, trigger_ref, enabled, is_adhoc,
                             created, updated)
    SELECT format('pack001.r%s', lpad(i::text, 3, '0')), p.id, p.ref, 'A rule', a.id, a.ref, t.id, t.ref, true, true,
           now(), now()
      FROM generate_series(1, {many}) AS i, attune.pack p, attune.action a, attune.trigger t
     WHERE p.ref = 'pack001' AND a.ref = 'pack001.a001' AND t.ref = 'pack001.t001'
    """,
    """
    INSERT INTO attune.event (trigger, trigger_ref, payload, source_ref, rule, rule_ref, correlation_id, depth, created)
    SELECT 1000 + i % 2, format('shop.t%s', i % 2), CASE WHEN i % 2 = 0 THEN '{{}}'::jsonb END,
           format('source%s', i % 3),
           CASE WHEN i <= 10 THEN i END, CASE WHEN i <= 10 THEN format('shop.r%s', i) END, gen_random_uuid(), 0, now()
      FROM generate_series(1, {flood}) AS i
    """,
    """
    INSERT INTO attune.enforcement (rule, rule_ref, trigger_ref, event, config, status, correlation_id, depth, created)
    SELECT 1 + i % 4, format('shop.r%s', 1 + i % 4), format('shop.t%s', i % 2), i, '{{}}',
           CASE WHEN i % 10 = 0 THEN 'disabled' ELSE 'processed' END, gen_random_uuid(), 0, now()
      FROM generate_series(1, {many}) AS i
    """,
    """
    INSERT INTO attune.execution (action_ref, config, parent, enforcement, executor, status, result, correlation_id,
                                  depth, created, updated)
    SELECT CASE WHEN i % 3 = 0 THEN 'shopping.go' ELSE format('shop.a%s', i % 3) END, '{{}}',
           CASE WHEN i > 110 THEN 1 END, CASE WHEN i <= 60 THEN n.id END, CASE WHEN i % 5 = 0 THEN 77 END,
           CASE WHEN i % 2 = 0 THEN 'completed' ELSE 'failed' END, jsonb_build_object('data', format('Tea no. %s', i)),
           gen_random_uuid(), 0, now(), now()
      FROM generate_series(1, {many}) AS i JOIN attune.enforcement n ON n.event = i ORDER BY i
    """,
    """
    INSERT INTO attune.dead_letter (queue, message_id, correlation_id, depth, message_type, version, source, payload,
                                    attempts, error, published_at, created, alerted)
    SELECT 'attune.events.queue', gen_random_uuid(), gen_random_uuid(), 0, 'EventCreated', '1.0', 'test',
           '{{"a": [1]}}', 5, 'broken', now(), now(), true
      FROM generate_series(1, {many})
    """,
    "ANALYZE attune.event",
)

# Each list, and how many of its items a test put there.
LISTS = [
    ("/api/v1/packs", MANY),
    ("/api/v1/triggers", MANY),
    ("/api/v1/triggers/enabled", MANY),
    ("/api/v1/actions", MANY),
    ("/api/v1/rules", MANY),
    ("/api/v1/rules/enabled", MANY),
    ("/api/v1/packs/pack001/triggers", MANY),
    ("/api/v1/packs/pack001/actions", MANY),
    ("/api/v1/packs/pack001/rules", MANY),
    ("/api/v1/actions/pack001.a001/rules", MANY),
    ("/api/v1/triggers/pack001.t001/rules", MANY),
    ("/api/v1/events", FLOOD),
    ("/api/v1/enforcements", MANY),
    ("/api/v1/executions", MANY),
    ("/api/v1/bus/dead-letters", MANY),
]
PATHS = [path for path, _ in LISTS]
BY_REF = PATHS[:11]


@pytest.fixture(scope="module")
async def site(cluster: Cluster, base: Path) -> AsyncIterator[Site]:
    """A server with full lists."""
    async with new_database(cluster) as dsn, site_on(dsn, new_folder(base)) as made:
        for statement in FILL:
            await made.sql(statement.format(many=MANY, flood=FLOOD))
        yield made


@pytest.mark.parametrize(("path", "added"), LISTS)
async def test_a_list_has_its_envelope(site: Site, path: str, added: int) -> None:
    answer = await site.ask("GET", path)
    body = answer.json()
    pagination = body["pagination"]

    assert answer.status_code == 200
    assert body.keys() == {"data", "pagination"}
    assert len(body["data"]) == 50
    assert pagination["page"] == 1
    assert pagination["page_size"] == 50
    assert pagination["total_items"] >= added
    assert pagination["total_pages"] == -(-pagination["total_items"] // 50)
    assert pagination["has_next"] is True
    assert pagination["has_previous"] is False


@pytest.mark.parametrize("path", PATHS)
async def test_pages_put_together_are_the_list(site: Site, path: str) -> None:
    whole = (await _page(site, path, per_page=100))["data"]

    third = await _page(site, path, page=3, per_page=30)

    assert third["data"] == whole[60:90]
    assert third["pagination"]["has_previous"] is True
    assert third["pagination"]["page"] == 3
    assert third["pagination"]["page_size"] == 30


@pytest.mark.parametrize("path", PATHS)
async def test_cursors_lead_through_the_whole_list_once(site: Site, path: str) -> None:
    seen: list[int] = []
    query: dict[str, Any] = {"page_size": 1000 if path == "/api/v1/events" else 17, "total": "exact"}
    while True:
        page = await _page(site, path, **query)
        seen.extend(item["id"] for item in page["data"])
        if page["pagination"]["next_after"] is None:
            break
        assert page["pagination"]["has_next"] is True
        query["after"] = page["pagination"]["next_after"]

    assert page["pagination"]["has_next"] is False
    assert page["pagination"]["has_previous"] is True
    assert len(seen) == len(set(seen)) == page["pagination"]["total_items"]


@pytest.mark.parametrize("path", PATHS)
async def test_a_list_has_its_order(site: Site, path: str) -> None:
    items = (await _page(site, path, page_size=1000))["data"]
    keys = [item["ref"] if path in BY_REF else -item["id"] for item in items]

    assert keys == sorted(keys)


@pytest.mark.parametrize("path", PATHS)
async def test_past_the_end_there_is_an_empty_page(site: Site, path: str) -> None:
    page = await _page(site, path, page=1_000_000, per_page=1000)

    assert page["data"] == []
    assert page["pagination"]["has_next"] is False
    assert page["pagination"]["has_previous"] is True
    assert page["pagination"]["total_items"] > 0


async def test_the_last_page_is_short(site: Site) -> None:
    page = await _page(site, "/api/v1/packs/pack001/rules", page=3)

    assert len(page["data"]) == 20
    assert page["pagination"] == {
        "page": 3,
        "page_size": 50,
        "total_items": MANY,
        "total_pages": 3,
        "has_next": False,
        "has_previous": True,
        "next_after": None,
    }


async def test_a_page_that_ends_with_the_list_has_no_next(site: Site) -> None:
    page = await _page(site, "/api/v1/packs/pack001/rules", page=2, per_page=60)

    assert len(page["data"]) == 60
    assert page["pagination"]["has_next"] is False


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("page=0", "/page"),
        ("page=-1", "/page"),
        ("page=1000001", "/page"),
        ("page=", "/page"),
        ("page", "/page"),
        ("page=one", "/page"),
        ("page=1.5", "/page"),
        (f"page={'9' * 5000}", "/page"),
        ("per_page=0", "/per_page"),
        ("per_page=1001", "/per_page"),
        ("page_size=1001", "/page_size"),
        ("page_size=all", "/page_size"),
        # Synonyms that differ, and two ways to say where to begin.
        ("per_page=10&page_size=20", ""),
        ("page=2&after=5", ""),
        ("total=some", "/total"),
        # Nothing is silently ignored.
        ("include_total=true", "/include_total"),
        ("nonsense", "/nonsense"),
        ("page=1&page=2", "/page"),
        ("page=1&page=1", "/page"),
        ("after=a%00b", "/after"),
        ("a%00b=1", "/a\x00b"),
        ("%ff=1", "/\ufffd"),
    ],
    ids=lambda value: value[:30],
)
async def test_a_wrong_query_is_refused_by_name_in_every_list(site: Site, query: str, where: str) -> None:
    for path in PATHS:
        answer = await site.ask("GET", f"{path}?{query}")

        assert answer.status_code == 422, answer.text
        assert [problem["pointer"] for problem in answer.json()["errors"]] == [where]


@pytest.mark.parametrize("size", ["per_page=1000", "page_size=1000", "per_page=7&page_size=7", "page_size=1"])
async def test_per_page_and_page_size_mean_the_same(site: Site, size: str) -> None:
    answer = await site.ask("GET", f"/api/v1/executions?{size}")

    wanted = int(size.rpartition("=")[2])
    assert answer.json()["pagination"]["page_size"] == wanted
    assert len(answer.json()["data"]) == min(wanted, MANY)


@pytest.mark.parametrize(
    ("path", "wrong", "meant"),
    [
        ("/api/v1/executions", "statuss", "status"),
        ("/api/v1/executions", "per-page", "per_page"),
        ("/api/v1/executions", "action", "action_ref"),
        ("/api/v1/events", "trigger_reff", "trigger_ref"),
        ("/api/v1/rules", "pagesize", "page_size"),
    ],
)
async def test_an_unknown_query_parameter_is_told_what_was_probably_meant(
    site: Site, path: str, wrong: str, meant: str
) -> None:
    answer = await site.ask("GET", f"{path}?{wrong}=1")

    assert answer.json()["errors"] == [{"pointer": f"/{wrong}", "detail": f"is unknown; did you mean {meant!r}?"}]


@pytest.mark.parametrize("path", ["/api/v1/events", "/api/v1/enforcements", "/api/v1/executions", PATHS[-1]])
@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "٣", "²", str(2**63), "9" * 5000, ""])
async def test_a_cursor_that_no_page_gave_is_refused(site: Site, path: str, cursor: str) -> None:
    answer = await site.ask("GET", path, params={"after": cursor})

    assert answer.status_code == 422, answer.text
    assert "next_after" in answer.json()["errors"][0]["detail"]


async def test_totals_are_exact_up_to_ten_thousand(site: Site) -> None:
    few = (await _page(site, "/api/v1/events", trigger_ref="shop.t1"))["pagination"]
    many = (await _page(site, "/api/v1/events"))["pagination"]
    counted = (await _page(site, "/api/v1/events", total="exact"))["pagination"]

    assert few["total_items"] == FLOOD // 2
    assert "total_exact" not in few
    assert many["total_exact"] is False
    assert 10_000 < many["total_items"] < 2 * FLOOD
    assert many["total_pages"] == -(-many["total_items"] // 50)
    assert counted["total_items"] == FLOOD
    assert "total_exact" not in counted


# A list, a query, and how many of the items it keeps.
FILTERS = [
    ("/api/v1/events", {"trigger": 1000}, FLOOD // 2),
    ("/api/v1/events", {"trigger": 9999}, 0),
    ("/api/v1/events", {"trigger_ref": "shop.t0"}, FLOOD // 2),
    ("/api/v1/events", {"trigger_ref": "shop.*"}, 0),
    ("/api/v1/events", {"rule": 3}, 1),
    ("/api/v1/events", {"rule_ref": "shop.r3"}, 1),
    ("/api/v1/events", {"source_ref": "source0"}, FLOOD // 3),
    ("/api/v1/events", {"source_ref": "source0", "trigger_ref": "shop.t0"}, FLOOD // 6),
    ("/api/v1/enforcements", {"rule": 1}, MANY // 4),
    ("/api/v1/enforcements", {"event": 17}, 1),
    ("/api/v1/enforcements", {"status": "disabled"}, MANY // 10),
    ("/api/v1/enforcements", {"status": "created"}, 0),
    ("/api/v1/enforcements", {"trigger_ref": "shop.t1"}, MANY // 2),
    ("/api/v1/enforcements", {"rule_ref": "shop.r4"}, MANY // 4),
    ("/api/v1/executions", {"status": "completed"}, MANY // 2),
    ("/api/v1/executions", {"status": "running"}, 0),
    ("/api/v1/executions", {"action_ref": "shop.a1"}, MANY // 3),
    # `pack.*` names a pack, and not those whose names begin like it.
    ("/api/v1/executions", {"action_ref": "shop.*"}, 2 * MANY // 3),
    ("/api/v1/executions", {"action_ref": "shop*"}, 0),
    ("/api/v1/executions", {"action_ref": "%"}, 0),
    ("/api/v1/executions", {"pack_name": "shop"}, 2 * MANY // 3),
    ("/api/v1/executions", {"pack_name": "shopping"}, MANY // 3),
    ("/api/v1/executions", {"pack_name": "sho_"}, 0),
    # Only the first 60 have an enforcement.
    ("/api/v1/executions", {"rule_ref": "shop.r1"}, 15),
    ("/api/v1/executions", {"rule_ref": "shop.*"}, 60),
    ("/api/v1/executions", {"trigger_ref": "shop.t1"}, 30),
    ("/api/v1/executions", {"trigger_ref": "shop.*"}, 60),
    ("/api/v1/executions", {"executor": 77}, MANY // 5),
    ("/api/v1/executions", {"event": 42}, 1),
    ("/api/v1/executions", {"parent": 1}, 10),
    ("/api/v1/executions", {"top_level_only": "true"}, 110),
    ("/api/v1/executions", {"top_level_only": "false"}, MANY),
    # Whatever its case; and not as a pattern.
    ("/api/v1/executions", {"result_contains": "tea no. 12"}, 2),
    ("/api/v1/executions", {"result_contains": "TEA NO. 120"}, 1),
    ("/api/v1/executions", {"result_contains": "tea%"}, 0),
    ("/api/v1/executions", {"status": "failed", "parent": 1, "executor": 77}, 1),
]


@pytest.mark.parametrize(("path", "query", "kept"), FILTERS, ids=str)
async def test_a_filter_keeps_what_it_names(site: Site, path: str, query: dict[str, Any], kept: int) -> None:
    page = await _page(site, path, **query, total="exact", page_size=1000)

    assert page["pagination"]["total_items"] == kept
    assert len(page["data"]) == min(kept, 1000)
    for name, value in query.items():
        if name in {"trigger", "trigger_ref", "rule", "rule_ref", "source_ref", "status", "event", "parent"}:
            assert all(_fits(item[name], value) for item in page["data"])


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/api/v1/events", "trigger=x"),
        ("/api/v1/events", "trigger=0"),
        ("/api/v1/events", f"rule={2**63}"),
        ("/api/v1/enforcements", "status=broken"),
        ("/api/v1/enforcements", "event=-1"),
        ("/api/v1/executions", "status=Completed"),
        ("/api/v1/executions", "status="),
        ("/api/v1/executions", "executor=1e3"),
        ("/api/v1/executions", f"parent={'9' * 5000}"),
        ("/api/v1/executions", "top_level_only=maybe"),
    ],
)
async def test_a_filter_of_the_wrong_kind_is_refused(site: Site, path: str, query: str) -> None:
    answer = await site.ask("GET", f"{path}?{query}")

    assert answer.status_code == 422
    assert [problem["pointer"] for problem in answer.json()["errors"]] == [f"/{query.partition('=')[0]}"]


async def test_an_enforcement_filter_finds_its_execution(site: Site) -> None:
    (enforcement,) = (await _page(site, "/api/v1/enforcements", event=42))["data"]
    (execution,) = (await _page(site, "/api/v1/executions", enforcement=enforcement["id"]))["data"]

    assert execution["event"] == 42
    assert execution["rule_ref"] == enforcement["rule_ref"]


async def test_what_is_switched_off_is_not_among_the_enabled(site: Site) -> None:
    triggers = {item["ref"] for item in (await _page(site, "/api/v1/triggers/enabled", per_page=1000))["data"]}
    rules = {item["ref"] for item in (await _page(site, "/api/v1/rules/enabled", per_page=1000))["data"]}

    assert "shop.sold" in triggers
    assert "shop.closed" not in triggers
    assert "shop.thank" in rules
    assert "hello.every_ten_seconds" not in rules


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/packs/none/triggers",
        "/api/v1/packs/none/actions",
        "/api/v1/packs/none/rules",
        "/api/v1/actions/core.none/rules",
        "/api/v1/triggers/core.none/rules",
    ],
)
async def test_the_list_of_something_that_does_not_exist_is_not_found(site: Site, path: str) -> None:
    assert (await site.ask("GET", path)).status_code == 404


async def test_summaries_have_the_fields_of_the_contract(site: Site) -> None:
    fields = {
        "/api/v1/packs": "id ref label description version tags is_standard created updated",
        "/api/v1/triggers": "id ref pack_ref label description enabled created updated",
        "/api/v1/actions": "id ref pack_ref label description entrypoint runtime_ref created updated",
        "/api/v1/rules": "id ref pack_ref label description action_ref trigger_ref action_params trigger_params "
        "enabled created updated",
        "/api/v1/events": "id trigger trigger_ref source source_ref rule rule_ref has_payload created",
        "/api/v1/enforcements": "id rule rule_ref trigger_ref event status created",
        "/api/v1/executions": "id action_ref status parent enforcement rule_ref trigger_ref started_at finished_at "
        "original_execution correlation_id waiting_for created updated",
    }
    for path, names in fields.items():
        (item,) = (await _page(site, path, per_page=1))["data"]
        assert not set(names.split()) - item.keys()


async def _page(site: Site, path: str, **query: Any) -> Any:
    answer = await site.ask("GET", path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _fits(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, str) and wanted.endswith(".*"):
        return str(value).startswith(wanted.removesuffix("*"))
    return bool(value == wanted)
