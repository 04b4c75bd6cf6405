"""Bringing the schema up to date: numbered SQL files, a transaction each, recorded with their checksum."""

import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import asyncpg
import structlog

from attune.base.errors import StartError
from attune.database.pool import Connection

log = structlog.get_logger()

_FILE_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql\Z")
_LOCK = 0x61747475_6E650001
"""`attune` in ASCII and a number: nobody migrates the same database at the same time."""

_GONE = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What a connection that was lost has to say to what would clean up behind us."""


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def directory() -> Path:
    """Where the migrations lie: in the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def read(folder: Path) -> tuple[Migration, ...]:
    """The migrations of `folder` in order. Raises StartError when a number is missing, doubled or malformed."""
    migrations = []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE_NAME.match(path.name)
        if match is None:
            raise StartError(f"{path}: a migration is named like 0007_what_it_does.sql.")
        migrations.append(Migration(int(match[1]), path.name, path.read_text(encoding="utf-8")))
    for expected, migration in enumerate(migrations, start=1):
        if migration.number != expected:
            raise StartError(f"{folder}: expected migration {expected:04}, found {migration.name}.")
    return tuple(migrations)


async def migrate(connection: Connection, migrations: tuple[Migration, ...]) -> int:
    """Apply what is missing and return how many that were.

    Raises StartError when the database was written by a newer release, or by migrations that have changed since, and
    when one fails.
    """
    await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
    try:
        await connection.execute("CREATE SCHEMA IF NOT EXISTS attune")
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS attune.migration "
            "(number integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, applied_at timestamptz NOT NULL)"
        )
        applied = await connection.fetch("SELECT number, name, checksum FROM attune.migration ORDER BY number")
        _check({row["number"]: (row["name"], row["checksum"]) for row in applied}, migrations)
        missing = migrations[len(applied) :]
        for migration in missing:
            await _apply(connection, migration)
        return len(missing)
    finally:
        with anyio.CancelScope(shield=True), suppress(*_GONE):
            await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)


async def versions(connection: Connection) -> tuple[str, str | None]:
    """The version of PostgreSQL, and the name of the newest migration."""
    version: str = await connection.fetchval("SHOW server_version")
    newest = await connection.fetchval("SELECT name FROM attune.migration ORDER BY number DESC LIMIT 1")
    return version.partition(" ")[0], newest


async def applied(connection: Connection) -> list[str]:
    """The names of the migrations that a database has."""
    return [row["name"] for row in await connection.fetch("SELECT name FROM attune.migration ORDER BY number")]


def _check(applied: dict[int, tuple[str, str]], migrations: tuple[Migration, ...]) -> None:
    known = {migration.number: migration for migration in migrations}
    for number, (name, checksum) in applied.items():
        if number not in known:
            raise StartError(
                f"The database was written by a newer Attune (migration {name} is unknown here). "
                "Install that release again, or use another data directory."
            )
        if known[number].checksum != checksum:
            raise StartError(
                f"Migration {name} was applied with another content than this release has. "
                "Use the release that wrote this database, or another data directory."
            )


async def _apply(connection: Connection, migration: Migration) -> None:
    log.debug("migrating", migration=migration.name)
    # However long it takes: a large table is no reason to refuse to start.
    await connection.execute("BEGIN; SET LOCAL statement_timeout = 0")
    try:
        await connection.execute(migration.sql)
        await connection.execute(
            "INSERT INTO attune.migration VALUES ($1, $2, $3, now())",
            migration.number,
            migration.name,
            migration.checksum,
        )
        await connection.execute("COMMIT")
    except BaseException as error:
        with anyio.CancelScope(shield=True), suppress(*_GONE):
            await connection.execute("ROLLBACK")
        if isinstance(error, asyncpg.PostgresError):
            raise StartError(f"Migration {migration.name} failed: {error}") from error
        raise
