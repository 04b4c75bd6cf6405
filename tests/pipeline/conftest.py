"""An engine for each module: its tests make triggers and rules of their own, and do not disturb each other."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from attune.database.embedded import Cluster
from attune.engine import Engine
from tests.pipeline.shop import SHOP
from tests.support.databases import new_database, pool_on
from tests.support.engines import engine_on, pack


@pytest.fixture(scope="module")
async def engine(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    """An engine that runs, with the pack `shop`."""
    folder: Path = tmp_path_factory.mktemp("engine")
    async with (
        new_database(cluster) as dsn,
        pool_on(dsn) as database,
        engine_on(database, folder, packs=[pack(folder, "shop", SHOP)]) as engine,
        engine.running(),
    ):
        yield engine
