"""The main job: one command, and a timer runs an action whose result can be seen."""

from pathlib import Path

import httpx2
import pytest

from tests.server.running import Running, attune, serving
from tests.support.waiting import until


async def test_the_demo_greets_the_world_and_shows_each_stage_of_it(folder: Path) -> None:
    async with serving(folder, "--demo") as server:
        execution = await until(lambda: _completed(server), within=30)

        # What the README says: anybody on this machine may look.
        async with httpx2.AsyncClient(base_url=server.url) as client:
            page = (await client.get("/api/v1/executions?page=1&per_page=50")).raise_for_status().json()
        assert page["pagination"]["page"] == 1
        assert page["pagination"]["page_size"] == 50
        assert page["pagination"]["total_items"] >= 1
        assert page["data"][-1]["action_ref"] == "hello.greet"

        # The chain: timer, event, enforcement, execution, result.
        shown = await server.get(f"/api/v1/executions/{execution['id']}")
        enforcement = await server.get(f"/api/v1/enforcements/{execution['enforcement']}")
        event = await server.get(f"/api/v1/events/{execution['event']}")
        assert shown["result"]["stdout"] == "hello, world\n"
        assert shown["result"]["exit_code"] == 0
        assert enforcement["rule_ref"] == "hello.every_ten_seconds"
        assert enforcement["status"] == "processed"
        assert event["trigger_ref"] == "core.intervaltimer"
        assert event["payload"]["interval_seconds"] == 10
        assert {shown["correlation_id"], enforcement["correlation_id"]} == {event["correlation_id"]}

        # The hop that failed in the distributed form: published where its consumer listens.
        hops = (await server.get(f"/api/v1/bus/trace/{event['correlation_id']}"))["hops"]
        (hop,) = [hop for hop in hops if hop["message_type"] == "EnforcementCreated"]
        assert hop["queue"] == "attune.executions.queue"
        assert hop["consumer"] == "enforcement processor"
        assert hop["outcome"] == "done"
        table = await server.get("/api/v1/bus/topology")
        (row,) = [row for row in table["queues"] if row["message"] == "EnforcementCreated"]
        assert (row["exchange"], row["keys"]) == ("attune.executions", ["enforcement.created"])

        # Each stage stands in the log with its event, and with its execution once there is one.
        stages = [line for line in server.lines() if line.get("event") == event["id"]]
        assert [line["message"] for line in stages] == [
            "event accepted",
            "rule matched",
            "execution requested",
            "execution scheduled",
            "execution started",
            "execution finished",
        ]
        assert {line.get("execution") for line in stages[2:]} == {execution["id"]}

        # And in the database, as the README types it.
        count = await attune("psql", "-Atc", "SELECT COUNT(*) FROM attune.enforcement;", data=server.place.data)
        assert int(count.stdout) >= 1
        rows = await attune(
            "psql",
            "-c",
            "SELECT id, status, action_ref, created FROM attune.execution ORDER BY created DESC LIMIT 5;",
            data=server.place.data,
        )
        assert "completed" in rows.stdout


@pytest.mark.long
async def test_without_the_demo_hello_stays_off_and_nobody_reads_anonymously(folder: Path, dsn: str) -> None:
    async with serving(folder, "--demo", dsn=dsn) as server:
        assert (await server.get("/api/v1/rules/hello.every_ten_seconds"))["enabled"]
    async with serving(folder, dsn=dsn) as server:
        assert not (await server.get("/api/v1/rules/hello.every_ten_seconds"))["enabled"]
        async with httpx2.AsyncClient(base_url=server.url) as client:
            assert (await client.get("/api/v1/executions")).status_code == 401


@pytest.mark.long
async def test_an_execution_is_one_line_in_the_log_of_an_ordinary_server(folder: Path, dsn: str) -> None:
    async with serving(folder, dsn=dsn) as server:
        ran = await attune("run", "core.echo", "-p", "message=hi", data=server.place.data)
        assert (ran.returncode, ran.stdout) == (0, "hi\n")
        about = [line for line in server.lines() if "execution" in line]
        assert [line["message"] for line in about] == ["execution finished"]


async def _completed(server: Running) -> dict[str, object] | None:
    executions = await server.get("/api/v1/executions", status="completed", action_ref="hello.greet")
    return executions[0] if executions else None
