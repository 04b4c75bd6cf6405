"""Nothing lost, nothing doubled, nothing stuck: whatever is killed, and when."""

import os
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attune.base.crash_points import POINTS
from tests.crash.campaign import ENOUGH, HITS, LONG, Blow, Campaign, Result

pytestmark = pytest.mark.timeout(0)

Record = Callable[[str, object], None]


@pytest.fixture
def folder(base: Path) -> Path:
    """A folder for one server, through which the user of PostgreSQL can get when the server is root's."""
    made = Path(tempfile.mkdtemp(dir=base))
    made.chmod(0o711 if os.geteuid() == 0 else 0o700)
    return made


async def test_nothing_is_lost_doubled_or_stuck_whatever_is_killed_when(
    folder: Path, pytestconfig: pytest.Config, record_property: Record
) -> None:
    """T-24, T-33: a few blows, or with --torture-minutes all of them. What it came to is printed at the end."""
    minutes = float(pytestconfig.getoption("--torture-minutes"))
    given = pytestconfig.getoption("--torture-seed")
    seed = random.SystemRandom().randrange(1_000_000) if given is None else int(given)
    campaign = Campaign(folder, seed)

    result = await campaign.run(campaign.everything(60 * minutes) if minutes else campaign.some(3))

    record_property("torture", "\n".join(result.lines()))
    assert not result.findings, f"seed {seed}\n{result.findings.text()}"
    assert result.rescued == 0, f"seed {seed}: the sweep had to find deliveries"
    if 60 * minutes >= LONG:
        assert result.kills >= ENOUGH
        assert {point for point in POINTS if result.counted[point] < HITS} == set()


async def test_to_acknowledge_before_the_effects_is_noticed(folder: Path) -> None:
    """Trap T-33, built in: the test above must be able to fail."""
    result = await sabotaged(folder, "acknowledge_first", ["match.before_commit", "enforce.before_commit"])

    assert result.findings.lost or result.findings.stuck


async def test_to_handle_what_was_not_claimed_is_noticed(folder: Path) -> None:
    """Rule 2 of the delivery protocol left out: only what the DELETE returned may be handled."""
    result = await sabotaged(folder, "claim_nothing", [])

    assert result.findings.doubled


async def test_a_hand_over_that_stutters_is_harmless(folder: Path) -> None:
    """What makes the test before this one fail is the missing rule, and not the stutter."""
    result = await sabotaged(folder, "hand_over_twice", [Blow.SERVER])

    assert not result.findings, result.findings.text()


async def sabotaged(folder: Path, how: str, blows: list[str | Blow]) -> Result:
    """What a short campaign against a server with a defect comes to."""
    campaign = Campaign(folder, seed=1, sabotage=how, patience=5)

    def each() -> Iterator[str | Blow]:
        yield from blows

    return await campaign.run(each())
