"""Every command: what it prints for people and for programs, what it says, and its exit code."""

import json
import re
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import anyio
import pytest
import typer
import yaml
from typer.testing import CliRunner

from attune.base.traces import traceparent
from attune.cli.root import app
from attune.upkeep.doctor import CHECKS
from tests.api.sites import Site, bearer
from tests.cli.typed import Commands
from tests.server.running import command, environment
from tests.support.waiting import until

FAILED, USAGE, REFUSED, UNREACHABLE = 1, 2, 3, 4


@pytest.fixture(scope="module")
async def names(site: Site) -> dict[str, str]:
    """A rule, and an event of it with all that followed."""
    rule = {
        "ref": "shop.tell",
        "pack_ref": "shop",
        "label": "Tell",
        "trigger_ref": "shop.sold",
        "action_ref": "bad.fail",
        "conditions": {"expression": "event.payload.item == 'tée'"},
    }
    await site.data("POST", "/api/v1/rules", json=rule)
    event = await site.data("POST", "/api/v1/events", json={"trigger_ref": "shop.sold", "payload": {"item": "tée"}})
    execution = await until(lambda: _failed(site, event["id"]))
    return {
        "EVENT": str(event["id"]),
        "CHAIN": event["correlation_id"],
        "ENFORCEMENT": str(execution["enforcement"]),
        "EXECUTION": str(execution["id"]),
    }


# Every command that shows something, a word that stands in its table, and a path to a value in its JSON.
SHOWN: list[tuple[str, str, str]] = [
    ("status", "waiting deliveries: ", "versions.postgresql"),
    ("space", "dead letters 90", "retention.days"),
    ("pack list", "shop", "0.ref"),
    ("pack show shop", "conf_schema", "ref"),
    ("trigger list", "core.crontimer", "0.ref"),
    ("trigger show shop.sold", "out_schema", "ref"),
    ("action list", "bad.fail", "0.ref"),
    ("action show bad.fail", "param_schema", "ref"),
    ("rule list", "shop.tell", "0.ref"),
    ("rule show shop.tell", "event.payload.item", "conditions.expression"),
    ("timer list", "every 10 seconds", "0.state"),
    ("event list --trigger shop.sold", "shop.sold", "0.trigger_ref"),
    ("event show EVENT", "tée", "payload.item"),
    ("enforcement list --rule shop.tell", "processed", "0.rule_ref"),
    ("enforcement show ENFORCEMENT", "shop.tell", "rule_ref"),
    ("execution list --status failed", "bad.fail", "0.action_ref"),
    ("execution show EXECUTION", "line 12", "result.exit_code"),
    ("execution logs EXECUTION", "before", "text"),
    ("why event EVENT", "rule shop.tell matched", "rules.0.decision"),
    ("why rule shop.tell", "fired 1 time ", "executions.failed"),
    ("why execution EXECUTION", "rule shop.tell matched it", "states.2.status"),
    ("bus topology", "enforcement.created", "queues.0.name"),
    ("bus queues", "attune.events.queue", "queues.0.waiting"),
    ("bus trace CHAIN", "EnforcementCreated", "hops.0.outcome"),
    ("bus dead list", "message type", ""),
]


@pytest.mark.parametrize(("typed", "word", "place"), SHOWN, ids=[row[0] for row in SHOWN])
async def test_a_command_shows_a_table_to_people_and_json_to_programs(
    attune: Commands, names: dict[str, str], typed: str, word: str, place: str
) -> None:
    words = [names.get(part, part) for part in typed.split()]

    table, data = await attune(*words), await attune(*words, "--json")

    assert (table.returncode, table.stderr, data.returncode, data.stderr) == (0, "", 0, "")
    assert word in table.stdout
    assert not table.stdout.startswith(("{", "["))
    value: Any = json.loads(data.stdout)
    for part in filter(None, place.split(".")):
        value = value[int(part)] if part.isdecimal() else value[part]
    assert value is not None


async def test_the_end_of_an_execution_is_why_it_failed_and_where_its_script_lies(
    site: Site, attune: Commands, names: dict[str, str]
) -> None:
    shown = await attune("execution", "show", names["EXECUTION"])
    explained = await attune("why", "event", names["EVENT"])

    lines = "\n".join(f"line {number}" for number in range(3, 13))
    script = site.place.data.parent / "packs" / "bad" / "actions" / "fail.sh"
    assert shown.stdout.endswith(f"\nthe last lines of stderr:\n{lines}\n\nscript: {script}\n")
    assert '(it is "tée")' in explained.stdout
    assert f"execution {names['EXECUTION']} is failed: " in explained.stdout


