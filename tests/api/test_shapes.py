"""What each route answers: the fields of the contract, no more and no less."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from attune import __version__
from attune.database.embedded import Cluster
from tests.api.routes import ENDPOINTS, methods
from tests.api.sites import Site, bearer, new_database, new_folder, site_on
from tests.support.waiting import until

TIMES = {"created", "updated"}
PACK = {"id", "ref", "label", "description", "version", "tags", "is_standard", *TIMES}
PACK_WHOLE = PACK | {"conf_schema", "config", "meta", "runtime_deps", "dependencies"}
TRIGGER = {"id", "ref", "pack_ref", "label", "description", "enabled", *TIMES}
ACTION = {"id", "ref", "pack_ref", "label", "description", "entrypoint", "runtime_ref", *TIMES}
ACTION_WHOLE = ACTION | {"pack", "param_schema", "out_schema", "output_format", "timeout_seconds", "max_retries"}
ACTION_WHOLE |= {"retry_delay", "retry_backoff", "retry_jitter", "retry_on"}
RULE = {"id", "ref", "pack_ref", "label", "description", "action_ref", "trigger_ref", "action_params"}
RULE |= {"trigger_params", "enabled", "overlap", "is_adhoc", *TIMES}
RULE_WHOLE = RULE | {"pack", "action", "trigger", "conditions", "owner_identity"}
TIMER = {"rule", "rule_ref", "trigger_ref", "state", "schedule", "timezone", "problem", "next_fire_at"}
TIMER |= {"last_fired_at", "execution_count"}
EVENT = {"id", "trigger", "trigger_ref", "source", "source_ref", "rule", "rule_ref", "has_payload", "created"}
EVENT |= {"correlation_id", "execution"}
EVENT_WHOLE = (EVENT - {"has_payload"}) | {"config", "payload"}
ENFORCEMENT = {"id", "rule", "rule_ref", "trigger_ref", "event", "status", "reason", "created", "resolved_at"}
ENFORCEMENT |= {"correlation_id", "waiting_for", "waiting_since"}
ENFORCEMENT_WHOLE = ENFORCEMENT | {"config", "condition", "conditions", "payload", "execution"}
EXECUTION = {"id", "action_ref", "status", "parent", "enforcement", "event", "rule_ref", "trigger_ref", "worker"}
EXECUTION |= {"original_execution", "correlation_id", "waiting_for", "waiting_since", "started_at", "finished_at"}
EXECUTION |= {"retry_count", "retry_reason", "not_before", *TIMES}
EXECUTION_WHOLE = EXECUTION | {"action", "config", "executor", "result", "causation_id", "depth", "script"}
EXECUTION_WHOLE |= {"boot", "deadline", "lease_until", "retried_as"}
INQUIRY = {"id", "execution", "prompt", "assigned_to", "status", "has_response", "responded_by", "responded_at"}
INQUIRY |= {"timeout_at", "created"}
INQUIRY_WHOLE = INQUIRY | {"response_schema", "context", "response", "correlation_id", "updated"}
IDENTITY = {"id", "login", "display_name", "administrator", "frozen", "has_password", *TIMES}
TOKENS = {"access_token", "refresh_token", "token_type", "expires_in"}
ME = {"id", "login", "display_name", "auth_provider", "is_local", "can_change_password", "administrator"}
HOP = {"queue", "message_id", "message_type", "causation_id", "depth", "source", "attempt", "consumer"}
HOP |= {"outcome", "error", "published_at", "delivered_at", "done_at"}
STATUS = {"version", "url", "pid", "data", "database", "started_at", "uptime_seconds", "demo", "anonymous"}
STATUS |= {"running_executions", "waiting_timers", "waiting_deliveries", "dead_letters", "broken_packs"}
STATUS |= {"ingress_closed", "storage"}
STATUS |= {"open_inquiries", "queues", "running", "failing", "timers", "versions"}

SPACE = {"tables", "database_bytes", "wal_bytes", "folders", "free_bytes", "history_bytes", "retention"}
LETTER = {"id", "queue", "message_id", "correlation_id", "causation_id", "depth", "message_type", "version", "source"}
LETTER |= {"payload", "subject", "attempts", "error", "published_at", "created"}
LETTER_WHOLE = LETTER | {"subject_state", "exchange", "routing_key", "consumer", "refusal"}
HANDLED = {"affected", "remaining", "next_after", "letters", "failures"}

RECOVERY = {"at", "clean", "predecessor", "interrupted", "waiting", "deliveries", "dead_letters", "report"}

HISTORY = {"rule", "rule_ref", "enabled", "trigger_ref", "action_ref", "since", "until", "events", "complete"}
HISTORY |= {"newest_event", "fired", "last_fired_event", "waiting", "disabled", "unexamined", "not_matched", "errors"}
HISTORY |= {"not_run", "executions", "failures", "skipped", "next_fire_at", "notes"}

NEW_RULE = {"pack_ref": "shop", "label": "Made", "trigger_ref": "shop.sold", "action_ref": "core.echo"}

# Every route that answers with one object: what is sent, the status, and the fields of `data`.
OBJECTS: list[tuple[str, str, dict[str, Any] | None, int, set[str]]] = [
    ("POST", "/auth/login", {"login": "admin", "password": "correct horse battery"}, 200, TOKENS | {"user"}),
    ("POST", "/auth/refresh", {"refresh_token": "{refresh_token}"}, 200, TOKENS),
    ("GET", "/auth/me", None, 200, ME),
    ("POST", "/api/v1/identities", {"login": "ann"}, 201, IDENTITY),
    ("PUT", "/api/v1/identities/{login}/password", {"password": "correct horse"}, 200, IDENTITY),
    (
        "GET",
        "/api/v1/packs/{pack}",
        None,
        200,
        PACK | {"conf_schema", "config", "meta", "runtime_deps", "dependencies"},
    ),
    ("GET", "/api/v1/triggers/{trigger}", None, 200, TRIGGER | {"pack", "param_schema", "out_schema"}),
    (
        "GET",
        "/api/v1/actions/{action}",
        None,
        200,
        ACTION_WHOLE,
    ),
    ("GET", "/api/v1/rules/{rule}", None, 200, RULE_WHOLE),
    ("GET", "/api/v1/rules/{rule}/explain", None, 200, HISTORY),
    ("POST", "/api/v1/rules", NEW_RULE | {"ref": "shop.made"}, 201, RULE_WHOLE),
    ("PUT", "/api/v1/rules/{rule}", {"label": "Changed"}, 200, RULE_WHOLE),
    ("PATCH", "/api/v1/rules/{rule}", {"label": "Changed"}, 200, RULE_WHOLE),
    ("POST", "/api/v1/rules/{switched}/disable", None, 200, RULE_WHOLE),
    ("POST", "/api/v1/rules/{switched}/enable", None, 200, RULE_WHOLE),
    ("GET", "/api/v1/timers/{timer}/next", None, 200, TIMER | {"next"}),
    ("POST", "/api/v1/events", {"trigger_ref": "shop.sold"}, 201, EVENT_WHOLE),
    ("GET", "/api/v1/events/{event}", None, 200, EVENT_WHOLE),
    (
        "GET",
        "/api/v1/events/{event}/explain",
        None,
        200,
        {"event", "state", "matched_at", "dead_letter", "note", "rules"},
    ),
    ("GET", "/api/v1/verdicts", None, 200, {"verdicts"}),
    ("GET", "/api/v1/enforcements/{enforcement}", None, 200, ENFORCEMENT_WHOLE),
    ("GET", "/api/v1/executions/{execution}", None, 200, EXECUTION_WHOLE),
    ("POST", "/api/v1/executions/execute", {"action_ref": "core.noop"}, 201, EXECUTION_WHOLE),
    ("POST", "/api/v1/executions/{sleeping}/cancel", None, 200, EXECUTION_WHOLE),
    ("POST", "/api/v1/executions/{ended}/rerun", {"parameters": {"exit_code": 1}}, 201, EXECUTION_WHOLE),
    ("POST", "/api/v1/inquiries", {"prompt": "Shall we?"}, 201, INQUIRY_WHOLE),
    ("GET", "/api/v1/inquiries/{inquiry}", None, 200, INQUIRY_WHOLE),
    ("PUT", "/api/v1/inquiries/{inquiry}", {"assigned_to": None}, 200, INQUIRY_WHOLE),
    ("PATCH", "/api/v1/inquiries/{withdrawn}", {"status": "cancelled"}, 200, INQUIRY_WHOLE),
    ("GET", "/api/v1/bus/topology", None, 200, {"exchanges", "queues"}),
    ("GET", "/api/v1/bus/queues", None, 200, {"queues", "unroutable"}),
    ("GET", "/api/v1/bus/trace/{correlation_id}", None, 200, {"correlation_id", "hops"}),
    ("GET", "/api/v1/bus/dead-letters/{letter}", None, 200, LETTER_WHOLE),
    ("POST", "/api/v1/bus/dead-letters/{replayed}/replay", None, 200, {"id", "became"}),
    ("POST", "/api/v1/bus/dead-letters/{discarded}/discard", None, 200, {"id", "became"}),
    ("POST", "/api/v1/bus/dead-letters/replay", {"filter": {"subject": "none"}}, 200, HANDLED),
    ("POST", "/api/v1/bus/dead-letters/discard", {"filter": {"subject": "none"}}, 200, HANDLED),
    ("GET", "/api/v1/system/status", None, 200, STATUS),
    ("GET", "/api/v1/system/doctor", None, 200, {"findings"}),
    ("GET", "/api/v1/system/space", None, 200, SPACE),
    ("GET", "/api/v1/system/recovery", None, 200, RECOVERY),
]

# Every list, and the fields of an item.
LISTS: list[tuple[str, set[str]]] = [
    ("/api/v1/packs", PACK),
    ("/api/v1/triggers", TRIGGER),
    ("/api/v1/triggers/enabled", TRIGGER),
    ("/api/v1/packs/{pack}/triggers", TRIGGER),
    ("/api/v1/actions", ACTION),
    ("/api/v1/packs/{pack}/actions", ACTION),
    ("/api/v1/rules", RULE),
    ("/api/v1/rules/enabled", RULE),
    ("/api/v1/packs/{pack}/rules", RULE),
    ("/api/v1/actions/{action}/rules", RULE),
    ("/api/v1/triggers/{trigger}/rules", RULE),
    ("/api/v1/timers", TIMER),
    ("/api/v1/events", EVENT),
    ("/api/v1/enforcements", ENFORCEMENT),
    ("/api/v1/executions", EXECUTION),
    ("/api/v1/inquiries", INQUIRY),
    ("/api/v1/inquiries/status/{open}", INQUIRY),
    ("/api/v1/executions/{asking}/inquiries", INQUIRY),
    ("/api/v1/bus/dead-letters", LETTER),
]

# What some items have beside them: the instant of a timer's rule.
MAY_HAVE = {"next_fire_at"}

_REFUSED = ("PUT", "PATCH", "DELETE")

# What answers in a shape of its own.
OTHERS = {
    ("GET", "/api-spec/openapi.json"),
    ("GET", "/docs"),
    ("GET", "/health"),
    ("GET", "/health/detailed"),
    ("GET", "/health/ready"),
    ("GET", "/health/live"),
    ("GET", "/metrics"),
    ("DELETE", "/api/v1/rules/{ref}"),
    # What never ends: test_streams.py.
    ("GET", "/api/v1/stream"),
    ("GET", "/api/v1/executions/stream"),
    ("DELETE", "/api/v1/inquiries/{id}"),
    # With a message beside the data: tests/api/test_inquiries.py.
    ("POST", "/api/v1/inquiries/{id}/respond"),
    # Files, and what they have the last word on: tests/cli/test_files.py.
    ("GET", "/api/v1/rules/{ref}/source"),
    ("GET", "/api/v1/packs/{ref}/files"),
    ("GET", "/api/v1/packs/{ref}/archive"),
    *((method, f"/api/v1/{kind}s/{{ref}}") for kind in ("pack", "trigger", "action") for method in _REFUSED),
    ("GET", "/api/v1/executions/{id}/logs/{stream}"),
}


class Shop:
    """A server on which something has happened, and the names and ids of it."""

    def __init__(self, site: Site, names: dict[str, Any]) -> None:
        self.site = site
        self.names = names

    def filled(self, value: Any) -> Any:
        """A path or a body with names in the place of {…}."""
        if isinstance(value, dict):
            return {key: self.filled(item) for key, item in value.items()}
        return value.format(**self.names) if isinstance(value, str) else value


@pytest.fixture(scope="module")
async def shop(cluster: Cluster, base: Path) -> AsyncIterator[Shop]:
    async with new_database(cluster) as dsn, site_on(dsn, new_folder(base)) as site:
        await site.identity("admin")
        await site.identity("joe")
        tokens = await site.tokens("admin")
        rule = NEW_RULE | {
            "ref": "shop.charge_it",
            "action_ref": "shop.charge",
            "action_params": {"card": "visa 4111", "pin": 5},
        }
        await site.data("POST", "/api/v1/rules", json=rule)
        event = await site.data("POST", "/api/v1/events", json={"trigger_ref": "shop.sold", "payload": {"item": "tea"}})
        execution = await until(lambda: _caused_by(site, event["id"]))
        sleeping = await site.data(
            "POST", "/api/v1/executions/execute", json={"action_ref": "core.sleep", "parameters": {"seconds": 1000}}
        )
        ended = await site.data("POST", "/api/v1/executions/execute?wait=30", json={"action_ref": "core.noop"})
        questions = [await site.data("POST", "/api/v1/inquiries", json={"prompt": "Shall we?"}) for _ in range(2)]
        letters = await site.sql(
            """
            INSERT INTO attune.dead_letter (queue, message_id, correlation_id, depth, message_type, version, source,
                                            payload, attempts, error, published_at, created)
            SELECT 'attune.events.queue', gen_random_uuid(), gen_random_uuid(), 0, 'EventCreated', '1.0', 'test',
                   '{"event_id": 1, "trigger_ref": "shop.sold"}', 5, 'broken', now(), now()
              FROM generate_series(1, 3)
            RETURNING id
            """
        )
        yield Shop(
            site,
            {
                "login": "joe",
                "pack": "shop",
                "trigger": "shop.sold",
                "action": "shop.charge",
                "rule": "shop.charge_it",
                "switched": "shop.thank",
                "timer": "hello.every_ten_seconds",
                "event": event["id"],
                "enforcement": execution["enforcement"],
                "execution": execution["id"],
                "sleeping": sleeping["id"],
                "ended": ended["id"],
                "correlation_id": event["correlation_id"],
                "open": "pending",
                "asking": questions[0]["execution"],
                "inquiry": questions[0]["id"],
                "withdrawn": questions[1]["id"],
                "refresh_token": tokens["refresh_token"],
                **{name: row["id"] for name, row in zip(("letter", "replayed", "discarded"), letters, strict=True)},
            },
        )


def test_the_tables_hold_every_route() -> None:
    shown = [(method, path) for method, path, *_ in OBJECTS] + [("GET", path) for path, _ in LISTS]
    routes = {(method, _anonymous(one.path)) for one in ENDPOINTS for method in methods(one)}

    assert {(method, _anonymous(path)) for method, path in [*shown, *OTHERS]} == routes


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "fields"), OBJECTS, ids=[f"{row[0]} {row[1]}" for row in OBJECTS]
)
async def test_an_object_has_its_fields_in_data(
    shop: Shop, method: str, path: str, body: dict[str, Any] | None, status: int, fields: set[str]
) -> None:
    answer = await shop.site.ask(method, shop.filled(path), json=shop.filled(body))

    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json().keys() == {"data"}
    assert answer.json()["data"].keys() == fields


@pytest.mark.parametrize(("path", "fields"), LISTS, ids=[row[0] for row in LISTS])
async def test_an_item_of_a_list_has_its_fields(shop: Shop, path: str, fields: set[str]) -> None:
    answer = await shop.site.ask("GET", shop.filled(path))

    assert answer.status_code == 200, answer.text
    assert answer.json().keys() == {"data", "pagination"}
    (item, *_) = answer.json()["data"]
    assert item.keys() >= fields
    assert item.keys() - fields <= MAY_HAVE


async def test_a_hop_of_a_trace_tells_what_was_published_and_who_did_what(shop: Shop) -> None:
    hops = (await shop.site.data("GET", shop.filled("/api/v1/bus/trace/{correlation_id}")))["hops"]

    assert all(hop.keys() == HOP for hop in hops)
    assert {(hop["message_type"], hop["outcome"]) for hop in hops} >= {("EventCreated", "done")}


async def test_health_answers_without_an_envelope(shop: Shop) -> None:
    plain, detailed, ready, live = [
        await shop.site.remote.get(path) for path in ("/health", "/health/detailed", "/health/ready", "/health/live")
    ]

    assert plain.json() == {"status": "ok"}
    assert detailed.json() == {
        "status": "ok",
        "version": __version__,
        "database": "connected",
        "checks": {"database": "ok", "pipeline": "ok", "storage": "ok"},
    }
    assert [answer.status_code for answer in (plain, detailed, ready, live)] == [200] * 4
    assert (ready.content, live.content) == (b"", b"")


async def test_a_deletion_says_so_and_what_is_gone_is_not_found(shop: Shop) -> None:
    await shop.site.data("POST", "/api/v1/rules", json=NEW_RULE | {"ref": "shop.brief"})

    answer = await shop.site.ask("DELETE", "/api/v1/rules/shop.brief")

    assert answer.status_code == 200
    assert answer.json() == {"success": True, "message": "The rule shop.brief is deleted."}
    assert (await shop.site.ask("DELETE", "/api/v1/rules/shop.brief")).status_code == 404


async def test_logs_are_plain_text_whole_or_the_end_of_it(shop: Shop) -> None:
    path = shop.filled("/api/v1/executions/{execution}/logs")
    whole, tail, error = [
        await shop.site.ask("GET", f"{path}/{rest}") for rest in ("stdout", "stdout?tail=2", "stderr")
    ]

    assert whole.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert (whole.text, tail.text, error.text) == ("one\ntwo\nthree\n", "two\nthree\n", "not so fast\n")


async def test_me_is_who_asks(shop: Shop) -> None:
    token = (await shop.site.tokens("admin"))["access_token"]
    remote = (await shop.site.remote.get("/auth/me", headers=bearer(token))).json()["data"]
    local = await shop.site.data("GET", "/auth/me")

    assert (remote["login"], remote["administrator"], remote["auth_provider"]) == ("admin", True, "local")
    assert (local["login"], local["administrator"], local["id"]) == ("local", True, None)


async def test_an_execution_is_answered_at_once_or_when_it_has_ended_or_when_the_wait_is_over(shop: Shop) -> None:
    path, sleep = "/api/v1/executions/execute", {"action_ref": "core.sleep", "parameters": {"seconds": 1000}}

    at_once = await shop.site.data("POST", path, json=sleep)
    over = await shop.site.data("POST", f"{path}?wait=1", json=sleep)
    ended = await shop.site.data("POST", f"{path}?wait=30", json={"action_ref": "core.noop"})

    # How far it has come by the time somebody reads its row is its own affair.
    assert at_once["status"] in {"requested", "scheduled", "running"}
    assert over["status"] == "running"
    assert (ended["status"], ended["waiting_for"]) == ("completed", None)
    assert ended["finished_at"] >= ended["started_at"] >= ended["created"]
    for execution in (at_once, over):
        await shop.site.data("POST", f"/api/v1/executions/{execution['id']}/cancel")
        cancelled = await shop.site.data("GET", f"/api/v1/executions/{execution['id']}?wait=30")
        assert cancelled["status"] == "cancelled"
        again = await shop.site.ask("POST", f"/api/v1/executions/{execution['id']}/cancel")
        assert again.status_code == 409


async def test_an_event_is_explained_rule_by_rule(shop: Shop) -> None:
    mine = NEW_RULE | {"trigger_ref": "shop.typed", "action_ref": "core.noop"}
    coffee = {"conditions": {"expression": "event.payload.item == 'coffee'"}}
    await shop.site.data("POST", "/api/v1/rules", json=mine | {"ref": "shop.always"})
    await shop.site.data("POST", "/api/v1/rules", json=mine | coffee | {"ref": "shop.never"})
    tea = {"trigger_ref": "shop.typed", "payload": {"item": "tea"}}
    event = await shop.site.data("POST", "/api/v1/events", json=tea)
    execution = await until(lambda: _caused_by(shop.site, event["id"]))

    explained = await shop.site.data("GET", f"/api/v1/events/{event['id']}/explain")

    rules = {rule["rule_ref"]: rule for rule in explained["rules"]}
    assert explained["event"] == event
    assert rules["shop.always"]["decision"] == "matched"
    ran = {"id": execution["id"], "status": "completed", "error": None, "attempts": 1, "inquiries": []}
    assert rules["shop.always"]["execution"] == ran
    assert rules["shop.never"]["decision"] == "not_matched"
    assert rules["shop.never"]["conditions"]["outcome"] == "false"


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/rules/{rule}",
        "/api/v1/rules",
        "/api/v1/rules/enabled",
        "/api/v1/packs/{pack}/rules",
        "/api/v1/events/{event}/explain",
        "/api/v1/rules/{rule}/explain",
        "/api/v1/verdicts?event={event}",
        "/api/v1/enforcements/{enforcement}",
        "/api/v1/executions/{execution}",
        "/api/v1/executions",
        "/api/v1/bus/trace/{correlation_id}",
        "/api/v1/bus/dead-letters",
    ],
)
async def test_a_secret_is_in_no_answer(shop: Shop, path: str) -> None:
    answer = await shop.site.ask("GET", shop.filled(path))

    assert answer.status_code == 200
    assert "visa" not in answer.text
    assert '"pin":5' not in answer.text


async def _caused_by(site: Site, event: int) -> Any:
    found = await site.data("GET", f"/api/v1/executions?event={event}&status=completed")
    return found[0] if found else None


def _anonymous(path: str) -> str:
    return "/".join("{}" if part.startswith("{") else part for part in path.split("/"))
