"""The tests here share a database."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from attune.database.pool import Database
from tests.support.clock import VirtualClock
from tests.timers.timeline import Timeline, timeline_on


@pytest.fixture
def database(shared_database: Database) -> Database:
    return shared_database


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def timeline(database: Database, tmp_path: Path, clock: VirtualClock) -> AsyncIterator[Timeline]:
    """A server that runs for the test."""
    async with timeline_on(database, tmp_path, clock) as timeline:
        yield timeline
