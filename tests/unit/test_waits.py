"""Whatever has not come to its end says what it waits for, and since when."""

from datetime import UTC, datetime, timedelta

import pytest

from attune.api.waits import Beside, of_enforcement, of_execution
from attune.base.states import EnforcementStatus, ExecutionStatus

S = ExecutionStatus
NOTHING = Beside({}, {})
CREATED = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
UPDATED = CREATED + timedelta(seconds=5)
LATER = CREATED + timedelta(minutes=10)

EXECUTION = {"id": 7, "status": "requested", "not_before": None, "turn_of": None, "worker": None}
EXECUTION |= {"created": CREATED, "updated": UPDATED}


@pytest.mark.parametrize(
    ("row", "what", "since"),
    [
        ({"status": S.REQUESTED}, "the scheduler", UPDATED),
        ({"status": S.REQUESTED, "not_before": LATER}, "its retry at 2026-03-01 12:10:00 UTC", CREATED),
        ({"status": S.SCHEDULING, "turn_of": 3}, "execution 3 of the same rule to end", UPDATED),
        ({"status": S.SCHEDULED, "worker": 1}, "a free slot of worker 1", UPDATED),
        ({"status": S.CANCELING}, "its process to end", UPDATED),
    ],
)
def test_an_execution_says_what_it_waits_for(row: dict[str, object], what: str, since: datetime) -> None:
    wait = of_execution(EXECUTION | row, NOTHING)

    assert wait is not None
    assert (wait.what, wait.since) == (what, since)


@pytest.mark.parametrize("status", [S.RUNNING, *(status for status in S if status.is_terminal)])
def test_what_runs_or_has_ended_waits_for_nothing(status: ExecutionStatus) -> None:
    assert of_execution(EXECUTION | {"status": status}, NOTHING) is None


def test_every_state_of_an_execution_is_known() -> None:
    for status in S:
        waits = of_execution(EXECUTION | {"status": status, "turn_of": 1, "worker": 1}, NOTHING) is not None
        assert waits == (not status.is_terminal and status is not S.RUNNING)


@pytest.mark.parametrize("status", [S.REQUESTED, S.SCHEDULED])
def test_what_hangs_on_a_dead_letter_waits_for_people(status: ExecutionStatus) -> None:
    letters = {"execution:7": (4, LATER), "execution:8": (5, LATER)}
    wait = of_execution(EXECUTION | {"status": status}, Beside(letters, {}))

    assert wait is not None
    assert (wait.what, wait.since) == ("somebody to look at dead letter 4", LATER)


def test_an_enforcement_waits_until_it_was_decided_upon() -> None:
    row = {"id": 2, "status": EnforcementStatus.CREATED, "created": CREATED}
    waiting, dead = of_enforcement(row, {}), of_enforcement(row, {"enforcement:2": (4, LATER)})

    assert waiting is not None
    assert (waiting.what, waiting.since) == ("the enforcement processor", CREATED)
    assert dead is not None
    assert (dead.what, dead.since) == ("somebody to look at dead letter 4", LATER)
    for status in set(EnforcementStatus) - {EnforcementStatus.CREATED}:
        assert of_enforcement(row | {"status": status}, {}) is None
