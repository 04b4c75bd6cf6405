"""W3C trace context (https://www.w3.org/TR/trace-context/): what a process is told of the chain that it belongs to, and
tells whomever it asks for more. The trace is the correlation id, and the parent an execution."""

import re
from typing import Final, NamedTuple
from uuid import UUID

HEADER: Final = "traceparent"
VARIABLE: Final = "TRACEPARENT"

_LARGEST_ID = 2**63 - 1
# What a later version has to say comes after the fields of this one. There is no version ff.
_FORM = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


class Parent(NamedTuple):
    """Who says that it asks for something: an execution, in a chain."""

    correlation_id: UUID
    execution: int


def traceparent(correlation_id: UUID, execution: int) -> str:
    """How an execution names itself and its chain."""
    return f"00-{correlation_id.hex}-{execution:016x}-01"


def parent_of(text: str) -> Parent | None:
    """Who is named; None for what is malformed, or can be no execution of ours."""
    form = _FORM.fullmatch(text)
    if form is None or (form[1] == "00" and form[4]):
        return None
    parent = Parent(UUID(form[2]), int(form[3], 16))
    return parent if parent.correlation_id.int and 0 < parent.execution <= _LARGEST_ID else None
