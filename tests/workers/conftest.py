"""A place to run scripts in."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.workers.parts import Workshop, workshop_in


@pytest.fixture
async def workshop(tmp_path: Path) -> AsyncIterator[Workshop]:
    async with workshop_in(tmp_path) as workshop:
        yield workshop
