"""Who asks."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class How(StrEnum):
    """How a caller was recognised."""

    TOKEN = "token"  # noqa: S105 - no secret
    LOCAL = "local"
    ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Identity:
    """`token_epoch` stands in every token: raising it revokes them all."""

    id: int
    login: str
    display_name: str | None
    administrator: bool
    frozen: bool
    token_epoch: int
    has_password: bool
    created: datetime
    updated: datetime


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever made a request. Nobody is known behind an anonymous one."""

    how: How
    identity: Identity | None

    @property
    def name(self) -> str:
        """Who they are, for the log."""
        return self.identity.login if self.identity else self.how

    @property
    def id(self) -> int | None:
        """The id to credit with what they do."""
        return self.identity.id if self.identity else None
