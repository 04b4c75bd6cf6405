"""Events as values."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from attune.base.json import Json
from attune.bus.messages import Cause

ALERT, INQUIRY_CREATED, INQUIRY_RESPONDED = "core.alert", "core.inquiry_created", "core.inquiry_responded"
OWN = frozenset({ALERT, INQUIRY_CREATED, INQUIRY_RESPONDED})
"""The triggers whose events nobody but Attune makes."""


class NewEvent(NamedTuple):
    """An event that somebody wants to be recorded. `payload` and `config` are JSON text, or None.

    `rule` with `rule_ref` names the one rule that it is for; `scheduled_at` the instant of a schedule that it stands
    for; `execution` the one that has caused it.
    """

    trigger: int
    trigger_ref: str
    payload: str | None
    source_ref: str
    cause: Cause
    config: str | None = None
    rule: int | None = None
    rule_ref: str | None = None
    scheduled_at: datetime | None = None
    execution: int | None = None


class Event(NamedTuple):
    """A recorded event. `execution` is the one that has caused it, if one has."""

    id: int
    trigger: int
    trigger_ref: str
    config: Json
    payload: Json
    source_ref: str
    rule: int | None
    rule_ref: str | None
    correlation_id: UUID
    causation_id: UUID | None
    depth: int
    created: datetime
    execution: int | None = None


class Key(NamedTuple):
    """What a caller has named a request with. `scope` is who calls and the route; `fingerprint` is the same for the
    same request."""

    scope: str
    key: str
    fingerprint: bytes

    @property
    def name(self) -> tuple[str, str]:
        """What no two requests have in common."""
        return self.scope, self.key


class Kept(NamedTuple):
    """A request that was carried out. `subject` is the id of what it made; `answer` the body of its first answer, None
    when it had none."""

    fingerprint: bytes
    subject: int
    answer: str | None
