"""Who gets through to which route."""

import os
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import httpx2
import pytest
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from attune.api import listening
from attune.api.answers import deleted
from attune.api.authentication import LOCAL_SCOPE
from attune.api.endpoints import Access, Call, Endpoint, Permission
from attune.api.server import Api
from attune.app import _application
from attune.base.clock import SystemClock
from attune.base.errors import StartError
from attune.database.embedded import Cluster
from tests.api.routes import ENDPOINTS, methods
from tests.api.sites import Site, bearer, new_database, new_folder, site_on

# What a route asks of its caller.
NOTHING, IDENTITY, READ, RIGHT = "nothing", "an identity", "a right, or anonymous reading", "a right"

ROUTES = [
    ("GET", "/api-spec/openapi.json", NOTHING),
    ("GET", "/docs", NOTHING),
    ("GET", "/health", NOTHING),
    ("GET", "/health/detailed", NOTHING),
    ("GET", "/health/ready", NOTHING),
    ("GET", "/health/live", NOTHING),
    ("POST", "/auth/login", NOTHING),
    ("POST", "/auth/refresh", NOTHING),
    ("GET", "/auth/me", IDENTITY),
    ("POST", "/api/v1/identities", RIGHT),
    ("PUT", "/api/v1/identities/{login}/password", RIGHT),
    ("GET", "/api/v1/packs", READ),
    ("GET", "/api/v1/packs/{ref}", READ),
    ("PUT", "/api/v1/packs/{ref}", RIGHT),
    ("PATCH", "/api/v1/packs/{ref}", RIGHT),
    ("DELETE", "/api/v1/packs/{ref}", RIGHT),
    ("GET", "/api/v1/packs/{pack}/triggers", READ),
    ("GET", "/api/v1/packs/{pack}/actions", READ),
    ("GET", "/api/v1/packs/{pack}/rules", READ),
    ("GET", "/api/v1/triggers", READ),
    ("GET", "/api/v1/triggers/enabled", READ),
    ("GET", "/api/v1/triggers/{ref}", READ),
    ("PUT", "/api/v1/triggers/{ref}", RIGHT),
    ("PATCH", "/api/v1/triggers/{ref}", RIGHT),
    ("DELETE", "/api/v1/triggers/{ref}", RIGHT),
    ("GET", "/api/v1/triggers/{trigger}/rules", READ),
    ("GET", "/api/v1/actions", READ),
    ("GET", "/api/v1/actions/{ref}", READ),
    ("PUT", "/api/v1/actions/{ref}", RIGHT),
    ("PATCH", "/api/v1/actions/{ref}", RIGHT),
    ("DELETE", "/api/v1/actions/{ref}", RIGHT),
    ("GET", "/api/v1/actions/{action}/rules", READ),
    ("GET", "/api/v1/rules", READ),
    ("GET", "/api/v1/rules/enabled", READ),
    ("GET", "/api/v1/rules/{ref}", READ),
    ("GET", "/api/v1/timers", READ),
    ("GET", "/api/v1/timers/{ref}/next", READ),
    ("GET", "/api/v1/rules/{ref}/explain", READ),
    ("POST", "/api/v1/rules", RIGHT),
    ("PUT", "/api/v1/rules/{ref}", RIGHT),
    ("PATCH", "/api/v1/rules/{ref}", RIGHT),
    ("DELETE", "/api/v1/rules/{ref}", RIGHT),
    ("POST", "/api/v1/rules/{ref}/enable", RIGHT),
    ("POST", "/api/v1/rules/{ref}/disable", RIGHT),
    ("GET", "/api/v1/events", READ),
    ("GET", "/api/v1/events/{id}", READ),
    ("GET", "/api/v1/events/{id}/explain", READ),
    ("GET", "/api/v1/verdicts", READ),
    ("POST", "/api/v1/events", RIGHT),
    ("GET", "/api/v1/enforcements", READ),
    ("GET", "/api/v1/enforcements/{id}", READ),
    ("GET", "/api/v1/stream", READ),
    ("GET", "/api/v1/executions/stream", READ),
    ("GET", "/api/v1/executions", READ),
    ("GET", "/api/v1/executions/{id}", READ),
    ("POST", "/api/v1/executions/execute", RIGHT),
    ("POST", "/api/v1/executions/{id}/cancel", RIGHT),
    ("POST", "/api/v1/executions/{id}/rerun", RIGHT),
    # Never for anonymous callers: files, what was printed, the bus with its dead letters, and the server itself.
    ("GET", "/api/v1/packs/{ref}/files", RIGHT),
    ("GET", "/api/v1/packs/{ref}/archive", RIGHT),
    ("GET", "/api/v1/rules/{ref}/source", RIGHT),
    ("GET", "/api/v1/executions/{id}/logs/{stream}", RIGHT),
    ("GET", "/api/v1/inquiries", RIGHT),
    ("POST", "/api/v1/inquiries", RIGHT),
    ("GET", "/api/v1/inquiries/status/{status}", RIGHT),
    ("GET", "/api/v1/inquiries/{id}", RIGHT),
    ("PUT", "/api/v1/inquiries/{id}", RIGHT),
    ("PATCH", "/api/v1/inquiries/{id}", RIGHT),
    ("DELETE", "/api/v1/inquiries/{id}", RIGHT),
    ("POST", "/api/v1/inquiries/{id}/respond", RIGHT),
    ("GET", "/api/v1/executions/{id}/inquiries", RIGHT),
    ("GET", "/api/v1/bus/topology", RIGHT),
    ("GET", "/api/v1/bus/queues", RIGHT),
    ("GET", "/api/v1/bus/trace/{correlation_id}", RIGHT),
    ("GET", "/api/v1/bus/dead-letters", RIGHT),
    ("GET", "/api/v1/bus/dead-letters/{id}", RIGHT),
    ("POST", "/api/v1/bus/dead-letters/{id}/replay", RIGHT),
    ("POST", "/api/v1/bus/dead-letters/{id}/discard", RIGHT),
    ("POST", "/api/v1/bus/dead-letters/replay", RIGHT),
    ("POST", "/api/v1/bus/dead-letters/discard", RIGHT),
    ("GET", "/api/v1/system/status", RIGHT),
    ("GET", "/api/v1/system/doctor", RIGHT),
    ("GET", "/api/v1/system/recovery", RIGHT),
    ("GET", "/api/v1/system/space", RIGHT),
    ("GET", "/metrics", RIGHT),
]
A_READ = "/api/v1/rules"

