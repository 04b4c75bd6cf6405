"""The statements on `attune.identity`. Cold reads: nothing of the pipeline waits for them."""

from collections.abc import Sequence
from datetime import datetime

from attune.access.model import Identity
from attune.database.pool import Connection, Database, Row

_COLUMNS = """
    id, login, display_name, administrator, frozen, token_epoch, password_hash IS NOT NULL AS has_password, created,
    updated
"""


async def identity(database: Database, identity_id: int) -> Identity | None:
    """The identity with that id."""
    row = await database.fetch_one(f"SELECT {_COLUMNS} FROM attune.identity WHERE id = :id", id=identity_id)
    return None if row is None else _identity(row)


async def identity_with_hash(database: Database, login: str) -> tuple[Identity, str | None] | None:
    """The identity with that login, and the hash of its password if it has one."""
    row = await database.fetch_one(
        f"SELECT {_COLUMNS}, password_hash FROM attune.identity WHERE login = :login", login=login
    )
    return None if row is None else (_identity(row), row["password_hash"])


async def identity_ids(connection: Connection, ids: Sequence[int], logins: Sequence[str]) -> dict[int | str, int]:
    """The ids of identities, by the id or the login that they were asked for with."""
    rows = await connection.fetch(
        "SELECT id, login FROM attune.identity WHERE id = ANY($1::bigint[]) OR login = ANY($2::text[])", ids, logins
    )
    return {name: row["id"] for row in rows for name in (row["id"], row["login"])}


async def has_administrator(connection: Connection) -> bool:
    """Whether an administrator can sign in."""
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM attune.identity WHERE administrator AND NOT frozen AND password_hash IS NOT NULL)"
    )
    return found


async def insert_identity(
    connection: Connection, login: str, display_name: str | None, *, administrator: bool, now: datetime
) -> Identity | None:
    """The new identity, without a password; None when the login is taken."""
    row = await connection.fetchrow(
        f"""
        INSERT INTO attune.identity (login, display_name, administrator, created, updated) VALUES ($1, $2, $3, $4, $4)
            ON CONFLICT (login) DO NOTHING
        RETURNING {_COLUMNS}
        """,
        login,
        display_name,
        administrator,
        now,
    )
    return None if row is None else _identity(row)


async def set_password(connection: Connection, login: str, password_hash: str, now: datetime) -> Identity | None:
    """Give an identity another password and revoke its tokens; None when there is no such login."""
    row = await connection.fetchrow(
        f"""
        UPDATE attune.identity SET password_hash = $2, token_epoch = token_epoch + 1, updated = $3 WHERE login = $1
        RETURNING {_COLUMNS}
        """,
        login,
        password_hash,
        now,
    )
    return None if row is None else _identity(row)


def _identity(row: Row) -> Identity:
    return Identity(
        row["id"],
        row["login"],
        row["display_name"],
        row["administrator"],
        row["frozen"],
        row["token_epoch"],
        row["has_password"],
        row["created"],
        row["updated"],
    )
