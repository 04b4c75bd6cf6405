"""What rows that have not come to their end wait for, and since when."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from attune.base.states import EnforcementStatus, ExecutionStatus
from attune.bus import queries as bus
from attune.database.pool import Connection, Row
from attune.people import queries as people
from attune.people.model import Inquiry, InquiryStatus

Letters: TypeAlias = Mapping[str, tuple[int, datetime]]
"""Dead letters and since when they are dead, by what they are about."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What executions may wait for that does not stand in their rows: dead letters, and answers by execution."""

    letters: Letters
    inquiries: Mapping[int, Inquiry]


_OPEN = {*(status for status in ExecutionStatus if not status.is_terminal), EnforcementStatus.CREATED}


@dataclass(frozen=True, slots=True)
class Wait:
    what: str
    since: datetime


async def beside_executions(connection: Connection, rows: Sequence[Row]) -> Beside:
    """What executions may wait for that does not stand in their rows."""
    asking = [row["id"] for row in rows if row["status"] == ExecutionStatus.RUNNING and row["worker"] is None]
    inquiries = await people.of_executions(connection, asking) if asking else []
    subjects = [*_subjects("execution", rows), *(f"inquiry:{inquiry.id}" for inquiry in inquiries)]
    letters = await bus.dead_letters_about(connection, subjects) if subjects else {}
    return Beside(letters, {inquiry.execution: inquiry for inquiry in inquiries if inquiry.waits})


async def beside_enforcements(connection: Connection, rows: Sequence[Row]) -> Letters:
    """The dead letters that enforcements wait for."""
    subjects = _subjects("enforcement", rows)
    return await bus.dead_letters_about(connection, subjects) if subjects else {}


def _subjects(kind: str, rows: Sequence[Row]) -> list[str]:
    return [f"{kind}:{row['id']}" for row in rows if row["status"] in _OPEN]


def of_execution(row: Row, beside: Beside) -> Wait | None:
    """What an execution waits for; None when it runs, or has ended."""
    letter = _letter(f"execution:{row['id']}", beside.letters)
    if letter is not None:
        return letter
    inquiry = beside.inquiries.get(row["id"])
    if inquiry is not None:
        return _of_answer(inquiry, beside.letters)
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


def _of_answer(inquiry: Inquiry, letters: Letters) -> Wait:
    if inquiry.status is InquiryStatus.PENDING:
        return Wait(f"an answer to inquiry {inquiry.id}", inquiry.created)
    return _letter(f"inquiry:{inquiry.id}", letters) or Wait("the inquiry handler", inquiry.updated)


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