# What is sent for each parameter of a path: nothing that exists.
PARAMETERS = {
    "{login}": "nobody-at-all",
    "{ref}": "no.such",
    "{pack}": "none",
    "{trigger}": "no.such",
    "{action}": "no.such",
    "{id}": "9000000000",
    "{stream}": "stdout",
    "{status}": "pending",
    "{correlation_id}": "00000000-0000-0000-0000-000000000000",
}


@pytest.fixture(scope="module")
async def open_site(cluster: Cluster, base: Path) -> AsyncIterator[Site]:
    """A server that callers on this machine may read without a token."""
    settings = {"auth": {"anonymous": "read"}}
    async with new_database(cluster) as dsn, site_on(dsn, new_folder(base), settings) as made:
        yield made


@pytest.fixture(scope="module")
async def administrator(site: Site) -> dict[str, str]:
    """The header of an administrator."""
    await site.identity("boss", administrator=True)
    return bearer((await site.tokens("boss"))["access_token"])


@pytest.fixture(scope="module")
async def powerless(site: Site) -> dict[str, str]:
    """The header of somebody who is known and has no rights."""
    await site.identity("guest")
    return bearer((await site.tokens("guest"))["access_token"])


@pytest.fixture(scope="module")
async def powerless_there(open_site: Site) -> dict[str, str]:
    """The same where anonymous reading is on."""
    await open_site.identity("guest")
    return bearer((await open_site.tokens("guest"))["access_token"])


async def test_the_table_names_every_route_of_the_application(site: Site) -> None:
    """T-97: a route that nobody thought of gave tokens to anybody."""
    engine = site.serving.engine
    application = await _application(
        engine, site.serving.about, site.serving.settings, site.place, SystemClock(), engine._ownership
    )

    served = {
        (method, route.path)
        for route in application.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }

    assert served == {(method, path) for method, path, _ in ROUTES}
    assert served == {(method, endpoint.path) for endpoint in ENDPOINTS for method in methods(endpoint)}


@pytest.mark.parametrize(("method", "path", "asks"), ROUTES)
async def test_a_route_lets_in_who_may_use_it_and_nobody_else(
    site: Site,
    open_site: Site,
    administrator: dict[str, str],
    powerless: dict[str, str],
    powerless_there: dict[str, str],
    method: str,
    path: str,
    asks: str,
) -> None:
    """T-81, T-82, T-94: whoever could sign in could do what had no check of its own."""
    url = _concrete(path)

    got = {
        "local": _decision(await site.local.request(method, url)),
        "administrator": _decision(await site.remote.request(method, url, headers=administrator)),
        "powerless": _decision(await site.remote.request(method, url, headers=powerless)),
        "powerless, where anonymous reads": _decision(
            await open_site.remote.request(method, url, headers=powerless_there)
        ),
        "anonymous": _decision(await site.remote.request(method, url)),
        "anonymous that may read": _decision(await open_site.remote.request(method, url)),
    }

    assert got == {
        "local": "let in",
        "administrator": "let in",
        # Until permissions exist, who is no administrator has none.
        "powerless": "let in" if asks in {NOTHING, IDENTITY} else "FORBIDDEN",
        "powerless, where anonymous reads": "let in" if asks in {NOTHING, IDENTITY} else "FORBIDDEN",
        "anonymous": "let in" if asks == NOTHING else "UNAUTHORIZED",
        "anonymous that may read": "let in" if asks in {NOTHING, READ} else "UNAUTHORIZED",
    }


