"""Servers in this process, on databases of their own, and clients for each kind of caller."""

import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import httpx2

from attune.app import Serving, serving
from attune.base.clock import Clock
from attune.base.installation import Installation
from attune.database.connecting import embedded_url
from attune.database.embedded import Cluster
from attune.database.storage import Free, free_bytes
from attune.settings import load
from tests.api import contract
from tests.support.engines import pack

PASSWORD = "correct horse battery"

_numbers = count(1)

SHOP = {
    "triggers/sold.yaml": "ref: shop.sold\nlabel: Sold\n",
    "triggers/typed.yaml": """
        ref: shop.typed
        label: Sold, with a schema
        output:
          item: {type: string, required: true}
          price: {type: number, minimum: 0}
        """,
    "triggers/closed.yaml": "ref: shop.closed\nlabel: Closed\nenabled: false\n",
    "actions/charge.yaml": """
        ref: shop.charge
        label: Charge
        entry_point: charge.sh
        parameters:
          amount: {type: number, default: 1, minimum: 0}
          currency: {type: string, enum: [EUR, USD], default: EUR}
          card: {type: string, secret: true}
          pin: {type: integer, secret: true}
        """,
    "actions/charge.sh": "#!/bin/sh\ncat > /dev/null\nprintf 'one\\ntwo\\nthree\\n'\necho 'not so fast' >&2\n",
    "rules/thank.yaml": """
        ref: shop.thank
        label: Thank
        trigger_ref: shop.closed
        action_ref: core.echo
        """,
}


@dataclass(frozen=True)
class Site:
    """A server that runs. `local` calls through the socket file, `remote` over TCP and without a token."""

    serving: Serving
    place: Installation
    local: httpx2.AsyncClient
    remote: httpx2.AsyncClient
    dsn: str

    async def ask(self, method: str, path: str, **arguments: Any) -> httpx2.Response:
        """The answer to a request of the administrator on this machine."""
        return await self.local.request(method, path, **arguments)

    async def data(self, method: str, path: str, **arguments: Any) -> Any:
        """The data of the answer to a request that must succeed."""
        answer = await self.ask(method, path, **arguments)
        assert answer.is_success, answer.text
        return answer.json()["data"]

    async def identity(self, login: str, *, administrator: bool = False) -> Any:
        """An identity with `PASSWORD`."""
        if login != "admin":
            await self.data("POST", "/api/v1/identities", json={"login": login, "administrator": administrator})
        return await self.data("PUT", f"/api/v1/identities/{login}/password", json={"password": PASSWORD})

    async def tokens(self, login: str, password: str = PASSWORD) -> Any:
        """What the login answers."""
        answer = await self.remote.post("/auth/login", json={"login": login, "password": password})
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    async def sql(self, statement: str, *arguments: Any) -> Any:
        """The rows of a statement on the server's database."""
        async with self.serving.engine.database.acquire() as connection:
            return await connection.fetch(statement, *arguments)


def bearer(token: str) -> dict[str, str]:
    """The header that sends a token."""
    return {"Authorization": f"Bearer {token}"}


def new_folder(base: Path) -> Path:
    """A folder for a server, through which the user of PostgreSQL can get when the server is root's."""
    folder = Path(tempfile.mkdtemp(dir=base))
    folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
    return folder


@asynccontextmanager
async def new_database(cluster: Cluster) -> AsyncIterator[str]:
    """The URL of a migrated database, which is dropped afterwards."""
    name = f"api_{next(_numbers)}"
    connection = await asyncpg.connect(embedded_url(cluster.environment()))
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE template")
        yield embedded_url({**cluster.environment(), "PGDATABASE": name})
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()


@asynccontextmanager
async def site_on(
    dsn: str,
    folder: Path,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    clock: Clock | None = None,
    free: Free = free_bytes,
) -> AsyncIterator[Site]:
    """A server with the pack `shop`."""
    pack(folder / "packs", "shop", SHOP)
    merged = {
        "database": {"url": dsn},
        "packs": {"dirs": [str(folder / "packs")]},
        **(settings or {}),
        "server": {"port": 0, "shutdown_timeout": 0, **(settings or {}).get("server", {})},
    }
    place = Installation(folder / "data")
    hooks = {"response": [contract.check]}
    # Shorter than the server's patience with a connection that idles, or a request might meet its end.
    limits = httpx2.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=2)
    transport = httpx2.AsyncHTTPTransport(uds=str(place.socket), limits=limits)
    async with (
        serving(load(None, merged), place, clock=clock, free=free) as running,
        httpx2.AsyncClient(transport=transport, base_url="http://localhost", timeout=40, event_hooks=hooks) as local,
        httpx2.AsyncClient(base_url=running.about.url, timeout=40, event_hooks=hooks, limits=limits) as remote,
    ):
        yield Site(running, place, local, remote, dsn)
