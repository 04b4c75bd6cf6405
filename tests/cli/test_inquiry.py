"""`attune inquiry`: what is open, answering on the command line, and being asked field by field in a terminal."""

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest

from tests.api.sites import Site
from tests.cli.typed import Commands
from tests.server.running import command, environment

USAGE, REFUSED = 2, 3
SCHEMA = {
    "approved": {"type": "boolean", "required": True, "position": 1},
    "percent": {"type": "integer", "maximum": 100, "description": "How much of it.", "position": 2},
    "note": "string",
}


async def ask(site: Site, **fields: Any) -> Any:
    return await site.data("POST", "/api/v1/inquiries", json={"prompt": "Deploy 1.2?", **fields})


async def test_what_is_open_is_listed_and_shown_with_the_command_that_answers(site: Site, attune: Commands) -> None:
    gone, inquiry = await ask(site), await ask(site)
    await site.data("PUT", f"/api/v1/inquiries/{gone['id']}", json={"status": "cancelled"})

    listed = await attune("inquiry", "list", "--open", "--json")
    shown = await attune("inquiry", "show", str(inquiry["id"]))

    ids = [one["id"] for one in json.loads(listed.stdout)]
    assert inquiry["id"] in ids
    assert gone["id"] not in ids
    assert "Deploy 1.2?" in shown.stdout
    assert f"attune inquiry answer {inquiry['id']}" in shown.stderr


@pytest.mark.parametrize(
    ("words", "response"),
    [
        (["-p", "approved=true", "-p", "note=fine"], {"approved": True, "note": "fine"}),
        (["--response", '{"approved": false}'], {"approved": False}),
    ],
)
async def test_an_answer_is_given_on_the_command_line(
    site: Site, attune: Commands, words: list[str], response: Any
) -> None:
    inquiry = await ask(site, response_schema=SCHEMA)

    answered = await attune("inquiry", "answer", str(inquiry["id"]), *words)

    assert (answered.returncode, answered.stdout) == (0, "")
    assert answered.stderr == f"inquiry {inquiry['id']} is answered; execution {inquiry['execution']} goes on\n"
    assert (await site.data("GET", f"/api/v1/inquiries/{inquiry['id']}"))["response"] == response


async def test_an_answer_that_does_not_fit_is_refused_with_its_fields(site: Site, attune: Commands) -> None:
    inquiry = await ask(site, response_schema=SCHEMA)

    refused = await attune("inquiry", "answer", str(inquiry["id"]), "-p", "approved=maybe")

    assert refused.returncode == REFUSED
    assert "/response/approved" in refused.stderr


async def test_without_a_terminal_it_says_what_to_type(site: Site, attune: Commands) -> None:
    inquiry = await ask(site, response_schema=SCHEMA)

    refused = await attune("inquiry", "answer", str(inquiry["id"]))

    assert refused.returncode == USAGE
    assert f"attune inquiry answer {inquiry['id']} -p approved=… -p percent=… -p note=…" in refused.stderr


class Terminal:
    """What a person sees and types."""

    def __init__(self, end: int) -> None:
        self._end = end
        self._shown = ""

    async def until(self, text: str) -> None:
        """Return when this is shown, after what was waited for before."""
        with anyio.fail_after(40):
            while text not in self._shown:
                await anyio.wait_readable(self._end)
                self._shown += os.read(self._end, 1024).decode()
        self._shown = self._shown.partition(text)[2]

    def type(self, line: str) -> None:
        os.write(self._end, f"{line}\n".encode())


@contextmanager
def terminal(site: Site, *words: str) -> Iterator[Terminal]:
    """A command that a person typed in a terminal, which has to succeed."""
    ours, theirs = pty.openpty()
    env = environment(ATTUNE_DATA_DIR=str(site.place.data))
    with subprocess.Popen(command(*words), stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd="/") as process:
        os.close(theirs)
        try:
            yield Terminal(ours)
            assert process.wait(20) == 0
        finally:
            process.kill()
            os.close(ours)


async def test_in_a_terminal_it_asks_for_each_field_and_again_for_what_was_wrong(site: Site) -> None:
    inquiry = await ask(site, response_schema=SCHEMA)
    answers = [("approved [y/n]: ", "y"), ("How much of it.\r\npercent (integer): ", "500"), ("note (string): ", "")]

    with terminal(site, "inquiry", "answer", str(inquiry["id"])) as screen:
        for question, answer in answers:
            await screen.until(question)
            screen.type(answer)
        await screen.until("percent: ")
        await screen.until("percent (integer): ")
        screen.type("50")
        await screen.until("is answered")

    found = await site.data("GET", f"/api/v1/inquiries/{inquiry['id']}")
    assert found["response"] == {"approved": True, "percent": 50}


async def test_why_tells_who_was_asked_and_for_how_long(site: Site, attune: Commands) -> None:
    inquiry = await ask(site)
    opened = await attune("why", "execution", str(inquiry["execution"]))
    await attune("inquiry", "answer", str(inquiry["id"]), "--response", "1")
    await site.data("GET", f"/api/v1/executions/{inquiry['execution']}?wait=30")
    ended = await attune("why", "execution", str(inquiry["execution"]))

    assert f"inquiry {inquiry['id']} is pending: Deploy 1.2?" in opened.stdout
    assert f"it waits for an answer to inquiry {inquiry['id']}" in opened.stdout
    assert f"inquiry {inquiry['id']} is responded: Deploy 1.2?\n  local answered after " in ended.stdout
    assert "running    waited" in ended.stdout