@pytest.mark.parametrize("path", [path for method, path, _ in ROUTES if method == "GET"])
async def test_head_gets_through_where_get_does(site: Site, open_site: Site, path: str) -> None:
    url = _concrete(path)

    for one in (site, open_site):
        assert (await one.remote.head(url)).status_code == (await one.remote.get(url)).status_code
        assert (await one.remote.head(url)).content == b""


async def test_who_is_refused_learns_nothing_about_what_exists(site: Site, powerless: dict[str, str]) -> None:
    there = await site.remote.get("/api/v1/packs/core", headers=powerless)
    missing = await site.remote.get("/api/v1/packs/none", headers=powerless)

    assert there.status_code == missing.status_code == 403
    assert there.json()["detail"] == missing.json()["detail"] == "Insufficient permissions: packs:read"


@pytest.mark.parametrize(
    "authorization",
    [
        "Basic YWRtaW46YWRtaW4=",
        "Bearer",
        "Bearer not.a.token",
        "bearer x",
        "Token abc",
        "",
        "Bearer \xff\xfe",
    ],
)
async def test_a_bad_token_is_refused_even_where_none_is_needed(open_site: Site, authorization: str) -> None:
    answer = await open_site.remote.get(A_READ, headers={b"Authorization": authorization.encode("latin-1")})

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("access", [None, "public", Permission], ids=str)
async def test_an_endpoint_without_a_permission_refuses_the_start(access: Any) -> None:
    async def answer(_: Call[Any, Any]) -> Any:
        return deleted("never")

    endpoints = [
        Endpoint("GET", "/fine", Access.PUBLIC, answer, "Fine"),
        Endpoint("GET", "/open", access, answer, "Open to whom?"),
    ]

    with pytest.raises(StartError, match="GET /open declares no permission"):
        Api(endpoints, cast(Any, None), cast(Any, None), max_body_size=1024)


PROXIED = [
    ("Forwarded", "for=192.0.2.1"),
    ("X-Forwarded-For", "192.0.2.1"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "localhost"),
    ("X-Forwarded-Anything", ""),
    ("x-forwarded", "x"),
    ("Via", "1.1 proxy"),
]


@pytest.mark.parametrize("header", PROXIED, ids=lambda header: header[0])
async def test_a_proxy_ends_anonymous_reading(open_site: Site, header: tuple[str, str]) -> None:
    answer = await open_site.remote.get(A_READ, headers=[header])

    assert answer.status_code == 401
    assert "proxy" in answer.json()["detail"]