async def test_people_see_times_here_and_programs_rfc_3339(attune: Commands, names: dict[str, str]) -> None:
    typed = ("event", "list", "--trigger", "shop.sold", "--limit", "1")
    shown = await attune(*typed, TZ="XYZ-5")
    (data,) = json.loads((await attune(*typed, "--json", TZ="XYZ-5")).stdout)

    created = datetime.fromisoformat(data["created"])
    assert created.utcoffset() == timedelta()
    assert f"{created + timedelta(hours=5):%Y-%m-%d %H:%M:%S}" in shown.stdout
    assert data["created"] not in shown.stdout


async def test_yaml_is_the_same_as_json(site: Site, attune: Commands) -> None:
    one = await attune("rule", "show", "shop.thank", "-o", "yaml")
    other = await attune("rule", "show", "shop.thank", "--json")

    assert yaml.safe_load(one.stdout) == json.loads(other.stdout)


async def test_a_rule_is_made_changed_switched_and_deleted(site: Site, attune: Commands) -> None:
    made = await attune(
        *("rule", "create", "shop.mine", "--trigger", "core.crontimer", "--trigger-param", "expression=@yearly"),
        *("--action", "core.echo", "--action-param", "message=it is time", "--when", "true"),
    )
    assert (made.returncode, made.stdout) == (0, "")
    assert made.stderr.startswith("shop.mine is enabled, next (")

    changes = ("--label", "Mine", "--action-param", "message=now")
    rule = json.loads((await attune("rule", "edit", "shop.mine", *changes, "--json")).stdout)
    assert (rule["label"], rule["action_params"]) == ("Mine", {"message": "now"})
    assert rule["conditions"] == {"expression": "true"}

    off = await attune("rule", "disable", "shop.mine")
    assert (off.returncode, off.stderr) == (0, "shop.mine is disabled\n")
    on = await attune("rule", "enable", "shop.mine", "--json")
    assert json.loads(on.stdout)["enabled"] is True

    asked = await attune("rule", "delete", "shop.mine")
    assert (asked.returncode, asked.stdout) == (USAGE, "")
    assert "--yes" in asked.stderr
    gone = await attune("rule", "delete", "shop.mine", "--yes", "--json")
    assert json.loads(gone.stdout)["success"] is True
    again = await attune("rule", "show", "shop.mine")
    assert (again.returncode, again.stdout, again.stderr) == (REFUSED, "", "attune: There is no rule shop.mine.\n")


async def test_a_rule_made_here_has_the_times_of_this_machine_and_says_so(site: Site, attune: Commands) -> None:
    def create(ref: str, trigger: str, param: str, *more: str) -> tuple[str, ...]:
        return (
            "rule",
            "create",
            ref,
            "--trigger",
            f"core.{trigger}",
            "--trigger-param",
            param,
            "--action",
            "core.noop",
            *more,
        )

    made = await attune(*create("shop.daily", "crontimer", "expression=30 2 27 3 *"), TZ="Asia/Tokyo")
    lines = made.stderr.splitlines()
    assert lines[0] == "shop.daily is enabled, next (Asia/Tokyo and UTC):"
    assert len(lines) == 5
    assert lines[1].endswith("-03-26T17:30:00Z")
    assert lines[4] == "Its times are in Asia/Tokyo, as on this machine; --trigger-param timezone=NAME sets another."
    upcoming = await attune("timer", "next", "shop.daily", "-n", "2")
    assert (upcoming.returncode, upcoming.stderr) == (0, "")
    assert upcoming.stdout.split()[:2] == ["Asia/Tokyo", "UTC"]
    assert upcoming.stdout.count(" 02:30:00 +09:00") == 2

    # What is said, what needs no zone, and a machine without one.
    for ref, trigger, param, more, zone, said in (
        ("shop.said", "crontimer", "expression=@daily", ("--trigger-param", "timezone=Asia/Tokyo"), "Asia/Tokyo", ""),
        ("shop.offset", "datetimetimer", "fire_at=2090-01-01T08:00+02:00", (), None, ""),
        ("shop.often", "intervaltimer", "interval=90000", (), None, ""),
        ("shop.nameless", "crontimer", "expression=@daily", (), None, "this machine does not tell its zone"),
    ):
        made = await attune(*create(ref, trigger, param, *more), TZ="CET-1")
        rule = await site.data("GET", f"/api/v1/rules/{ref}")
        assert rule["trigger_params"].get("timezone") == zone
        assert (said in made.stderr) if said else ("Its times" not in made.stderr)

    off = await attune(*create("shop.off", "intervaltimer", "interval=90", "--disabled"))
    assert off.stderr == "shop.off is disabled\n"
    upcoming = await attune("timer", "next", "shop.off", "-n", "1")
    assert upcoming.stderr == "shop.off: disabled. If it were enabled now:\n"
    assert len(upcoming.stdout.splitlines()) == 2


