"""Starting, stopping, and being killed: nothing is left behind, and who comes second is told about the first."""

import signal
import sys
from pathlib import Path

import httpx2
import pytest

from tests.server.running import Running, attune, ended, processes_with, serving
from tests.support.engines import pack
from tests.support.waiting import eventually, until

_SLOW = {
    "actions/long.yaml": "ref: slow.long\nlabel: Long\nentry_point: long.sh\n",
    # Ignores SIGTERM and has a child of its own: what a stop must be able to deal with.
    "actions/long.sh": "trap '' TERM\nsleep 1000 &\necho started\nwhile :; do sleep 1000; done\n",
    "actions/brief.yaml": "ref: slow.brief\nlabel: Brief\nentry_point: brief.sh\n",
    "actions/brief.sh": "sleep 2\necho done\n",
}


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM])
async def test_a_signal_lets_running_executions_end_and_leaves_no_process(
    folder: Path, dsn: str, number: signal.Signals
) -> None:
    pack(folder / "packs", "slow", _SLOW)
    async with serving(folder, "--packs", str(folder / "packs"), dsn=dsn) as server:
        await attune("run", "slow.brief", "--detach", data=server.place.data)
        await until(lambda: _in_state(server, "running"))

        server.process.send_signal(number)

        assert await ended(server.process) == 0
    assert processes_with(str(folder)) == []
    async with serving(folder, dsn=dsn) as server:
        (execution,) = await server.get("/api/v1/executions")
        assert execution["status"] == "completed"


@pytest.mark.long
async def test_what_does_not_end_in_time_is_ended_and_abandoned(folder: Path, dsn: str) -> None:
    pack(folder / "packs", "slow", _SLOW)
    impatient = {"ATTUNE_SERVER__SHUTDOWN_TIMEOUT": "0.2", "ATTUNE_WORKER__KILL_GRACE": "0.2"}
    async with serving(folder, "--packs", str(folder / "packs"), dsn=dsn, env=impatient) as server:
        await attune("run", "slow.long", "--detach", data=server.place.data)
        await until(lambda: _in_state(server, "running"))
        server.process.send_signal(signal.SIGTERM)
        assert await ended(server.process) == 0
    assert processes_with(str(folder)) == []
    async with serving(folder, dsn=dsn) as server:
        (execution,) = await server.get("/api/v1/executions")
        assert execution["status"] == "abandoned"


@pytest.mark.long
async def test_a_second_signal_stops_at_once_and_leaves_no_process(folder: Path) -> None:
    pack(folder / "packs", "slow", _SLOW)
    async with serving(folder, "--packs", str(folder / "packs")) as server:
        await attune("run", "slow.long", "--detach", data=server.place.data)
        await until(lambda: _in_state(server, "running"))
        server.process.send_signal(signal.SIGTERM)
        await eventually(lambda: "Stopping" in server.said())
        server.process.send_signal(signal.SIGTERM)
        assert await ended(server.process, within=5) == 1
    await eventually(lambda: processes_with(str(folder)) == [])


@pytest.mark.skipif(
    sys.platform != "linux", reason="macOS has neither death signals nor /proc: the next start tidies up"
)
async def test_kill_9_leaves_no_process_and_the_next_start_says_what_became_of_what_ran(folder: Path) -> None:
    pack(folder / "packs", "slow", _SLOW)
    async with serving(folder, "--packs", str(folder / "packs")) as server:
        await attune("run", "slow.long", "--detach", data=server.place.data)
        await until(lambda: _in_state(server, "running"))

        server.process.kill()

        await ended(server.process)
        await eventually(lambda: processes_with(str(folder)) == [])
    async with serving(folder) as server:
        (execution,) = await server.get("/api/v1/executions")
        shown = await server.get(f"/api/v1/executions/{execution['id']}")
        assert shown["status"] == "abandoned"
        assert "unknown" in shown["result"]["error"]
        lines = [line["message"] for line in server.lines()]
        fate = "1 execution was running when Attune stopped: 1 abandoned: action not retryable (1)"
        assert {"Attune did not end cleanly the last time", fate} <= set(lines)
        assert f"  recovered    {fate}\n" in server.said()
        recovery = await server.get("/api/v1/system/recovery")
        assert (recovery["clean"], fate in recovery["report"]) == (False, True)
        (interrupted,) = recovery["interrupted"]
        assert (interrupted["execution"], interrupted["outcome"]) == (execution["id"], "abandoned")


