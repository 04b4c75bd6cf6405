"""The how-to on asking before something is done, as it is typed: yes, no, no answer, and a crash while it waits."""

import re
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.server.running import ROOT, Running, attune, ended, environment, serving
from tests.support.waiting import until

PAGE = (ROOT / "docs" / "howto-approval.md").read_text()


def typed_files(home: Path) -> Path:
    """The folder of packs that the first block of the page makes."""
    (block,) = re.findall(r"```sh\n(mkdir -p ~/attune-packs.*?)```", PAGE, re.DOTALL)
    subprocess.run(["bash", "-euc", block], check=True, env=environment(HOME=str(home)))
    return home / "attune-packs"


async def emit(server: Running, version: str) -> int:
    """The open inquiry of a wish to deploy, or the first one if its time is over."""
    said = (await attune("event", "emit", "deploys.wanted", "-p", f"version={version}", data=server.place.data)).stderr
    event = int(re.findall(r"event (\d+)", said)[0])

    async def asked() -> int | None:
        inquiries = await server.get("/api/v1/inquiries", per_page=100)
        execution = [one["execution"] for one in inquiries if one["prompt"] == f"Deploy {version}?"]
        found = await server.get("/api/v1/executions", event=event)
        return next((one["id"] for one in inquiries if execution and one["execution"] == found[0]["id"]), None)

    return await until(asked)


async def answer(server: Running, inquiry: int, approved: str) -> None:
    done = await attune("inquiry", "answer", str(inquiry), "-p", f"approved={approved}", data=server.place.data)
    assert done.returncode == 0, done.stderr


async def asker(server: Running, inquiry: int) -> Any:
    """The execution that asked, when it has ended."""
    found = await server.get(f"/api/v1/inquiries/{inquiry}")
    return await server.get(f"/api/v1/executions/{found['execution']}", wait=30)


async def deployed(server: Running, version: str) -> Any:
    async def found() -> Any:
        ran = await server.get("/api/v1/executions", action_ref="deploys.deploy", status="completed")
        wholes = [await server.get(f"/api/v1/executions/{one['id']}") for one in ran]
        return next((one for one in wholes if one["config"] == {"version": version}), None)

    return await until(found)


async def test_a_rule_asks_before_it_deploys(folder: Path) -> None:
    packs = typed_files(folder)
    async with serving(folder, "--packs", str(packs)) as server:
        data = server.place.data
        approved = await emit(server, "v1")
        await answer(server, approved, "true")
        execution = await deployed(server, "v1")
        assert (await attune("execution", "logs", str(execution["id"]), data=data)).stdout == "deploying v1\n"

        refused = await emit(server, "v2")
        await answer(server, refused, "false")
        assert (await asker(server, refused))["result"]["response"] == {"approved": False}
        why = await attune("why", "rule", "deploys.deploy", data=data)
        assert "event.payload.response.approved" in why.stdout

        waiting = await emit(server, "v3")
        server.process.send_signal(signal.SIGKILL)
        await ended(server.process)

    async with serving(folder, "--packs", str(packs)) as server:
        opened = await attune("inquiry", "list", "--open", data=data)
        assert "Deploy v3?" in opened.stdout
        await answer(server, waiting, "true")
        await deployed(server, "v3")
        listed = await server.get("/api/v1/executions", action_ref="deploys.deploy")
        assert len(listed) == 2


async def test_who_is_not_answered_in_time_does_not_deploy(folder: Path) -> None:
    packs = typed_files(folder)
    rule = packs / "deploys" / "rules" / "ask.yaml"
    rule.write_text(rule.read_text().replace("timeout: 600", "timeout: 0.2"))
    async with serving(folder, "--packs", str(packs)) as server:
        inquiry = await emit(server, "v1")
        assert (await asker(server, inquiry))["status"] == "timeout"
        listed = await attune(
            "execution", "list", "--action", "core.ask", "--status", "timeout", data=server.place.data
        )
        assert "core.ask" in listed.stdout
        assert (
            await attune("inquiry", "answer", str(inquiry), "-p", "approved=true", data=server.place.data)
        ).returncode == 3
        assert await server.get("/api/v1/executions", action_ref="deploys.deploy") == []