async def test_a_rule_that_cannot_be_prints_every_field_error(site: Site, attune: Commands) -> None:
    refused = await attune(
        *("rule", "create", "shop.bad", "--trigger", "core.crontimer", "--trigger-param", "expression=@yearly"),
        *("--trigger-param", "zone=UTC", "--action", "shop.charge", "--action-param", "amount=-1"),
        *("--action-param", "cart=1"),
    )

    assert (refused.returncode, refused.stdout) == (REFUSED, "")
    first, *errors = refused.stderr.splitlines()
    assert first == "attune: The rule shop.bad cannot be like this."
    assert {error.split(":")[0].strip() for error in errors} == {
        "/trigger_params/zone",
        "/action_params/amount",
        "/action_params/cart",
    }


async def test_running_an_action_waits_for_its_end_and_tells_how_it_ended(site: Site, attune: Commands) -> None:
    echoed = await attune("run", "core.echo", "-p", "message=hällo")
    failed = await attune("run", "bad.fail")
    data = await attune("run", "bad.fail", "--json")
    detached = await attune("run", "core.sleep", "-p", "seconds=1000", "--detach", "--json")

    assert (echoed.returncode, echoed.stdout) == (0, "hällo\n")
    assert (failed.returncode, failed.stdout) == (FAILED, "before\n")
    assert "is failed" in failed.stderr
    assert (data.returncode, json.loads(data.stdout)["status"]) == (FAILED, "failed")
    execution = json.loads(detached.stdout)
    assert (detached.returncode, execution["finished_at"]) == (0, None)
    cancelled = await attune("execution", "cancel", str(execution["id"]))
    assert cancelled.returncode == 0
    assert str(execution["id"]) in cancelled.stderr
    silent = await attune("execution", "logs", str(execution["id"]))
    assert (silent.returncode, silent.stdout) == (0, "")
    assert f"attune execution show {execution['id']}" in silent.stderr


async def test_parameters_come_as_pairs_or_as_a_document(site: Site, attune: Commands) -> None:
    bad = await attune("run", "shop.charge", "-p", "amount=-1", "-p", "currency=DM")
    document = await attune("run", "core.echo", "--params", '{"message": "from a document"}')

    assert bad.returncode == REFUSED
    assert "/parameters/amount: " in bad.stderr
    assert "/parameters/currency: " in bad.stderr
    assert document.stdout == "from a document\n"


async def test_an_event_is_emitted(site: Site, attune: Commands) -> None:
    said = await attune("event", "emit", "shop.typed", "-p", "item=tea")
    data = await attune("event", "emit", "shop.typed", "--payload", '{"item": "tea", "price": 3}', "--json")

    assert said.returncode == 0
    assert "attune why event " in said.stderr
    assert json.loads(data.stdout)["payload"] == {"item": "tea", "price": 3}


async def test_what_has_an_idempotency_key_is_done_once(attune: Commands) -> None:
    typed = [
        ("event", "emit", "shop.typed", "-p", "item=tea", "--idempotency-key", "tea of today", "--json"),
        ("run", "core.echo", "-p", "message=hi", "--idempotency-key", "tea of today", "--json"),
    ]
    for words in typed:
        first, second = [json.loads((await attune(*words)).stdout) for _ in range(2)]
        assert first["id"] == second["id"]
    assert first["status"] == second["status"] == "completed"

    other = await attune("event", "emit", "shop.typed", "-p", "item=milk", "--idempotency-key", "tea of today")
    none = await attune("event", "emit", "shop.typed", "-p", "item=tea", "--idempotency-key", "caf\xe9")

    assert (other.returncode, none.returncode) == (REFUSED, USAGE)
    assert "a key of its own" in other.stderr
    assert "printable ASCII" in none.stderr


