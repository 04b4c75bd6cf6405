"""A server with a broken routing table does not start, and names the row."""

from dataclasses import replace
from pathlib import Path

import pytest

from attune.app import serving
from attune.base.errors import TopologyError
from attune.base.installation import Installation
from attune.bus.messages import EnforcementCreated
from attune.bus.topology import TOPOLOGY
from attune.settings import load


async def test_a_queue_bound_to_the_wrong_exchange_stops_the_start(folder: Path, dsn: str) -> None:
    """T-12: EnforcementCreated was published to one exchange while its consumer listened on the other."""
    broken = replace(
        TOPOLOGY,
        queues=tuple(
            replace(queue, exchange="attune.events") if queue.message is EnforcementCreated else queue
            for queue in TOPOLOGY.queues
        ),
    )
    settings = load(None, {"server": {"port": 0}, "database": {"url": dsn}})
    with pytest.raises(TopologyError) as refused:
        async with serving(settings, Installation(folder / "data"), topology=broken):
            pass
    assert "attune.executions.queue" in refused.value.message
    assert "bind the queue to attune.executions" in refused.value.message
