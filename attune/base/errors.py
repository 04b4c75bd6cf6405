"""The ways in which Attune says no.

AttuneError
├── BadInput        what was sent is wrong; `problems` says where
├── NotFound        the thing does not exist
├── Conflict        the thing exists already, or its state does not allow it
├── Unauthenticated nobody said who is asking
├── Forbidden       who is asking may not
├── Unavailable     not now; worth trying again
│   └── BacklogFull     too much waits already
└── StartError      the server cannot start
    └── TopologyError   the routing table is broken

Whoever raises writes the message: what is wrong, where, and what to do.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with an input: `where` is a JSON Pointer (RFC 6901) or a name, `what` a sentence."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class AttuneError(Exception):
    """Something that a person is told. `code` is stable and machine-readable."""

    code: ClassVar[str] = "INTERNAL_SERVER_ERROR"

    @property
    def message(self) -> str:
        return str(self)


class BadInput(AttuneError):
    code = "VALIDATION_ERROR"

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class NotFound(AttuneError):
    code = "NOT_FOUND"


class Conflict(AttuneError):
    code = "CONFLICT"


class Unauthenticated(AttuneError):
    code = "UNAUTHORIZED"


class Forbidden(AttuneError):
    code = "FORBIDDEN"


class Unavailable(AttuneError):
    """`retry_after` is the number of seconds after which trying again makes sense."""

    code = "SERVICE_UNAVAILABLE"

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BacklogFull(Unavailable):
    code = "BACKLOG_FULL"


class StartError(AttuneError):
    code = "START_REFUSED"


class TopologyError(StartError):
    code = "TOPOLOGY"


@contextmanager
def plain_errors() -> Iterator[None]:
    """Let an exception that task groups have wrapped leave the block as itself, if it is the only one."""
    try:
        yield
    except BaseExceptionGroup as group:
        leaf: BaseException = group
        while isinstance(leaf, BaseExceptionGroup) and len(leaf.exceptions) == 1:
            leaf = leaf.exceptions[0]
        if leaf is group:
            raise
        raise leaf from leaf.__cause__
