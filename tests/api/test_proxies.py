"""What a proxy says is believed when the settings trust it, and from nobody else."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from attune.app import is_exposed
from attune.database.embedded import Cluster
from attune.settings import load
from tests.api.sites import Site, bearer, new_database, new_folder, site_on
from tests.server.running import serving

PROXY, STRANGER = "127.0.0.2", "127.0.0.3"
LOGIN = {"login": "nobody", "password": "wrong"}


@pytest.fixture(scope="module")
async def proxied(cluster: Cluster, base: Path) -> AsyncIterator[Site]:
    """A server behind a proxy that speaks TLS, itself behind others in 10.0.0.0/8."""
    settings = {"server": {"public_url": "https://attune.test", "trusted_proxies": [PROXY, "10.0.0.0/8"]}}
    async with new_database(cluster) as dsn, site_on(dsn, new_folder(base), settings) as made:
        yield made


@pytest.mark.parametrize(
    ("peer", "headers", "client"),
    [
        (PROXY, {"X-Forwarded-For": "192.0.2.1"}, "192.0.2.1"),
        # The proxy adds whom it saw to what it was told: only that is sure.
        (PROXY, {"X-Forwarded-For": "203.0.113.9, 192.0.2.1"}, "192.0.2.1"),
        (PROXY, {"X-Forwarded-For": "203.0.113.9, 192.0.2.1, 10.1.2.3"}, "192.0.2.1"),
        (PROXY, {"X-Forwarded-For": "2001:db8::1"}, "2001:db8::1"),
        (PROXY, {}, PROXY),
        # What the proxy says of a client that has no address.
        (PROXY, {"X-Forwarded-For": "unknown"}, "None"),
        # T-83: anybody may write the header.
        (STRANGER, {"X-Forwarded-For": "192.0.2.1"}, STRANGER),
        (STRANGER, {"X-Real-IP": "192.0.2.1", "Forwarded": "for=192.0.2.1"}, STRANGER),
        (PROXY, {"X-Real-IP": "192.0.2.1", "Forwarded": "for=192.0.2.1"}, PROXY),
    ],
    ids=str,
)
async def test_t83_a_refused_sign_in_names_the_client_as_trusted_proxies_do(
    proxied: Site, peer: str, headers: dict[str, str], client: str
) -> None:
    with capture_logs() as lines:
        answer = await _from(peer, proxied, "POST", "/auth/login", json=LOGIN, headers=headers)

    assert answer.status_code == 401
    refused = [line for line in lines if line["event"] == "a sign-in was refused"]
    assert [line["client"] for line in refused] == [client]
    assert "nobody" not in str(lines)


@pytest.mark.parametrize(
    ("proto", "warned"),
    [
        ({"X-Forwarded-Proto": "http"}, True),
        ({"X-Forwarded-Proto": "https"}, False),
        ({"X-Forwarded-Proto": "gopher"}, True),
        ({}, True),
    ],
    ids=str,
)
async def test_a_password_from_elsewhere_over_plain_http_is_warned_of(
    proxied: Site, proto: dict[str, str], warned: bool
) -> None:
    headers = {"X-Forwarded-For": "192.0.2.1", **proto}
    with capture_logs() as lines:
        await _from(PROXY, proxied, "POST", "/auth/login", json=LOGIN, headers=headers)

    assert ("a password came over plain HTTP" in [line["event"] for line in lines]) is warned


async def test_a_page_of_the_public_url_may_change_things_whatever_the_proxy_calls_us(proxied: Site) -> None:
    await proxied.identity("boss", administrator=True)
    token = bearer((await proxied.tokens("boss"))["access_token"])

    async def status(origin: str) -> int:
        headers = {**token, "Host": "127.0.0.1:8080", "Origin": origin}
        return (await _from(PROXY, proxied, "POST", "/api/v1/rules", headers=headers)).status_code

    assert await status("https://attune.test") == 422
    assert await status("http://attune.test") == 403
    assert await status("https://evil.test") == 403


@pytest.mark.parametrize(
    ("server", "exposed"),
    [
        ({}, False),
        ({"host": "127.0.0.1"}, False),
        ({"host": "::1"}, False),
        ({"host": "localhost"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "::"}, True),
        ({"host": "192.0.2.1"}, True),
        ({"host": "attune.example"}, True),
        ({"host": "0.0.0.0", "public_url": "http://attune.example"}, True),
        # Somebody speaks TLS in front of it.
        ({"host": "0.0.0.0", "public_url": "https://attune.example"}, False),
    ],
    ids=str,
)
def test_plain_http_is_exposed_where_others_reach_it(server: dict[str, Any], exposed: bool) -> None:
    assert is_exposed(load(None, {"server": server})) is exposed


async def test_a_server_that_others_reach_warns_in_its_log_and_its_banner(base: Path, dsn: str) -> None:
    async with serving(new_folder(base), "--host", "0.0.0.0", dsn=dsn) as server:
        (warning,) = [line for line in server.lines() if line["message"].startswith("plain HTTP where others reach it")]
        assert warning["level"] == "warning"
        assert warning["host"] == "0.0.0.0"
        assert "  plain HTTP   who is on the way reads" in server.said()


async def _from(peer: str, site: Site, method: str, path: str, **arguments: Any) -> httpx2.Response:
    transport = httpx2.AsyncHTTPTransport(local_address=peer)
    async with httpx2.AsyncClient(transport=transport, base_url=site.serving.about.url, timeout=40) as client:
        return await client.request(method, path, **arguments)
