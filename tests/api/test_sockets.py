"""Live views through a WebSocket, in the protocol of the platform (reference: section 5.2 of its API)."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from attune.bus.messages import NotificationType
from attune.database.embedded import Cluster
from attune.live import views
from tests.api.sites import PASSWORD, Site, new_database, new_folder, site_on
from tests.api.streams import nothing_is_on_the_way
from tests.api.test_streams import beat, run, tell
from tests.support.clock import VirtualClock
from tests.support.waiting import eventually


@asynccontextmanager
async def talking(site: Site, token: str | None, **arguments: Any) -> AsyncIterator[ClientConnection]:
    """A WebSocket, with the token as a browser sends it."""
    await nothing_is_on_the_way(site)
    url = site.serving.about.url.replace("http", "ws", 1) + "/ws"
    offered = [Subprotocol("attune.v1"), *([Subprotocol(f"attune.jwt.{token}")] if token else [])]
    async with connect(url, subprotocols=offered, proxy=None, **arguments) as socket:
        yield socket


async def hear(socket: ClientConnection) -> Any:
    """The next message."""
    with anyio.fail_after(20):
        return json.loads(await socket.recv())


async def say(socket: ClientConnection, kind: str, wanted: str | None = None) -> None:
    await socket.send(json.dumps({"type": kind, **({} if wanted is None else {"filter": wanted})}))


async def token_of(site: Site, login: str = "admin") -> str:
    await site.identity(login)
    token: str = (await site.tokens(login))["access_token"]
    return token


async def refusal(site: Site, token: str | None, **arguments: Any) -> tuple[int, Any]:
    """The answer to somebody who gets no WebSocket."""
    with pytest.raises(InvalidStatus) as refused:
        async with talking(site, token, **arguments):
            pass
    response = refused.value.response
    return response.status_code, json.loads(response.body or b"{}")


async def test_the_protocol_is_that_of_the_platform(site: Site) -> None:
    """T-87: what is told says what it is."""
    async with talking(site, await token_of(site)) as socket:
        assert socket.subprotocol == "attune.v1"
        welcome = await hear(socket)
        assert welcome.pop("client_id").startswith("client_")
        assert welcome == {"type": "welcome", "message": "Connected to Attune Notifier"}

        # Nothing is told before it is asked for.
        await tell(site, NotificationType.RULE_CREATED, 1)
        await say(socket, "ping")
        await say(socket, "subscribe", "entity_type:execution")
        await say(socket, "subscribe", "entity:rule:2")
        await say(socket, "nonsense")
        assert (await hear(socket))["type"] == "error"

        number = await run(site)
        told = await hear(socket)
        row = await site.data("GET", f"/api/v1/executions/{number}")
        assert told == {
            "type": "notification",
            "notification_type": "execution_created",
            "entity_type": "execution",
            "entity_id": number,
            "user_id": None,
            "payload": {
                "entity_type": "execution",
                "entity_id": number,
                "id": number,
                "action_id": row["action"],
                "action_ref": "core.noop",
                "status": "requested",
                "enforcement": None,
                "rule_ref": None,
                "trigger_ref": None,
                "parent": None,
                "started_at": None,
                "finished_at": None,
                "error": None,
                "created": row["created"],
                "updated": row["created"],
            },
            "timestamp": row["created"],
        }
        assert [(await hear(socket))["payload"]["status"] for _ in range(3)] == ["scheduled", "running", "completed"]

        await say(socket, "unsubscribe", "entity_type:execution")
        await say(socket, "nonsense")
        assert (await hear(socket))["type"] == "error"
        await run(site)
        await tell(site, NotificationType.RULE_CREATED, 3)
        await tell(site, NotificationType.RULE_CREATED, 2)
        assert (await hear(socket))["entity_id"] == 2


FILTERS = [
    ("all", ["event_created", "rule_created", "rule_deleted"]),
    ("entity_type:rule", ["rule_created", "rule_deleted"]),
    ("entity:rule:1", ["rule_created"]),
    ("notification_type:rule_deleted", ["rule_deleted"]),
    # No notification is for one user so far.
    ("user:1", []),
]


@pytest.mark.parametrize(("wanted", "expected"), FILTERS, ids=[row[0] for row in FILTERS])
async def test_a_filter_of_the_contract_tells_what_it_names(site: Site, wanted: str, expected: list[str]) -> None:
    async with talking(site, await token_of(site)) as socket:
        await hear(socket)
        await say(socket, "subscribe", wanted)
        await say(socket, "subscribe", "entity:dead_letter:9")
        await say(socket, "nonsense")
        await hear(socket)
        await tell(site, NotificationType.EVENT_CREATED, 1)
        await tell(site, NotificationType.RULE_CREATED, 1)
        await tell(site, NotificationType.RULE_DELETED, 2)
        await tell(site, NotificationType.DEAD_LETTER_CREATED, 9)
        told = [await hear(socket)]
        while told[-1]["entity_id"] != 9:
            told.append(await hear(socket))

    assert [one["notification_type"] for one in told[:-1]] == expected


WRONG = [
    "",
    "some",
    "all:",
    "all:x",
    "entity_type:rules",
    "entity:rule",
    "entity:rule:x",
    "notification_type:x",
    "user:",
]


@pytest.mark.parametrize("wanted", [*WRONG, "entity:rule:" + "9" * 30])
async def test_a_filter_that_is_none_is_an_error_and_the_talk_goes_on(site: Site, wanted: str) -> None:
    async with talking(site, await token_of(site)) as socket:
        await hear(socket)
        await say(socket, "subscribe", wanted)
        error = await hear(socket)
        assert (error["type"], "filters are all, entity_type" in error["message"]) == ("error", True)
        for text in ("{", "[]", '{"type": 1}', '{"type": "subscribe", "filter": "all", "more": 1}'):
            await socket.send(text)
            assert "Say a JSON object" in (await hear(socket))["message"]


async def test_who_may_not_talk_is_refused_before_it_begins(site: Site) -> None:
    """And told why, as everywhere."""
    token = await token_of(site)
    await site.identity("guest")
    guest = (await site.tokens("guest"))["access_token"]
    refresh = (await site.tokens("admin"))["refresh_token"]

    assert (await refusal(site, None))[0] == 401
    status, problem = await refusal(site, refresh)
    assert (status, problem["error"]) == (401, "This takes an access token.")
    assert (await refusal(site, guest))[0] == 403
    assert (await refusal(site, token, origin="https://evil.example"))[0] == 403
    assert (await refusal(site, token, additional_headers={"Sec-Fetch-Site": "cross-site"}))[0] == 403
    # What is no WebSocket has no such route.
    assert (await site.remote.get("/ws")).status_code == 404


async def test_nobody_is_told_through_a_socket_of_what_they_may_not_read(cluster: Cluster, base: Path) -> None:
    settings = {"auth": {"anonymous": "read"}}
    async with (
        new_database(cluster) as dsn,
        site_on(dsn, new_folder(base), settings) as site,
        talking(site, None) as socket,
    ):
        await hear(socket)
        for wanted in ("entity_type:dead_letter", "notification_type:dead_letter_created", "user:1"):
            await say(socket, "subscribe", wanted)
            assert "Insufficient permissions" in (await hear(socket))["message"]
        await say(socket, "subscribe", "all")
        await say(socket, "nonsense")
        await hear(socket)
        await tell(site, NotificationType.DEAD_LETTER_CREATED, 1)
        await tell(site, NotificationType.RULE_CREATED, 2)
        assert (await hear(socket))["entity_id"] == 2


async def test_a_talk_ends_with_the_token_and_with_the_server(cluster: Cluster, base: Path) -> None:
    clock = VirtualClock()
    async with new_database(cluster) as dsn, AsyncExitStack() as last:
        async with site_on(dsn, new_folder(base), clock=clock) as site:
            async with talking(site, await token_of(site)) as socket:
                await hear(socket)
                await site.data("PUT", "/api/v1/identities/admin/password", json={"password": PASSWORD})
                await beat(clock)
                assert await closed(socket) == (4401, "The token was revoked.")
            socket = await last.enter_async_context(talking(site, await token_of(site)))
            await hear(socket)
        assert (await closed(socket))[0] == 1012


async def closed(socket: ClientConnection) -> tuple[int, str]:
    """How the server closed a WebSocket."""
    with anyio.fail_after(20), pytest.raises(ConnectionClosed) as ended:
        await _drain(socket)
    assert ended.value.rcvd is not None
    return ended.value.rcvd.code, ended.value.rcvd.reason


async def _drain(socket: ClientConnection) -> None:
    async for _ in socket:
        pass
    await socket.recv()


async def test_who_does_not_read_is_cut(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "KEPT", 100)
    async with talking(site, await token_of(site)) as socket:
        await hear(socket)
        await say(socket, "subscribe", "all")
        await say(socket, "nonsense")
        await hear(socket)
        async with site.serving.engine.bus.transaction() as transaction:
            for number in range(200):
                transaction.notify(NotificationType.EVENT_CREATED, number, {})

        assert await closed(socket) == (1013, views.End.SLOW)
    await eventually(lambda: not site.serving.engine.live._slots)
