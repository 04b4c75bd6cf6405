"""A server for each module: its tests do not disturb each other."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from attune.database.embedded import Cluster
from tests.api.sites import Site, new_database, new_folder, site_on


@pytest.fixture(scope="module")
async def site(cluster: Cluster, base: Path) -> AsyncIterator[Site]:
    """A server that nobody may read anonymously."""
    async with new_database(cluster) as dsn, site_on(dsn, new_folder(base)) as made:
        yield made
