"""The page on alerts works as it is typed."""

import re
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from attune.bus.messages import Cause, EventCreated
from attune.database.ids import uuid7
from tests.api.sites import Site
from tests.cli.typed import Commands
from tests.support.waiting import until
from tests.workers.test_builtin import server

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "alerts.md").read_text()
COMMAND = re.search(r"^attune (rule create .*?)^```", PAGE, re.MULTILINE | re.DOTALL)
FILE = re.search(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
async def echo() -> AsyncIterator[str]:
    """The URL of a page that answers what it was asked."""
    async with server() as url:
        yield f"{url}/echo"


async def told(site: Site, rule: str) -> Any:
    """What a server is told by a rule when a delivery is given up."""
    async with site.serving.engine.bus.transaction() as transaction:
        message = EventCreated(event_id=999_999, trigger_ref="core.alert")
        transaction.publish(message, Cause(uuid7(), None, 0), "test")

    async def ended() -> Any:
        await site.serving.engine.alerts.once()
        for execution in await site.data("GET", f"/api/v1/executions?rule_ref={rule}&status=completed"):
            return await site.data("GET", f"/api/v1/executions/{execution['id']}")
        return None

    return (await until(ended))["result"]["data"]["json"]


async def test_a_message_on_the_phone(site: Site, attune: Commands, echo: str) -> None:
    assert COMMAND is not None
    typed = COMMAND[1].replace("\\\n", " ").replace("https://ntfy.sh/a-name-that-nobody-guesses", echo)

    done = await attune(*shlex.split(typed))

    assert done.returncode == 0, done.stderr
    got = await told(site, "core.tell_me")
    await site.data("POST", "/api/v1/rules/core.tell_me/disable")
    assert got["method"] == "POST"
    assert re.fullmatch(
        r"EventCreated in attune.events.queue was given up after attempt 1, and event 999999 waits for it\. "
        r"Type: attune bus dead show \d+",
        got["body"],
    )


async def test_a_line_in_a_chat(site: Site, attune: Commands, echo: str, tmp_path: Path) -> None:
    assert FILE is not None
    (tmp_path / "chat.yaml").write_text(FILE[1].replace("https://chat.example.org/hooks/abc", echo))

    done = await attune("apply", str(tmp_path / "chat.yaml"))

    assert done.returncode == 0, done.stderr
    got = await told(site, "core.tell_chat")
    await site.data("POST", "/api/v1/rules/core.tell_chat/disable")
    assert got["content-type"] == "application/json"
    assert re.fullmatch(r'{"text":"EventCreated in .* waits for it\. `attune bus dead show \d+`"}', got["body"])
