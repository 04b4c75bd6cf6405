"""How to reach a database: for asyncpg as a URL, for psql as environment variables."""

from datetime import datetime
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from attune.base.errors import StartError
from attune.database.pool import Connection

MIN_VERSION = 15

_VARIABLES = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
}


def embedded_url(environment: dict[str, str]) -> str:
    """The URL of a server that libpq would find with these variables."""
    return (
        f"postgresql://{environment['PGUSER']}@/{environment['PGDATABASE']}"
        f"?host={quote(environment['PGHOST'], safe='')}&port={environment['PGPORT']}"
    )


def psql_environment(url: str) -> dict[str, str]:
    """The variables with which libpq finds the database of a URL: no password on a command line."""
    try:
        parts = urlsplit(url)
        found = {
            "host": unquote(parts.hostname or ""),
            "port": str(parts.port or ""),
            "user": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
            "dbname": unquote(parts.path.removeprefix("/")),
        }
    except ValueError as error:
        raise StartError(f"database.url is no URL: {error}.") from error
    found |= dict(parse_qsl(parts.query))
    return {_VARIABLES[name]: value for name, value in found.items() if value and name in _VARIABLES}


async def settings(connection: Connection) -> dict[str, str]:
    """What the database promises to keep, by the names of its settings."""
    rows = await connection.fetch(
        "SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes')"
    )
    return {row["name"]: row["setting"] for row in rows}


async def time_of(connection: Connection) -> datetime:
    """What the clock of the database says."""
    now: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return now


async def check_version(connection: Connection) -> None:
    """Raise StartError when the server is too old."""
    version = int(await connection.fetchval("SHOW server_version_num"))
    if version // 10_000 < MIN_VERSION:
        raise StartError(
            f"The database runs PostgreSQL {version // 10_000}, and Attune needs {MIN_VERSION} or newer. Upgrade it, "
            "or leave database.url empty for the one that comes with Attune."
        )