@pytest.mark.parametrize("point", ["ingest.before_commit", "ingest.committed"])
async def test_what_is_sent_again_after_kill_9_is_there_once(folder: Path, dsn: str, point: str) -> None:
    shop, crash = pack(folder / "packs", "shop", {"triggers/sold.yaml": "ref: shop.sold\n"}), folder / "crash"
    arguments, env = ("--packs", str(shop.parent)), {"ATTUNE_CRASH_FILE": str(crash)}
    request = {"json": {"trigger_ref": "shop.sold"}, "headers": {"Idempotency-Key": "k"}}
    async with serving(folder, *arguments, dsn=dsn, env=env) as server:
        crash.write_text(point)
        with pytest.raises(httpx2.TransportError):
            await server.ask("POST", "/api/v1/events", **request)
        await ended(server.process)
    async with serving(folder, *arguments, dsn=dsn) as server:
        answers = [await server.ask("POST", "/api/v1/events", **request) for _ in range(2)]
        (event,) = await server.get("/api/v1/events")

    assert [answer.json()["data"]["id"] for answer in answers] == [event["id"]] * 2
    assert ("Idempotency-Replayed" in answers[0].headers) is (point == "ingest.committed")


async def test_a_second_server_on_the_same_data_is_refused_and_told_of_the_first(folder: Path, dsn: str) -> None:
    async with serving(folder, dsn=dsn) as server:
        second = await attune("serve", "--data-dir", str(server.place.data), "--port", "0", data=server.place.data)
        assert second.returncode == 3
        assert str(server.process.pid) in second.stderr
        assert server.url in second.stderr
        assert (await server.ask("GET", "/health/ready")).status_code == 200


@pytest.mark.long
async def test_a_second_server_on_the_same_database_is_refused_and_told_of_the_first(
    folder: Path, base: Path, dsn: str
) -> None:
    async with serving(folder, dsn=dsn) as server:
        elsewhere = folder / "elsewhere"
        arguments = ("serve", "--data-dir", str(elsewhere), "--port", "0")
        second = await attune(*arguments, data=elsewhere, ATTUNE_DATABASE__URL=dsn)
        assert second.returncode == 3
        assert f"{server.process.pid}@" in second.stderr
        ran = await attune("run", "core.echo", "-p", "message=hi", data=server.place.data)
        assert ran.stdout == "hi\n"
        counted = await attune("psql", "-Atc", "SELECT count(*) FROM attune.execution", data=server.place.data)
        assert counted.stdout == "1\n"


@pytest.mark.long
async def test_a_taken_port_is_refused_before_a_database_is_made(folder: Path, dsn: str) -> None:
    async with serving(folder, dsn=dsn) as server:
        port = server.url.rpartition(":")[2]
        elsewhere = folder / "elsewhere"
        second = await attune("serve", "--data-dir", str(elsewhere), "--port", port, data=elsewhere)
        assert second.returncode == 3
        assert f":{port}" in second.stderr
        assert "--port" in second.stderr
        assert not (elsewhere / "postgres").exists()


async def test_anonymous_reading_is_refused_on_an_address_that_others_reach(folder: Path) -> None:
    refused = await attune("serve", "--demo", "--host", "0.0.0.0", "--port", "0", data=folder / "data")
    assert refused.returncode == 3
    assert "Anonymous reading" in refused.stderr


async def test_a_setting_that_is_wrong_stops_the_start_with_file_key_and_reason(folder: Path) -> None:
    config = folder / "config.toml"
    config.write_text("[server]\nprot = 1\nport = 99999\n")
    refused = await attune("serve", "--config", str(config), data=folder / "data")
    assert refused.returncode == 3
    assert f"{config}: server.prot is unknown; did you mean 'port'?" in refused.stderr
    assert f"{config}: server.port: " in refused.stderr


async def test_psql_only_reads_unless_it_is_told_to_write(folder: Path, dsn: str) -> None:
    async with serving(folder, dsn=dsn) as server:
        data = server.place.data
        refused = await attune("psql", "-c", "DELETE FROM attune.event", data=data)
        assert "read-only" in refused.stderr
        assert refused.returncode == 1
        allowed = await attune("psql", "--write", "-c", "DELETE FROM attune.event", data=data)
        assert allowed.stdout == "DELETE 0\n"
    gone = await attune("psql", "-c", "SELECT 1", data=data)
    assert gone.returncode == 4
    assert "attune serve" in gone.stderr


async def test_a_command_without_a_server_says_how_to_start_one(folder: Path) -> None:
    unreachable = await attune("rule", "list", data=folder / "data")
    assert unreachable.returncode == 4
    assert "attune serve" in unreachable.stderr


async def _in_state(server: Running, status: str) -> object:
    found = await server.get("/api/v1/executions", status=status)
    return found or None
