"""What rows that have not come to their end wait for, and since when."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from attune.base.states import EnforcementStatus, ExecutionStatus
from attune.bus import queries as bus
from attune.database.pool import Connection, Row

Letters: TypeAlias = Mapping[str, tuple[int, datetime]]
"""Dead letters and since when they are dead, by what they are about."""

_OPEN = {*(status for status in ExecutionStatus if not status.is_terminal), EnforcementStatus.CREATED}


@dataclass(frozen=True, slots=True)
class Wait:
    what: str
    since: datetime


async def letters_of(kind: str, connection: Connection, rows: Sequence[Row]) -> Letters:
    """The dead letters that rows of a kind, `execution` or `enforcement`, wait for."""
    subjects = [f"{kind}:{row['id']}" for row in rows if row["status"] in _OPEN]
    return await bus.dead_letters_about(connection, subjects) if subjects else {}


def of_execution(row: Row, letters: Letters) -> Wait | None:
    """What an execution waits for; None when it runs, or has ended."""
    letter = _letter(f"execution:{row['id']}", letters)
    if letter is not None:
        return letter
    match ExecutionStatus(row["status"]):
        case ExecutionStatus.REQUESTED if row["not_before"] is not None:
            return Wait(f"its retry at {row['not_before']:%Y-%m-%d %H:%M:%S} UTC", row["created"])
        case ExecutionStatus.REQUESTED:
            return Wait("the scheduler", row["updated"])
        case ExecutionStatus.SCHEDULING:
            return Wait(f"execution {row['turn_of']} of the same rule to end", row["updated"])
        case ExecutionStatus.SCHEDULED:
            return Wait(f"a free slot of worker {row['worker']}", row["updated"])
        case ExecutionStatus.CANCELING:
            return Wait("its process to end", row["updated"])
        case _:
            return None


def of_enforcement(row: Row, letters: Letters) -> Wait | None:
    """What an enforcement waits for; None when it was decided upon."""
    if row["status"] != EnforcementStatus.CREATED:
        return None
    return _letter(f"enforcement:{row['id']}", letters) or Wait("the enforcement processor", row["created"])


def _letter(subject: str, letters: Letters) -> Wait | None:
    if subject not in letters:
        return None
    number, since = letters[subject]
    return Wait(f"somebody to look at dead letter {number}", since)
