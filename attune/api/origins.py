"""Who asks: a person or a program, or an execution, which says so in the header traceparent."""

from starlette.requests import Request

from attune.base.traces import HEADER, parent_of
from attune.database.pool import Database
from attune.executions import queries
from attune.executions.model import Origin
from attune.executions.requests import nobody


async def origin_of(request: Request, database: Database) -> Origin:
    """Where what a request asks for comes from. A header that is malformed, or names no execution of ours in its chain,
    is as if it were not there: others use it as well."""
    given = request.headers.getlist(HEADER)
    parent = parent_of(given[0]) if len(given) == 1 else None
    if parent is None:
        return nobody()
    async with database.acquire() as connection:
        return await queries.origin(connection, parent) or nobody()