async def test_a_token_works_through_a_proxy(site: Site, administrator: dict[str, str]) -> None:
    answer = await site.remote.get(A_READ, headers={**administrator, "X-Forwarded-For": "192.0.2.1", "Via": "x"})

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost", True),
        ("localhost:8080", True),
        ("LOCALHOST:1", True),
        ("127.0.0.1", True),
        ("127.0.0.1:65535", True),
        ("127.9.9.9:80", True),
        ("[::1]:8080", True),
        # A page that gave its own name the address 127.0.0.1 (DNS rebinding).
        ("evil.example", False),
        ("evil.example:8080", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("192.168.0.1:8080", False),
        ("0.0.0.0:8080", False),
        ("[::1", False),
        ("[", False),
        ("[nonsense]", False),
        ("", False),
    ],
)
async def test_anonymous_reading_takes_the_names_of_this_machine_alone(
    open_site: Site, host: str, allowed: bool
) -> None:
    answer = await open_site.remote.get(A_READ, headers={"Host": host})

    assert answer.status_code == (200 if allowed else 401), answer.text


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        # Typed into the address bar.
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "nonsense"}, False),
        ({"Host": "attune.test:8080", "Origin": "http://attune.test:8080"}, True),
        # Behind something that speaks TLS.
        ({"Host": "attune.test", "Origin": "https://attune.test"}, True),
        ({"Host": "attune.test:8080", "Origin": "http://attune.test:9090"}, False),
        ({"Origin": "https://evil.example"}, False),
        # A sandboxed frame, a file.
        ({"Origin": "null"}, False),
        ({"Host": "", "Origin": "null"}, False),
        ({"Origin": ""}, False),
        ({"Origin": "http://["}, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/auth/login", "/api/v1/rules"])
async def test_a_page_of_another_site_changes_nothing(
    site: Site, administrator: dict[str, str], headers: dict[str, str], allowed: bool, path: str
) -> None:
    remote = await site.remote.post(path, headers={**administrator, **headers})
    local = await site.local.post(path, headers=headers)

    assert remote.status_code == local.status_code == (422 if allowed else 403), remote.text


async def test_a_page_of_another_site_may_follow_a_link_here(site: Site, administrator: dict[str, str]) -> None:
    headers = {**administrator, "Sec-Fetch-Site": "cross-site", "Origin": "https://other.example"}

    assert (await site.remote.get(A_READ, headers=headers)).status_code == 200


async def test_the_socket_file_and_its_folder_are_private(site: Site) -> None:
    file, folder = site.place.socket.stat(), site.place.socket.parent.stat()

    assert stat.S_ISSOCK(file.st_mode)
    assert stat.S_IMODE(file.st_mode) == 0o600
    assert stat.S_IMODE(folder.st_mode) == 0o700
    assert file.st_uid == os.geteuid()


async def test_nobody_becomes_local_over_tcp(site: Site) -> None:
    headers = {LOCAL_SCOPE: "true", "X-Real-IP": "127.0.0.1"}

    assert (await site.remote.get(A_READ, headers=headers)).status_code == 401


async def test_a_user_who_is_not_welcome_on_the_socket_file_is_hung_up_on(base: Path) -> None:
    callers: list[Scope] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        callers.append(scope)
        await deleted("hello")(scope, receive, send)

    # Whoever runs this test is a stranger to one server and welcome at the other.
    file, myself = new_folder(base) / "test.sock", os.geteuid()
    async with _answering(application, file, {myself + 1}) as client:
        with pytest.raises(httpx2.TransportError):
            await client.get("/")
    assert not callers

    async with _answering(application, file, {myself}) as client:
        assert (await client.get("/")).status_code == 200
    assert callers[0][LOCAL_SCOPE] is True


if os.geteuid() == 0:  # only root can become somebody else

    async def test_another_user_whom_the_file_system_lets_in_is_hung_up_on(site: Site) -> None:
        file = site.place.socket
        for place, mode in ((file, 0o666), (file.parent, 0o711)):
            place.chmod(mode)
        try:
            child = await anyio.run_process([sys.executable, "-c", _CALL_AS_NOBODY, str(file)])
        finally:
            for place, mode in ((file, 0o600), (file.parent, 0o700)):
                place.chmod(mode)

        assert child.stdout.decode() == "heard nothing\n"


_CALL_AS_NOBODY = """
import os, socket, sys
os.setgroups([]), os.setgid(65534), os.setuid(65534)
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
try:
    client.sendall(b"GET /api/v1/system/status HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    heard = client.recv(12)
except (ConnectionResetError, BrokenPipeError):
    heard = b""
print("heard", heard or "nothing")
"""


@asynccontextmanager
async def _answering(application: ASGIApp, file: Path, users: set[int]) -> AsyncIterator[httpx2.AsyncClient]:
    server = listening.local_server(application, users)
    transport = httpx2.AsyncHTTPTransport(uds=str(file))
    with listening.bind_file(file) as bound:
        async with (
            anyio.create_task_group() as serving,
            httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            serving.start_soon(server.serve, [bound])
            await server.ready()
            yield client
            server.should_exit = True


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1"])
async def test_anonymous_reading_is_refused_at_the_start_where_others_could_reach_it(base: Path, host: str) -> None:
    settings = {"auth": {"anonymous": "read"}, "server": {"host": host}}

    with pytest.raises(StartError, match=f"Anonymous reading is on.*{host}"):
        async with site_on("postgresql://nowhere", new_folder(base), settings):
            pass


def _concrete(path: str) -> str:
    for parameter, value in PARAMETERS.items():
        path = path.replace(parameter, value)
    # Who is let in there is refused for this, or would never have all of the answer.
    return f"{path}?id=x" if path.endswith("/stream") else path


def _decision(answer: httpx2.Response) -> str:
    if answer.status_code in {401, 403}:
        return str(answer.json()["code"])
    assert answer.status_code < 500, answer.text
    return "let in"


def test_every_name_in_a_path_has_an_example() -> None:
    assert not [path for _, path, _ in ROUTES if "{" in _concrete(path)]