async def test_an_identity_is_made_and_signs_in_with_the_password_it_was_given(site: Site, attune: Commands) -> None:
    made = await attune("identity", "create", "ann", "--administrator", "--json")
    given = await attune("identity", "passwd", "ann", stdin="correct horse\n")
    nothing = await attune("identity", "passwd", "ann")

    assert json.loads(made.stdout)["administrator"] is True
    assert (given.returncode, given.stdout) == (0, "")
    assert "horse" not in given.stderr
    assert nothing.returncode == USAGE
    token = (await site.tokens("ann", "correct horse"))["access_token"]
    assert (await site.remote.get("/api/v1/rules", headers=bearer(token))).status_code == 200

    # And so does the command line from elsewhere.
    url = site.serving.about.url
    remote = await attune("rule", "list", "--server", url, ATTUNE_API_TOKEN=token)
    without = await attune("rule", "list", ATTUNE_API_URL=url)
    assert (remote.returncode, "shop.thank" in remote.stdout) == (0, True)
    assert without.returncode == REFUSED
    assert "POST /auth/login" in without.stderr


async def test_psql_asks_the_database_of_the_server_and_writes_only_if_told(site: Site, attune: Commands) -> None:
    count = await attune("psql", "-Atc", "SELECT count(*) FROM attune.rule WHERE ref = 'shop.thank'")
    refused = await attune("psql", "-c", "DELETE FROM attune.event")
    written = await attune("psql", "--write", "-Atc", "UPDATE attune.pack SET tags = tags WHERE ref = 'shop'")

    assert (count.returncode, count.stdout) == (0, "1\n")
    assert (refused.returncode, "read-only" in refused.stderr) == (1, True)
    assert (written.returncode, written.stdout) == (0, "UPDATE 1\n")


# What was typed, the environment, the exit code, and what stderr says.
WRONG: list[tuple[list[str], dict[str, str], int, str]] = [
    (["nothing"], {}, USAGE, "No such command 'nothing'"),
    (["rule", "list", "--nothing"], {}, USAGE, "No such option: --nothing"),
    (["rule", "show"], {}, USAGE, "Missing argument"),
    (["event", "show", "abc"], {}, USAGE, "'abc' is not a valid int"),
    (["event", "show", "9000000000"], {}, REFUSED, "There is no event 9000000000."),
    (["rule", "show", "\udcff"], {}, REFUSED, "There is no rule"),
    (["event", "list", "--rule", "a", "--limit", "0"], {}, USAGE, "0 is not in the range x>=1"),
    (["why", "rule", "shop.none"], {}, REFUSED, "There is no rule shop.none."),
    (["why", "rule", "shop.thank", "--since", "soon"], {}, USAGE, "no span of time"),
    (["why", "execution", "9000000000"], {}, REFUSED, "There is no execution 9000000000."),
    (["bus", "trace", "abc"], {}, REFUSED, "abc is no correlation id."),
    (["rule", "edit", "shop.thank"], {}, USAGE, "nothing to change"),
    (["rule", "edit", "shop.thank", "--label", "x"], {}, REFUSED, "/rules/thank.yaml: change it there"),
    (["execution", "logs", "1", "--follow", "--tail", "3"], {}, USAGE, "--follow shows all"),
    (["execution", "logs", "9000000000", "--follow"], {}, REFUSED, "There is no execution 9000000000."),
    (["run", "core.echo", "-p", "message"], {}, USAGE, "name=value"),
    (["run", "core.echo", "--params", "{"], {}, USAGE, "Cannot read the parameters"),
    (["run", "core.echo", "--params", "@/nowhere"], {}, USAGE, "/nowhere"),
    (["run", "core.none"], {}, REFUSED, "There is no action core.none."),
    (["rule", "list", "--server", "http://["], {}, USAGE, "no URL"),
    (["rule", "list", "--server", "http://localhost:99999"], {}, USAGE, "no URL"),
    (["rule", "list", "--server", "ftp://localhost"], {}, USAGE, "no URL"),
    (["rule", "list", "--server", "http://localhost:1", "--data-dir", "/"], {}, USAGE, "--data-dir"),
    (["rule", "list", "--server", "http://127.0.0.1:1"], {}, UNREACHABLE, "attune serve"),
    (["rule", "list"], {"ATTUNE_API_URL": "http://127.0.0.1:1"}, UNREACHABLE, "http://127.0.0.1:1"),
    (["rule", "list", "--data-dir", "/nowhere"], {}, UNREACHABLE, "attune serve"),
    (["psql", "--data-dir", "/nowhere", "-c", "SELECT 1"], {}, UNREACHABLE, "attune serve"),
    (["rule", "list", "--server", "http://127.0.0.1:1"], {"ATTUNE_API_TOKEN": "a\nb"}, USAGE, "ATTUNE_API_TOKEN"),
]


