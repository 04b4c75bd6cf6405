"""Who takes how much room, and what retention does about it."""

import shutil
from collections.abc import Sequence
from typing import Any

import anyio.to_thread
from starlette.responses import Response

from attune.api.answers import one
from attune.api.endpoints import Call, Endpoint, NoQuery, Permission
from attune.base.installation import Installation
from attune.database import space
from attune.database.pool import Database
from attune.database.space import Files, Stratum
from attune.upkeep.retention import Retention
from attune.upkeep.space import folders, measure


class SpaceRoutes:
    def __init__(self, database: Database, retention: Retention, place: Installation) -> None:
        self._database = database
        self._retention = retention
        self._place = place

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                "GET",
                "/api/v1/system/space",
                Permission("system", "read"),
                self.space,
                "Who takes how much room, how much history may take, and what retention did",
            )
        ]

    async def space(self, _: Call[NoQuery, None]) -> Response:
        async with self._database.acquire() as connection:
            tables = await space.files(connection)
            whole = await space.whole(connection)
            usage = await measure(connection, {})
        found = await anyio.to_thread.run_sync(folders, self._place)
        logs = next(folder.bytes for folder in found if folder.name == "logs")
        return one(
            {
                "tables": [_table(table, usage.tables.get(table.table, ())) for table in tables],
                "database_bytes": whole.database,
                "wal_bytes": whole.wal,
                "folders": [
                    {"name": folder.name, "bytes": folder.bytes, "files": folder.files, "complete": folder.complete}
                    for folder in found
                ],
                "free_bytes": shutil.disk_usage(self._place.data).free,
                "history_bytes": usage.bytes + logs,
                "retention": self._retention_view(),
            }
        )

    def _retention_view(self) -> dict[str, Any]:
        limits, account = self._retention.limits, self._retention.account
        return {
            "days": limits.days,
            "max_bytes": limits.max_bytes,
            "dead_letter_days": limits.dead_letter_days,
            "ended_at": account.ended_at,
            "seconds": account.seconds,
            "removed": dict(account.removed),
            "overdue_seconds": round(account.most_overdue.total_seconds()),
        }


def _table(table: Files, slices: Sequence[Stratum]) -> dict[str, Any]:
    """A table: what its files take, and of history about what the rows in them take."""
    return {
        "name": table.table,
        "rows": sum(one.rows for one in slices) or table.rows,
        "data_bytes": table.data,
        "index_bytes": table.indexes,
        "rows_bytes": sum(one.bytes for one in slices) if slices else None,
        "oldest": min((one.created for one in slices), default=None),
    }
