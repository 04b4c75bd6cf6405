"""A database for each module: its tests leave nothing in it that others would mind."""

from collections.abc import AsyncIterator

import pytest

from attune.database.embedded import Cluster
from tests.support.databases import new_database


@pytest.fixture(scope="module")
async def dsn(cluster: Cluster) -> AsyncIterator[str]:
    """The URL of a migrated database."""
    async with new_database(cluster) as dsn:
        yield dsn