@pytest.mark.parametrize(("words", "env", "code", "said"), WRONG, ids=[" ".join(row[0]) for row in WRONG])
async def test_what_goes_wrong_is_said_on_stderr_and_by_the_exit_code(
    attune: Commands, words: list[str], env: dict[str, str], code: int, said: str
) -> None:
    done = await attune(*words, **env)

    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert said in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr


async def test_what_is_no_attune_is_told_apart(site: Site, attune: Commands) -> None:
    async def answer(stream: anyio.abc.ByteStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\nConnection: close\r\n\r\n<h1>Hello</h1>\n")

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, answer)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        done = await attune("rule", "list", "--server", f"http://127.0.0.1:{port}")
        tasks.cancel_scope.cancel()

    assert done.returncode == UNREACHABLE
    assert "no Attune" in done.stderr


async def test_a_reader_who_has_seen_enough_is_no_failure(site: Site, attune: Commands) -> None:
    def run() -> tuple[int | None, bytes]:
        with subprocess.Popen(
            command("bus", "topology", "--json"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(ATTUNE_DATA_DIR=str(site.place.data)),
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            return process.wait(), process.stderr.read()

    assert await anyio.to_thread.run_sync(run) == (0, b"")


def _commands(group: Any, *path: str) -> Iterator[tuple[str, ...]]:
    for name, one in group.commands.items():
        yield (*path, name)
        if hasattr(one, "commands"):
            yield from _commands(one, *path, name)


@pytest.mark.parametrize("path", list(_commands(typer.main.get_group(app))), ids=" ".join)
def test_every_command_has_help(path: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, [*path, "--help"])

    assert done.exit_code == 0
    assert f"Usage: attune {' '.join(path)}" in " ".join(done.output.split())


async def _failed(site: Site, event: int) -> Any:
    found = await site.data("GET", f"/api/v1/executions?event={event}&status=failed")
    return found[0] if found else None


async def test_why_a_rule_did_not_fire_is_told_in_one_command(site: Site, attune: Commands) -> None:
    rule = {"ref": "shop.cheap", "pack_ref": "shop", "label": "Cheap", "trigger_ref": "shop.typed"}
    when = {"expression": "event.payload.item == 'tea' and event.payload.price < 3"}
    await site.data("POST", "/api/v1/rules", json=rule | {"action_ref": "bad.fail", "conditions": when})
    ids = []
    for payload in ({"item": "milk"}, {"item": "tea"}, {"item": "tea", "price": 5}, {"item": "tea", "price": 1}):
        sold = {"trigger_ref": "shop.typed", "payload": payload}
        ids.append((await site.data("POST", "/api/v1/events", json=sold))["id"])
    milk, _, dear, cheap = ids

    async def ended() -> bool | None:
        told = await site.data("GET", "/api/v1/rules/shop.cheap/explain")
        return True if told["executions"].get("failed") and not told["waiting"] else None

    await until(ended)
    shown = await attune("why", "rule", "shop.cheap", "--since", "1h")

    assert shown.stdout == (
        "rule shop.cheap, the last 1h: 4 events\n"
        "  shop.typed starts bad.fail\n"
        f"  fired 1 time   (attune why event {cheap})\n"
        "  did not match 3 times:\n"
        f"    2  event.payload.price < 3; it is 5   (attune why event {dear})\n"
        f'    1  event.payload.item == "tea"; it is "milk"   (attune why event {milk})\n'
        "  executions: 1 failed\n"
        "  failed 1 time:\n"
        f"    1  exit code 3: line 8   (attune why event {cheap})\n"
    )


async def test_what_an_execution_types_belongs_to_its_chain(site: Site, attune: Commands) -> None:
    by = await site.data("POST", "/api/v1/executions/execute?wait=30", json={"action_ref": "core.noop"})
    variables = {"TRACEPARENT": traceparent(UUID(by["correlation_id"]), by["id"])}

    emitted = await attune("event", "emit", "shop.typed", "-p", "item=tea", "--json", **variables)
    ran = await attune("run", "core.noop", "--json", **variables)
    foreign = await attune("event", "emit", "shop.typed", "-p", "item=tea", "--json", TRACEPARENT="no\nsense")

    event, execution = json.loads(emitted.stdout), json.loads(ran.stdout)
    assert event["execution"] == execution["parent"] == by["id"]
    assert json.loads(foreign.stdout)["execution"] is None
    because = f"by execution {by['id']}   (attune why execution {by['id']})"
    assert f"  caused {because}" in (await attune("why", "event", str(event["id"]))).stdout
    assert f"asked for {because}" in (await attune("why", "execution", str(execution["id"]))).stdout
    told = json.loads((await attune("why", "execution", str(execution["id"]), "--json")).stdout)
    instants = [state["at"] for state in told["states"]]
    assert instants == sorted(instants), "what the other was told is not taken for its own"


async def test_why_an_execution_waits_is_told_while_it_does(site: Site, attune: Commands) -> None:
    execution = await site.data("POST", "/api/v1/executions/execute", json={"action_ref": "core.noop"})
    await site.data("GET", f"/api/v1/executions/{execution['id']}?wait=30")
    # As one is between the scheduler and its worker; the real thing takes a millisecond.
    await site.sql("UPDATE attune.execution SET status = 'scheduled', started_at = NULL WHERE id = $1", execution["id"])

    shown = await attune("why", "execution", str(execution["id"]))

    assert "asked for by somebody, without a rule" in shown.stdout
    assert f"it waits for a free slot of worker {site.serving.engine.worker.worker_id}, since 20" in shown.stdout


async def test_the_doctor_makes_every_check_of_a_server_and_ends_with_one_for_a_problem(
    site: Site, attune: Commands
) -> None:
    well = await attune("doctor", "--json")
    script = site.place.data.parent / "packs" / "bad" / "actions" / "slow.py"
    script.rename(script.with_name("gone"))
    try:
        ill = await attune("doctor")
    finally:
        script.with_name("gone").rename(script)
    elsewhere = await attune("doctor", "--data-dir", "/nowhere")

    assert [one["check"] for one in json.loads(well.stdout)["findings"]] == list(CHECKS)
    # The cluster of the tests runs without fsync, which is the one thing that the doctor minds.
    assert [one["check"] for one in json.loads(well.stdout)["findings"] if one["level"] == "problem"] == ["durability"]
    assert (ill.returncode, ill.stderr.endswith(" problems\n")) == (1, True)
    assert f"PROBLEM  actions         bad.slow: {script} is missing\n" in ill.stdout
    assert elsewhere.returncode == 1
    assert "PROBLEM  server" in elsewhere.stdout
    assert "attune serve" in elsewhere.stdout


async def test_status_tells_what_runs_what_failed_and_what_comes_next(site: Site, attune: Commands) -> None:
    sleep = {"action_ref": "core.sleep", "parameters": {"seconds": 1000}}
    execution = await site.data("POST", "/api/v1/executions/execute?wait=1", json=sleep)
    bad: dict[str, Any] = {"ref": "shop.unfilled", "pack_ref": "shop", "label": "Unfilled", "trigger_ref": "shop.sold"}
    bad |= {"action_ref": "core.echo", "action_params": {"message": "{{ -event.payload.word }}"}}
    await site.data("POST", "/api/v1/rules", json=bad)
    yearly: dict[str, Any] = {
        "ref": "shop.yearly",
        "pack_ref": "shop",
        "label": "Yearly",
        "trigger_ref": "core.crontimer",
    }
    yearly |= {"action_ref": "core.noop", "trigger_params": {"expression": "@yearly"}}
    await site.data("POST", "/api/v1/rules", json=yearly)
    await site.data("POST", "/api/v1/executions/execute?wait=30", json={"action_ref": "bad.fail"})
    await site.data("POST", "/api/v1/events", json={"trigger_ref": "shop.sold", "payload": {"word": "x"}})

    async def told() -> str | None:
        shown = (await attune("status")).stdout
        return shown if "shop.unfilled" in shown else None

    shown = await until(told)

    assert f"{execution['id']}  core.sleep running for " in shown
    assert "nothing was run for shop.unfilled: the parameters cannot be filled in" in shown
    assert re.search(r"\d times?  bad\.fail: exit code 3: line 8   \(attune why execution \d+\)", shown)
    assert re.search(r"\d{4}-01-01 \d\d:\d\d:\d\d  shop\.yearly", shown)
    assert f"address     {site.serving.about.url}\n" in shown
    await site.data("POST", f"/api/v1/executions/{execution['id']}/cancel")
